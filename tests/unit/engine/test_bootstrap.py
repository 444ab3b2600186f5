"""From stdin to a running engine: what is checked, what is said if it cannot be, going to the background."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from engine_driver import EngineProcess, FakeDriver, all_gone
from hypothesis import given
from hypothesis import strategies as st

from deadline import DEADLINE
from disbatch.contexts.slurm.context import VARIABLES
from disbatch.engine.bootstrap import choose_address, launched_from, open_log
from disbatch.engine.capture import Capture
from disbatch.engine.environment import merge
from disbatch.engine.outbox import unrecorded_path, write_unrecorded
from disbatch.engine.process_tree import Process, family, look, table
from disbatch.engine.slots import Job
from disbatch.model.errors import LaunchError
from disbatch.model.task import Outcome, Way
from disbatch.wire.engine_protocol import ERROR_MARK, PROTOCOL, READY_MARK, Hello, Order, Trouble


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FakeDriver]:
    driver = FakeDriver(tmp_path)
    yield driver
    driver.close()


def complaint(bootstrap: object) -> str:
    """What an engine that cannot start says, after ERROR_MARK."""
    body = bootstrap if isinstance(bootstrap, bytes) else msgspec.msgpack.encode(bootstrap)
    engine = EngineProcess(body)
    try:
        engine.close_lifeline()
        assert engine.wait() == 2
        assert engine.process.stdout is not None and engine.process.stderr is not None
        lines = engine.process.stdout.read().decode().splitlines()
        assert engine.process.stderr.read() == b""
    finally:
        engine.finish()
    (line,) = lines
    mark, _, text = line.partition(" ")
    assert mark == ERROR_MARK
    return text


def test_working_directory_that_is_not_there(driver: FakeDriver) -> None:
    said = complaint(driver.bootstrap(directory=b"/no/such\nplace"))
    assert said == "working directory /no/such place does not exist on here"


def test_no_address_answers(driver: FakeDriver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = complaint(
        driver.bootstrap(addresses=[f"tcp://127.0.0.1:{port}", "ipc:///no/such", "tcp://@client:5"])
    )
    assert f"tcp://127.0.0.1:{port} or ipc:///no/such" in said
    assert said.endswith("try --use-address HOST:PORT")


def test_other_protocol(driver: FakeDriver) -> None:
    body = msgspec.msgpack.encode({"type": "Bootstrap", "protocol": PROTOCOL + 1, "new": 1})
    assert f"the driver {PROTOCOL + 1}" in complaint(body)


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"{}", msgspec.msgpack.encode({"type": "Bootstrap", "protocol": PROTOCOL})]
)
def test_orders_that_make_no_sense(body: bytes) -> None:
    assert complaint(body)


def test_orders_that_end_too_early(driver: FakeDriver) -> None:
    engine = subprocess.run(
        [sys.executable, "-m", "disbatch.engine"],
        input=b"\0\0\1\0abc",
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert engine.returncode == 2
    assert engine.stdout.startswith(ERROR_MARK.encode())
    assert engine.stderr == b""


def test_chooses_the_first_address_that_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        offered = ["ipc:///no/such", f"tcp://@client:{port}", f"tcp://127.0.0.1:{port}"]
        assert choose_address(offered, "127.0.0.1", "n") == f"tcp://127.0.0.1:{port}"
        assert choose_address(offered[:1] + offered[2:], "", "n") == f"tcp://127.0.0.1:{port}"
        with pytest.raises(LaunchError):
            choose_address(offered[:2], "", "n")
        with pytest.raises(LaunchError, match=r"--use-address HOST:PORT or --tunnel$"):
            choose_address(["tcp://127.0.0.1:99999", "tcp://host", "http://x:1", "tcp://[::1:5"], "", "n")


def test_a_socket_counts_only_where_somebody_listens(tmp_path: Path) -> None:
    path, abstract = tmp_path / "driver", f"@{tmp_path}"
    for name, address in ((str(path), f"ipc://{path}"), ("\0" + abstract[1:], f"ipc://{abstract}")):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
            server.listen()
            assert choose_address([address], "", "n") == address
        with pytest.raises(LaunchError):
            choose_address([address], "", "n")
    assert path.exists(), "what a driver leaves behind, or has on another computer"
    with pytest.raises(LaunchError):
        choose_address([f"ipc:///{'x' * 200}"], "", "n")


@pytest.mark.parametrize(
    ("way", "environment", "client"),
    [
        (Way.SSH, {b"SSH_CONNECTION": b"10.0.0.5 5022 10.0.0.7 22"}, "10.0.0.5"),
        (Way.SSH, {b"SLURM_LAUNCH_NODE_IPADDR": b"10.0.0.5"}, ""),
        (Way.STEP, {b"SSH_CONNECTION": b"10.0.0.5 5022 10.0.0.7 22"}, ""),
        (Way.STEP, {b"SLURM_LAUNCH_NODE_IPADDR": b"10.0.0.5", b"SLURM_SRUN_COMM_HOST": b"b"}, "10.0.0.5"),
        (Way.STEP, {b"SLURM_LAUNCH_NODE_IPADDR": b"", b"SLURM_SRUN_COMM_HOST": b"10.0.0.6"}, "10.0.0.6"),
        (Way.STEP, {b"SLURM_LAUNCH_NODE_IPADDR": b"[fd00::5]"}, "fd00::5"),
    ],
)
def test_where_an_engine_was_launched_from(way: Way, environment: dict[bytes, bytes], client: str) -> None:
    assert launched_from(environment, way, VARIABLES) == client


def test_detached_engine_goes_to_the_background_and_outlives_its_start(
    driver: FakeDriver, tmp_path: Path
) -> None:
    environment = dict(os.environ) | {
        "TMPDIR": str(tmp_path),
        "HOME": "/home/node",
        "PATH": "/usr/bin:/bin:/node/bin",
    }
    run = {b"PATH": b"/run/bin:/usr/bin", b"HOME": b"/home/run", b"GREETING": b"hello"}
    bootstrap = driver.bootstrap(way=Way.SSH, environment=run, log=b"/no/such/engine.txt")
    engine = EngineProcess(bootstrap, environment)
    pid = 0
    try:
        engine.close_lifeline()
        assert engine.wait() == 0
        assert engine.process.stdout is not None
        mark, number = engine.process.stdout.read().decode().split()
        pid = int(number)
        assert mark == READY_MARK
        assert os.getsid(pid) == pid
        assert driver.expect(Hello).pid == pid
        trouble = driver.expect(Trouble).text
        assert "/no/such/engine.txt" in trouble and str(tmp_path) in trouble
        outcome = driver.run('echo "$PATH $HOME $GREETING $PWD"')
        assert outcome.out_snippet.decode().startswith("/run/bin:/usr/bin:/bin:/node/bin /home/")
        assert driver.run('echo "$HOME $GREETING"', attempt=2).out_snippet == b"/home/node hello\n"
        links = [os.readlink(f"/proc/{pid}/fd/{n}") for n in (0, 1)]
        assert links == ["/dev/null", "/dev/null"]
        driver.leave()
        all_gone([pid])
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
        engine.finish()


def test_merge_keeps_who_and_where_one_is() -> None:
    run = {b"PATH": b"/a:/b", b"USER": b"me", b"OMP_NUM_THREADS": b"4", b"SSH_CLIENT": b"x", b"X": b"run"}
    node = {b"PATH": b"/b:/c:", b"USER": b"I", b"SSH_CLIENT": b"y", b"X": b"node", b"NODE": b"1"}
    assert merge(run, node) == {
        b"PATH": b"/a:/b:/c",
        b"USER": b"I",
        b"OMP_NUM_THREADS": b"4",
        b"SSH_CLIENT": b"y",
        b"X": b"run",
        b"NODE": b"1",
    }


@given(st.lists(st.binary(max_size=100)))
def test_capture_keeps_both_ends(parts: list[bytes]) -> None:
    capture = Capture(-1)
    for part in parts:
        capture.feed(part)
    whole = b"".join(parts)
    assert capture.count == len(whole)
    assert capture.snippet() == (whole if len(whole) <= 80 else whole[:40] + b"..." + whole[-40:])


def process(pid: int, parent: int, session: int, alive: bool = True) -> Process:
    return Process(pid, parent, session, pid * 10, alive)


def test_family_is_sessions_and_descendants_parents_first() -> None:
    tree = [
        process(1, 0, 1),
        process(9, 1, 9),  # the engine
        process(20, 9, 20),  # a task
        process(21, 20, 20),
        process(22, 21, 22),  # changed its session
        process(23, 9, 22),  # and lost its parent there
        process(24, 9, 20, alive=False),
        process(30, 9, 30),  # another task
        process(31, 30, 30),
    ]
    processes = {each.pid: each for each in tree}
    found = [each.pid for each in family(processes, [20], [20], spare={9, 30})]
    assert sorted(found) == [20, 21, 22, 23]
    assert found.index(20) < found.index(21) < found.index(22)
    assert family(processes, [30], [], spare={30}) == []


def test_looking_at_processes() -> None:
    here = look(os.getpid())
    assert here is not None and here.parent == os.getppid() and here.session == os.getsid(0) and here.alive
    assert table()[os.getpid()].start == here.start
    assert look(2**30) is None


def test_unrecorded_results_beside_what_somebody_else_put_there(tmp_path: Path) -> None:
    job = Job(Order(1, 7, 8, -1, b":"), None)
    results = [(job, Outcome(1, 0, 1, 3, 1.0, 1.0, 2.0, 0, b"", 0, b""))]
    (tmp_path / "P_n1_unrecorded.txt").symlink_to("victim")
    os.mkfifo(tmp_path / "P_n1-2_unrecorded.txt")
    third = tmp_path / "P_n1-3_unrecorded.txt"
    for count in (1, 2):
        assert write_unrecorded(results, "n1", tmp_path / "P_n1_engine.txt") == (third, 1)
        assert len(third.read_bytes().splitlines()) == count
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("how", ["link", "pipe"])
def test_log_that_somebody_else_put_there(tmp_path: Path, how: str) -> None:
    """The engine neither writes to it nor waits for it."""
    log = tmp_path / "P_here_engine.txt"
    if how == "link":
        (tmp_path / "victim").write_text("mine")
        log.symlink_to("victim")
    else:
        os.mkfifo(log)
    file, path, (trouble,) = open_log(log)
    file.close()
    why = "is a symbolic link" if how == "link" else "is not a regular file"
    assert path == log
    said, _, elsewhere = trouble.partition("; it is in ")
    assert said == f"the log {log} cannot be written ({why})"
    Path(elsewhere.removesuffix(" instead")).unlink()
    assert how == "pipe" or (tmp_path / "victim").read_text() == "mine"


def test_where_unrecorded_results_go() -> None:
    assert unrecorded_path(Path("/x/Tasks_7_n1_engine.txt")) == Path("/x/Tasks_7_n1_unrecorded.txt")
    assert unrecorded_path(Path("/x/odd.log")) == Path("/x/odd_unrecorded.txt")
