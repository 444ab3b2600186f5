"""Read status files in programs: line by line, or as a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from disbatch.model.errors import UsageError
from disbatch.model.result import TaskResult, result_of
from disbatch.model.statusline import is_header, parse_line
from disbatch.model.text import valid
from disbatch.rundir.statusfile import OpenStatusFile

if TYPE_CHECKING:
    import polars

ROWS_A_TIME = 50_000


def read_status(path: str | os.PathLike[str]) -> Iterator[TaskResult]:
    """Yield every line of a status file that this version, 1.x or 3.0 of disBatch wrote; for an active run,
    the lines so far. A header and a torn last line are skipped.

    UsageError if the file cannot be read, or another line is not a status line.
    """
    name = os.fsdecode(path)
    return _results(OpenStatusFile(name, "read_status needs a status file"))


def _results(file: OpenStatusFile) -> Iterator[TaskResult]:
    with file:
        for number, (_, line) in enumerate(file.lines(), 1):
            record = parse_line(line)
            if record is not None:
                yield result_of(record)
            elif not (number == 1 and is_header(line)):
                raise UsageError(f"{file.path}:{number}: not a line of a status file")


def to_polars(results: str | os.PathLike[str] | Iterable[TaskResult]) -> polars.DataFrame:
    """A table of `results`, or of a status file: a row for each line, a column for each field of
    `TaskResult`. `start` and `finish` are times in UTC, `elapsed` is in seconds, `out` and `err` are bytes.

    ImportError if polars is not installed; UsageError as for `read_status`.
    """
    try:
        import polars as pl
    except ImportError as error:
        raise ImportError("to_polars needs polars: pip install polars") from error
    if isinstance(results, str | os.PathLike):
        results = read_status(results)
    columns = {
        "id": pl.Int64, "line": pl.Int64, "repeat": pl.Int64, "node": pl.String, "pid": pl.Int64,
        "return_code": pl.Int64, "elapsed": pl.Float64, "start": pl.Float64, "finish": pl.Float64,
        "out_bytes": pl.Int64, "out": pl.Binary, "err_bytes": pl.Int64, "err": pl.Binary,
        "command": pl.String, "kind": pl.String, "reason": pl.String,
    }  # fmt: skip
    rest = iter(results)
    frames = [pl.DataFrame(schema=columns)]
    while some := list(islice(rest, ROWS_A_TIME)):
        frames.append(pl.DataFrame([_row(one) for one in some], schema=columns, orient="row"))
    microseconds = (pl.col("start", "finish") * 1e6).round().cast(pl.Int64)
    return pl.concat(frames).with_columns(microseconds.cast(pl.Datetime("us", "UTC")))


def _row(result: TaskResult) -> tuple[object, ...]:
    """The values of a row, with text that is valid UTF-8."""
    return tuple(
        valid(value) if isinstance(value, str) else value for value in msgspec.structs.astuple(result)
    )
