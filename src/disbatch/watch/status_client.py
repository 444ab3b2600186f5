"""Follow the state of a run over takeovers, to its end and beyond.

The driver is asked repeatedly for the state of the run, with the number of the last known view; it answers
when the state has changed. When the run is over, or the driver is dead before its first answer, the status
file tells the rest.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque

import msgspec

from disbatch.client.run_client import OpenLine, OverError, RunClient
from disbatch.driver.status_collector import Course
from disbatch.model.errors import SilenceError, UsageError
from disbatch.model.view import CoursePoint, FailureRow, LogRow, RunView
from disbatch.watch.run_state import DEAD, DRIVER, OVER, SILENT, Standing, of_driver, of_file
from disbatch.wire.client_protocol import Answer, Seen, Verb, Wants, Watch
from disbatch.wire.connect import ConnectFile


class StatusClient:
    """Follows the run whose files begin with `prefix`, on the running loop; to be closed. `connect`: its
    connect file; None: the run is over. `wants`: how much of its state is wanted. `resume`: the command that
    continues the run if its driver is dead."""

    def __init__(
        self,
        open_line: OpenLine,
        prefix: str,
        connect: ConnectFile | None,
        wants: Wants,
        *,
        resume: str = "",
    ) -> None:
        self._open_line = open_line
        self._prefix = prefix
        self._connect = connect
        self._wants = wants
        self._resume = resume
        self._client: RunClient | None = None
        self._question: asyncio.Task[Answer] | None = None
        self._changed = asyncio.Event()
        self._memory = _Memory(wants)
        self._silent = False
        """The silence of the driver was reported."""

    def close(self) -> None:
        """Stop following the run."""
        if self._question is not None:
            self._question.cancel()
        if self._client is not None:
            self._client.close()

    async def ask(self, verb: Verb, patience: float) -> list[str]:
        """Have the driver carry out a request; lines that say what it did. UsageError if it refuses,
        SilenceError if it does not answer."""
        if self._client is None:
            raise SilenceError("the driver cannot be asked now")
        answer = await self._client.ask(verb, patience)
        if not answer.ok:
            raise UsageError(" ".join(answer.lines))
        return answer.lines

    async def next(self) -> Standing:
        """The state of the run, as soon as it has changed; the last one is `over`. UsageError if the driver
        does not know the request. May be cancelled."""
        while self._connect is not None:
            client = self._client = self._client or self._open(self._connect)
            if self._question is None:
                watch = Watch(self._memory.wants(), self._memory.number, self._memory.driver)
                self._question = asyncio.create_task(client.ask(watch))
                self._question.add_done_callback(lambda _: self._changed.set())
            await self._changed.wait()
            self._changed.clear()
            if self._question.done():
                question, self._question = self._question, None
                try:
                    return self._heard(question.result())
                except OverError:
                    self._connect = None
            elif client.silence is not None and not self._silent:
                self._silent = True
                advice = f"; {self._resume}" if client.silence.dead and self._resume else ""
                state = DEAD if client.silence.dead else SILENT
                return await self._standing(state, f"{client.silence.words}{advice}")
        return await self._standing(OVER, self._memory.notice)

    def _open(self, connect: ConnectFile) -> RunClient:
        return RunClient(
            *(self._open_line, connect, self._prefix),
            notify_user=lambda _: self._changed.set(),
            patience=math.inf,
        )

    def _heard(self, answer: Answer) -> Standing:
        self._silent = False
        if not answer.ok or not isinstance(answer.value, Seen):
            raise UsageError(" ".join(answer.lines))
        view = self._memory.add(answer.value.view)
        if answer.value.over:
            self._connect = None
        return of_driver(self._prefix, view)

    async def _standing(self, state: str, words: str) -> Standing:
        """The last view, or the status file. A thread reads the file, which may be long."""
        view = self._memory.view
        if view is None or state == OVER:
            return await asyncio.to_thread(of_file, self._prefix, state, words, self._wants.failures)
        return Standing(self._prefix, state, words, DRIVER, view)


class _Memory:
    """The view so far. Each answer holds only the new rows of failures, log and course."""

    def __init__(self, wants: Wants) -> None:
        self._wants = wants
        self._failures: deque[FailureRow] = deque(maxlen=wants.failures)
        self._log: deque[LogRow] = deque(maxlen=wants.log)
        self._log_known = 0
        self._course = Course()
        self._began: float | None = None
        """When the first driver that answered began."""
        self.view: RunView | None = None

    @property
    def number(self) -> int:
        """The number of the last view; 0: there was none."""
        return 0 if self.view is None else self.view.number

    @property
    def driver(self) -> int:
        """The driver of the last view."""
        return 0 if self.view is None else self.view.driver

    @property
    def notice(self) -> str:
        """The notice of the last view, if that told the end of the run."""
        return self.view.notice if self.view is not None and self.view.mode == OVER else ""

    def wants(self) -> Wants:
        """What the next request asks for."""
        return msgspec.structs.replace(
            self._wants,
            failures_known=self._failures[-1].number if self._failures else 0,
            log_known=self._log_known,
            course=self._wants.course and self.view is None,
        )

    def add(self, view: RunView) -> RunView:
        """Add an answer; the complete view."""
        if self.view is not None and view.driver != self.view.driver:
            self._failures.clear()  # the new driver has read them from the status file, and sends them all
        self._failures.extend(view.failures)
        self._log.extend(view.log)
        if view.log:
            self._log_known = view.log[-1].number
        elif self.view is None or view.driver != self.view.driver:
            self._log_known = 0
        self._add_points(view)
        lists = {"failures": list(self._failures), "log": list(self._log), "course": self._course.points}
        self.view = msgspec.structs.replace(view, **lists)
        return self.view

    def _add_points(self, view: RunView) -> None:
        """Seconds count from when the first driver began."""
        if self._began is None:
            self._began = view.started
        later = max(0.0, view.started - self._began)
        now = CoursePoint(view.seconds, view.done, view.failed, view.running, view.slots)
        for point in (*view.course, now):
            self._course.add(msgspec.structs.replace(point, seconds=point.seconds + later))
