"""Results that no driver took: written beside the engine's log as lines of a status file, so that no work
that was done is lost."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from disbatch.engine.outbox import Result
from disbatch.model.outcome import Ending
from disbatch.model.status import UNRECORDED_END

LOG_END = "_engine.txt"


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

    Nothing is overwritten. Where the log's folder cannot be written, the temporary folder takes them; OSError
    if that cannot either.
    """
    lines = _lines(results, node)
    if not lines:
        return None
    path = unrecorded_path(log)
    try:
        _append(path, lines)
    except OSError:
        import tempfile

        path = Path(tempfile.gettempdir()) / path.name
        _append(path, lines)
    return path, len(lines)


def _append(path: Path, lines: list[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
