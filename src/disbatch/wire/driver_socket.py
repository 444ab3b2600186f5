"""The driver's end of all connections: a ROUTER socket on the event loop, with a session for each engine.

CURVE encrypts, and the ZAP handler admits the run's client key and no other. A peer with that key is still
not trusted to send valid data: a message that does not decode is dropped and counted, a message larger than
MAX_FROM_ENGINE closes its connection, and messages of a peer before its Hello are ignored, except for
requests (see `wire.client_protocol`), which are answered at once.

Each engine has a permanent id, and each of its connections has a routing id of its own, which the socket
assigns. A Hello with an engine's id replaces the connection that this engine had (the old one was cut without
notice); whatever still arrives over the old connection is answered with "say Hello". The engine's id is not
its routing id, because libzmq's handover of a routing id leaves the old connection open but deaf, and aborts
the whole process when such a connection breaks after something was sent to it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import zmq
from zmq.auth.base import Authenticator
from zmq.utils.monitor import parse_monitor_message

from disbatch.model.errors import ProtocolError, UsageError
from disbatch.model.version import VERSION
from disbatch.wire import descriptors
from disbatch.wire.client_protocol import REPEATABLE, Answer, Request
from disbatch.wire.connect import RunKeys
from disbatch.wire.engine_protocol import (
    MAX_FROM_ENGINE,
    PROTOCOL,
    FromEngine,
    Hello,
    Pulse,
    Refuse,
    ToEngine,
    Welcome,
)
from disbatch.wire.session import Session
from disbatch.wire.sockets import SocketReader, tune

ENGINE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
MOST_PEERS = 100_000
BACKLOG = 1024
"""Connections that wait to be accepted."""
ANSWERS_KEPT = 1000
"""The latest answers, kept for clients that ask again because their connection broke."""
MOST_WAITING = 10_000
"""The most requests that wait for an answer."""

_from_engine = msgspec.msgpack.Decoder(FromEngine)
_from_anybody = msgspec.msgpack.Decoder(FromEngine | Request)


class _OnlyKey:
    """Tells the ZAP handler whether a client's public key is the run's."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def callback(self, domain: str, key: bytes) -> bool:
        return hmac.compare_digest(self._key, key)


