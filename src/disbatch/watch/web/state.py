"""The state of a run for the page: follow its driver, keep what the page shows, and send each browser what is
new to it.

Each change has a version. A browser gets everything with a later version than the last one that it received,
however much it missed; so a slow browser costs nothing, and blocks no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

import msgspec

from disbatch.client.run_client import OverError
from disbatch.model.errors import DisbatchError, SilenceError
from disbatch.model.failure import MOST_KINDS
from disbatch.model.text import printable
from disbatch.model.view import CoursePoint, EngineRow, FailureRow, LogRow, RunningRow, RunView
from disbatch.watch.status_text import kind_cells
from disbatch.wire.client_protocol import MOST_ENGINES, Answer, Seen, Verb, Wants, Watch

MOST_KEPT = 1000
"""Failed tasks, and messages of the log."""
MOST_POINTS = 1200
"""Points of the curves; if there are more, every second one of the older half is dropped."""

_Kept = TypeVar("_Kept", FailureRow, LogRow)

_FACTS = (
    *("jobid", "name", "mode", "notice", "paused", "total", "done", "failed", "skipped", "skipped_failed"),
    *("cancelled", "not_run", "running", "waiting", "lost", "retried", "slots", "rate", "remaining"),
    *("engines_count", "seconds"),
)


class Picture:
    """The state that the page shows. `news(version)` is what is new to a browser that has this version.
    `changed` is set when something is new, and is replaced by another event each time."""

    def __init__(self) -> None:
        self.version = 0
        self.view: RunView | None = None
        self.changed = asyncio.Event()
        self.silence = ""
        """Why the driver is not heard; empty: it is."""
        self.over = False
        self.engines: dict[str, EngineRow] = {}
        self._since: dict[str, int] = {}
        """The version of each engine's row."""
        self.failures: deque[tuple[int, FailureRow]] = deque(maxlen=MOST_KEPT)
        self.log: deque[tuple[int, LogRow]] = deque(maxlen=MOST_KEPT)
        self._failures_before = self._log_before = 0
        """The numbers that former drivers of the run had used."""
        self.course: list[tuple[int, float, CoursePoint]] = []
        """With the version and the time (since the epoch) of each."""
        self.running: list[RunningRow] = []

    # ---- what comes in ----

    def take(self, view: RunView, *, over: bool) -> None:
        """A new view of the run."""
        before = self.view
        again = before is not None and before.driver != view.driver
        self.version += 1
        if again:
            self._failures_before = self.failures[-1][1].number if self.failures else 0
            self._log_before = self.log[-1][1].number if self.log else 0
            for engine in self.engines.keys() - {row.engine for row in view.engines}:
                del self.engines[engine], self._since[engine]
        self.view, self.over, self.silence = view, over, ""
        self.running = view.running_tasks
        for row in map(_rounded, view.engines):
            if self.engines.get(row.engine) != row:
                self.engines[row.engine] = row
                self._since[row.engine] = self.version
        self._keep(self.failures, view.failures, self._failures_before)
        self._keep(self.log, view.log, self._log_before)
        now = CoursePoint(view.seconds, view.done, view.failed, view.running, view.slots)
        self._add_points([*view.course, now], view.started)
        self._announce()

    def fall_silent(self, words: str) -> None:
        """The driver does not answer, for the reason in `words`."""
        self.version += 1
        self.silence = words
        self._announce()

    def end(self, words: str) -> None:
        """The run is over, and its last view is not known."""
        self.over = True
        if self.view is not None:
            self.view = msgspec.structs.replace(self.view, mode="over", notice=words, remaining=None)
        self.fall_silent("")

    def _announce(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _keep(self, kept: deque[tuple[int, _Kept]], rows: Iterable[_Kept], before: int) -> None:
        known = kept[-1][1].number if kept else 0
        for row in rows:
            if row.number + before > known:
                kept.append((self.version, msgspec.structs.replace(row, number=row.number + before)))

    def _add_points(self, points: Iterable[CoursePoint], started: float) -> None:
        last = self.course[-1][1] if self.course else 0.0
        for point in points:
            if started + point.seconds > last:
                last = started + point.seconds
                self.course.append((self.version, last, point))
        if len(self.course) > MOST_POINTS:
            half = len(self.course) // 2
            self.course[:half] = self.course[:half:2]

    # ---- what goes out ----

    def news(self, known: int) -> dict[str, Any]:
        """For a browser that has this version (0: nothing): all facts, running tasks and kinds of failures;
        of engines, failures, log and curves only what is new."""
        view = self.view
        told: dict[str, Any] = {"version": self.version, "over": self.over}
        told["silence"] = printable(self.silence)
        if view is None:
            return told
        rows = [row for row in self.engines.values() if self._since[row.engine] > known]
        return told | {
            "run": {name: _seen(getattr(view, name)) for name in _FACTS}
            | {"barrier": None if view.barrier is None else view.barrier.line, "time": view.time},
            "all": known == 0,
            "engines": [_shown(row) for row in rows],
            "running": [_shown(row) for row in self.running],
            "kinds": [kind_cells(kind) for kind in view.failure_kinds],
            "kinds_count": view.failure_kinds_count,
            "failures": [_shown(row) for since, row in self.failures if since > known],
            "log": [_shown(row) for since, row in self.log if since > known],
            "course": [
                (time, point.done, point.running, point.slots)
                for since, time, point in self.course
                if since > known
            ],
        }


def _shown(row: msgspec.Struct) -> tuple[object, ...]:
    """The row for a browser, without control characters, which could change the text around them."""
    return tuple(map(_seen, msgspec.structs.astuple(row)))


def _seen(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


def _rounded(row: EngineRow) -> EngineRow:
    """As it is shown, so that a row is new only if that can be seen."""
    return msgspec.structs.replace(
        row,
        rate=None if row.rate is None else float(f"{row.rate:.3g}"),
        heard=None if row.heard is None or row.heard < 5 else float(round(row.heard)),
        load=None if row.load is None else round(row.load, 1),
        memory_used=None if row.memory_used is None else row.memory_used >> 27 << 27,
    )


RUNNING = 100
"""Running tasks that the page shows."""
PATIENCE = 10.0
"""Seconds that the driver has to carry out an order."""
Order = Callable[[Verb], Awaitable[tuple[bool, list[str]]]]
"""Has a verb carried out; returns whether that succeeded, and the lines of the answer."""


class Driver(Protocol):
    """What `client.run_client.RunClient` offers."""

    async def ask(self, verb: Verb) -> Answer:
        """What the driver of the run answers, whoever that is by then. OverError if the run is over,
        SilenceError if none is heard for long."""


class Watcher:
    """Keeps `picture` up to date with the run of `driver`."""

    def __init__(self, driver: Driver, picture: Picture) -> None:
        self._driver = driver
        self._picture = picture
        self._known = (0, 0)
        """The highest known numbers of failures and of messages of the log."""

    async def watch(self) -> None:
        """Follow the run until it is over or no driver answers."""
        picture = self._picture
        try:
            while not picture.over:
                answer = await self._driver.ask(self._request())
                if not isinstance(answer.value, Seen):
                    picture.end(" ".join(answer.lines) or "the driver is of another version")
                    return
                self._take(answer.value.view, over=answer.value.over)
        except OverError:
            picture.end("the run is over")
        except SilenceError as error:
            picture.end(str(error))

    def _request(self) -> Watch:
        view = self._picture.view
        wants = Wants(MOST_ENGINES, RUNNING, MOST_KEPT, MOST_KEPT, *self._known, kinds=MOST_KINDS)
        if view is None:
            return Watch(msgspec.structs.replace(wants, course=True))
        return Watch(wants, view.number, view.driver)

    def _take(self, view: RunView, *, over: bool) -> None:
        before = self._picture.view
        failures, log = self._known if before is not None and before.driver == view.driver else (0, 0)
        # The numbers of one driver mean nothing to the next.
        self._known = (
            view.failures[-1].number if view.failures else failures,
            view.log[-1].number if view.log else log,
        )
        self._picture.take(view, over=over)

    async def order(self, verb: Verb) -> tuple[bool, list[str]]:
        """Have a verb carried out; see `Order`."""
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._driver.ask(verb)
        except TimeoutError:
            return False, [f"the driver did not answer within {PATIENCE:g} s; it may do it yet"]
        except DisbatchError as error:
            return False, [str(error)]
        return answer.ok, answer.lines
