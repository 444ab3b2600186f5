"""Help texts: no word broken, no line wider than the terminal, columns aligned."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import pytest

from disbatch.cli import dbutil, options
from disbatch.cli.parser import LEAST_WIDTH, MOST_WIDTH, Parser

VERBS = (
    *("check", "cat", "attach", "submit", "put", "get", "view", "report", "status", "monitor"),
    *("drain", "stop", "pause", "resume", "cancel", "close", "finish"),
)
NAMES = ("disbatch", "dbutil", *(f"dbutil {verb}" for verb in VERBS))


def parser_of(name: str) -> argparse.ArgumentParser:
    program, _, verb = name.partition(" ")
    if program == "disbatch":
        return options.build_parser()
    return verbs_of(dbutil.build_parser())[verb] if verb else dbutil.build_parser()


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = [it for it in parser._actions if isinstance(it, argparse._SubParsersAction)]
    return dict(found.choices)


def passages(parser: argparse.ArgumentParser) -> Iterator[str]:
    """All that the help is made of."""
    yield parser.description or ""
    for line in (parser.epilog or "").splitlines():
        yield from re.split("  +", line)
    for group in parser._action_groups:
        yield (group.title or "") if group._group_actions else ""
    for action in parser._actions:
        yield ", ".join(action.option_strings)
        if isinstance(action.metavar, str):
            yield action.metavar
        yield (action.help or "") % (vars(action) | {"prog": parser.prog})
        if isinstance(action, argparse._SubParsersAction):
            for verb in action._choices_actions:
                yield f"{verb.dest} {verb.help}"


def test_every_verb_is_looked_at() -> None:
    assert set(verbs_of(dbutil.build_parser())) == set(VERBS)


@pytest.mark.parametrize("columns", [40, 60, 80, 97, 200])
@pytest.mark.parametrize("name", NAMES)
def test_no_word_is_broken_and_no_line_too_long(
    monkeypatch: pytest.MonkeyPatch, name: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    parser = parser_of(name)
    text = parser.format_help()
    assert [line for line in text.splitlines() if len(line) > min(columns, MOST_WIDTH)] == []
    shown = f" {' '.join(text.replace(':', ' : ').split())} "
    for passage in passages(parser):
        words = " ".join(passage.replace(":", " : ").split())
        assert f" {words} " in shown or not words


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("name", NAMES)
def test_what_options_do_begins_in_one_column(
    monkeypatch: pytest.MonkeyPatch, name: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = parser_of(name).format_help().splitlines()
    beside = {match.end() for line in lines if (match := re.match(r" {2,4}[^ ].*?  +", line))}
    below = {len(line) - len(line.lstrip()) for line in lines if line.startswith(" " * 6)}
    assert len(beside | below) == 1


@pytest.mark.parametrize(
    ("columns", "width"), [("", 80), ("x", 80), ("0", 80), ("-5", 80), ("1", LEAST_WIDTH), ("72", 72)]
)
def test_widths_that_cannot_be(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setattr("sys.__stdout__", None)
    monkeypatch.setenv("COLUMNS", columns)
    lines = options.build_parser().format_help().splitlines()
    assert width - 5 <= max(map(len, lines)) <= width


def test_an_entry_of_an_epilog_that_is_too_long_for_its_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    epilog = "say:\n  a  short\n  much longer than this terminal is, if it is one  what it does\n\nAnd so on."
    text = Parser(prog="it", add_help=False, epilog=epilog).format_help()
    assert text.split("\n\n", 1)[1] == (
        "say:\n  a   short\n  much longer than this terminal is,\n    if it is one\n      what it does\n\n"
        "And so on.\n"
    )
