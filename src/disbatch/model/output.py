"""Paths of output files, and the marker that replaces output that was not kept.

DIR/000/013/000013999.out                    task 13999's stdout; .err: its stderr
DIR/000/013/000013999.out.ENGINE.ATTEMPT     the same for another attempt, see `engine.output_files`

A directory holds the files of a thousand tasks, or a thousand such directories.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ENDINGS = ("out", "err")
"""By number of the stream: 0 is standard output, 1 standard error."""
OUT, ERR = 0, 1

TAIL = 16384
"""Bytes kept of the end of a stream that exceeds its limit, but at most half of the limit."""
DEFAULT_LIMIT = 64 << 20
LEAST_LIMIT = 1024
MOST_LIMIT = 1 << 50

_ASIDE = re.compile(r"([0-9]{9,19})\.(out|err)\.(.{1,250})\.([0-9]{1,19})")
_SHARD = re.compile(r"[0-9]{3,13}")


class Aside(NamedTuple):
    """The engine and attempt that a file beside the plain one belongs to."""

    task: int
    stream: int
    engine: str
    attempt: int


def shard(task: int) -> str:
    """The directory, below DIR, of this task's files."""
    return f"{task // 1_000_000:03}/{task // 1000 % 1000:03}"


def place(task: int, stream: int) -> str:
    """The file, below DIR, that holds this stream of the task."""
    return f"{shard(task)}/{task:09}.{ENDINGS[stream]}"


def aside(task: int, stream: int, engine: str, attempt: int) -> str:
    """The same for an attempt that found the plain file already there."""
    return f"{place(task, stream)}.{engine}.{attempt}"


def parse_aside(name: str) -> Aside | None:
    """Parse the last component of such a path; None if it is not one."""
    found = _ASIDE.fullmatch(name)
    if found is None:
        return None
    return Aside(int(found[1]), ENDINGS.index(found[2]), found[3], int(found[4]))


def is_shard(name: str) -> bool:
    """True for the name of a directory that this module creates directly below DIR."""
    return _SHARD.fullmatch(name) is not None


def head_and_tail(limit: int) -> tuple[int, int]:
    """How many bytes are kept of the beginning and of the end of a stream whose limit is `limit`."""
    tail = min(TAIL, limit // 2)
    return limit - tail, tail


def left_out(count: int) -> bytes:
    """The marker that replaces `count` bytes of output."""
    return b"\n[disbatch: %d bytes left out]\n" % count
