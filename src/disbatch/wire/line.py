"""A connection of somebody who asks the driver of a run: requests out, answers in, over any number of
connections.

Theory of operation
-------------------
Each way to the driver that the connect file knows is tried at once, and what is not answered yet is sent over
every connection as soon as that has proved, by its key, to end at the driver. So it is also sent again if a
connection breaks; the driver acts upon it once. Which steps were reached decides what a user is told when no
answer comes: whether anything may still be done, and where to look.

A line has no loop of its own: `monitor` and `socket` are to be polled, and `look` and `read` called.
"""

from __future__ import annotations

from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from disbatch.model.errors import ProtocolError, SilenceError, UsageError
from disbatch.wire.keys import ConnectFile
from disbatch.wire.messages import Pulse, Refuse
from disbatch.wire.reach import listens_here
from disbatch.wire.requests import MAX_ANSWER, Answer, Request
from disbatch.wire.session import Session
from disbatch.wire.sockets import tune

_WATCHED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
)
_answers = msgspec.msgpack.Decoder(Answer | Pulse | Refuse)


class Line:
    """A line to the driver of `connect`, to be closed; `is_starting`: it may not listen yet. UsageError if
    that file's keys are none."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], connect: ConnectFile, *, is_starting: bool = False
    ) -> None:
        self._connect = connect
        self._is_starting = is_starting
        self._driver = f"the driver (pid {connect.pid}) on {connect.host}"
        self._pending: dict[str, Request] = {}
        self._addresses: list[str] = []
        self._taken: set[str] = set()
        """Addresses at which a connection was taken, and is there."""
        self._good: set[str] = set()
        """Those of them that have proved to lead to the driver."""
        self._sent = False
        self.proven = ""
        """The address that was seen last to lead to the driver."""
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
        """Try these. UsageError for one that is none."""
        self._addresses += addresses
        if len(self._addresses) > 1:
            # Send nothing to where nobody is. Not with one address: when the connection breaks, libzmq then
            # throws away what has come and was not read yet, such as the last answer of a driver that ends.
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
        """Nobody waits for the answer any more."""
        self._pending.pop(request.id, None)

    @property
    def reached(self) -> bool:
        """There is a connection, as far as can be seen."""
        return bool(self._taken)

    def look(self, frames: list[bytes]) -> None:
        """Something happened to a connection: a message of `monitor`. SilenceError if the driver is not
        there, as far as can be seen."""
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
            # The monitor may be quicker than the socket, which learns of connections when it is asked.
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
        """The answer in a message of `socket`, if it is one that somebody waits for."""
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
