"""Command lines: help that fits the terminal, and errors as one line and an exit code."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from disbatch.model.errors import EXIT_INCOMPLETE, EXIT_SIGINT, DisbatchError, UsageError
from disbatch.model.text import printable

MOST_WIDTH, LEAST_WIDTH = 100, 40
"""Columns of a help text. Some words need 33 columns, so lines are too long for narrower terminals."""
TEXT_WIDTH = 36
"""Columns for the description of an option, where there is room."""


class HelpFormatter(argparse.HelpFormatter):
    """Breaks lines only between words. Indented lines of an epilog hold two columns, separated by two blanks
    or more."""

    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size().columns
        width = max(LEAST_WIDTH, min(MOST_WIDTH, columns))
        super().__init__(prog, max_help_position=max(6, min(32, width - TEXT_WIDTH)), width=width)

    def start_section(self, heading: str | None) -> None:
        super().start_section(heading and "\n".join(_wrapped(heading, self._width - 1)))

    def _format_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: object, prefix: str | None
    ) -> str:
        """Without the options, which are described below it."""
        words = [usage or self._prog]
        if not usage:
            given = list(actions)
            words += ["[options]"] * any(action.option_strings for action in given)
            words += [
                self._format_args(action, self._get_default_metavar_for_positional(action))
                for action in given
                if not action.option_strings
            ]
        text = ("usage: " if prefix is None else prefix) + " ".join(words)
        return "\n    ".join(_wrapped(text, self._width - 4)) + "\n\n"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = (self._block(block, width - len(indent)) for block in text.strip("\n").split("\n\n"))
        return textwrap.indent("\n\n".join("\n".join(block) for block in blocks), indent)

    def _block(self, block: str, width: int) -> Iterable[str]:
        prose: list[str] = []
        for line in block.split("\n"):
            if line.startswith(" "):
                yield from _wrapped(" ".join(prose), width)
                prose = []
                yield from _entry(line.strip(), width, self._max_help_position)
            else:
                prose.append(line)
        yield from _wrapped(" ".join(prose), width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`-p, --prefix PATH`, with the metavar once."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)


def _entry(line: str, width: int, indent: int) -> Iterable[str]:
    """A command and its description: beside it, or below it if the command is long."""
    command, _, what = line.partition("  ")
    lines = textwrap.indent("\n  ".join(_wrapped(command, width - 4)), "  ").split("\n")
    column = max(indent, 6)
    text = _wrapped(what, width - column)
    if len(lines) == 1 and len(lines[0]) <= column - 2 and text:
        lines = [f"{lines[0]:<{column}}{text.pop(0)}"]
    return [*lines, *(" " * column + part for part in text)]


class Parser(argparse.ArgumentParser):
    """Raises UsageError for errors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def run_command(name: str, command: Callable[[Callable[[str], None]], int]) -> int:
    """Run a command, which gets a function that prints a line to standard error; the exit code. An error that
    it raises becomes such a line."""

    def complain(text: str) -> None:
        if text:  # otherwise another copy of this command prints it
            print(f"{name}: {printable(text)}", file=sys.stderr)  # noqa: T201

    try:
        return command(complain)
    except DisbatchError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_SIGINT
    except Exception as error:
        if os.environ.get("DISBATCH_TRACEBACK"):
            raise
        complain(f"internal error: {error!r}; DISBATCH_TRACEBACK=1 shows where; please report it")
        return EXIT_INCOMPLETE
