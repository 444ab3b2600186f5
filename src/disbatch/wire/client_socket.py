"""A client's connection to the driver: a single question, or a long-lived connection on an asyncio loop.

Theory of operation
-------------------
Every address in the connect file is tried at once. As soon as a connection has proved by its key that it ends
at the driver, all unanswered requests are sent over it. So a request is also sent again when a connection
breaks; the driver carries it out once. If no answer comes, the steps that were reached decide what the user
is told: whether the request may still be carried out, and where to look.

`ask` sends one request and waits, without an event loop. A `Caller` stays connected for as long as its
program likes, and outlives the driver: after a takeover, it asks the new one. Both use a `Connection`, which
has no loop of its own: its user polls `monitor` and `socket`, and calls `look` and `read`.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from disbatch.model.errors import ProtocolError, SilenceError, UsageError
from disbatch.model.version import VERSION
from disbatch.wire.client_protocol import MAX_ANSWER, Answer, Request, Verb
from disbatch.wire.connect import ConnectFile, listens_here, sockets, ways
from disbatch.wire.engine_protocol import PROTOCOL, Pulse, Refuse
from disbatch.wire.session import Session
from disbatch.wire.sockets import SocketReader, tune

_WATCHED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
)
_answers = msgspec.msgpack.Decoder(Answer | Pulse | Refuse)


class Connection:
    """A connection to the driver of `connect`, to be closed; `is_starting`: the driver may not listen yet.
    UsageError if the keys in that file are invalid."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], connect: ConnectFile, *, is_starting: bool = False
    ) -> None:
        self._connect = connect
        self._is_starting = is_starting
        self._driver = connect.driver
        self._pending: dict[str, Request] = {}
        self._addresses: list[str] = []
        self._taken: set[str] = set()
        """Addresses at which a connection was accepted, and exists."""
        self._good: set[str] = set()
        """Those of them that have proved to lead to the driver."""
        self._sent = False
        self.proven = ""
        """The latest address that proved to lead to the driver."""
        self.socket = context.socket(zmq.DEALER)
        self.monitor: zmq.Socket[Any] | None = None
        try:
            tune(self.socket, MAX_ANSWER)
            self.socket.curve_serverkey = connect.server_key.encode()
            self.socket.curve_publickey = connect.client_key.encode()
            self.socket.curve_secretkey = connect.client_secret.encode()
            self.monitor = self.socket.get_monitor_socket(_WATCHED)
        except (zmq.ZMQError, ValueError) as error:
            self.close()
            raise UsageError(f"the connect file has keys that are none: {error}") from error
        self._session = Session(self._transmit, _answers.decode)

    def close(self) -> None:
        """Close the connection."""
        if self.monitor is not None:
            self.socket.disable_monitor()
            self.monitor.close(0)
        self.socket.close(0)

    def connect(self, addresses: list[str]) -> None:
        """Try these addresses. UsageError for an invalid one."""
        self._addresses += addresses
        if len(self._addresses) > 1:
            # Without a connection, queue nothing. Not with one address: when the connection breaks, libzmq
            # then discards messages that have arrived but were not read yet, such as the last answer of a
            # driver that ends.
            self.socket.setsockopt(zmq.IMMEDIATE, 1)
        for address in addresses:
            try:
                self.socket.connect(address)
            except zmq.ZMQError as error:
                raise UsageError(f"{address}: no address: {error.strerror}") from error

    def send(self, request: Request) -> None:
        """Send this until it is answered."""
        self._pending[request.id] = request
        if self._good:
            self._session.tell(request)

    def drop(self, request: Request) -> None:
        """The answer is no longer wanted."""
        self._pending.pop(request.id, None)

    @property
    def reached(self) -> bool:
        """True if there is a connection, as far as can be seen."""
        return bool(self._taken)

    def look(self, frames: list[bytes]) -> None:
        """Handle a message of `monitor`: an event of a connection. SilenceError if the driver is gone, as far
        as can be seen."""
        seen = parse_monitor_message(frames)
        event, address = seen["event"], seen["endpoint"].decode(errors="replace")
        if event in (zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED):
            self._taken.discard(address)
            self._good.discard(address)
        elif event == zmq.EVENT_CONNECTED:
            self._taken.add(address)
            self._is_starting = False
        gone = event == zmq.EVENT_CONNECT_RETRIED and self._is_local and not listens_here(self._connect)
        if gone and not self._is_starting:
            raise SilenceError(f"{self._driver} ended before it {'answered' if self._sent else 'was asked'}")
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise SilenceError(f"{self._driver} does not know our key: was another run started in its place?")
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.proven = address
            self._good.add(address)
            # The monitor may be faster than the socket, which learns of connections when it is queried.
            self.socket.getsockopt(zmq.EVENTS)
            for request in self._pending.values():
                self._session.tell(request)

    @property
    def _is_local(self) -> bool:
        return all(address.startswith("ipc://") for address in self._addresses)

    def _transmit(self, data: bytes) -> None:
        try:
            self.socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            return  # broken already; it is sent over the next connection
        self._sent = True

    def read(self, frames: list[bytes]) -> Answer | None:
        """The answer in a message of `socket`, if one is expected."""
        try:
            message = self._session.peek(frames[-1])
        except ProtocolError:
            return None
        if isinstance(message, Answer) and self._pending.pop(message.id, None) is not None:
            return message
        return None

    def silence(self, patience: float) -> str:
        """Why there was no answer within so many seconds."""
        at = " and ".join(self._addresses)
        if self._is_starting:
            return f"a driver has taken the run over, but did not listen within {patience:g} s: ask it again"
        if self._sent:
            return f"{self._driver} was asked, but did not answer within {patience:g} s; it may do it yet"
        if self._taken or (self._is_local and listens_here(self._connect)):
            busy = f"takes connections at {at}, but said nothing within {patience:g} s"
            return f"{self._driver} {busy}: is it suspended, or busy? Nothing was done"
        return f"{self._driver} cannot be reached at {at} within {patience:g} s: does it still run?"