class Doorkeeper:
    """Answers ZeroMQ's question which clients may connect, on the event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: zmq.Context[zmq.Socket[bytes]], key: str
    ) -> None:
        # It would write the keys of all clients to its log, including ours.
        log = logging.getLogger(f"{__name__}.zap")
        log.setLevel(logging.WARNING)
        self._authenticator = Authenticator(context, log=log)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(credentials_provider=_OnlyKey(key))
        self._reader = SocketReader(loop, self._authenticator.zap_socket, self._ask)

    def _ask(self, frames: list[bytes]) -> None:
        # The callback above does not wait, so the coroutine answers before it returns here; the socket (REP)
        # must have its answer before the next question is read.
        with suppress(StopIteration):
            self._authenticator.handle_zap_message(frames).send(None)
        self._reader.check()

    def close(self) -> None:
        self._reader.close()
        self._authenticator.stop()


class Peer:
    """An engine as the driver sees it: its session, and when it was last heard (the loop's time)."""

    def __init__(self, name: str, heard: float, transmit: Callable[[bytes, bytes], None]) -> None:
        self.name = name
        self.identity = b""
        """The routing id of its latest connection."""
        self.session = Session(lambda data: transmit(self.identity, data), _from_engine.decode)
        self.heard = heard


class Hub:
    """The connections of all engines. `receive(peer, number, message)` gets each message once and in order,
    and `hello(peer, message)` each Hello, which it answers with `welcome` or `refuse`. `request` gets each
    request once, as long as there are fewer than ANSWERS_KEPT newer ones; if it returns None, the request is
    answered later, with `answer`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: RunKeys,
        *,
        hello: Callable[[Peer, Hello], None],
        receive: Callable[[Peer, int, FromEngine], None],
        bad: Callable[[str], None],
        request: Callable[[Request], Answer | None] | None = None,
    ) -> None:
        self._loop = loop
        self._hello = hello
        self._receive = receive
        self._bad = bad
        self._request = request
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._waiting: dict[str, bytes] = {}
        """For each unanswered request, the latest connection over which it came."""
        self._peers: dict[str, Peer] = {}
        self._connected: dict[bytes, Peer] = {}
        """The engines that were welcomed and not given up since, by routing id."""
        self._doorkeeper = Doorkeeper(loop, context, keys.client_key)
        self._socket = context.socket(zmq.ROUTER)
        tune(self._socket, MAX_FROM_ENGINE)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.curve_server = 1
        self._socket.curve_publickey = keys.server_key.encode()
        self._socket.curve_secretkey = keys.server_secret.encode()
        self._reader = SocketReader(loop, self._socket, self._frames)
        self._socket.setsockopt(zmq.BACKLOG, BACKLOG)
        self._most = descriptors.limit() - descriptors.reserve()
        self._paths: set[str] = set()
        """The Unix sockets at which we listen."""
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._connections = SocketReader(loop, self._monitor, self._connection)
        self._open: set[int] = set()
        """Descriptors of all connections."""
        self._all_closed = asyncio.Event()

    def bind(self, address: str) -> str:
        """Listen at `address` (`ipc://PATH`, `tcp://HOST:PORT`, port * for any); returns the actual
        address."""
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            raise UsageError(f"cannot listen at {address}: {error.strerror}") from error
        if address.startswith("ipc://"):
            self._paths.add(address.removeprefix("ipc://"))
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def peers(self) -> Iterator[Peer]:
        """The engines that were welcomed and not given up since."""
        return iter(self._connected.values())

    def peer(self, name: str) -> Peer | None:
        """The engine with that id."""
        return self._peers.get(name)

    def welcome(self, peer: Peer, message: Welcome, orders_seen: int) -> None:
        """Admit the engine (again), and resend what it has not seen."""
        self._connected[peer.identity] = peer
        peer.session.tell(message)
        peer.session.resend(orders_seen)

    def refuse(self, peer: Peer, reason: str) -> None:
        """Reject the engine."""
        peer.session.tell(Refuse(reason))

    def turn_away_all(self, reason: str) -> None:
        """Stop listening to all peers, and tell those that remain to leave."""
        for peer in self._peers.values():
            self.refuse(peer, reason)
        self._connected.clear()

    def give_up(self, engine: str) -> None:
        """The engine is lost: messages that it has not acknowledged will never be sent again, and its own are
        ignored until it says Hello again."""
        peer = self._peers.get(engine)
        if peer is not None and self._connected.pop(peer.identity, None) is not None:
            peer.session.forget_posted()

    def _connection(self, frames: list[bytes]) -> None:
        seen = parse_monitor_message(frames)
        if seen["event"] == zmq.EVENT_ACCEPTED:
            self._open.add(seen["value"])
            self._all_closed.clear()
            if seen["value"] >= self._most:
                self._close_last(seen["value"])
        else:
            self._open.discard(seen["value"])
            if not self._open:
                self._all_closed.set()

    def _close_last(self, descriptor: int) -> None:
        """This connection has one of the last descriptors, and without a free one libzmq aborts at the next
        connection: make libzmq see the end of this one. The number may be another connection's by now."""
        with suppress(OSError):
            connection = socket.socket(fileno=descriptor)
            try:
                if connection.family == socket.AF_UNIX and connection.getsockname() in self._paths:
                    connection.shutdown(socket.SHUT_RDWR)
                    self._bad(f"a connection too many: {self._most} files are open")
            finally:
                connection.detach()

    async def until_left(self, seconds: float) -> None:
        """Wait until the peers have closed all connections, at most so many seconds. If we closed them first,
        their libzmq (with ZMQ_IMMEDIATE) would discard messages that they have not read yet."""
        if self._open:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), seconds)

    def _frames(self, frames: list[bytes]) -> None:
        identity, data = frames[0], frames[-1]
        peer = self._connected.get(identity)
        if peer is not None:
            self._from_known(peer, data)
        else:
            self._from_unknown(identity, data)

    def _from_known(self, peer: Peer, data: bytes) -> None:
        try:
            received = peer.session.receive(data)
        except ProtocolError as error:
            self._bad(f"engine {peer.name}: {error}")
            return
        peer.heard = self._loop.time()
        if received is None:
            return
        number, message = received
        if not isinstance(message, Hello):
            self._receive(peer, number, message)
        elif message.engine == peer.name:
            self._greet(peer, message)
        else:
            self._bad(f"engine {peer.name} says Hello as {message.engine!r:.80}")

    def _from_unknown(self, identity: bytes, data: bytes) -> None:
        """Handle a message of a connection without Hello, of one that was replaced, or of an engine that was
        given up: all but a Hello or a request is ignored."""
        answer = Session(lambda data: self._transmit(identity, data), _from_anybody.decode)
        try:
            message = answer.peek(data)
        except ProtocolError as error:
            self._bad(f"unknown peer: {error}")
            return
        if isinstance(message, Request):
            self._ask(identity, message)
        elif not isinstance(message, Hello):
            answer.tell(Pulse(known=False))
        elif not ENGINE_NAME.match(message.engine):
            self._bad(f"a Hello with an invalid name ({message.engine!r:.80})")
        elif message.protocol != PROTOCOL:
            theirs = f"disbatch {message.version} there speaks protocol {message.protocol}"
            answer.tell(Refuse(f"{theirs}, the driver {PROTOCOL}"))
        else:
            self._admit(identity, message)

    def _ask(self, identity: bytes, request: Request) -> None:
        known = self._answers.get(request.id)
        if known is not None:
            self._tell(identity, known)
        elif request.id in self._waiting:
            self._waiting[request.id] = identity
        else:
            answer = self._refusal(request)
            if answer is None and self._request is not None:
                answer = self._request(request)
            if answer is None:
                self._waiting[request.id] = identity
                return
            self._keep(request, answer)
            self._tell(identity, answer)

    def _refusal(self, request: Request) -> Answer | None:
        if request.protocol != PROTOCOL:
            theirs = f"dbutil {request.version} speaks protocol {request.protocol}"
            ours = f"the driver, disbatch {VERSION}, {PROTOCOL}"
            return Answer(request.id, False, [f"{theirs}, {ours}: use the dbutil of that version"])
        if self._request is None:
            return Answer(request.id, False, ["this driver takes no requests"])
        if len(self._waiting) >= MOST_WAITING:
            return Answer(request.id, False, ["too many requests wait for an answer already"])
        return None

    def _keep(self, request: Request, answer: Answer) -> None:
        if isinstance(request.verb, REPEATABLE):
            return
        self._answers[answer.id] = answer
        if len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)

    def _tell(self, identity: bytes, answer: Answer) -> None:
        Session(lambda data: self._transmit(identity, data), _from_anybody.decode).tell(answer)

    def answer(self, request: Request, answer: Answer) -> None:
        """Answer a request that had to wait."""
        identity = self._waiting.pop(request.id, None)
        if identity is not None:
            self._keep(request, answer)
            self._tell(identity, answer)

    def _admit(self, identity: bytes, message: Hello) -> None:
        peer = self._peers.get(message.engine)
        if peer is None:
            if len(self._peers) >= MOST_PEERS:
                self._bad("a Hello of one engine too many")
                return
            peer = Peer(message.engine, self._loop.time(), self._transmit)
            # A driver that took a run over knows nothing of messages before this one.
            peer.session.skip_to(message.results_from)
            peer.session.post_from(message.orders_seen + 1)
            self._peers[message.engine] = peer
        elif not self._plausible(peer, message):
            return
        self._connected.pop(peer.identity, None)
        peer.identity = identity
        peer.heard = self._loop.time()
        self._hello(peer, message)

    def _greet(self, peer: Peer, message: Hello) -> None:
        if self._plausible(peer, message):
            self._hello(peer, message)

    def _plausible(self, peer: Peer, message: Hello) -> bool:
        """An engine forgets only what was acknowledged; a false claim, if believed, would make us ignore its
        messages."""
        if message.results_from <= peer.session.seen + 1:
            return True
        self._bad(f"engine {peer.name} says it forgot results that were never acknowledged")
        return False

    def _transmit(self, identity: bytes, data: bytes) -> None:
        try:
            self._socket.send_multipart((identity, data), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return  # not connected at the moment: it is resent after its next Hello
        self._reader.check()

    def post(self, engine: str, message: ToEngine) -> None:
        """Send a message that must arrive, unless the engine was given up."""
        peer = self._peers.get(engine)
        if peer is not None and peer.identity in self._connected:
            peer.session.post(message)

    def close(self, linger: float = 0.0) -> None:
        """Close the sockets; waits at most `linger` seconds until the last messages are sent."""
        self._reader.close()
        self._doorkeeper.close()
        self._connections.close()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger * 1000))
