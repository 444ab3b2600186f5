"""Engines started on real hosts behind real sshd's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from deadline import DEADLINE
from disbatch.contexts.context import Context, Launch
from disbatch.contexts.hosts import Hosts
from disbatch.contexts.launcher import Launcher
from disbatch.contexts.local import spawn_local
from disbatch.contexts.nodes import Node
from disbatch.contexts.ssh import SshOptions
from disbatch.model.errors import LaunchError
from disbatch.model.task import Way
from disbatch.wire.connect import RunKeys
from disbatch.wire.driver_socket import Hub
from disbatch.wire.engine_protocol import PROTOCOL, READY_MARK, Bootstrap

FAKE_ENGINE = f"""
import msgspec, os, socket, time
length = int.from_bytes(os.read(0, 4), "big")
data = b""
while len(data) < length:
    data += os.read(0, length - len(data))
orders = msgspec.msgpack.decode(data)
print("noise without an end", end="")
print("{READY_MARK} 1", flush=True)
if os.fork():
    os._exit(0)
os.setsid()
for number in (0, 1, 2):
    os.close(number)
path = orders["addresses"][0].removeprefix("ipc://")
while True:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            connection.sendall(orders["engine"].encode() + b" " + path.encode() + b"\\n")
            word = connection.recv(10)
        except OSError:
            word = b""
            time.sleep(0.05)  # not to spin while there is no tunnel
    if word == b"leave":
        break
"""
"""An engine that says its name on its ipc socket, again and again until it is told to leave."""


class Events:
    """What a launcher reports, and a way to wait for it."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, kind: str) -> Callable[..., None]:
        def note(*what: Any) -> None:
            self.seen.append((kind, *what))
            task = asyncio.get_running_loop().create_task(self._tell())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return note

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Callable[[list[tuple[Any, ...]]], bool]) -> None:
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: condition(self.seen))

    async def count(self, number: int) -> list[tuple[Any, ...]]:
        await self.until(lambda seen: len(seen) >= number)
        return sorted(self.seen, key=lambda event: event[:2])


class Broken(Hosts):
    """A machine on which no engine starts."""

    def launch(self, node: Node) -> Launch:
        return Launch(["sh", "-c", "exec <&-; echo no module of mine >&2; exit 1"])


def _launcher(events: Events, context: Context | None = None, **settings: Any) -> Launcher:
    ssh = settings.get("ssh")
    return Launcher(
        asyncio.get_running_loop(),
        context or Hosts(ssh),
        on_started=events.note("started"),
        on_failed=events.note("failed"),
        on_exit=events.note("exit"),
        on_trouble=events.note("trouble"),
        **{"timeout": DEADLINE, **settings},
    )


def _orders(tmp_path: Path, name: str, **changes: Any) -> Bootstrap:
    keys = RunKeys.generate()
    values: dict[str, Any] = {
        "protocol": PROTOCOL,
        "engine": name,
        "node": name,
        "slots": 1,
        "cores_per_task": 1.0,
        "directory": os.fsencode(tmp_path),
        "log": os.fsencode(tmp_path / f"{name}_engine.txt"),
        "addresses": [f"ipc://{tmp_path}/none"],
        "server_key": keys.server_key,
        "client_key": keys.client_key,
        "client_secret": keys.client_secret,
        "environment": {b"LARGE": b"x" * 150_000},
        "way": Way.SSH,
    }
    return Bootstrap(**{**values, **changes})


def _there(name: str) -> Node:
    return Node(name, 1, 1, Way.SSH)


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def _fake_python(tmp_path: Path) -> str:
    (tmp_path / "fake_engine.py").write_text(FAKE_ENGINE)
    return _script(tmp_path / "fake_python", f"exec {sys.executable} {tmp_path}/fake_engine.py")


def _play(work: Awaitable[None]) -> None:
    async def run() -> None:
        await work

    asyncio.run(run())


