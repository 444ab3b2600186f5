"""Commands of tasks: checked as lines of a task file, or made from templates such as `myprog {x} {y}`."""

from __future__ import annotations

import operator
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from string import Formatter
from typing import Any

from disbatch.model.text import counted, shell_word
from disbatch.wire.client_protocol import MAX_SUBMITTED

ONE = (str, bytes, os.PathLike)
"""Iterable types that count as one value."""


class _Words(Formatter):
    """`str.format` that quotes values as words of the shell."""

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if isinstance(key, str):
            return kwargs[key]
        return args[key]

    def format_field(self, value: Any, format_spec: str) -> str:
        return word(plain(value) if not format_spec else format(value, format_spec))


class _Plain(_Words):
    """The same, unquoted."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return plain(value) if not format_spec else format(value, format_spec)


def plain(value: Any) -> str:
    """A value as text; paths and bytes as file names."""
    return os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else str(value)


def word(text: str) -> str:
    """`text` as one word for bash, on one line."""
    return shell_word(text) if "\n" in text or "\r" in text else shlex.quote(text)


class Template:
    """A template of a command: `{x}`, `{x:05d}` or `{}` stand for values, `{{` and `}}` for braces. `quote`:
    each value becomes one word of the shell, whatever it contains. TypeError if the template is not text,
    ValueError if it is invalid."""

    def __init__(self, template: str, *, quote: bool = True) -> None:
        if not isinstance(template, str):
            raise TypeError(
                f"a template of commands is text, 'prog {{}}', not {template!r:.80}; {_instead_of(template)}"
            )
        self._template = template
        self._formatter = _Words() if quote else _Plain()
        try:
            names = [name for _, name, _, _ in self._formatter.parse(template) if name is not None]
        except ValueError as error:
            raise ValueError(f"the template {template!r}: {error}; write {{{{ and }}}} for braces") from error
        self._names = [name.partition(".")[0].partition("[")[0] for name in names]

    def commands(self, columns: Sequence[Any], named: Mapping[str, Any]) -> Iterator[str]:
        """A command for each row of values. Iterables must be of equal length; text, bytes, paths and values
        that are not iterable are used for every row. ValueError if they do not fit the template or each
        other."""
        self._check(len(columns), named)
        rows = _rows([*columns, *named.values()])
        count = len(columns)
        return (self._fill(row[:count], dict(zip(named, row[count:], strict=True))) for row in rows)

    def _check(self, count: int, named: Mapping[str, Any]) -> None:
        blank = self._names.count("")
        numbers = [int(name) for name in self._names if name.isdigit()]
        for name in self._names:
            if not (name in named or name.isdigit() or not name):
                raise self._misfit(f"{{{name}}} has no value")
        needed = max([blank, *(number + 1 for number in numbers)])
        if needed != count:
            raise self._misfit(f"it has room for {counted(needed, 'value')} without a name, not {count}")
        for name in named:
            if name not in self._names:
                raise self._misfit(f"there is no {{{name}}} in it")

    def _misfit(self, problem: str) -> ValueError:
        return ValueError(f"the template {self._template!r}: {problem}; write {{{{ and }}}} for braces")

    def _fill(self, row: Sequence[Any], named: Mapping[str, Any]) -> str:
        return self._formatter.vformat(self._template, row, named)


def _rows(values: list[Any]) -> Iterator[tuple[Any, ...]]:
    fixed = [not isinstance(value, Iterable) or isinstance(value, ONE) for value in values]
    many = [value for value, same in zip(values, fixed, strict=True) if not same]
    if not many:
        raise ValueError("no value is a list or another iterable: use submit for one command")
    lengths = {len(value) for value in many if isinstance(value, Sized)}
    if len(lengths) > 1:
        raise ValueError(f"the values are not of one length: {', '.join(map(str, sorted(lengths)))}")
    return _woven(values, fixed, many)


def _woven(values: list[Any], fixed: list[bool], many: list[Any]) -> Iterator[tuple[Any, ...]]:
    for row in zip(*many, strict=True):
        parts = iter(row)
        yield tuple(value if same else next(parts) for value, same in zip(values, fixed, strict=True))


def _instead_of(what: Any) -> str:
    """What to submit instead of that value, which is not text."""
    if callable(what):
        return "tasks are shell commands, not Python functions: submit 'python -c ...', or a script"
    if isinstance(what, Sequence) and all(isinstance(each, str) for each in what):
        return "shlex.join makes one of a list of words"
    return "str() makes text of it, if that is a command"


def command_line(command: str | bytes, more: Sequence[Any] = (), named: Mapping[str, Any] = {}) -> bytes:
    """The command as a line of a task file. ValueError if it cannot be one; TypeError if it is neither text
    nor bytes, or if values are given with it."""
    if not isinstance(command, str | bytes):
        raise TypeError(f"a command is text or bytes, not {command!r:.80}; {_instead_of(command)}")
    if more or named:
        raise TypeError(
            "submit takes one command and no values for it: write them into it, as in submit(f'prog {x}'), "
            "or take map('prog {}', values), which quotes them and submits a command for each"
        )
    line = command.encode("utf-8", "surrogateescape") if isinstance(command, str) else command
    line = line.removesuffix(b"\r")
    begin = line.lstrip()[:1]
    problem = ""
    if b"\n" in line:
        problem = "a line end within it; put a script into a file, or join the lines with ; or &&"
    elif b"\0" in line:
        problem = "a NUL byte within it"
    elif not begin:
        problem = "nothing but blanks"
    elif begin == b"#":
        problem = "a comment; directives have methods: repeat and barrier"
    elif len(line) > MAX_SUBMITTED:
        problem = f"longer than {MAX_SUBMITTED >> 20} MiB; put it into a script and call that"
    if problem:
        raise ValueError(f"not a command: {problem}: {command!r:.80}")
    return line


def whole_number(name: str, number: Any) -> int:
    """TypeError if it is not a whole number; whole numbers of NumPy are accepted."""
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{name}: a whole number, not {number!r:.80}, as in repeat(3, 'prog')") from None
