"""Answer programs that ask how tasks ended, as soon as that is in the status file.

Theory of operation
-------------------
Results are sent as lines of the status file, and a request names the position up to which its program has
them. So nothing is kept for a program, and neither a broken connection nor a takeover loses or repeats one.

A program that has everything in the file waits, and gets the lines that it waits for when they have been
written. The latest lines are kept in memory, as the next request comes a moment later; a program that was
away for longer, because its computer slept, gets its lines from the file, a piece at a time.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import NamedTuple

from disbatch.model.idset import IdSet
from disbatch.rundir.statusfile import BYTES_A_TIME, cut, look_through
from disbatch.wire.client_protocol import Answer, Collect, Request, Results
from disbatch.wire.longpoll import NOTHING_NEW, LongPoll

BYTES_KEPT = 1 << 22
"""Bytes of the newest lines that are kept in memory."""
READING_PATIENCE = 1.0
"""Seconds for which the end of the run waits for a part of the file that is being read."""


class _Line(NamedTuple):
    """A line of the status file; `end` is the offset of the byte after it."""

    end: int
    id: int
    text: bytes


class _Waiting(NamedTuple):
    """A request without an answer yet."""

    request: Request
    wanted: IdSet


class ResultFeed:
    """`collect` answers a request, or returns None: the answer comes later, through `answer`. `status` is the
    status file, `size()` its size with all lines so far; `safely` calls back when these are in it. A request
    that has waited for `nothing_new` seconds is answered without results."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        status: int,
        *,
        answer: Callable[[Request, Answer], None],
        size: Callable[[], int],
        safely: Callable[[Callable[[], None]], None],
        nothing_new: float = NOTHING_NEW,
    ) -> None:
        self._loop = loop
        self._status = os.dup(status)
        self._answer = answer
        self._size = size
        self._safely = safely
        self.told = size()
        """The size of the part of the status file that may be sent."""
        self._fresh: list[_Line] = []
        """Lines that may be sent when they are in the status file, and not before."""
        self._recent: deque[_Line] = deque()
        self._recent_bytes = 0
        self._recent_from = self.told
        self._waiting: LongPoll[_Waiting] = LongPoll(loop, self._tell, nothing_new)
        self._readings: set[asyncio.Task[None]] = set()
        self._words: str | None = None

    # ---- new lines ----

    def ended(self, id: int, line: bytes) -> None:
        """This line of a task or barrier was added to the status file, as the last one so far."""
        if not self._fresh:
            self._loop.call_soon(self._mark)
        self._fresh.append(_Line(self._size(), id, line))

    def _mark(self) -> None:
        fresh, self._fresh = self._fresh, []
        upto = self._size()
        self._safely(lambda: self._recorded(fresh, upto))

    def _recorded(self, fresh: list[_Line], upto: int) -> None:
        self.told = upto
        self._keep(fresh)
        ids = sorted(line.id for line in fresh)
        for waiting in self._waiting.take_all(lambda each: _meet(each.wanted, ids)):
            self._tell(waiting, fresh)

    def _keep(self, fresh: list[_Line]) -> None:
        recent = self._recent
        recent.extend(fresh)
        self._recent_bytes += sum(len(line.text) for line in fresh)
        while self._recent_bytes > BYTES_KEPT:
            oldest = recent.popleft()
            self._recent_bytes -= len(oldest.text)
            self._recent_from = oldest.end

    def follow(self, status: int) -> None:
        """The status file continues in this file."""
        os.dup2(status, self._status, inheritable=False)

    # ---- requests ----

    def collect(self, request: Request, verb: Collect) -> Answer | None:
        """Answer it, or let it wait."""
        wanted, after = IdSet(verb.ranges), min(verb.after, self.told)
        if after < self._recent_from:
            reading = self._loop.create_task(self._read(request, wanted, after))
            self._readings.add(reading)
            reading.add_done_callback(self._readings.discard)
            return None
        answer = self._found(request, self._newer(after), wanted)
        if self._has_news(answer):
            return answer
        self._waiting.wait(request.id, _Waiting(request, wanted))
        return None

    def _newer(self, after: int) -> list[_Line]:
        newer = list(takewhile(lambda line: line.end > after, reversed(self._recent)))
        newer.reverse()
        return newer

    def _tell(self, waiting: _Waiting, lines: Iterable[_Line] = ()) -> None:
        self._answer(waiting.request, self._found(waiting.request, lines, waiting.wanted))

    def _has_news(self, answer: Answer) -> bool:
        return isinstance(answer.value, Results) and (bool(answer.value.lines) or answer.value.over)

    def _found(self, request: Request, lines: Iterable[_Line], wanted: IdSet) -> Answer:
        """The wanted ones of these lines, which are the last ones of the file; as many as fit."""
        found: list[bytes] = []
        size = 0
        for line in lines:
            if line.id in wanted:
                found.append(cut(line.text))
                size += len(found[-1])
                if size > BYTES_A_TIME:
                    return self._results(request, found, line.end)
        return self._results(request, found, self.told)

    def _results(self, request: Request, lines: list[bytes], upto: int) -> Answer:
        over = self._words is not None and upto == self.told
        return Answer(request.id, True, [], Results(lines, upto, over, self._words or "" if over else ""))

    # ---- lines that are not in memory ----

    async def _read(self, request: Request, wanted: IdSet, after: int) -> None:
        """Answer from the file, which a thread reads, since a disk may block its reader."""
        try:
            lines, upto = await self._loop.run_in_executor(
                None, look_through, self._status, after, self._recent_from, wanted
            )
        except OSError as error:
            self._answer(request, Answer(request.id, False, [f"the status file: {error.strerror}"]))
            return
        self._answer(request, self._results(request, lines, upto))

    # ---- the end ----

    async def close(self, words: str) -> None:
        """The run is over; how it ended, in `words`."""
        self._words = words
        for waiting in self._waiting.take_all():
            self._tell(waiting)
        if self._readings:
            await asyncio.wait(self._readings, timeout=READING_PATIENCE)

    def shut(self) -> None:
        """Answer no more."""
        for reading in self._readings:
            reading.cancel()
        os.close(self._status)


def _meet(wanted: IdSet, ids: list[int]) -> bool:
    """True if one of these ids, which are in order, is wanted."""
    for first, last in wanted:
        at = bisect_left(ids, first)
        if at < len(ids) and ids[at] <= last:
            return True
    return False
