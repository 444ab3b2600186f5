"""Asks the driver of a run to do something, and waits for its answer: `dbutil`'s end of the wire.

Theory of operation
-------------------
Each way to the driver that the connect file knows is tried at once, and the request is sent over every
connection as soon as that has proved, by its key, to end at the driver. So it is also sent again if a
connection breaks; the driver acts upon it once. Which steps were reached decides what a user is told when no
answer comes: whether anything may still be done, and where to look.
"""

from __future__ import annotations

import errno
import math
import os
import secrets
import socket
import time
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from disbatch import __version__
from disbatch.model.errors import ProtocolError, SilenceError, UsageError
from disbatch.wire.keys import ConnectFile
from disbatch.wire.messages import PROTOCOL, Pulse, Refuse
from disbatch.wire.requests import MAX_ANSWER, Answer, Request, Verb
from disbatch.wire.session import Session
from disbatch.wire.sockets import tune

PATIENCE = 10.0
"""Seconds that a driver has to answer, unless told otherwise."""
KNOCK = 1.0
"""Seconds for a local socket to take a connection, which the kernel does for whoever listens there."""
CLIENT = "@client"
"""Stands in an address for where an engine's launcher came from; nothing launched us."""

_WATCHED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_CONNECT_RETRIED
)
_answers = msgspec.msgpack.Decoder(Answer | Pulse | Refuse)


def is_here(connect: ConnectFile) -> bool:
    """True if the driver runs (or ran) on this host."""
    return connect.host == socket.gethostname()


def listens_here(connect: ConnectFile) -> bool:
    """True if somebody on this host listens at the driver's Unix socket, be it busy or stopped."""
    return any(_listens(address.removeprefix("ipc://")) for address in _sockets(connect))


def ask(connect: ConnectFile, verb: Verb, *, patience: float = PATIENCE) -> Answer:
    """What the driver answers. Raises SilenceError if it does not within `patience` seconds, UsageError if
    it cannot be asked from here."""
    if connect.protocol != PROTOCOL:
        theirs = f"the run speaks protocol {connect.protocol}"
        raise UsageError(f"{theirs}, this dbutil, {__version__}, {PROTOCOL}: use the dbutil of that version")
    addresses = _addresses(connect)
    with zmq.Context() as context:
        try:
            line = _Line(context, connect)
        except (zmq.ZMQError, ValueError) as error:
            raise UsageError(f"the connect file has keys that are none: {error}") from error
        try:
            return line.ask(addresses, verb, patience)
        finally:
            line.close()


def _sockets(connect: ConnectFile) -> list[str]:
    return [address for address in connect.addresses if address.startswith("ipc://")]


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(KNOCK)
        try:
            probe.connect(os.fsencode(path))
        except OSError as error:
            return isinstance(error, TimeoutError) or error.errno == errno.EAGAIN  # its queue is full
        return True


def _addresses(connect: ConnectFile) -> list[str]:
    """Where to try: the driver's Unix socket if it is seen from here, whatever this host is called now."""
    if listens_here(connect):
        return _sockets(connect)
    ports = [a for a in connect.addresses if a.startswith("tcp://") and CLIENT not in a]
    if ports:
        return ports
    where = f"the driver (pid {connect.pid}) on {connect.host}"
    if is_here(connect):
        raise SilenceError(f"{where} does not listen any more: was it killed?")
    raise UsageError(f"{where} can be asked on that machine alone: do it there, as with `ssh {connect.host}`")


class _Line:
    """A connection to a driver."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], connect: ConnectFile) -> None:
        self._connect = connect
        self._driver = f"the driver (pid {connect.pid}) on {connect.host}"
        self._socket = context.socket(zmq.DEALER)
        self._monitor: zmq.Socket[Any] | None = None
        try:
            tune(self._socket, MAX_ANSWER)
            self._socket.setsockopt(zmq.IMMEDIATE, 1)
            self._socket.curve_serverkey = connect.server_key.encode()
            self._socket.curve_publickey = connect.client_key.encode()
            self._socket.curve_secretkey = connect.client_secret.encode()
            self._monitor = self._socket.get_monitor_socket(_WATCHED)
        except BaseException:
            self.close()
            raise
        self._session = Session(self._transmit, _answers.decode)
        self._local = False
        self._reached = False
        self._sent = False

    def close(self) -> None:
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(0)
        self._socket.close(0)

    def ask(self, addresses: list[str], verb: Verb, patience: float) -> Answer:
        """The answer; SilenceError if there is none in time."""
        request = Request(PROTOCOL, secrets.token_hex(16), __version__, verb)
        deadline = time.monotonic() + patience
        self._local = addresses == _sockets(self._connect)
        poller = zmq.Poller()
        for readable in (self._socket, self._monitor):
            poller.register(readable, zmq.POLLIN)
        for address in addresses:
            try:
                self._socket.connect(address)
            except zmq.ZMQError as error:
                raise UsageError(f"{address}: no address: {error.strerror}") from error
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(math.ceil(left * 1000)))
            if self._monitor in ready:
                self._look(request)
            if self._socket in ready and (answer := self._read(request.id)) is not None:
                return answer
        raise SilenceError(self._silence(addresses, patience))

    def _look(self, request: Request) -> None:
        assert self._monitor is not None
        event = parse_monitor_message(self._monitor.recv_multipart())["event"]
        self._reached = event != zmq.EVENT_CONNECT_RETRIED
        if not self._reached and self._local and not listens_here(self._connect):
            raise SilenceError(f"{self._driver} ended before it {'answered' if self._sent else 'was asked'}")
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise SilenceError(f"{self._driver} does not know our key: was another run started in its place?")
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            # The monitor may be quicker than the socket, which learns of connections when it is asked.
            self._socket.getsockopt(zmq.EVENTS)
            self._session.tell(request)

    def _transmit(self, data: bytes) -> None:
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            return  # broken already; it is sent over the next connection
        self._sent = True

    def _read(self, wanted: str) -> Answer | None:
        try:
            message = self._session.peek(self._socket.recv_multipart()[-1])
        except ProtocolError:
            return None
        return message if isinstance(message, Answer) and message.id == wanted else None

    def _silence(self, addresses: list[str], patience: float) -> str:
        at = " and ".join(addresses)
        if self._sent:
            return f"{self._driver} was asked, but did not answer within {patience:g} s; it may do it yet"
        if self._reached:
            busy = f"takes connections at {at}, but said nothing within {patience:g} s"
            return f"{self._driver} {busy}: is it suspended, or busy? Nothing was done"
        return f"{self._driver} cannot be reached at {at} within {patience:g} s: does it still run?"
