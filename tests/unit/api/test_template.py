"""Commands from a template and values: each value one word of the shell, whatever it holds."""

from __future__ import annotations

import subprocess
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadline import DEADLINE
from disbatch.api.template import Template, word


def made(template: str, *columns: Any, quote: bool = True, **named: Any) -> list[str]:
    return list(Template(template, quote=quote).commands(columns, named))


@pytest.mark.parametrize(
    ("template", "named", "commands"),
    [
        ("p {x} {y}", {"x": [1, 2], "y": [3, 4]}, ["p 1 3", "p 2 4"]),
        ("p {x} {x}", {"x": range(2)}, ["p 0 0", "p 1 1"]),
        ("p {x:03d}-{y:.2f}", {"x": [7], "y": [0.125]}, ["p 007-0.12"]),
        ("p {x}", {"x": ["a b", "it's", "$HOME", ""]}, ["p 'a b'", "p 'it'\"'\"'s'", "p '$HOME'", "p ''"]),
        ("p {x}", {"x": ["a\nb'\\\r"]}, ["p $'a\\nb\\'\\\\\\r'"]),
        ("p {x} {f}", {"x": [1, 2], "f": "one file"}, ["p 1 'one file'", "p 2 'one file'"]),
        ("p {x} {f}", {"x": [1], "f": Path("/a b")}, ["p 1 '/a b'"]),
        ("p {x} {n}", {"x": [1], "n": 5}, ["p 1 5"]),
        ("p {x}", {"x": [b"/bytes"]}, ["p /bytes"]),
        ("awk '{{print $1}}' {f}", {"f": ["a"]}, ["awk '{print $1}' a"]),
        ("p {x[0]} {x[1]}", {"x": [(1, 2)]}, ["p 1 2"]),
        ("p {x.name}", {"x": [Path("/a/b c")]}, ["p 'b c'"]),
        ("p {x!r}", {"x": ["a"]}, ["p ''\"'\"'a'\"'\"''"]),
        ("p {x}", {"x": []}, []),
    ],
)
def test_rows(template: str, named: dict[str, Any], commands: list[str]) -> None:
    assert made(template, **named) == commands


def test_values_without_a_name() -> None:
    assert made("p {} {}", [1, 2], [3, 4]) == ["p 1 3", "p 2 4"]
    assert made("p {1} {0} {z}", [1], [2], z=[3]) == ["p 2 1 3"]


def test_unquoted() -> None:
    assert made("p {x}", x=["a b; c"], quote=False) == ["p a b; c"]
    assert made("p {x:>3}", x=["a"], quote=False) == ["p   a"]


def test_values_without_end_are_read_as_they_are_needed() -> None:
    commands = Template("p {x}").commands((), {"x": count()})
    assert list(islice(commands, 3)) == ["p 0", "p 1", "p 2"]


@pytest.mark.parametrize(
    ("template", "columns", "named", "problem"),
    [
        ("p {x} {y}", (), {"x": [1]}, r"\{y\} has no value"),
        ("awk '{print $1}'", (), {"x": [1]}, "write {{ and }} for braces"),
        ("p {x", (), {"x": [1]}, "write {{ and }} for braces"),
        ("p {x}", (), {"x": [1], "y": [2]}, r"there is no \{y\} in it"),
        ("p {}", (), {}, "room for 1 value without a name, not 0"),
        ("p {}", ([1], [2]), {}, "room for 1 value without a name, not 2"),
        ("p {x}", (), {"x": "only one"}, "no value is a list"),
        ("p {x} {y}", (), {"x": [1, 2], "y": [1]}, "not of one length: 1, 2"),
        ("p {x} {y}", (), {"x": [1, 2], "y": iter([1])}, "shorter"),
    ],
)
def test_what_does_not_fit(
    template: str, columns: tuple[Any, ...], named: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        made(template, *columns, **named)


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30))
def test_bash_reads_the_word_as_the_text(text: str) -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", f"printf %s {word(text)}"], capture_output=True, check=True, timeout=DEADLINE
    )
    assert done.stdout == text.encode()
    assert "\n" not in word(text)
