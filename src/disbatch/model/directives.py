"""Read one `#DISBATCH` line: which directive it is and what it says.

A directive stands in column 1, in upper case, and a blank (space or tab) or the end of the line follows
it; `#DISBATCHES` is a comment like any other. Keywords are taken in any case, with any run of blanks before
them; text that goes into a command is taken as it stands after exactly one blank, so that blanks that
matter are kept.
"""

from __future__ import annotations

import re

import msgspec

from disbatch.model.task import Phase

MARK = b"#DISBATCH"
"""What a directive begins with."""
KEYWORDS = (b"PREFIX", b"SUFFIX", b"REPEAT", b"BARRIER", b"PERENGINE")
LARGEST = (1 << 63) - 1
"""Largest task id, repeat count and (either sign) repeat index."""

_BLANKS = b" \t"
_SHOWN = 60

_HEAD = re.compile(rb"#DISBATCH[ \t]+([^ \t]+)(.*)", re.S)
_CHECK = re.compile(rb"[ \t]+CHECK(?=[ \t]|$)", re.I)
_PHASE = re.compile(rb"[ \t]+(START|STOP)(?=[ \t]|$)", re.I)
_NUMBER = re.compile(rb"[ \t]+([0-9]+)(?=[ \t]|$)")
_START = re.compile(rb"[ \t]+START[ \t]+([+-]?[0-9]+)(?=[ \t]|$)", re.I)
_STEP = re.compile(rb"[ \t]+STEP[ \t]+([+-]?[0-9]+)(?=[ \t]|$)", re.I)
_LEFT_OVER = re.compile(rb"[ \t]+(?:START|STEP)(?=[ \t]|$)", re.I)

_REPEAT_FORM = "#DISBATCH REPEAT N [start S] [step T] [COMMAND]"


class Prefix(msgspec.Struct, frozen=True):
    """Put before every later command."""

    text: bytes


class Suffix(msgspec.Struct, frozen=True):
    """Put after every later command."""

    text: bytes


class Repeat(msgspec.Struct, frozen=True):
    """`count` tasks of one command, with the repeat indexes `start`, `start + step`, ..."""

    count: int
    start: int
    step: int
    command: bytes


class BarrierLine(msgspec.Struct, frozen=True):
    """Wait for all earlier tasks; `check`: end the run if one failed; `key`: tell the key store."""

    check: bool
    key: bytes | None


class PerEngineLine(msgspec.Struct, frozen=True):
    """Run `command` once on each engine."""

    phase: Phase
    command: bytes


Directive = Prefix | Suffix | Repeat | BarrierLine | PerEngineLine


class DirectiveError(ValueError):
    """What is wrong with a directive and what to do, without the place; the caller knows that."""


def shown(text: bytes) -> str:
    """`text` quoted for a message: printable, on one line, cut when long."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + b"..."
    return repr(cut.decode("utf-8", "surrogateescape"))


def is_directive(line: bytes) -> bool:
    """True if `line` (without its line end) is a directive, right or wrong."""
    return line.startswith(MARK) and line[len(MARK) : len(MARK) + 1] in (b"", b" ", b"\t")


def parse_directive(line: bytes) -> Directive:
    """Read a directive; `line` has no line end and `is_directive`. Raises DirectiveError."""
    head = _HEAD.fullmatch(line)
    if head is None:
        raise DirectiveError(f"#DISBATCH says nothing; one of {_keywords()} must follow")
    keyword, rest = head[1].upper(), head[2]
    match keyword:
        case b"PREFIX":
            return Prefix(rest[1:])
        case b"SUFFIX":
            return Suffix(rest[1:])
        case b"REPEAT":
            return _repeat(rest)
        case b"BARRIER":
            return _barrier(rest)
        case b"PERENGINE":
            return _per_engine(rest)
    raise DirectiveError(f"unknown directive {shown(head[1])}; the directives are {_keywords()}")


def _barrier(rest: bytes) -> BarrierLine:
    check = _CHECK.match(rest)
    key = (rest[check.end() :] if check else rest).strip(_BLANKS)
    return BarrierLine(check is not None, key or None)


def _per_engine(rest: bytes) -> PerEngineLine:
    phase = _PHASE.match(rest)
    if phase is None:
        raise DirectiveError("PERENGINE must say START or STOP: #DISBATCH PERENGINE START COMMAND")
    word = phase[1].decode().upper()
    command = rest[phase.end() + 1 :]
    if not command.strip():
        raise DirectiveError(f"PERENGINE {word} has no command: #DISBATCH PERENGINE {word} COMMAND")
    return PerEngineLine(Phase[word], command)


def _repeat(rest: bytes) -> Repeat:
    count = _NUMBER.match(rest)
    if count is None:
        raise DirectiveError(f"REPEAT must be followed by a whole number, 0 or more: {_REPEAT_FORM}")
    end = count.end()
    start = _START.match(rest, end)
    if start is not None:
        end = start.end()
    step = _STEP.match(rest, end)
    if step is not None:
        end = step.end()
    if _LEFT_OVER.match(rest, end):
        raise DirectiveError(
            f"REPEAT's start and step need a whole number each, start before step: {_REPEAT_FORM} "
            "(if the command itself is called so, quote its name)"
        )
    times = _number("count", count[1])
    first = _number("start", start[1]) if start else 0
    stride = _number("step", step[1]) if step else 1
    if times and not -LARGEST <= first + (times - 1) * stride <= LARGEST:
        raise DirectiveError("REPEAT's last index does not fit in 63 bits; take smaller numbers")
    return Repeat(times, first, stride, rest[end + 1 :])


def _number(name: str, digits: bytes) -> int:
    # Digits are counted first: int() of an endless row of them is slow, and past 4300 an error.
    value = int(digits) if len(digits.lstrip(b"+-0")) <= 19 else LARGEST + 1
    if abs(value) > LARGEST:
        raise DirectiveError(f"REPEAT's {name} {shown(digits)} does not fit in 63 bits; take a smaller one")
    return value


def _keywords() -> str:
    return ", ".join(word.decode() for word in KEYWORDS)
