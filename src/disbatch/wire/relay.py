"""The relay between the run's TCP port and the driver's Unix socket, as a process of its own: it keeps
clients out that do not know the run.

Theory of operation
-------------------
libzmq accepts every connection, and aborts the process when it has no descriptor left for one. So the relay,
not the driver, listens on the TCP port. A connection costs the driver a descriptor only after its first CURVE
message has arrived, and the driver refuses that message at once if its sender does not know the run's public
key. A connection that sends less waits in the relay, for HANDSHAKE_TIMEOUT at most.

A client sends that message only after a greeting. So the relay sends the greeting of ZMTP 3.1 with CURVE,
which is the same for every server (rfc.zeromq.org/spec/37), and drops the driver's own. From then on it only
copies bytes: keys, messages and limits are a matter of the two ends.

At most `most_strangers` connections are unauthenticated. At that limit no other is accepted until one of them
is authenticated or closed, and those older than PRESSED are closed. Authenticated connections are never
closed for this. A connection counts as authenticated once the driver has sent more over it than its greeting
and its WELCOME; at most MOST_HANDSHAKES others are connected to the driver at a time.

Standard input is one line, `Told`, and ends when the driver does: then the port is closed at once, and each
connection when all its data has been sent. `marker` is a Unix socket that exists as long as the relay has the
port, so that the driver's successor can wait for the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

import msgspec

from disbatch.wire.descriptors import limit, raise_limit

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
_HELLO = b"\x04\xc8\x05HELLO"
OPENING = len(GREETING) + 202
"""Bytes that a client sends before it has received more than a greeting: its own greeting, and HELLO."""
_BEFORE_READY = len(GREETING) + 170
"""Bytes that the driver sends to a client before it knows the client's key: its greeting, and WELCOME."""
HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a client has until its HELLO."""
MOST_STRANGERS = 4096
MOST_HANDSHAKES = 64
PRESSED = 1.0
"""The same, while others wait to be accepted."""
LAST_WORDS = 2.0
"""Seconds that the driver's last messages have to be sent."""
STUCK = 30.0
"""Seconds that a closed connection has to accept what is still to be sent."""
BATCH = 32
"""Connections accepted before the loop handles other work."""
_OWN_DESCRIPTORS = 24
CROWDED = "crowded"
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class RelayOrders(msgspec.Struct, frozen=True):
    """The orders of the process: listen at `descriptor`, and connect clients to the Unix socket `to`."""

    descriptor: int
    to: str
    marker: str


def is_plausible(said: bytes) -> bool:
    """False if a client of ours would not begin like this."""
    fits = said[:1] == GREETING[:1] and (len(said) < 11 or said[10] >= GREETING[10])
    mechanism = said[12:32]
    return fits and GREETING[12:32].startswith(mechanism) and _HELLO.startswith(said[64:72])


class _End(asyncio.Protocol):
    """One end of a relayed connection; `other` is the opposite one."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._connection.passed(self, data)
        if data and self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._connection.ended()


class _Connection:
    """A client and its connection to the driver. `authenticated` and `over` are called at most once each,
    `over` always."""

    def __init__(self, authenticated: Callable[[], None], over: Callable[[_Connection], None]) -> None:
        self._authenticated: Callable[[], None] | None = authenticated
        self._over: Callable[[_Connection], None] | None = over
        self.client = _End(self)
        self._driver = _End(self)
        self._heard = 0

    async def open(self, taken: socket.socket, opening: bytes, to: str) -> None:
        """Relay what the client sends, after its `opening`."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(lambda: self._driver, to)
            self._driver.other = self.client
            await loop.connect_accepted_socket(lambda: self.client, taken)
            self.client.other = self._driver
            if self._driver.transport is not None:
                self._driver.transport.write(opening)
        except OSError:
            taken.close()
        if self.client.transport is None or self._driver.transport is None:
            self.ended()

    def passed(self, end: _End, data: bytes) -> bytes:
        """The part of `data`, received from this end, that is sent to the other one."""
        if self._authenticated is None or end is self.client:
            return data
        known, self._heard = self._heard, self._heard + len(data)
        if self._heard > _BEFORE_READY:
            authenticated, self._authenticated = self._authenticated, None
            authenticated()
        return data[max(0, len(GREETING) - known) :]

    @property
    def is_authenticated(self) -> bool:
        """True if the client has the run's key."""
        return self._authenticated is None

    def ended(self) -> None:
        """One end is gone: the other one gets what was sent, and is closed."""
        if self._over is not None:
            over, self._over = self._over, None
            over(self)
        for end in (self.client, self._driver):
            if end.transport is not None and not end.transport.is_closing():
                end.transport.close()
                asyncio.get_running_loop().call_later(STUCK, end.transport.abort)


