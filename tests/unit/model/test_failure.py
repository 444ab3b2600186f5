"""What failed tasks said last."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.engine.capture import Capture
from disbatch.model.failure import CUT, last_line, line_of_outcome, line_of_record, line_of_snippet, masked
from disbatch.model.statusline import format_line, parse_line
from disbatch.model.task import LONGEST_LINE, Outcome

TRACEBACK = b"""Traceback (most recent call last):
  File "<string>", line 1, in <module>
ModuleNotFoundError: No module named 'numpy_that_is_not_there'
"""


def snippet(text: bytes) -> bytes:
    return text if len(text) <= 80 else text[:40] + b"..." + text[-40:]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (TRACEBACK, "ModuleNotFoundError: No module named 'numpy_that_is_not_there'"),
        (b"", ""),
        (b" \n\t\n\r\n", ""),
        (b"one\ntwo\n\n  \n", "two"),
        (b"without an end", "without an end"),
        (b"a\r\nb\r\n", "b"),
        (b"10%\r20%\r30%\r", "30%"),
        (b"30%\r\x1b[Kbad input\r\x1b[K", "bad input"),
        (b"\x1b[31;1mError:\x1b[0m no\ttable\n\x1b[0m\n", "Error: no table"),
        (b"\x1b]0;title\x07\x1b(Bfailed\n", "failed"),
        ("schöne Größe: 3 µm\n".encode(), "schöne Größe: 3 µm"),
        (b"bad \xff byte\n", "bad \\xff byte"),
        ("\u202eevil\x07\n".encode(), "\\u202eevil\\x07"),
        (b"word " * 100, "word " * 39 + CUT),
        (b"x" * 300, "x" * 199 + CUT),
    ],
)
def test_the_last_line_that_is_not_empty(said: bytes, line: str) -> None:
    assert last_line(said) == line


def test_a_line_without_its_beginning_begins_with_a_whole_word() -> None:
    assert last_line(b"tFoundError: no such file\n", cut=True) == f"{CUT} no such file"
    assert last_line(b"half a line\nwhole line\n", cut=True) == "whole line"
    assert last_line("ßle Wörter".encode()[1:], cut=True) == f"{CUT} Wörter"
    assert last_line(b"one_long_word", cut=True) == f"{CUT}one_long_word"
    assert last_line(b"half " + b"w" * 300, cut=True)[0] == CUT


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (b"short: no such file\n", "short: no such file"),
        (TRACEBACK, f"{CUT} named 'numpy_that_is_not_there'"),
        (TRACEBACK + b"KeyError: 'x'\n", "KeyError: 'x'"),
        (
            b"there is a message at the beginning of it" + b"\n" * 100,
            f"there is a message at the beginning of {CUT}",
        ),
        (b"\n" * 200, ""),
    ],
)
def test_snippets_show_whole_words(said: bytes, line: str) -> None:
    assert line_of_snippet(snippet(said), len(said)) == line


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("line 3: no", "line 27: no"),
        ("at 0x7f001c: bad", "at 0xFFee: bad"),
        ("loss 3.25e-4", "loss 17"),
        ("x = -3", "x = 12"),
        ("took 1,000.5 s", "took 7 s"),
        ("no run 3f2b8c1a-9b3c-4d5e-8f90-0123456789ab", "no run 00000000-aaaa-4d5e-8f90-ffffffffffff"),
        ("commit deadbee5 is bad", "commit 0123456789abcdef is bad"),
    ],
)
def test_lines_that_differ_in_numbers_are_of_one_kind(one: str, other: str) -> None:
    assert masked(one) == masked(other) != one


def test_words_are_not_numbers() -> None:
    assert masked("defaced facade: no-go") == "defaced facade: no-go"


@given(st.binary(max_size=400), st.booleans())
def test_whatever_was_said_its_last_line_is_short_and_printable(said: bytes, cut: bool) -> None:
    line = last_line(said, cut=cut)
    assert len(line) <= LONGEST_LINE
    assert line.isprintable()
    assert line == line.strip()
    assert line_of_snippet(snippet(said), len(said)).isprintable()


def outcome(**changes: object) -> Outcome:
    plain = Outcome(1, 0, 5, 1, 1.0, 0.0, 1.0, 0, b"", len(TRACEBACK), snippet(TRACEBACK))
    return msgspec.structs.replace(plain, **changes)


def test_the_line_of_an_outcome_and_of_its_record() -> None:
    whole = outcome(last_line="ModuleNotFoundError: No module named 'x'")
    assert line_of_outcome(whole) == "ModuleNotFoundError: No module named 'x'"
    cut = f"{CUT} named 'numpy_that_is_not_there'"
    assert line_of_outcome(outcome()) == cut, "an older engine tells no line"
    record = parse_line(format_line(3, 4, -1, b"c", "n", whole))
    assert record is not None and line_of_record(record) == cut
    out = outcome(err_bytes=1, err_snippet=b"\n", out_bytes=4, out_snippet=b"out\n")
    assert line_of_outcome(out) == "out"
    assert not line_of_outcome(outcome(err_bytes=0, err_snippet=b"cancelled")), "it never ran"


@given(st.lists(st.binary(max_size=1500), max_size=6))
def test_a_capture_knows_the_last_line_of_what_came_in_pieces(pieces: list[bytes]) -> None:
    capture = Capture(-1)
    for piece in pieces:
        capture.feed(piece)
    said = b"".join(pieces)
    assert capture.snippet() == snippet(said)
    if len(said) <= 1000:
        assert capture.last_line() == last_line(said)


def test_a_capture_knows_the_last_line_after_much_else() -> None:
    capture = Capture(-1)
    for _ in range(100):
        capture.feed(b"progress\r" * 1000)
    capture.feed(b"\nValueError: the last ")
    capture.feed(b"line\n")
    assert capture.last_line() == "ValueError: the last line"
