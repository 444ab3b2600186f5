"""Results until the driver has acknowledged them, or until they are written beside the engine's log.

Results are collected for a few milliseconds, sent, and kept until the driver has them on disk. Results that
no driver acknowledged are written beside the log as lines of a status file, so that no finished work is lost.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from disbatch.engine.slots import Job
from disbatch.model.statusline import UNRECORDED_END
from disbatch.model.task import Ending, Outcome
from disbatch.wire.engine_protocol import Finished, FromEngine
from disbatch.wire.ownfile import NotOwnError, open_own

BATCH = 64
GATHER = 0.003
GATHER_WHEN_SUPPLIED = 0.05
"""Seconds that a result waits for others while this engine has its next tasks."""

Result = tuple[Job, Outcome]


class Link(Protocol):
    """The engine's link to the driver, as `wire.engine_socket.EngineLink`."""

    def post(self, message: FromEngine) -> None:
        """Send a message that must arrive."""


class Outbox:
    """Everything that must arrive goes through here, so that it is known which results are acknowledged.

    `unacknowledged()` is how many posted messages the driver lacks (they are acknowledged in order);
    `supply()` is how many tasks the engine has waiting: if none, a result is sent at once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        unacknowledged: Callable[[], int],
        supply: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._link = link
        self._unacknowledged = unacknowledged
        self._supply = supply
        self._gathered: list[Result] = []
        self._posted: deque[list[Result]] = deque()
        self.recorded = 0
        """Tasks that ended here by themselves, and whose results a driver has acknowledged."""
        self._timer: asyncio.Handle | None = None

    def add(self, job: Job, outcome: Outcome) -> None:
        """Add a result; it is sent with those that follow soon."""
        self._gathered.append((job, outcome))
        if len(self._gathered) >= BATCH:
            self.flush()
        elif self._timer is None:
            supply = self._supply()
            if not supply:
                self._timer = self._loop.call_soon(self.flush)
            else:
                pause = GATHER if supply < BATCH else GATHER_WHEN_SUPPLIED
                self._timer = self._loop.call_later(pause, self.flush)

    def flush(self) -> None:
        """Send what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathered:
            results, self._gathered = self._gathered, []
            self._post(Finished([outcome for _, outcome in results]), results)

    def post(self, message: FromEngine) -> None:
        """Send something else that must arrive, after the results so far."""
        self.flush()
        self._post(message, [])

    def _post(self, message: FromEngine, results: list[Result]) -> None:
        self._posted.append(results)
        self._link.post(message)

    def acknowledged(self) -> None:
        """The driver acknowledged something: forget what it has."""
        kept = self._unacknowledged()
        while len(self._posted) > kept:
            for job, outcome in self._posted.popleft():
                self.recorded += job.phase is None and outcome.ending is Ending.OWN

    @property
    def empty(self) -> bool:
        """True if the driver has everything."""
        return not self._gathered and not self._posted

    def results(self) -> list[Result]:
        """The results that the driver has not acknowledged, oldest first."""
        return [result for batch in self._posted for result in batch] + self._gathered


LOG_END = "_engine.txt"
MOST_NAMES = 100
"""Names tried before the temporary directory."""


def unrecorded_path(log: Path) -> Path:
    """The file for the results of the engine with this log."""
    name = log.name.removesuffix(LOG_END) if log.name.endswith(LOG_END) else log.stem
    return log.with_name(name + UNRECORDED_END)


def _lines(results: Iterable[Result], node: str) -> list[bytes]:
    from disbatch.model.statusline import Mark, format_line

    lines = []
    for job, outcome in results:
        # Attempts that were ended by order, or never started, have no result: a resumed run runs them again.
        if outcome.ending is Ending.OWN:
            mark = Mark.TASK if job.phase is None else Mark.PER_ENGINE
            order = job.order
            lines.append(
                format_line(order.task_id, order.line, order.repeat, order.command, node, outcome, mark)
            )
    return lines


def write_unrecorded(results: Iterable[Result], node: str, log: Path) -> tuple[Path, int] | None:
    """Append a line for each result; the file's path and the number of lines, None if there was none to
    write.

    Nothing is overwritten. If a file that is not ours has the name, another name is used; if the log's
    directory cannot be written, the temporary directory; OSError if that cannot either.
    """
    lines = _lines(results, node)
    if not lines:
        return None
    try:
        path, descriptor = _opened(unrecorded_path(log))
        _append(descriptor, lines)
    except OSError:
        import tempfile

        stem = unrecorded_path(log).name.removesuffix(UNRECORDED_END)
        descriptor, name = tempfile.mkstemp(prefix=f"{stem}_", suffix=UNRECORDED_END)
        path = Path(name)
        _append(descriptor, lines)
    return path, len(lines)


def _opened(path: Path) -> tuple[Path, int]:
    """The file at the first name of this form that is free, or that is ours. OSError."""
    stem = path.name.removesuffix(UNRECORDED_END)
    for number in range(1, MOST_NAMES):
        name = path if number == 1 else path.with_name(f"{stem}-{number}{UNRECORDED_END}")
        try:
            return name, open_own(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        except NotOwnError:
            continue
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _append(descriptor: int, lines: list[bytes]) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
