"""Hands tasks in and follows them to their ends, for a program that waits, whoever the driver is by then.

Theory of operation
-------------------
The driver is asked again and again for lines of the status file behind those that are known (`Collect`). An
answer is good for the ids that were asked for, so while tasks are on their way to the driver (`Submit`), and
nobody knows their ids yet, the question takes in all ids that are yet to come, and what is told of these is
kept until it is known whose they are.

If the driver is not heard there are three cases. The connect file is gone: the run is over, and what is not
known yet stands in the status file. It is there: another driver may take the run over, and is asked the
same. Nobody does within our patience: we give up.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from disbatch.model.errors import SilenceError, UsageError
from disbatch.model.idset import IdSet, Waited
from disbatch.model.statusline import Record
from disbatch.rundir.runscript import status_file
from disbatch.rundir.statusfile import look_through, parse_told
from disbatch.wire.client_protocol import Answer, Collect, Results, Submit, Taken, Verb
from disbatch.wire.connect import ConnectFile, listens_here
from disbatch.wire.ownfile import open_own, owner_of
from disbatch.wire.renamed_files import is_gone

LISTEN = 20.0
"""Seconds without any answer, after which the driver may be dead: it answers every 10."""
SAY_AFTER = 15.0
"""Seconds of silence that are worth a word, unless the driver is known to be dead."""
PATIENCE = 600.0
"""Seconds for which engines wait for a driver, unless told otherwise."""
MOST_RANGES = 1000


class Told(NamedTuple):
    """Tasks that have ended: their lines, and what these say. `over`: the run is, and nothing will be told of
    the others; how it ended, in `words`, if that is known."""

    ended: list[tuple[bytes, Record]]
    over: bool
    words: str


class OverError(SilenceError):
    """The run is over."""


class Line(Protocol):
    """What `wire.client_socket.Caller` offers."""

    async def call(self, verb: Verb, patience: float | None) -> Answer:
        """What the driver answers, however often it has to be asked."""

    def silence(self, patience: float) -> str:
        """Why there was no answer within so many seconds."""

    def close(self) -> None:
        """Ask no more."""


class Follower:
    """Follows the run whose files begin with `prefix`, on the running loop; to be closed. `open_line` makes a
    line to the driver, which calls back when it is lost. `say` gets a line for the user when the driver is
    not heard, which is borne for `patience` seconds; `advice` is what to do if it is dead."""

    def __init__(
        self,
        open_line: Callable[[Callable[[], None]], Line],
        connect: ConnectFile,
        prefix: str,
        *,
        say: Callable[[str], None],
        advice: str,
        patience: float = PATIENCE,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect_file = Path(f"{prefix}_connect.json")
        self._prefix = prefix
        self._owner = owner_of(self._connect_file)
        self._connect = connect
        self._local = listens_here(connect)
        self._driver = f"the driver (pid {connect.pid} on {connect.host})"
        self._say = say
        self._advice = advice
        self._patience = patience
        self._over = False
        self._closed = False
        self._silent_since: float | None = None
        self._told_of_silence = False
        self._calls: set[asyncio.Event] = set()
        self._at = 0
        """Bytes of the status file that are known."""
        self._submitting = asyncio.Lock()
        self._question: asyncio.Task[Results] | None = None
        self._open = False
        """The question takes in ids that are yet to come; or the next one shall."""
        self._early: dict[int, tuple[bytes, Record]] = {}
        """What was told of ids that may be ours."""
        self._ours: list[tuple[bytes, Record]] = []
        """What of that turned out to be."""
        self._taken = asyncio.Event()
        self.waited = Waited()
        self._line = open_line(self._lost)

    @property
    def pending(self) -> int:
        """How many of the tasks that were taken it has not told the end of."""
        return self.waited.left + len(self._ours)

    def close(self) -> None:
        """Follow no more. May be called twice."""
        if not self._closed:
            self._closed = True
            self._line.close()

    # ---- asking ----

    async def ask(self, verb: Verb) -> Answer:
        """What the driver answers, as soon as there is one. OverError if the run is over, SilenceError if no
        driver is heard within our patience."""
        if self._over:
            raise OverError("the run is over")
        stirred = asyncio.Event()
        call = self._loop.create_task(self._line.call(verb, None))
        call.add_done_callback(lambda _: stirred.set())
        self._calls.add(stirred)
        try:
            while True:
                with suppress(TimeoutError):  # wait_for would take a cancellation for an end, now and then
                    async with asyncio.timeout(LISTEN):
                        await stirred.wait()
                stirred.clear()
                if call.done():
                    self._heard()
                    return call.result()
                self._not_heard()
        finally:
            call.cancel()
            self._calls.discard(stirred)

    def _lost(self) -> None:
        for stirred in self._calls:
            stirred.set()

    def _heard(self) -> None:
        if self._told_of_silence:
            self._say("the driver is heard again")
        self._silent_since, self._told_of_silence = None, False

    def _not_heard(self) -> None:
        if is_gone(self._connect_file):
            self._over = True
            raise OverError("the run is over")
        now = self._loop.time()
        if self._silent_since is None:
            self._silent_since = now
        silent = now - self._silent_since
        if silent > self._patience:
            raise SilenceError(f"{self._driver} was not heard for {self._patience:g} s; {self._advice}")
        dead = self._local and not listens_here(self._connect)
        if (dead or silent > SAY_AFTER) and not self._told_of_silence:
            self._told_of_silence = True
            self._say(f"{self._driver} is not heard; waiting for it, or for another one; {self._advice}")

    def silence(self, patience: float) -> str:
        """Why there was no answer within so many seconds."""
        return self._line.silence(patience)

    # ---- tasks go in ----

    async def submit(self, verb: Submit) -> Taken:
        """Hand these in after those before, and wait for their ends. UsageError if the driver does not take
        them, SilenceError as `ask`."""
        async with self._submitting:
            if self._question is not None and not self._open:
                self._question.cancel()
            self._open = True
            try:
                answer = await self.ask(verb)
                if not answer.ok or not isinstance(answer.value, Taken):
                    raise UsageError(" ".join(answer.lines))
                self._add(answer.value)
                return answer.value
            finally:
                self._early.clear()

    def _add(self, taken: Taken) -> None:
        if not self.waited.left and self._question is None:
            self._at = max(self._at, taken.at)
        self.waited.add(taken.first, taken.first + taken.ids - 1)
        self._ours += [self._early.pop(id) for id in list(self._early) if self.waited.end(id)]
        if self._ours and self._question is not None:
            self._question.cancel()
        self._taken.set()

    # ---- and come out ----

    async def collect(self) -> Told:
        """The next tasks that ended of those that were handed in. SilenceError as `ask`, UsageError if the
        driver cannot tell."""
        while not self.waited.left and not self._ours:
            self._taken.clear()
            await self._taken.wait()
        if self._ours:
            ours, self._ours = self._ours, []
            return Told(ours, False, "")
        try:
            results = await self._next_results()
        except OverError:
            results = self._rest()
        if results is None:
            return Told([], False, "")
        self._at = results.upto
        records = [(line, parse_told(line)) for line in results.lines]
        ended = [pair for line, record in records if (pair := self._end(line, record)) is not None]
        return Told(ended, results.over, results.words)

    def _end(self, line: bytes, record: Record | None) -> tuple[bytes, Record] | None:
        if record is None:
            return None
        if self.waited.end(record.id):
            return line, record
        if self._submitting.locked() and record.id >= self.waited.next:
            self._early[record.id] = (line, record)
        return None

    async def _next_results(self) -> Results | None:
        """None if the question was taken back."""
        self._open = self._submitting.locked()
        question = self._loop.create_task(self._collect())
        self._question = question
        try:
            await asyncio.wait([question])
            return None if question.cancelled() else question.result()
        finally:
            question.cancel()
            self._question = None

    async def _collect(self) -> Results:
        answer = await self.ask(Collect(self._ranges(), self._at))
        if not isinstance(answer.value, Results):
            raise UsageError(" ".join(answer.lines))
        return answer.value

    def _ranges(self) -> list[tuple[int, int]]:
        return self.waited.ranges(MOST_RANGES, and_later=self._open)

    def _rest(self) -> Results:
        """What stands in the file of a run that is over."""
        path = status_file(self._prefix)
        try:
            status = open_own(path, os.O_RDONLY, trusted=self._owner)
            try:
                size = os.fstat(status).st_size
                lines, upto = look_through(status, self._at, size, IdSet(self._ranges()))
            finally:
                os.close(status)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        return Results(lines, upto, upto >= size)