@pytest.fixture
def path_to_lab(ssh_lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PATH", ssh_lab.env["PATH"])
    return ssh_lab


@pytest.fixture
def path_to_netns_lab(ssh_lab_netns: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PATH", ssh_lab_netns.env["PATH"])
    return ssh_lab_netns


def test_every_host_that_can_is_started_and_each_other_has_its_line(path_to_lab: Any, tmp_path: Path) -> None:
    python = _script(
        tmp_path / "python", f"head -c 150000 >/dev/null; echo noise; echo {READY_MARK} 1; cat >&2"
    )

    async def play() -> None:
        events = Events()
        launcher = _launcher(events, ssh=SshOptions(python=python))
        for name in [*path_to_lab.hosts, "nowhere.invalid"]:
            launcher.start(_there(name), _orders(tmp_path, name))
        seen = await events.count(5)
        assert [event[:2] for event in seen] == [
            ("failed", "nowhere.invalid"),
            *(("started", name) for name in path_to_lab.hosts),
        ]
        assert str(seen[0][2]).startswith("nowhere.invalid: no such host")
        await launcher.close()

    _play(play())


def test_real_engines_survive_their_ssh(path_to_lab: Any, tmp_path: Path) -> None:
    hosts = path_to_lab.hosts

    def engines(host: str) -> list[str]:
        return path_to_lab.inside(host, ["pgrep", "-f", "disbatch.engine"]).stdout.split()

    async def play() -> None:
        events = Events()
        launcher = _launcher(events)
        # Somebody must answer where the engines shall connect; that it is no driver, they learn later.
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            for name in hosts:
                launcher.start(_there(name), _orders(tmp_path, name, addresses=[f"tcp://@client:{port}"]))
            seen = await events.count(len(hosts))
            assert [event[:2] for event in seen] == [("started", name) for name in hosts]
            await launcher.close()

    _play(play())
    for host in hosts:
        gone = "while pgrep -f '^sshd: root@notty'; do sleep 0.05; done"
        assert path_to_lab.inside(host, ["timeout", str(DEADLINE), "sh", "-c", gone]).returncode == 0
        assert engines(host), (tmp_path / f"{host}_engine.txt").read_text()
        path_to_lab.inside(host, ["kill", "-KILL", *engines(host)])


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (f'exec {sys.executable} -S -I "$@"', "its Python has no "),
        ("exit 127", "cannot be run there (not found)"),
        ("echo Traceback >&2; echo 'OSError: no room' >&2; exit 1", "OSError: no room"),
        ("exit 0", "(exit code 0)"),
        ("cat >/dev/null; kill -9 $$", "its command was killed"),
    ],
)
def test_hosts_whose_python_is_of_no_use(path_to_lab: Any, tmp_path: Path, script: str, says: str) -> None:
    python = _script(tmp_path / "python", script)
    error = _failure(tmp_path, SshOptions(python=python, package="/not/there"))
    assert says in str(error)
    assert "\n" not in str(error)


def _failure(tmp_path: Path, options: SshOptions, name: str = "nodeA", **changes: Any) -> LaunchError:
    timeout = changes.pop("timeout", DEADLINE)
    tunnel = changes.pop("tunnel_to", None)
    failures: list[LaunchError] = []

    async def play() -> None:
        events = Events()
        launcher = _launcher(events, ssh=options, timeout=timeout, tunnel_to=tunnel)
        launcher.start(_there(name), _orders(tmp_path, name, **changes))
        ((kind, engine, error),) = await events.count(1)
        assert (kind, engine) == ("failed", name)
        failures.append(error)
        await launcher.close()
        assert len(events.seen) == 1

    _play(play())
    return failures[0]


def test_a_host_without_the_package(path_to_lab: Any, tmp_path: Path) -> None:
    import venv

    venv.create(tmp_path / "bare", symlinks=True, with_pip=False)
    error = _failure(tmp_path, SshOptions(python=str(tmp_path / "bare/bin/python"), package="/not/there"))
    assert str(error).startswith("nodeA: its Python has no disbatch: install it there as here")


def test_the_package_is_found_but_not_what_it_needs(path_to_lab: Any, tmp_path: Path) -> None:
    import venv

    venv.create(tmp_path / "bare", symlinks=True, with_pip=False)
    error = _failure(tmp_path, SshOptions(python=str(tmp_path / "bare/bin/python")))
    assert "nodeA: its Python has no " in str(error)
    assert "--ssh-python" in str(error)


def test_a_host_without_the_working_directory(path_to_lab: Any, tmp_path: Path) -> None:
    error = _failure(tmp_path, SshOptions(), directory=b"/not/there")
    assert str(error) == "nodeA: working directory /not/there does not exist on nodeA"


def test_a_host_that_does_not_know_the_key(path_to_lab: Any, tmp_path: Path) -> None:
    key = tmp_path / "key"
    os.system(f"ssh-keygen -q -t ed25519 -N '' -f {key}")
    _own_ssh(path_to_lab, tmp_path, "keys/user", str(key))
    error = _failure(tmp_path, SshOptions())
    assert "ssh was not let in" in str(error)
    assert "Permission denied (publickey)" in str(error)


def _own_ssh(lab: Any, tmp_path: Path, old: str, new: str) -> None:
    """Put an ssh with a changed configuration first in PATH."""
    config = (lab.directory / "ssh_config").read_text()
    assert f"{lab.directory}/{old}" in config
    (tmp_path / "config").write_text(config.replace(f"{lab.directory}/{old}", new))
    (tmp_path / "bin").mkdir()
    _script(tmp_path / "bin" / "ssh", f'exec /usr/bin/ssh -F {tmp_path}/config "$@"')
    os.environ["PATH"] = f"{tmp_path}/bin:{os.environ['PATH']}"


