"""Results that no driver took: written beside the engine's log as lines of a status file, so that no work
that was done is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from disbatch.engine.outbox import Result
from disbatch.model.outcome import Ending
from disbatch.model.status import UNRECORDED_END
from disbatch.wire.ownfile import NotOwnError, open_own

LOG_END = "_engine.txt"
MOST_NAMES = 100
"""Tried before the temporary folder."""


def unrecorded_path(log: Path) -> Path:
    """Where the results go of the engine whose log this is."""
    name = log.name.removesuffix(LOG_END) if log.name.endswith(LOG_END) else log.stem
    return log.with_name(name + UNRECORDED_END)


def _lines(results: Iterable[Result], node: str) -> list[bytes]:
    from disbatch.model.status import Mark, format_line

    lines = []
    for job, outcome in results:
        # What was ended by order, or never started, is no result: a resumed run does it again.
        if outcome.ending is Ending.OWN:
            mark = Mark.TASK if job.phase is None else Mark.PER_ENGINE
            order = job.order
            lines.append(
                format_line(order.task_id, order.line, order.repeat, order.command, node, outcome, mark)
            )
    return lines


def write_unrecorded(results: Iterable[Result], node: str, log: Path) -> tuple[Path, int] | None:
    """Append a line for each result; the file's path and how many, None if there was none to write.

    Nothing is overwritten. If something that is not ours has the file's name, it gets another one; where the
    log's folder cannot be written, the temporary folder takes them; OSError if that cannot either.
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
    """The file at the first of the names like this that is free, or ours. OSError."""
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
