"""dbutil's end of the wire: an answer, or one line that says why there is none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
import zmq
from connect_files import KEYS, connect_file

from disbatch.model.errors import SilenceError, UsageError
from disbatch.wire import client_socket
from disbatch.wire.client_protocol import Answer, Request
from disbatch.wire.client_socket import ask
from disbatch.wire.connect import RunKeys, is_here, listens_here
from disbatch.wire.driver_socket import Hub
from disbatch.wire.engine_protocol import PROTOCOL
from disbatch.wire.verbs import Pause


def asked(at: list[str], *addresses: str, keys: RunKeys = KEYS) -> Answer:
    """What a hub that listens `at` answers one who has a connect file with `addresses` (or where it is)."""

    async def course() -> Answer:
        loop = asyncio.get_running_loop()
        with zmq.Context() as context:
            hub = Hub(
                *(loop, context, KEYS),
                hello=lambda peer, message: None,
                receive=lambda peer, number, message: None,
                bad=lambda text: None,
                request=lambda request: Answer(request.id, True, [type(request.verb).__name__]),
            )
            try:
                bound = [hub.bind(address) for address in at]
                connect = connect_file(*(addresses or bound), keys=keys)
                return await loop.run_in_executor(None, ask, connect, Pause())
            finally:
                hub.close()

    return asyncio.run(course())


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[str]:
    """A socket that takes connections and says nothing, as that of a suspended driver."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "deaf"))
        listener.listen()
        yield str(tmp_path / "deaf")


def test_through_the_socket_or_a_port(tmp_path: Path) -> None:
    assert asked([f"ipc://{tmp_path}/hub"]).lines == ["Pause"]
    assert asked(["tcp://127.0.0.1:*"]).lines == ["Pause"]


def test_a_socket_that_is_not_seen_from_here_leaves_the_port() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    addresses = ["ipc:///nowhere/driver", f"tcp://@client:{port}", f"tcp://127.0.0.1:{port}"]
    assert asked([f"tcp://127.0.0.1:{port}"], *addresses).lines == ["Pause"]


def test_another_run_in_its_place(tmp_path: Path) -> None:
    """Ours knows its server, but not us."""
    other = RunKeys.generate()
    keys = msgspec.structs.replace(KEYS, client_key=other.client_key, client_secret=other.client_secret)
    with pytest.raises(SilenceError, match="does not know our key"):
        asked([f"ipc://{tmp_path}/hub"], keys=keys)


def test_suspended(deaf: str) -> None:
    connect = connect_file(f"ipc://{deaf}")
    assert is_here(connect) and listens_here(connect)
    with pytest.raises(SilenceError, match=r"deaf, but said nothing within 0.2 s.*Nothing was done"):
        ask(connect, Pause(), patience=0.2)


def test_a_driver_that_does_not_listen_yet(tmp_path: Path) -> None:
    """It is waited for, as one that takes a run over."""
    address = f"ipc://{tmp_path}/hub"

    async def course() -> Answer:
        loop = asyncio.get_running_loop()
        with zmq.Context() as context:
            asking = partial(ask, connect_file(address), Pause(), is_starting=True)
            answer = loop.run_in_executor(None, asking)
            hub = Hub(
                *(loop, context, KEYS),
                hello=lambda peer, message: None,
                receive=lambda peer, number, message: None,
                bad=lambda text: None,
                request=lambda request: Answer(request.id, True, ["here"]),
            )
            try:
                hub.bind(address)
                return await answer
            finally:
                hub.close()

    assert asyncio.run(course()).lines == ["here"]


def test_a_driver_that_never_listens(tmp_path: Path) -> None:
    with pytest.raises(SilenceError, match=r"but did not listen within 0.3 s: ask it again"):
        ask(connect_file(f"ipc://{tmp_path}/none"), Pause(), patience=0.3, is_starting=True)


def test_asked_but_silent(tmp_path: Path) -> None:
    async def course() -> None:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()

        def request(request: Request) -> Answer:
            heard.set()
            return Answer("another's", True, [])

        with zmq.Context() as context:
            hub = Hub(
                *(loop, context, KEYS),
                hello=lambda peer, message: None,
                receive=lambda peer, number, message: None,
                bad=lambda text: None,
                request=request,
            )
            try:
                connect = connect_file(hub.bind(f"ipc://{tmp_path}/hub"))
                with pytest.raises(SilenceError, match=r"was asked, but did not answer.*may do it yet"):
                    await loop.run_in_executor(None, lambda: ask(connect, Pause(), patience=1.0))
                assert heard.is_set()
            finally:
                hub.close()

    asyncio.run(course())