class Relay:
    """Accepts at `listening` and connects to the Unix socket `to`. `crowded` is called when no other
    connection is accepted for a while."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        to: str,
        *,
        most_strangers: int,
        most_connections: int,
        crowded: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._listening = listening
        self._to = to
        self._most_strangers = most_strangers
        self._most_connections = most_connections
        self._crowded = crowded
        self._silent: dict[socket.socket, tuple[float, bytearray]] = {}
        """Connections whose opening is not complete, oldest first."""
        self._waiting: deque[tuple[socket.socket, bytes]] = deque()
        """Connections whose opening is complete, and which wait for their turn."""
        self._connections: set[_Connection] = set()
        self._handshakes = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._accepting = False
        self._closed = False
        self._idle = asyncio.Event()
        listening.setblocking(False)
        self._look()

    # ---- unauthenticated connections ----

    @property
    def _is_full(self) -> bool:
        return len(self._silent) + len(self._waiting) + self._handshakes >= self._most_strangers

    def _look(self) -> None:
        """Accept if there is room, otherwise stop accepting."""
        accepting = not self._closed and not self._is_full
        if accepting and not self._accepting:
            self._loop.add_reader(self._listening, self._accept)
        elif self._accepting and not accepting:
            self._loop.remove_reader(self._listening)
            if not self._closed:
                self._crowded()
        self._accepting = accepting
        self._time()

    def _accept(self) -> None:
        for _ in range(BATCH):
            if self._is_full:
                break
            try:
                taken, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self._rest()
                    return
                break  # the connection is gone already
            self._take(taken)
        self._look()

    def _rest(self) -> None:
        """The system is short of a resource, and would report that again at once: pause."""
        self._loop.remove_reader(self._listening)
        self._loop.call_later(PRESSED, self._look)
        self._accepting = False

    def _take(self, taken: socket.socket) -> None:
        taken.setblocking(False)
        try:
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            taken.send(GREETING)
        except OSError:
            taken.close()
            return
        self._silent[taken] = self._loop.time(), bytearray()
        self._loop.add_reader(taken, self._hear, taken)

    def _hear(self, taken: socket.socket) -> None:
        _, said = self._silent[taken]
        try:
            data = taken.recv(OPENING - len(said))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        said += data
        if not data or not is_plausible(bytes(said)):
            self._drop(taken)
        elif len(said) == OPENING:
            del self._silent[taken]
            self._loop.remove_reader(taken)
            self._waiting.append((taken, bytes(said)))
            self._pass_on()
        self._look()

    def _drop(self, taken: socket.socket) -> None:
        del self._silent[taken]
        self._loop.remove_reader(taken)
        taken.close()

    def _time(self) -> None:
        """Set the timer to the deadline of the oldest connection without an opening."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._silent and not self._closed:
            self._timer = self._loop.call_at(self._deadline(), self._too_late)

    def _deadline(self) -> float:
        since, _ = next(iter(self._silent.values()))
        return since + (PRESSED if self._is_full else HANDSHAKE_TIMEOUT)

    def _too_late(self) -> None:
        self._timer = None
        full, now = self._is_full, self._loop.time()
        patience = PRESSED if full else HANDSHAKE_TIMEOUT
        for taken, (since, _) in list(self._silent.items()):
            if since + patience > now:
                break
            self._drop(taken)
        self._look()

    # ---- connections to the driver ----

    def _pass_on(self) -> None:
        while self._waiting and not self._closed:
            if self._handshakes >= MOST_HANDSHAKES or len(self._connections) >= self._most_connections:
                return
            taken, opening = self._waiting.popleft()
            self._handshakes += 1
            connection = _Connection(self._authenticated, self._over)
            self._connections.add(connection)
            task = self._loop.create_task(connection.open(taken, opening, self._to))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _authenticated(self) -> None:
        self._handshakes -= 1
        self._pass_on()
        self._look()

    def _over(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not connection.is_authenticated:
            self._handshakes -= 1
        if not self._connections:
            self._idle.set()
        self._pass_on()
        self._look()

    # ---- the end ----

    async def close(self, patience: float) -> None:
        """Close the port; connections have so many seconds to receive what was sent to them."""
        self._closed = True
        self._look()
        self._listening.close()
        for taken in list(self._silent):
            self._drop(taken)
        for taken, _ in self._waiting:
            taken.close()
        self._idle.clear()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), patience)


def _most_strangers() -> int:
    return min(MOST_STRANGERS, max(8, limit() // 4))


def most_connections() -> int:
    """How many connections, at two descriptors each, a relay with our limit can serve."""
    return max(4, (limit() - _most_strangers() - _OWN_DESCRIPTORS) // 2)


async def _serve(told: RelayOrders) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(0, over.set)
    strangers = _most_strangers()
    told_of: list[int] = []

    def crowded() -> None:
        """Tell the driver, once."""
        if not told_of:
            told_of.append(strangers)
            with contextlib.suppress(OSError):
                os.write(1, f"{CROWDED} {strangers}\n".encode())

    with socket.socket(socket.AF_UNIX) as marker, socket.socket(fileno=told.descriptor) as listening:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(told.marker)  # noqa: PTH108 - pathlib costs 5 ms here
        marker.bind(told.marker)
        marker.listen()
        relay = Relay(
            *(loop, listening, told.to),
            most_strangers=strangers,
            most_connections=most_connections(),
            crowded=crowded,
        )
        await over.wait()
        loop.remove_reader(0)
        closing = loop.create_task(relay.close(LAST_WORDS))
        await asyncio.sleep(0)  # the port is closed
        marker.close()
        await closing


def main() -> int:
    """Relay until the driver ends."""
    raise_limit()
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        line = stdin.readline()
    asyncio.run(_serve(msgspec.json.decode(line, type=RelayOrders)))
    return 0
