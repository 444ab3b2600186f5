"""Turn the lines of a task file into tasks, barriers and per-engine commands, one line at a time.

Theory of operation
-------------------
`TaskParser.parse` takes one line and hands out what it becomes. What later lines depend on (the next id,
PREFIX and SUFFIX, whether a task has been seen) moves on within the call, not as its result is
iterated: so a REPEAT of fifty million is a few iterators in C until somebody iterates them, and ids never
depend on how, or how fast, the file is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat as again
from typing import NoReturn

from disbatch.model.directives import (
    LARGEST,
    BarrierLine,
    DirectiveError,
    PerEngineLine,
    Prefix,
    Repeat,
    Suffix,
    is_directive,
    parse_directive,
)
from disbatch.model.errors import TaskFileError
from disbatch.model.task import NO_REPEAT, Barrier, Item, PerEngine, Phase, Task

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
    """Parses one task file or stream; `source_name` is what errors call it.

    `next_id` is the id that the next task or barrier will bear; `barriers` counts barriers so far.
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
        """How many tasks there have been, those of REPEATs included."""
        return self.next_id - self.barriers

    @property
    def glue(self) -> int:
        """Bytes that PREFIX and SUFFIX add to a command now."""
        return MAX_COMMAND - self._room

    def parse(self, number: int, line: bytes) -> Iterable[Item]:
        """What line `number` (from 1) becomes; nothing for a comment. Iterate the result once.

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
        """Other lines, with so many ids, stand before these; so no PERENGINE may come any more."""
        self.next_id = ids
        self._begun = True

    def pass_over(self, tasks: int) -> None:
        """Count `tasks` plain tasks that were looked at elsewhere, as if their lines had been parsed."""
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
                    self._refuse(number, "PERENGINE must stand before all tasks and barriers; move it up")
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
            self._refuse(number, "task ids no longer fit in 63 bits; repeat less")
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