def test_a_host_whose_key_is_not_known(path_to_lab: Any, tmp_path: Path) -> None:
    _own_ssh(path_to_lab, tmp_path, "keys/known_hosts", "/dev/null")
    error = _failure(tmp_path, SshOptions())
    assert "ssh does not trust its host key" in str(error)


def test_a_host_that_refuses(path_to_lab: Any, tmp_path: Path) -> None:
    path_to_lab.poweroff("nodeA")
    error = _failure(tmp_path, SshOptions())
    assert "refuses ssh connections" in str(error)


def test_a_host_that_never_answers(path_to_netns_lab: Any, tmp_path: Path) -> None:
    path_to_netns_lab.cut("nodeB")
    error = _failure(tmp_path, SshOptions(connect_timeout=1), name="nodeB")
    assert str(error).startswith("nodeB: unreachable")


def test_an_engine_that_never_says_a_word(path_to_lab: Any, tmp_path: Path) -> None:
    python = _script(tmp_path / "python", "echo waiting >&2; exec sleep 1000")
    error = _failure(tmp_path, SshOptions(python=python), timeout=5.0)
    assert str(error) == "nodeA: no engine within 5 s; waited for ssh to start one there (waiting)"


def test_no_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert str(_failure(tmp_path, SshOptions())) == "nodeA: there is no ssh command in PATH here"


def test_closing_cuts_a_launch_short(path_to_lab: Any, tmp_path: Path) -> None:
    python = _script(tmp_path / "python", f"touch {tmp_path}/here; exec sleep 1000")

    async def play() -> None:
        events = Events()
        launcher = _launcher(events, ssh=SshOptions(python=python))
        launcher.start(_there("nodeA"), _orders(tmp_path, "nodeA"))
        await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE):
            await launcher.close()
        assert events.seen == []

    _play(play())


# ---- tunnels ----


@contextlib.asynccontextmanager
async def _driver(path: Path, events: Events) -> AsyncIterator[set[bytes]]:
    """A Unix socket that notes what engines say, and answers them with the words that are put in the set."""
    answer: set[bytes] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line:
            events.note("said")(*line.decode().split())
            writer.write(next(iter(answer), b"again"))
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield answer


def _said(seen: list[tuple[Any, ...]]) -> int:
    return sum(event[0] == "said" for event in seen)


async def _tunnelled(
    lab: Any, tmp_path: Path, disturb: Callable[[str], None], heal: Callable[[], None]
) -> None:
    events = Events()
    place = tmp_path / "d"
    options = SshOptions(python=_fake_python(tmp_path), alive_interval=1, connect_timeout=5)
    async with _driver(place, events) as answer:
        launcher = _launcher(events, ssh=options, tunnel_to=str(place))
        launcher.start(_there("nodeA"), _orders(tmp_path, "nodeA"))
        await events.until(lambda seen: _said(seen) > 0)
        remote = next(event[2] for event in events.seen if event[0] == "said")
        assert remote.startswith("/tmp/disbatch-")
        disturb(remote)
        await events.until(lambda seen: any(event[0] == "trouble" for event in seen))
        said = _said(events.seen)
        heal()
        await events.until(lambda seen: _said(seen) > said)
        troubles = [event[1] for event in events.seen if event[0] == "trouble"]
        assert troubles[0].startswith("nodeA: the tunnel broke: ")
        answer.add(b"leave")
        said = _said(events.seen)
        await events.until(lambda seen: _said(seen) > said)
        await launcher.close()
    assert not os.path.exists(os.path.dirname(remote))


def test_a_tunnel_that_loses_its_connection_is_made_again(path_to_lab: Any, tmp_path: Path) -> None:
    def kill_connections(_: str) -> None:
        # "sshd: root@notty" serves one connection; the listener is "sshd: ... [listener]"
        done = path_to_lab.inside("nodeA", ["pkill", "-KILL", "-f", "^sshd: root@notty"])
        assert done.returncode == 0, done.stderr

    _play(_tunnelled(path_to_lab, tmp_path, kill_connections, lambda: None))


def test_a_tunnel_survives_a_cut_cable(path_to_netns_lab: Any, tmp_path: Path) -> None:
    lab = path_to_netns_lab
    _play(_tunnelled(lab, tmp_path, lambda _: lab.cut("nodeA"), lambda: lab.heal("nodeA")))


