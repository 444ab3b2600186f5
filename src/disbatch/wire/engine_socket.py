"""An engine's end of the connection: a DEALER socket on the event loop, with a session above it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from disbatch.model.errors import ProtocolError
from disbatch.wire.engine_protocol import MAX_TO_ENGINE, FromEngine, Hello, Pulse, ToEngine, Welcome
from disbatch.wire.session import Session
from disbatch.wire.sockets import SocketReader, tune

_to_engine = msgspec.msgpack.Decoder(ToEngine)


class Keys(Protocol):
    """The part of a run's keys that a client needs; a Bootstrap has them, and so has a ConnectFile."""

    @property
    def server_key(self) -> str: ...
    @property
    def client_key(self) -> str: ...
    @property
    def client_secret(self) -> str: ...


class EngineLink:
    """Keeps an engine and its driver connected, over any number of broken connections.

    `hello(orders_seen, results_from)` makes the Hello, which is sent at each (re)connection; `receive` gets
    every message of the driver exactly once; `acknowledged` is called whenever the driver acknowledged
    something. `heard` is the loop's time at which the driver was last heard, None before.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: Keys,
        *,
        hello: Callable[[int, int], Hello],
        receive: Callable[[ToEngine], None],
        acknowledged: Callable[[], None],
        bad: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._hello = hello
        self._receive = receive
        self._acknowledged = acknowledged
        self._bad = bad
        self.heard: float | None = None
        self._greeted = False
        """Nothing was sent since the last Hello."""
        self._socket = context.socket(zmq.DEALER)
        tune(self._socket, MAX_TO_ENGINE)
        # Without a connection nothing is queued: the session resends what matters after the next Hello.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.curve_serverkey = keys.server_key.encode()
        self._socket.curve_publickey = keys.client_key.encode()
        self._socket.curve_secretkey = keys.client_secret.encode()
        self.session: Session[ToEngine] = Session(self._transmit, _to_engine.decode)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._reader = SocketReader(loop, self._socket, self._frames)
        self._events = SocketReader(loop, self._monitor, self._event)

    def connect(self, address: str) -> None:
        """Connect, and reconnect until `close`."""
        self._socket.connect(address)

    def _event(self, frames: list[bytes]) -> None:
        if parse_monitor_message(frames)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            # The monitor may be faster than the socket, which looks for new connections at most once a
            # millisecond when it sends, but always when its state is queried; without that query, Hello would
            # find no connection.
            self._socket.getsockopt(zmq.EVENTS)
            self._greet()

    def _greet(self) -> None:
        self._greeted = True
        self.session.tell(self._hello(self.session.seen, self.session.next_number))

    def _transmit(self, data: bytes) -> None:
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            return
        self._reader.check()

    def _frames(self, frames: list[bytes]) -> None:
        before = self.session.unacknowledged
        try:
            received = self.session.receive(frames[-1])
        except ProtocolError as error:
            self._bad(str(error))
            return
        self.heard = self._loop.time()
        if self.session.unacknowledged < before:
            self._acknowledged()
        if received is not None:
            number, message = received
            if isinstance(message, Welcome):
                self.session.skip_to(message.next_order)
                self.session.resend(message.results_seen)
            elif number:
                self.session.acknowledge(number)
            elif isinstance(message, Pulse) and not message.known and not self._greeted:
                # Every message that was sent over an interrupted link gets this answer.
                self._greet()
            self._receive(message)

    def post(self, message: FromEngine) -> None:
        """Send a message that must arrive."""
        self._greeted = False
        self.session.post(message)

    def tell(self, message: FromEngine) -> None:
        """Send a message that matters only now."""
        self._greeted = False
        self.session.tell(message)

    def close(self, linger: float = 0.0) -> None:
        """Close the sockets; waits at most `linger` seconds until the last messages are sent."""
        self._reader.close()
        self._events.close()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger * 1000))
