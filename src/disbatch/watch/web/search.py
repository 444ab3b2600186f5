"""Finds tasks in the status file, newest first, within bounds: a search reads so many bytes and takes so
long, then tells how far it got, to go on from there."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from disbatch.model.failure import line_of_record
from disbatch.model.snippet import unquoted
from disbatch.model.status import Mark, Record, parse_line
from disbatch.model.text import printable
from disbatch.wire.ownfile import open_own

MOST_FOUND = 100
MOST_BYTES = 256 << 20
"""Read in one search."""
MOST_SECONDS = 2.0
LONGEST_QUERY = 200
SHOWN = 400
"""Characters of a command or snippet."""
_BLOCK = 1 << 20
_LONGEST_LINE = 8 << 20
_MARKS = {Mark.SKIPPED: "done before", Mark.SUPERSEDED: "does not count", Mark.PER_ENGINE: "per engine"}


class Found(msgspec.Struct, frozen=True):
    """A task whose line matches."""

    id: int
    line: int
    node: str
    return_code: int
    seconds: float
    finish: float
    snippet: str
    command: str
    mark: str
    reason: str = ""
    last_line: str = ""


class Search(msgspec.Struct, frozen=True):
    """What was `found`, newest first; `before`: the byte of the file from which to go on, 0: all was
    searched. `problem`: why nothing could be."""

    found: list[Found]
    before: int = 0
    problem: str = ""


def search(path: str, query: str, *, failed: bool, before: int | None) -> Search:
    """Look for `query` (an id, or text in node, snippets or command; empty: everything) in the lines of
    tasks, of those that `failed` alone, in front of byte `before` of the file (None: its end)."""
    try:
        descriptor = open_own(path, os.O_RDONLY)
    except OSError as error:
        return Search([], problem=f"the status file cannot be read: {error.strerror}")
    try:
        size = os.fstat(descriptor).st_size
        end = size if before is None else max(0, min(before, size))
        return _search(descriptor, end, query[:LONGEST_QUERY], failed)
    except OSError as error:
        return Search([], problem=f"the status file cannot be read: {error.strerror}")
    finally:
        os.close(descriptor)


def _search(descriptor: int, end: int, query: str, failed: bool) -> Search:
    """Block by block, from the end; `rest` is the end of a line whose beginning was not read yet."""
    found: list[Found] = []
    wanted, number = query.lower().encode("utf-8", "replace"), query.encode() if query.isdecimal() else b""
    # In the file some characters are escaped.
    needle = b"" if set(query) & set("\\'\"") else wanted
    deadline, least = time.monotonic() + MOST_SECONDS, max(0, end - MOST_BYTES)
    at, rest = end, b""
    while at > 0:
        start = max(0, at - _BLOCK)
        data = os.pread(descriptor, at - start, start) + rest
        lines = data.split(b"\n") if needle in data.lower() else [data.partition(b"\n")[0]]
        rest = lines.pop(0) if start else b""
        place = start + len(data)
        for line in reversed(lines):
            place -= len(line) + 1
            if (failed and not line.startswith(b"R")) or needle not in line.lower():
                continue
            task = _task(line, wanted, number)
            if task is not None:
                found.append(task)
                if len(found) == MOST_FOUND:
                    return Search(found, max(0, place + 1))
        at = start
        if len(rest) > _LONGEST_LINE:
            rest = b""
        left = start + len(rest) + 1
        if start and left < end and (start <= least or time.monotonic() > deadline):
            return Search(found, left)
    return Search(found)


def _task(line: bytes, wanted: bytes, number: bytes) -> Found | None:
    record = parse_line(line)
    if record is None or record.mark is Mark.BARRIER:
        return None
    command, snippet = _text(record.command), _text(record.err) or _text(record.out)
    where = f"{record.node}\n{command}\n{snippet}".lower().encode("utf-8", "replace")
    if number != str(record.id).encode() and wanted not in where:
        return None  # it stood in a number, or between two fields
    return _found(record, command, snippet)


def _found(r: Record, command: str, snippet: str) -> Found:
    return Found(
        r.id, r.line, printable(r.node), r.return_code, r.elapsed, r.finish, printable(snippet[:SHOWN]),
        printable(command[:SHOWN]), _MARKS.get(r.mark, ""), r.reason.words,
        line_of_record(r) if r.failed else "",
    )  # fmt: skip


def _text(field: bytes) -> str:
    plain = unquoted(field)
    return (field if plain is None else plain).decode("utf-8", "replace")


def as_json(result: Search) -> dict[str, Any]:
    """For the page."""
    return {
        "found": [msgspec.structs.astuple(task) for task in result.found],
        "before": result.before,
        "problem": result.problem,
    }