def test_a_real_engine_comes_back_through_a_tunnel_made_again(path_to_netns_lab: Any, tmp_path: Path) -> None:
    lab = path_to_netns_lab

    async def play() -> None:
        events = Events()
        loop = asyncio.get_running_loop()
        keys = RunKeys.generate()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        hub = Hub(
            loop,
            context,
            keys,
            hello=events.note("hello"),
            receive=events.note("message"),
            bad=events.note("bad"),
        )
        hub.bind(f"ipc://{tmp_path}/d")
        options = SshOptions(alive_interval=1, connect_timeout=5)
        launcher = _launcher(events, ssh=options, tunnel_to=f"{tmp_path}/d")
        orders = _orders(tmp_path, "nodeC")
        orders = msgspec.structs.replace(
            orders, server_key=keys.server_key, client_key=keys.client_key, client_secret=keys.client_secret
        )
        try:
            launcher.start(_there("nodeC"), orders)
            await events.until(lambda seen: _kinds(seen) == {"started", "hello"})
            lab.cut("nodeC")
            await events.until(lambda seen: "trouble" in _kinds(seen))
            greetings = len(events.seen)
            lab.heal("nodeC")
            await events.until(lambda seen: "hello" in _kinds(seen[greetings:]))
            _, peer, greeting = next(event for event in reversed(events.seen) if event[0] == "hello")
            assert (greeting.engine, greeting.host) == ("nodeC", "nodeC")
            hub.refuse(peer, "the test is over")
            gone = "while pgrep -f [d]isbatch.engine; do sleep 0.05; done"
            ended = await asyncio.to_thread(lab.inside, "nodeC", ["timeout", str(DEADLINE), "sh", "-c", gone])
            assert ended.returncode == 0
        finally:
            await launcher.close()
            hub.close()
            context.term()
        assert not {"bad", "failed"} & _kinds(events.seen)

    _play(play())


def _kinds(seen: list[tuple[Any, ...]]) -> set[str]:
    return {event[0] for event in seen}


def test_a_tunnel_that_cannot_be_made(path_to_lab: Any, tmp_path: Path) -> None:
    path_to_lab.poweroff("nodeA")
    error = _failure(tmp_path, SshOptions(), tunnel_to=str(tmp_path / "d"))
    assert str(error).startswith("nodeA: no tunnel: it refuses ssh connections")


# ---- local engines ----


def test_a_local_engine_from_start_to_end(tmp_path: Path) -> None:
    record = tmp_path / "record"
    engine = _script(
        tmp_path / "engine",
        f"{sys.executable} -c 'import os, json, msgspec, sys;"
        'data = os.read(0, int.from_bytes(os.read(0, 4), "big"));'
        f'json.dump(msgspec.msgpack.decode(data)["node"], open("{record}", "w"))\'; cat >/dev/null; exit 5',
    )

    async def play() -> None:
        events = Events()
        launcher = _launcher(events)
        launcher.adopt(spawn_local([engine]))
        launcher.start(Node("localhost", 1, 1, Way.CHILD), _orders(tmp_path, "here", environment={}))
        await events.count(1)
        assert events.seen == [("started", "here")]
        await launcher.close(patience=0.1)
        assert events.seen[1][:2] == ("exit", "here")

    _play(play())


def test_a_local_engine_that_crashes_early(tmp_path: Path) -> None:
    async def play() -> None:
        events = Events()
        launcher = _launcher(events, Broken())
        launcher.start(Node("localhost", 1, 1, Way.CHILD), _orders(tmp_path, "here"))
        ((kind, engine, error),) = await events.count(1)
        assert (kind, engine) == ("failed", "here")
        assert str(error) == "here: no module of mine (exit code 1)".replace("here", "localhost")
        await launcher.close()

    _play(play())


def test_a_local_engine_that_cannot_work(tmp_path: Path) -> None:
    async def play() -> None:
        events = Events()
        launcher = _launcher(events)
        orders = _orders(tmp_path, "here", directory=b"/not/there")
        launcher.start(Node("localhost", 1, 1, Way.CHILD), orders)
        await events.count(2)
        assert events.seen[0] == ("started", "here")
        assert events.seen[1][:3] == ("exit", "here", 2)
        assert events.seen[1][3].startswith("working directory /not/there does not exist")
        await launcher.close()

    _play(play())


def test_an_early_engine_that_is_not_needed_goes_away(tmp_path: Path) -> None:
    async def play() -> None:
        events = Events()
        launcher = _launcher(events)
        spawned = spawn_local(["sh", "-c", "cat"])
        launcher.adopt(spawned)
        await launcher.close()
        with pytest.raises(ChildProcessError):
            os.waitpid(spawned.pid, 0)
        assert events.seen == []

    _play(play())
