"""What failed tasks printed last, where their runs kept what tasks print (--output)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from disbatch.driver import outputfile
from disbatch.driver.kept import Kept, line_of
from disbatch.model.errors import UsageError
from disbatch.model.failure import last_line
from disbatch.model.status import Record
from disbatch.watch.report.lines import Lines
from disbatch.wire.ownfile import owner_of

STDOUT, STDERR = range(2)
TAIL = 4096
"""Bytes of its end in which the last line is looked for."""
_STATUS, _OUTPUT = "_status.txt", "_output.json"


def last_lines(lines: Lines, rows: Iterable[int]) -> dict[int, str]:
    """The whole last lines of these rows' tasks, as far as that was kept and can be read here."""
    runs: dict[int, dict[int, Record]] = {}
    for row in rows:
        record = lines.record(row)
        if record is not None:
            runs.setdefault(lines.source(row).run, {})[row] = record
    found: dict[int, str] = {}
    for run, records in runs.items():
        status = next(source.path for source in lines.sources if source.run == run)
        found |= _of_run(status, records)
    return found


def _of_run(status: str, records: dict[int, Record]) -> dict[int, str]:
    path = Path(status.removesuffix(_STATUS) + _OUTPUT)
    if not status.endswith(_STATUS) or not os.path.lexists(path):
        return {}
    try:
        told = outputfile.read(path, trusted=owner_of(status))
    except UsageError:
        return {}
    numbers = {record.id for record in records.values()}
    kept = Kept(told, numbers, {record.id: line_of(record) for record in records.values()})
    try:
        found = {row: _last_line(kept, record.id) for row, record in records.items()}
    finally:
        kept.close()
    return {row: line for row, line in found.items() if line}


def _last_line(kept: Kept, task: int) -> str:
    for stream in (STDERR, STDOUT):
        try:
            found = kept.find(task, stream)
            end = b"" if found is None else found.end(TAIL + 1)
        except OSError:
            return ""
        line = "" if end is None else last_line(end[-TAIL:], cut=len(end) > TAIL)
        if line or end is None:
            return line
    return ""