def test_dead(tmp_path: Path, deaf: str) -> None:
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(tmp_path / "left"))
    connect = connect_file(f"ipc://{tmp_path}/left")
    assert not listens_here(connect)
    with pytest.raises(SilenceError, match="does not listen any more"):
        ask(connect, Pause())
    with pytest.raises(SilenceError, match=r"cannot be reached at tcp://127.0.0.1:1 within 0.1 s"):
        ask(connect_file("tcp://127.0.0.1:1"), Pause(), patience=0.1)


def test_what_cannot_be_asked_from_here() -> None:
    elsewhere = msgspec.structs.replace(connect_file("ipc:///x", "tcp://@client:7"), host="faraway")
    with pytest.raises(UsageError, match=r"on faraway can be asked on that machine alone.*ssh faraway"):
        ask(elsewhere, Pause())
    with pytest.raises(UsageError, match="use the dbutil of that version"):
        ask(msgspec.structs.replace(elsewhere, protocol=PROTOCOL + 1), Pause())
    with pytest.raises(UsageError, match="keys that are none"):
        ask(msgspec.structs.replace(connect_file("tcp://127.0.0.1:1"), server_key="short"), Pause())
    with pytest.raises(UsageError, match="no address"):
        ask(connect_file("tcp://nonsense"), Pause())


def test_asks_again_when_the_connection_breaks(tmp_path: Path) -> None:
    """With the same id, so that a driver that has done it answers as before."""

    async def course() -> None:
        loop = asyncio.get_running_loop()
        ids: list[str] = []
        heard = asyncio.Event()

        def deaf_end(request: Request) -> Answer:
            ids.append(request.id)
            heard.set()
            return Answer("lost on the way", True, [])

        def good_end(request: Request) -> Answer:
            ids.append(request.id)
            return Answer(request.id, True, ["done"])

        def hub(request: Callable[[Request], Answer]) -> Hub:
            return Hub(
                *(loop, context, KEYS),
                hello=lambda peer, message: None,
                receive=lambda peer, number, message: None,
                bad=lambda text: None,
                request=request,
            )

        with zmq.Context() as context:
            first = hub(deaf_end)
            # Not a Unix socket: while nobody listens there, its driver is known to have ended.
            address = first.bind("tcp://127.0.0.1:*")
            connect = connect_file(address)
            asking = loop.run_in_executor(None, lambda: ask(connect, Pause(), patience=20.0))
            await heard.wait()
            first.close()
        with zmq.Context() as context:
            second = hub(good_end)
            second.bind(address)
            answer = await asking
            second.close()
        assert answer.lines == ["done"]
        assert len(ids) >= 2 and len(set(ids)) == 1

    asyncio.run(course())


class LastWords:
    """A line over which an answer has come, and the news that the driver is gone."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        ends = []
        for name in ("socket", "monitor"):
            ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
            ours.bind(f"inproc://{name}")
            theirs.connect(f"inproc://{name}")
            theirs.send(name.encode())
            ends += [ours, theirs]
        self.socket, _, self.monitor, _ = self.ends = ends

    def send(self, request: Request) -> None:
        self.request = request

    def look(self, frames: list[bytes]) -> None:
        raise SilenceError("ended before it answered")

    def read(self, frames: list[bytes]) -> Answer:
        return Answer(self.request.id, True, ["ending the run"])


def test_an_answer_is_the_last_that_a_driver_does() -> None:
    with zmq.Context() as context:
        line = LastWords(context)
        answer = client_socket._wait(line, client_socket.request_for(Pause()), 10.0)  # type: ignore[arg-type]
        assert answer.lines == ["ending the run"]
        for end in line.ends:
            end.close()


async def asked_at_the_end(path: Path) -> Answer:
    """What a hub answers that closes at once."""
    loop = asyncio.get_running_loop()
    answered = loop.create_future()

    def answer(request: Request) -> Answer:
        answered.set_result(None)
        return Answer(request.id, True, ["ending the run"])

    with zmq.Context() as context:
        hub = Hub(
            *(loop, context, KEYS),
            hello=lambda peer, message: None,
            receive=lambda peer, number, message: None,
            bad=lambda text: None,
            request=answer,
        )
        connect = connect_file(hub.bind(f"ipc://{path}"))
        asking = loop.run_in_executor(None, ask, connect, Pause())
        await answered
        hub.close(linger=5.0)
    return await asking


def test_the_answer_of_a_driver_that_ends_arrives(tmp_path: Path) -> None:
    for number in range(30):
        assert asyncio.run(asked_at_the_end(tmp_path / f"driver{number}")).ok
