"""The driver's end of the wire, with real sockets: who is let in, names, numbers, connections that change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from deadline import DEADLINE
from disbatch.wire.client_protocol import Answer, Request
from disbatch.wire.connect import RunKeys
from disbatch.wire.driver_socket import ANSWERS_KEPT, Hub, Peer
from disbatch.wire.engine_protocol import (
    PROTOCOL,
    FromEngine,
    Goodbye,
    Hello,
    Leave,
    Pulse,
    Refuse,
    ToEngine,
    Trouble,
    Welcome,
)
from disbatch.wire.engine_socket import EngineLink
from disbatch.wire.session import Session
from disbatch.wire.sockets import SocketReader
from disbatch.wire.verbs import MOST_NAMES, Cancel, Drain, Pause

_answers = msgspec.msgpack.Decoder(Answer | Pulse | Refuse | Welcome)

Course = Callable[["Bench"], Awaitable[None]]


class Bench:
    """A hub that welcomes everybody, and engines that connect to it on one loop."""

    def __init__(self, folder: Path, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.context = context
        self.keys = RunKeys.generate()
        self.told: list[Any] = []
        self.bad: list[str] = []
        self.changed = asyncio.Event()
        self.links: list[EngineLink] = []
        self.sockets: list[tuple[SocketReader, zmq.Socket[bytes]]] = []
        self.hub = Hub(
            *(self.loop, context, self.keys),
            hello=self.hello,
            receive=self.receive,
            bad=self.note(self.bad),
            request=self.request,
        )
        self.address = self.hub.bind(f"ipc://{folder}/hub")

    def note(self, place: list[Any]) -> Callable[[Any], None]:
        def add(what: Any) -> None:
            place.append(what)
            self.changed.set()

        return add

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def hello(self, peer: Peer, message: Hello) -> None:
        self.note(self.told)((peer.name, message))
        welcome = Welcome(0, "J", b"T", 1, 5, 5, 1, peer.session.seen, peer.session.next_number)
        self.hub.welcome(peer, welcome, message.orders_seen)

    def receive(self, peer: Peer, number: int, message: FromEngine) -> None:
        self.note(self.told)((peer.name, message))
        peer.session.acknowledge(number)
        peer.session.tell(Pulse())

    def request(self, request: Request) -> Answer:
        self.note(self.told)(request.verb)
        return Answer(request.id, True, [f"{len(self.told)} asked"])

    def asker(self, got: list[Any]) -> Session[Any]:
        """A connection that says what it is told to."""
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.curve_serverkey = self.keys.server_key.encode()
        socket.curve_publickey = self.keys.client_key.encode()
        socket.curve_secretkey = self.keys.client_secret.encode()
        socket.connect(self.address)
        session = Session(lambda data: (socket.send(data), reader.check()), _answers.decode)
        reader = SocketReader(self.loop, socket, lambda frames: self.note(got)(session.peek(frames[-1])))
        self.sockets.append((reader, socket))
        return session

    def engine(self, name: str, got: list[ToEngine], **changes: Any) -> EngineLink:
        def hello(seen: int, since: int) -> Hello:
            plain = Hello(PROTOCOL, name, "n", "n", 1, 1, "0", seen, since, [])
            return msgspec.structs.replace(plain, **changes)

        link = EngineLink(
            self.loop,
            self.context,
            self.keys,
            hello=hello,
            receive=self.note(got),
            acknowledged=self.changed.set,
            bad=self.note(self.bad),
        )
        link.connect(self.address)
        self.links.append(link)
        return link


def run(folder: Path, course: Course) -> None:
    async def bounded() -> None:
        with zmq.Context() as context:
            bench = Bench(folder, context)
            try:
                await course(bench)
            finally:
                for reader, socket in bench.sockets:
                    reader.close()
                    socket.close(0)
                for link in bench.links:
                    link.close()
                bench.hub.close()

    asyncio.run(bounded())


def kinds(got: list[ToEngine]) -> list[type]:
    return [type(message) for message in got if not isinstance(message, Pulse)]


def test_both_directions(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        got: list[ToEngine] = []
        link = bench.engine("e1", got)
        await bench.until(lambda: Welcome in kinds(got))
        link.post(Trouble("one"))
        link.post(Trouble("two"))
        await bench.until(lambda: link.session.unacknowledged == 0)
        assert bench.told[1:] == [("e1", Trouble("one")), ("e1", Trouble("two"))]
        peer = bench.hub.peer("e1")
        assert peer is not None and list(bench.hub.peers()) == [peer]
        bench.hub.post(peer.name, Leave())
        await bench.until(lambda: kinds(got) == [Welcome, Leave])

    run(tmp_path, course)


def test_another_protocol_and_improper_names(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        got: list[ToEngine] = []
        bench.engine("old", got, protocol=PROTOCOL + 1)
        bench.engine("bad name", [])
        await bench.until(lambda: kinds(got) == [Refuse] and bench.bad)
        assert bench.told == [] and bench.hub.peer("old") is None
        assert "bad name" in bench.bad[0]

    run(tmp_path, course)


def test_given_up_engine_says_hello_again(tmp_path: Path) -> None:
    """What was posted to it is never sent any more; what it posted meanwhile arrives once."""

    async def course(bench: Bench) -> None:
        got: list[ToEngine] = []
        link = bench.engine("e1", got)
        await bench.until(lambda: got)
        peer = bench.hub.peer("e1")
        assert peer is not None
        bench.hub.give_up(peer.name)
        bench.hub.post(peer.name, Leave())
        peer.session.forget_posted()
        link.post(Trouble("late"))
        await bench.until(lambda: ("e1", Trouble("late")) in bench.told)
        bench.hub.post(peer.name, Leave())
        await bench.until(lambda: link.session.unacknowledged == 0 and Leave in kinds(got))
        assert bench.told.count(("e1", Trouble("late"))) == 1
        assert len([1 for _, message in bench.told if isinstance(message, Hello)]) == 2

    run(tmp_path, course)


def test_newer_connection_takes_the_place_and_the_older_may_take_it_back(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        one: list[ToEngine] = []
        two: list[ToEngine] = []
        first = bench.engine("e1", one)
        await bench.until(lambda: one)
        bench.engine("e1", two)
        await bench.until(lambda: two)
        first.post(Goodbye("still me"))  # unknown by now: it is asked for Hello, and sends it again
        await bench.until(lambda: first.session.unacknowledged == 0)
        assert bench.told[-1] == ("e1", Goodbye("still me"))
        assert len(list(bench.hub.peers())) == 1

    run(tmp_path, course)


def test_results_that_nobody_acknowledged_cannot_be_forgotten(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        got: list[ToEngine] = []
        first = bench.engine("e1", got)
        await bench.until(lambda: got)
        bench.engine("e1", [], results_from=1000)
        await bench.until(lambda: bench.bad)
        first.post(Trouble("heard"))
        await bench.until(lambda: ("e1", Trouble("heard")) in bench.told)

    run(tmp_path, course)


# ---- requests ----

ID = "0123456789abcdef"


def asked(verb: Any, id: str = ID, protocol: int = PROTOCOL) -> Request:
    return Request(protocol, id, "0", verb)


def test_request_needs_no_hello_and_is_done_once(tmp_path: Path) -> None:
    """However often it comes, over whatever connection, until many others came."""

    async def course(bench: Bench) -> None:
        got: list[Any] = []
        first, second = bench.asker(got), bench.asker(got)
        first.tell(asked(Pause()))
        first.tell(asked(Pause()))
        await bench.until(lambda: len(got) == 2)
        second.tell(asked(Pause()))
        await bench.until(lambda: len(got) == 3)
        assert got == [Answer(ID, True, ["1 asked"])] * 3
        assert bench.told == [Pause()] and list(bench.hub.peers()) == []
        for number in range(ANSWERS_KEPT):
            second.tell(asked(Pause(), f"{number:016}"))
        await bench.until(lambda: len(got) == 3 + ANSWERS_KEPT)
        first.tell(asked(Pause()))
        await bench.until(lambda: len(got) == 4 + ANSWERS_KEPT)
        assert len(bench.told) == ANSWERS_KEPT + 2

    run(tmp_path, course)


def test_request_of_another_protocol(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        got: list[Any] = []
        bench.asker(got).tell(asked(Pause(), protocol=PROTOCOL + 1))
        await bench.until(lambda: got)
        assert not got[0].ok and "use the dbutil of that version" in got[0].lines[0]
        assert bench.told == []

    run(tmp_path, course)


def test_engines_ask_for_nothing(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        got: list[ToEngine] = []
        link = bench.engine("e1", got)
        await bench.until(lambda: got)
        link.session.tell(asked(Pause()))
        await bench.until(lambda: bench.bad)
        link.post(Trouble("still heard"))
        await bench.until(lambda: ("e1", Trouble("still heard")) in bench.told)
        assert Pause() not in bench.told

    run(tmp_path, course)


def test_requests_beyond_the_limits(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        got: list[Any] = []
        asker = bench.asker(got)
        wrong = [
            Drain([]),
            Drain(["n"] * (MOST_NAMES + 1)),
            Drain(["n" * 256]),
            Cancel([(0, 1)] * 8193),
            Cancel([(-1, 1)]),
            Cancel([(0, 1 << 63)]),
            Hello(PROTOCOL, "e", "n", "n", 1, 1, "0", 0, 1, []),
        ]
        for verb in wrong:
            asker.tell(asked(verb))
        asker.tell(asked(Pause(), "short"))
        await bench.until(lambda: len(bench.bad) == len(wrong) + 1)
        asker.tell(asked(Drain(["n" * (2 << 20)])))  # closes this connection, which comes back
        asker.tell(asked(Pause()))
        bench.asker(got).tell(asked(Pause()))
        await bench.until(lambda: got)
        assert bench.told == [Pause()]

    run(tmp_path, course)


def test_one_greeting_for_all_that_was_said_while_nobody_listened(tmp_path: Path) -> None:
    """Over a cable that was cut for a while all of it arrives at once."""

    async def course(bench: Bench) -> None:
        got: list[ToEngine] = []
        engine = bench.engine("e", got)
        await bench.until(lambda: len(bench.told) == 1 and len(got) == 1)
        peer = bench.hub.peer("e")
        assert peer is not None
        bench.hub.give_up(peer.name)
        for number in range(20):
            engine.post(Trouble(str(number)))
        await bench.until(lambda: engine.session.unacknowledged == 0)
        assert [message.text for _, message in bench.told if isinstance(message, Trouble)] == [
            str(number) for number in range(20)
        ]
        assert sum(isinstance(message, Hello) for _, message in bench.told) == 2
        assert sum(isinstance(message, Welcome) for message in got) == 2

    run(tmp_path, course)
