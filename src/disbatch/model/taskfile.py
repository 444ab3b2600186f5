"""Parse a task file line by line, directives included.

A directive begins in column 1 with `#DISBATCH` in upper case, followed by a blank (space or tab) or the end
of the line; `#DISBATCHES` is a comment like any other. Keywords are case-insensitive and may be preceded by
any number of blanks. Text that becomes part of a command begins after exactly one blank, so that further
blanks are kept.

Theory of operation
-------------------
`TaskParser.parse` takes one line and returns its items. The state on which later lines depend (the next id,
PREFIX and SUFFIX, whether there has been a task) changes during the call, not while its result is iterated.
So a REPEAT of fifty million is a few C iterators until it is iterated, and ids never depend on how, or how
fast, the file is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import repeat as again
from typing import NoReturn

import msgspec

from disbatch.model.errors import TaskFileError
from disbatch.model.task import NO_REPEAT, Barrier, Item, PerEngine, Phase, Task

MARK = b"#DISBATCH"
"""The beginning of every directive."""
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
    """Wait for all earlier tasks; `check`: end the run if one failed; `key`: put the id into the key
    store."""

    check: bool
    key: bytes | None


class PerEngineLine(msgspec.Struct, frozen=True):
    """Run `command` once on each engine."""

    phase: Phase
    command: bytes


Directive = Prefix | Suffix | Repeat | BarrierLine | PerEngineLine


class DirectiveError(ValueError):
    """What is wrong with a directive, and how to correct it; the caller adds the line."""


def shown(text: bytes) -> str:
    """`text` quoted for a message: printable, on one line, shortened if long."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + b"..."
    return repr(cut.decode("utf-8", "surrogateescape"))


def is_directive(line: bytes) -> bool:
    """True if `line` (without its line end) is a directive, valid or not."""
    return line.startswith(MARK) and line[len(MARK) : len(MARK) + 1] in (b"", b" ", b"\t")


def parse_directive(line: bytes) -> Directive:
    """Read a directive; `line` has no line end and `is_directive`. Raises DirectiveError."""
    head = _HEAD.fullmatch(line)
    if head is None:
        raise DirectiveError(f"#DISBATCH needs a directive: one of {_keywords()} must follow")
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
        raise DirectiveError("PERENGINE needs START or STOP: #DISBATCH PERENGINE START COMMAND")
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
            "(if that is the name of the command, quote it)"
        )
    times = _number("count", count[1])
    first = _number("start", start[1]) if start else 0
    stride = _number("step", step[1]) if step else 1
    if times and not -LARGEST <= first + (times - 1) * stride <= LARGEST:
        raise DirectiveError("REPEAT's last index does not fit in 63 bits; use smaller numbers")
    return Repeat(times, first, stride, rest[end + 1 :])


def _number(name: str, digits: bytes) -> int:
    # Digits are counted first: int() is slow on very many of them, and fails beyond 4300.
    value = int(digits) if len(digits.lstrip(b"+-0")) <= 19 else LARGEST + 1
    if abs(value) > LARGEST:
        raise DirectiveError(f"REPEAT's {name} {shown(digits)} does not fit in 63 bits; use a smaller one")
    return value


def _keywords() -> str:
    return ", ".join(word.decode() for word in KEYWORDS)


MAX_COMMAND = 16 << 20
"""Longest line of a task file, and longest command with its PREFIX and SUFFIX, bytes."""

_HASH = ord("#")
_LINE_FEED = ord("\n")
_RETURN = ord("\r")


def without_end(line: bytes) -> bytes:
    """`line` without its line end (LF or CRLF), if it has one."""
    if line and line[-1] == _LINE_FEED:
        return line[:-2] if len(line) > 1 and line[-2] == _RETURN else line[:-1]
    return line


