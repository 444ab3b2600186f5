"""Slurm's host lists, `node[1-3,07-09],login,rack[1-2]n[01-04]`, written out. Pure."""

from __future__ import annotations

import itertools
import math
import re

from disbatch.model.errors import UsageError
from disbatch.model.text import in_short

MAX_NODES = 10_000
"""Of a list."""
MAX_HOST = 255
"""Characters of a name."""
MAX_TEXT = 1 << 20
"""Characters of a list."""
_PIECES = re.compile(r"\[([^\[\]]*)\]|(,)|([^\[\],]+)|(.)", re.DOTALL)
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def expand(text: str, option: str = "host list") -> list[str]:
    """The names of a list, in its order; numbers are as wide as the first one of their range.

    Raises UsageError (one line, which begins with `option`) for what is not a list of hosts' names, and for
    more than MAX_NODES of them.
    """
    if len(text) > MAX_TEXT:
        raise UsageError(f"{option}: longer than {MAX_TEXT} characters")
    names: list[str] = []
    for parts in _items(text.strip(), option):
        if len(names) + math.prod(map(len, parts)) > MAX_NODES:
            raise UsageError(f"{option}: more than {MAX_NODES} hosts")
        names += map("".join, itertools.product(*parts))
    for name in names:
        if len(name) > MAX_HOST or not _NAME.fullmatch(name):
            raise UsageError(f"{option}: {in_short(name)}: not a host's name")
    return names


def _items(text: str, option: str) -> list[list[list[str]]]:
    """Split at the commas outside brackets: each item is a list of parts, each part of alternatives."""
    items: list[list[list[str]]] = [[]]
    room = MAX_NODES + len(text)  # no list of MAX_NODES hosts has more numbers in its brackets
    for inside, comma, literal, wrong in _PIECES.findall(text):
        if wrong:
            raise UsageError(f"{option}: {in_short(text)}: brackets that do not match")
        if comma:
            items.append([])
            continue
        items[-1].append([literal] if literal else _numbers(inside, option))
        room -= len(items[-1][-1])
        if room < 0:
            raise UsageError(f"{option}: more than {MAX_NODES} hosts")
    if not all(items):
        raise UsageError(f"{option}: {in_short(text)}: a host's name is missing")
    return items


def _numbers(inside: str, option: str) -> list[str]:
    numbers: list[str] = []
    for item in inside.split(","):
        match = _RANGE.fullmatch(item.strip())
        first, last = (match[1], match[2] or match[1]) if match else ("1", "0")
        if int(first) > int(last):
            raise UsageError(f"{option}: [{in_short(inside)}]: write numbers and ranges, e.g. [1-3,7]")
        if len(numbers) + int(last) - int(first) >= MAX_NODES:
            raise UsageError(f"{option}: more than {MAX_NODES} hosts")
        numbers += [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    return numbers