PATIENCE = 10.0
"""Seconds that a driver has to answer, by default."""


def request_for(verb: Verb, by: str = "") -> Request:
    """A new request; `by` as in `Request`."""
    return Request(PROTOCOL, secrets.token_hex(16), VERSION, verb, by)


def check_protocol(connect: ConnectFile) -> None:
    """UsageError if the driver's protocol is not ours."""
    if connect.protocol != PROTOCOL:
        theirs = f"the run speaks protocol {connect.protocol}"
        raise UsageError(f"{theirs}, this dbutil, {VERSION}, {PROTOCOL}: use the dbutil of that version")


def ask(connect: ConnectFile, verb: Verb, *, patience: float = PATIENCE, is_starting: bool = False) -> Answer:
    """The driver's answer; `is_starting`: it is known to live, and will listen at its socket. Raises
    SilenceError if it does not answer within `patience` seconds, UsageError if it cannot be asked from
    here."""
    check_protocol(connect)
    addresses = sockets(connect) if is_starting else ways(connect)
    with zmq.Context() as context:
        connection = Connection(context, connect, is_starting=is_starting)
        try:
            connection.connect(addresses)
            return _wait(connection, request_for(verb), patience)
        finally:
            connection.close()


def _wait(connection: Connection, request: Request, patience: float) -> Answer:
    deadline = time.monotonic() + patience
    poller = zmq.Poller()
    for readable in (connection.socket, connection.monitor):
        poller.register(readable, zmq.POLLIN)
    connection.send(request)
    while (left := deadline - time.monotonic()) > 0:
        ready = dict(poller.poll(math.ceil(left * 1000)))
        ended = None
        if connection.monitor is not None and connection.monitor in ready:
            try:
                connection.look(connection.monitor.recv_multipart())
            except SilenceError as error:
                ended = error
        if (answer := _read(connection)) is not None:
            return answer  # the driver answered, and then ended
        if ended is not None:
            raise ended
    raise SilenceError(connection.silence(patience))


def _read(connection: Connection) -> Answer | None:
    """The answer, if it is there."""
    while True:
        try:
            frames = connection.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        answer = connection.read(frames)
        if answer is not None:
            return answer


GIVEN_UP = "the line to the driver was given up"


class Caller:
    """A connection to the driver of `connect` on a loop, to be closed. UsageError or SilenceError if the
    driver cannot be reached from here. `lost` is called whenever a connection failed or was lost.
    `addresses`: try these, whether or not they are listened at."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        connect: ConnectFile,
        lost: Callable[[], None] = lambda: None,
        addresses: Sequence[str] = (),
    ) -> None:
        check_protocol(connect)
        found = list(addresses) or ways(connect)
        self._loop = loop
        self._lost = lost
        self._closed = False
        self._calls: dict[str, asyncio.Future[Answer]] = {}
        self._connection = connection = Connection(context, connect)
        self._readers = [SocketReader(loop, connection.socket, self._read)]
        if connection.monitor is not None:
            self._readers.append(SocketReader(loop, connection.monitor, self._look))
        connection.connect(found)

    @property
    def proven(self) -> str:
        """The latest address that proved to lead to the driver."""
        return self._connection.proven

    async def call(self, request: Request) -> Answer:
        """The driver's answer, however long that takes. SilenceError if the connection is closed."""
        if self._closed:
            raise SilenceError(GIVEN_UP)
        call: asyncio.Future[Answer] = self._loop.create_future()
        self._calls[request.id] = call
        self._connection.send(request)
        self._check()
        try:
            return await call
        finally:
            self._connection.drop(request)
            del self._calls[request.id]

    def silence(self, patience: float) -> str:
        """Why there was no answer within so many seconds."""
        return self._connection.silence(patience)

    def _look(self, frames: list[bytes]) -> None:
        # A socket without a listener now may have one later.
        try:
            self._connection.look(frames)
            lost = not self._connection.reached
        except SilenceError:
            lost = True
        self._check()
        if lost:
            self._lost()

    def _read(self, frames: list[bytes]) -> None:
        answer = self._connection.read(frames)
        call = None if answer is None else self._calls.get(answer.id)
        if answer is not None and call is not None and not call.done():
            call.set_result(answer)

    def _check(self) -> None:
        for reader in self._readers:
            reader.check()

    def close(self) -> None:
        """Close the connection; waiting calls get no answer. May be called twice."""
        if self._closed:
            return
        self._closed = True
        for call in self._calls.values():
            if not call.done():
                call.set_exception(SilenceError(GIVEN_UP))
        for reader in self._readers:
            reader.close()
        self._connection.close()