class TaskParser:
    """Parses one task file or stream; `source_name` is its name in errors.

    `next_id` is the id of the next task or barrier; `barriers` counts barriers so far.
    """

    def __init__(self, source_name: str) -> None:
        self.source_name = source_name
        self.next_id = 0
        self.barriers = 0
        self._prefix = b""
        self._suffix = b""
        self._room = MAX_COMMAND
        self._begun = False
        self._per_engine = {Phase.START: 0, Phase.STOP: 0}

    @property
    def tasks(self) -> int:
        """The number of tasks so far, including those of REPEATs."""
        return self.next_id - self.barriers

    @property
    def glue(self) -> int:
        """Bytes that PREFIX and SUFFIX add to each command now."""
        return MAX_COMMAND - self._room

    def parse(self, number: int, line: bytes) -> Iterable[Item]:
        """The items of line `number` (from 1); none for a comment. Iterate the result once.

        `line` may have its line end or not. Raises TaskFileError.
        """
        if line and line[-1] == _LINE_FEED:
            line = without_end(line)
        text = line.lstrip()
        if not text or text[0] == _HASH:
            return self._unusual(number, line)
        if b"\0" in line or len(line) > self._room:
            self._refuse_unfit(number, line)
        id = self.next_id
        self.next_id = id + 1
        return (Task(id, number, NO_REPEAT, self._prefix + line + self._suffix),)

    def go_on_after(self, ids: int) -> None:
        """Lines of another file, with so many ids, precede these; so PERENGINE is no longer allowed."""
        self.next_id = ids
        self._begun = True

    def pass_over(self, tasks: int) -> None:
        """Count `tasks` plain tasks that were checked elsewhere, as if their lines had been parsed."""
        self.next_id += tasks

    def _unusual(self, number: int, line: bytes) -> Iterable[Item]:
        """A blank line, a comment or a directive."""
        if len(line) > MAX_COMMAND:
            self._refuse(number, _too_long("the line"))
        if not is_directive(line):
            return ()
        if b"\0" in line:
            self._refuse(number, _HAS_NUL)
        try:
            directive = parse_directive(line)
        except DirectiveError as error:
            raise TaskFileError(self.source_name, number, str(error)) from None
        match directive:
            case Prefix(text):
                self._glue(number, text, self._suffix)
            case Suffix(text):
                self._glue(number, self._prefix, text)
            case Repeat():
                return self._repeat(number, directive)
            case BarrierLine(check, key):
                self.barriers += 1
                return (Barrier(self._take_ids(number, 1), number, key, check, line),)
            case PerEngineLine(phase, command):
                if self.next_id or self._begun:
                    self._refuse(number, "PERENGINE must precede all tasks and barriers; move it up")
                id = self._per_engine[phase]
                self._per_engine[phase] = id + 1
                return (PerEngine(id, number, phase, self._glued(number, command)),)
        return ()

    def _repeat(self, number: int, directive: Repeat) -> Iterable[Item]:
        count, start, step = directive.count, directive.start, directive.step
        command = self._glued(number, directive.command)
        first = self._take_ids(number, count)
        indexes = range(start, start + count * step, step) if step else again(start)
        return map(Task, range(first, first + count), again(number), indexes, again(command))

    def _take_ids(self, number: int, count: int) -> int:
        first = self.next_id
        if first + count > LARGEST:
            self._refuse(number, "task ids no longer fit in 63 bits; use smaller REPEAT counts")
        self.next_id = first + count
        return first

    def _glue(self, number: int, prefix: bytes, suffix: bytes) -> None:
        if len(prefix) + len(suffix) > MAX_COMMAND:
            self._refuse(number, _too_long("PREFIX and SUFFIX together"))
        self._prefix, self._suffix = prefix, suffix
        self._room = MAX_COMMAND - len(prefix) - len(suffix)

    def _glued(self, number: int, command: bytes) -> bytes:
        if len(command) > self._room:
            self._refuse_unfit(number, command)
        return self._prefix + command + self._suffix

    def _refuse_unfit(self, number: int, line: bytes) -> NoReturn:
        """Say why `line` cannot be a command."""
        if len(line) > MAX_COMMAND:
            self._refuse(number, _too_long("the line"))
        if b"\0" in line:
            self._refuse(number, _HAS_NUL)
        self._refuse(number, _too_long("the command with its PREFIX and SUFFIX"))

    def _refuse(self, number: int, problem: str) -> NoReturn:
        raise TaskFileError(self.source_name, number, problem)


_HAS_NUL = "a NUL byte, which no command can hold; is this a text file?"


def _too_long(what: str) -> str:
    return f"{what} is longer than {MAX_COMMAND >> 20} MiB; put the work in a script and call that"
