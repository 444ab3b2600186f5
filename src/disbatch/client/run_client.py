"""Ask the driver of a run over lost connections, silence and takeovers.

Theory of operation
-------------------
A request is sent until it is answered, over any number of connections. When a connection breaks, or no answer
has come for LISTEN seconds, the connect file tells what has happened:

* it is gone: the run is over;
* it has other addresses or keys: another driver took the run over elsewhere, and is asked the same;
* it is unchanged: the driver is dead, or silent (busy, stopped, or out of reach). The user is told once, and
  the client keeps listening, as another driver may take the run over at the same address. After `patience`
  seconds it gives up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from disbatch.model.errors import DisbatchError, SilenceError, UsageError
from disbatch.rundir.driver_alive import is_dead
from disbatch.wire.client_protocol import Answer, Request, Verb
from disbatch.wire.client_socket import Caller, request_for
from disbatch.wire.connect import ConnectFile, sockets, ways
from disbatch.wire.longpoll import NOTHING_NEW
from disbatch.wire.ownfile import owner_of
from disbatch.wire.renamed_files import is_gone

if TYPE_CHECKING:
    import zmq

LISTEN = 2 * NOTHING_NEW
"""Seconds without any answer after which the driver counts as silent."""
PATIENCE = 600.0
"""Seconds for which engines wait for a driver, unless told otherwise."""
IS_OVER = "the run is over"
HEARD_AGAIN = "the driver is heard again"


class OverError(SilenceError):
    """The run is over."""


class Silence(NamedTuple):
    """No answer comes from the driver, in `words`; `dead`: it is known to be dead."""

    dead: bool
    words: str


OpenLine = Callable[[ConnectFile, Callable[[], None]], Caller]
"""Opens a connection to the driver of a connect file; the callback is called for lost connections."""


def line_opener(context: zmq.Context[zmq.Socket[bytes]]) -> OpenLine:
    """Opens connections on the running loop; also to an address at which another driver will listen."""
    loop = asyncio.get_running_loop()

    def open_line(connect: ConnectFile, lost: Callable[[], None]) -> Caller:
        try:
            addresses = ways(connect)
        except SilenceError:
            addresses = sockets(connect)
        return Caller(loop, context, connect, lost, addresses)

    return open_line


class _Call:
    """A request, the task that waits for its answer on the present line, and the answer."""

    def __init__(self, request: Request, answer: asyncio.Future[Answer]) -> None:
        self.request = request
        self.answer = answer
        self.sent: asyncio.Task[Answer] | None = None

    @property
    def is_open(self) -> bool:
        """No answer has come yet."""
        return not self.answer.done() and self.sent is not None and not self.sent.done()


class RunClient:
    """Asks the driver of the run whose files begin with `prefix`, on the running loop; to be closed.

    `notify_user` gets a line when the driver falls silent, and when it is heard again; `advice` is what the
    user can do if it is dead. `listen`: as LISTEN; `by`: who asks, as in `wire.client_protocol.Request`.
    """

    def __init__(
        self,
        open_line: OpenLine,
        connect: ConnectFile,
        prefix: str,
        *,
        notify_user: Callable[[str], None],
        advice: str = "",
        patience: float = PATIENCE,
        listen: float = LISTEN,
        by: str = "",
    ) -> None:
        self.prefix = prefix
        self.patience = patience
        self.silence: Silence | None = None
        """Set as long as the driver is silent."""
        self._loop = asyncio.get_running_loop()
        self._open_line = open_line
        self._connect = connect
        self._notify_user = notify_user
        self._advice = f"; {advice}" if advice else ""
        self._listen = listen
        self._by = by
        self._over = False
        self._closed = False
        self._calls: set[_Call] = set()
        self._timer: asyncio.Handle | None = None
        self._is_looking = False
        """The connect file will be read, because a connection was lost."""
        self._heard_at = 0.0
        """When the last answer came, or the first of the waiting calls was made."""
        self._silent_since: float | None = None
        self._line = open_line(connect, self._lost)

    @property
    def proven(self) -> str:
        """The last address at which the driver answered."""
        return self._line.proven

    def no_answer(self, patience: float) -> str:
        """Why there was no answer within so many seconds."""
        return self._line.silence(patience)

    def close(self) -> None:
        """Close the connection; waiting calls get no answer. May be called twice."""
        if not self._closed:
            self._closed = True
            self._line.close()

    async def ask(self, verb: Verb, patience: float | None = None) -> Answer:
        """The answer of the driver, as soon as there is one. OverError if the run is over. SilenceError if no
        driver is heard within our patience, or no answer came within `patience` seconds. UsageError if
        another driver has the run and cannot be reached from here."""
        if self._over:
            raise OverError(IS_OVER)
        call = _Call(request_for(verb, self._by), self._loop.create_future())
        if not self._calls:
            self._heard_at = self._loop.time()
            self._look_after(self._listen)
        self._calls.add(call)
        self._send(call)
        try:
            async with asyncio.timeout(patience):
                return await call.answer
        except TimeoutError:
            raise SilenceError(self.no_answer(patience or 0.0)) from None
        finally:
            self._calls.discard(call)
            if call.sent is not None:
                call.sent.cancel()
            if not self._calls and self._timer is not None:
                self._timer.cancel()

    def _send(self, call: _Call) -> None:
        call.sent = self._loop.create_task(self._line.call(call.request))
        call.sent.add_done_callback(lambda sent: self._answered(call, sent))

    def _answered(self, call: _Call, sent: asyncio.Task[Answer]) -> None:
        if sent.cancelled() or call.answer.done():
            return
        error = sent.exception()
        if error is not None:
            call.answer.set_exception(error)
            return
        self._heard_at, self._silent_since = self._loop.time(), None
        if self.silence is not None:
            self.silence = None
            self._notify_user(HEARD_AGAIN)
        call.answer.set_result(sent.result())

    # ---- when no answer comes ----

    def _look_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._listened)

    def _listened(self) -> None:
        left = self._heard_at + self._listen - self._loop.time()
        if left > 0 and self._silent_since is None:
            self._look_after(left)
        else:
            self._look()

    def _lost(self) -> None:
        """A connection could not be made, or broke."""
        if self._calls and not self._is_looking:
            self._mark_silent()
            self._is_looking = True
            # An answer that has arrived is taken first: it may be the driver's last one.
            self._loop.call_soon(self._loop.call_soon, self._look)

    def _mark_silent(self) -> float:
        """When the silence began."""
        if self._silent_since is None:
            self._silent_since = self._loop.time()
        return self._silent_since

    def _look(self) -> None:
        self._is_looking = False
        if self._closed or not self._calls:
            return
        self._look_after(self._listen)
        try:
            self._find_driver()
        except DisbatchError as error:
            for call in self._calls:
                if call.is_open:
                    call.answer.set_exception(type(error)(str(error)))

    def _find_driver(self) -> None:
        """Find out who drives the run now. OverError, SilenceError, UsageError: no driver can be asked."""
        connect_file = Path(f"{self.prefix}_connect.json")
        if is_gone(connect_file):
            self._over = True
            raise OverError(IS_OVER)
        former = self._connect
        with suppress(UsageError):
            self._connect = ConnectFile.read(connect_file, trusted=owner_of(f"{self.prefix}_status.txt"))
        if (self._connect.addresses, self._connect.keys) != (former.addresses, former.keys):
            self._reopen()
        now, driver = self._loop.time(), self._connect.driver
        if now - self._mark_silent() > self.patience:
            raise SilenceError(f"{driver} was not heard for {self.patience:g} s{self._advice}")
        dead = is_dead(self.prefix, self._connect)
        if self.silence is None and (dead or now - self._heard_at >= self._listen):
            self.silence = Silence(dead, f"{driver} is {'dead' if dead else 'not heard'}")
            waiting = "waiting for a driver" if dead else "waiting for it, or for one"
            self._notify_user(f"{self.silence.words}; {waiting} that takes the run over{self._advice}")

    def _reopen(self) -> None:
        """Send requests that have no answer to another driver."""
        self._line.close()
        self._line = self._open_line(self._connect, self._lost)
        for call in self._calls:
            if call.is_open and call.sent is not None:
                call.sent.cancel()
                self._send(call)
