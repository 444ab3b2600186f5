"""Directives: every form that is right, and the line that each wrong one gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.model.task import Phase
from disbatch.model.taskfile import (
    LARGEST,
    BarrierLine,
    Directive,
    DirectiveError,
    PerEngineLine,
    Prefix,
    Repeat,
    Suffix,
    is_directive,
    parse_directive,
    shown,
)

RIGHT: list[tuple[bytes, Directive]] = [
    (b"#DISBATCH PREFIX cd /w ; ", Prefix(b"cd /w ; ")),
    (b"#DISBATCH PREFIX  two", Prefix(b" two")),
    (b"#DISBATCH PREFIX\ttab", Prefix(b"tab")),
    (b"#DISBATCH \t prefix x", Prefix(b"x")),
    (b"#DISBATCH PREFIX", Prefix(b"")),
    (b"#DISBATCH PREFIX ", Prefix(b"")),
    (b"#DISBATCH SUFFIX  > log ", Suffix(b" > log ")),
    (b"#DISBATCH Suffix", Suffix(b"")),
    (b"#DISBATCH REPEAT 5", Repeat(5, 0, 1, b"")),
    (b"#DISBATCH REPEAT 0 x", Repeat(0, 0, 1, b"x")),
    (b"#DISBATCH REPEAT 5 ", Repeat(5, 0, 1, b"")),
    (b"#DISBATCH REPEAT 5  a  b ", Repeat(5, 0, 1, b" a  b ")),
    (b"#DISBATCH REPEAT 5 start 100 step 50 cmd", Repeat(5, 100, 50, b"cmd")),
    (b"#DISBATCH repeat  5\tSTART  -7 Step +3 cmd", Repeat(5, -7, 3, b"cmd")),
    (b"#DISBATCH REPEAT 5 start 1", Repeat(5, 1, 1, b"")),
    (b"#DISBATCH REPEAT 5 step -2 cmd", Repeat(5, 0, -2, b"cmd")),
    (b"#DISBATCH REPEAT 5 step 0 cmd", Repeat(5, 0, 0, b"cmd")),
    (b"#DISBATCH REPEAT 5 starts 1", Repeat(5, 0, 1, b"starts 1")),
    (b"#DISBATCH REPEAT 5 'start' 1", Repeat(5, 0, 1, b"'start' 1")),
    (b"#DISBATCH REPEAT 007 x", Repeat(7, 0, 1, b"x")),
    (b"#DISBATCH REPEAT 50000000", Repeat(50_000_000, 0, 1, b"")),
    (b"#DISBATCH REPEAT %d x" % LARGEST, Repeat(LARGEST, 0, 1, b"x")),
    (b"#DISBATCH BARRIER", BarrierLine(False, None)),
    (b"#DISBATCH BARRIER  ", BarrierLine(False, None)),
    (b"#DISBATCH barrier key", BarrierLine(False, b"key")),
    (b"#DISBATCH BARRIER a key ", BarrierLine(False, b"a key")),
    (b"#DISBATCH BARRIER CHECK", BarrierLine(True, None)),
    (b"#DISBATCH BARRIER  check\tkey", BarrierLine(True, b"key")),
    (b"#DISBATCH BARRIER CHECKED", BarrierLine(False, b"CHECKED")),
    (b"#DISBATCH PERENGINE START echo hi", PerEngineLine(Phase.START, b"echo hi")),
    (b"#DISBATCH perengine  stop  rm x ", PerEngineLine(Phase.STOP, b" rm x ")),
]

WRONG = [
    (b"#DISBATCH", "needs a directive"),
    (b"#DISBATCH  ", "needs a directive"),
    (b"#DISBATCH FOO bar", "unknown directive 'FOO'"),
    (b"#DISBATCH \xff\x00", "unknown directive"),
    (b"#DISBATCH REPEAT", "whole number"),
    (b"#DISBATCH REPEAT x", "whole number"),
    (b"#DISBATCH REPEAT -1 x", "whole number"),
    (b"#DISBATCH REPEAT 5; x", "whole number"),
    (b"#DISBATCH REPEAT 5.0 x", "whole number"),
    (b"#DISBATCH REPEAT 5 step 2 start 1 x", "start before step"),
    (b"#DISBATCH REPEAT 5 start x", "start before step"),
    (b"#DISBATCH REPEAT 5 start", "start before step"),
    (b"#DISBATCH REPEAT 5 start 1 start 2", "start before step"),
    (b"#DISBATCH REPEAT 5 start 1.5 x", "start before step"),
    (b"#DISBATCH REPEAT 5 Step two x", "start before step"),
    (b"#DISBATCH REPEAT 9223372036854775808 x", "63 bits"),
    (b"#DISBATCH REPEAT " + b"9" * 5000, "63 bits"),
    (b"#DISBATCH REPEAT 2 start -9223372036854775808 x", "63 bits"),
    (b"#DISBATCH REPEAT 3 step 4611686018427387904 x", "63 bits"),
    (b"#DISBATCH PERENGINE", "START or STOP"),
    (b"#DISBATCH PERENGINE echo", "START or STOP"),
    (b"#DISBATCH PERENGINE STARTED echo", "START or STOP"),
    (b"#DISBATCH PERENGINE START", "has no command"),
    (b"#DISBATCH PERENGINE STOP   ", "has no command"),
]


@pytest.mark.parametrize(("line", "expected"), RIGHT)
def test_right(line: bytes, expected: Directive) -> None:
    assert is_directive(line)
    assert parse_directive(line) == expected


@pytest.mark.parametrize(("line", "says"), WRONG)
def test_wrong(line: bytes, says: str) -> None:
    assert is_directive(line)
    with pytest.raises(DirectiveError) as caught:
        parse_directive(line)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "line",
    [b"#DISBATCHX", b"#DISBATCH:", b"#disbatch REPEAT 2", b" #DISBATCH BARRIER", b"# DISBATCH", b"", b"#"],
)
def test_not_a_directive(line: bytes) -> None:
    assert not is_directive(line)


@given(st.binary(max_size=60))
def test_anything_is_read_or_refused(text: bytes) -> None:
    try:
        parse_directive(b"#DISBATCH " + text)
    except DirectiveError as error:
        assert str(error).isprintable()


@given(st.integers(0, 1000), st.integers(-(10**6), 10**6), st.integers(-1000, 1000), st.binary(max_size=20))
def test_repeat_with_any_command(count: int, start: int, step: int, command: bytes) -> None:
    # The word after the numbers would be read as one of them only if it were called so.
    command = b"x" + command
    line = b"#DISBATCH REPEAT %d start %d step %d %b" % (count, start, step, command)
    assert parse_directive(line) == Repeat(count, start, step, command)


def test_shown_is_short_and_printable() -> None:
    assert shown(b"a\xffb\n") == "'a\\udcffb\\n'"
    assert len(shown(b"x" * 1000)) < 80
