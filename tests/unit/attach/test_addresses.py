"""Where engines of attached contexts look for the driver, and what their tasks find."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from disbatch.attach.addresses import DriverAddresses, environment_of_tasks
from disbatch.contexts.nodes import Node
from disbatch.contexts.pool import Pool
from disbatch.model.errors import SilenceError, UsageError
from disbatch.model.task import Way
from disbatch.wire.connect import ConnectFile
from disbatch.wire.engine_protocol import PROTOCOL

HERE = socket.gethostname()
PORTS = ("tcp://@client:7", f"tcp://{HERE}:7")


def connect_file(*addresses: str, host: str = HERE) -> ConnectFile:
    return ConnectFile(PROTOCOL, "J", host, 1, 0.0, list(addresses), "k", "k", "k", "k", "s", "d")


def pool(*ways: Way, tunnel: bool = False) -> Pool:
    return Pool(nodes=[Node("n", 1, 1, way, 1.0) for way in ways], tunnel=tunnel)


def addresses(reach: DriverAddresses, way: Way) -> list[str]:
    return reach.of(Node("n", 1, 1, way, 1.0))


@pytest.fixture
def ears(tmp_path: Path) -> Iterator[str]:
    """The address of a driver's socket, at which somebody listens."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "driver"))
        listener.listen()
        yield f"ipc://{tmp_path}/driver"


@pytest.fixture(autouse=True)
def _no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_CONNECTION", "SLURM_LAUNCH_NODE_IPADDR"):
        monkeypatch.delenv(name, raising=False)


def test_on_the_drivers_host(ears: str) -> None:
    """Its socket, for what is there; who comes from here comes from the driver's host."""
    reach = DriverAddresses(connect_file(ears, *PORTS), pool(Way.CHILD, Way.SSH, Way.STEP))
    assert addresses(reach, Way.CHILD) == [ears]
    assert addresses(reach, Way.SSH) == list(PORTS)
    assert addresses(reach, Way.STEP) == [ears, *PORTS]
    assert reach.tunnel_end == ears.removeprefix("ipc://")


def test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that our own connection found comes first; `@client` would be us."""
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.5 1 192.0.2.6 22")
    connect = connect_file("ipc:///nowhere/driver", "tcp://@client:7", "tcp://login1:7", host="login1")
    reach = DriverAddresses(connect, pool(Way.CHILD, Way.SSH))
    both = ["tcp://192.0.2.5:7", "tcp://login1:7"]
    assert addresses(reach, Way.CHILD) == both and sorted(addresses(reach, Way.SSH)) == sorted(both)
    reach.prefer("tcp://login1:7")
    assert addresses(reach, Way.CHILD) == both[::-1]
    assert addresses(reach, Way.SSH)[0] == "tcp://login1:7" and reach.tunnel_end == "login1:7"
    reach.prefer("tcp://unknown:7")
    assert reach.tunnel_end == "login1:7"


@pytest.mark.parametrize("ports", [(), ("tcp://127.0.0.1:7",), ("tcp://[::1]:7",)])
def test_a_driver_that_is_reached_from_its_own_host_alone(ears: str, ports: tuple[str, ...]) -> None:
    connect = connect_file(ears, *ports)
    assert addresses(DriverAddresses(connect, pool(Way.CHILD)), Way.CHILD) == [ears]
    assert DriverAddresses(connect, pool(Way.CHILD, Way.SSH, tunnel=True)).tunnel_end
    assert not DriverAddresses(connect, pool(Way.CHILD, Way.SSH, tunnel=True)).wants_port
    if ports:
        with pytest.raises(UsageError, match="no port for other hosts: attach them with --tunnel"):
            DriverAddresses(connect, pool(Way.CHILD, Way.SSH))
        with pytest.raises(UsageError, match="no port for other hosts: not even for the nodes of a job"):
            DriverAddresses(connect, pool(Way.STEP, tunnel=True))
    else:
        assert DriverAddresses(connect, pool(Way.CHILD, Way.SSH)).wants_port
        assert DriverAddresses(connect, pool(Way.STEP, tunnel=True)).wants_port
    far = connect_file("ipc:///nowhere/driver", *ports, host="login1")
    with pytest.raises(UsageError, match="login1 can be asked on that machine alone"):
        DriverAddresses(far, pool(Way.CHILD))


def test_a_driver_that_is_dead() -> None:
    with pytest.raises(SilenceError, match="does not listen any more: was it killed"):
        DriverAddresses(connect_file("ipc:///nowhere/driver"), pool(Way.CHILD))


def test_environment() -> None:
    run = {
        b"PATH": b"/run:/both", b"SETTING": b"run", b"HOME": b"/run", b"SLURM_JOB_ID": b"1",
        b"CUDA_VISIBLE_DEVICES": b"1", b"DISBATCH_SMTP": b"secret", b"ODD": b"\xff\n=",
    }  # fmt: skip
    own = {
        b"PATH": b"/own:/both", b"SETTING": b"own", b"HOME": b"/own", b"SLURM_NODEID": b"2",
        b"DISBATCH_KVS_URL": b"secret", b"SSH_AUTH_SOCK": b"/own/agent",
    }  # fmt: skip
    assert environment_of_tasks(run, own, b"/where") == {
        b"PATH": b"/run:/both:/own", b"SETTING": b"run", b"HOME": b"/own", b"SLURM_NODEID": b"2",
        b"ODD": b"\xff\n=", b"PWD": b"/where", b"SSH_AUTH_SOCK": b"/own/agent",
    }  # fmt: skip
