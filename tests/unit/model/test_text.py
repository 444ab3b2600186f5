"""Names of files that hold any bytes: for JSON, for a terminal, and to be typed back."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.model.errors import UsageError
from disbatch.model.log import LogFormatter
from disbatch.model.text import (
    as_argument,
    parse_path_line,
    path_line,
    printable,
    printable_json,
    shell_command,
    shell_word,
    shown_path,
    valid,
    with_retry,
)

NAMES = [
    b"caf\xe9",
    b"\xff\xfe name\n$(x).txt",
    b"a b",
    b'it\'s "quoted" \\ back',
    b"\t\r\n\x1b[31m\x7f",
    "é\u0085\u2028\u202e漢".encode(),
    b"-rf",
    b"$'x'`y`!z",
    b"\xe9\x31\x32 7\n8",
]

paths = st.binary(min_size=1, max_size=40).map(lambda data: "/" + os.fsdecode(data.replace(b"\0", b"")))


def through_the_shell(command: str) -> bytes:
    script = f"printf '%s\\0' {command}".encode()
    return subprocess.run(["bash", "-c", script], check=True, capture_output=True).stdout


def test_a_word_that_was_shown_can_be_typed_back() -> None:
    words = [os.fsdecode(name) for name in NAMES]
    command = shell_command(words)
    assert command.isprintable()
    assert through_the_shell(command) == b"".join(name + b"\0" for name in NAMES)


@given(st.binary(max_size=30))
def test_any_name_is_one_printable_word(data: bytes) -> None:
    name = os.fsdecode(data.replace(b"\0", b""))
    word = shell_word(name)
    assert word.isprintable()
    assert word.isascii() or name.isprintable() or any(c.isprintable() and ord(c) > 127 for c in name)


@pytest.mark.parametrize("word", ["plain.txt", "/a/b-c_1.txt", "a b", "it's", "é"])
def test_a_usual_name_is_quoted_as_ever(word: str) -> None:
    import shlex

    assert shell_word(word) == shlex.quote(word)
    assert shown_path(word) == word


@given(st.text(st.characters(), max_size=20))
def test_valid_text_can_be_encoded_and_the_rest_is_left(text: str) -> None:
    json.dumps(valid(text), ensure_ascii=False).encode()
    assert printable(text).isprintable()
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert valid(text) == text


UNSEEN = [chr(n) for n in (*range(32), *range(0x7F, 0xA0))]
UNSEEN += list("\xad\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\U000e0041")


@pytest.mark.parametrize("letter", UNSEEN, ids=ascii)
def test_what_a_terminal_acts_upon_or_nobody_sees_is_escaped(letter: str) -> None:
    shown = printable(f"a{letter}b")
    assert shown.isprintable()
    assert shown == ("a b" if letter in "\t\n" else f"a{letter.encode('unicode_escape').decode()}b")
    text = f"caf\xe9 {letter} \U0001f600"
    document = printable_json(msgspec.json.encode({"a": [text]}))
    assert letter not in document.decode() and document.decode().isprintable()
    assert json.loads(document) == {"a": [text]}
    assert "caf\xe9" in document.decode()


@pytest.mark.parametrize(
    ("letter", "shown"),
    [
        ("\x9b", "\\x9b"),
        ("\x1b", "\\x1b"),
        ("\u202e", "\\u202e"),
        ("\u2028", "\\u2028"),
        ("\r", "\\r"),
        ("\udc9b", "\\x9b"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_how_it_is_escaped(letter: str, shown: str) -> None:
    assert printable(f"a{letter}b") == f"a{shown}b"
    assert str(UsageError(f"a{letter}b")) == f"a{shown}b"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_json_of_any_text_keeps_its_value(text: str) -> None:
    document = printable_json(msgspec.json.encode([text, {text: 1}]))
    assert document.decode().isprintable() and json.loads(document) == [text, {text: 1}]


def test_a_log_has_a_printable_line_for_each_record() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter("%(levelname)s %(message)s"))
    try:
        raise ValueError("\x9b31m\u202e")
    except ValueError:
        found = sys.exc_info()
    for info in (None, found):
        handler.emit(
            logging.LogRecord("x", logging.INFO, "x", 1, "said %s", ("\x9b2J\nINFO forged\u2028",), info)
        )
    first, second, *trace = stream.getvalue().splitlines()
    assert first == second == "INFO said \\x9b2J INFO forged\\u2028"
    assert trace[-1] == "ValueError: \\x9b31m\\u202e"


def test_bytes_that_are_not_utf_8_can_be_told_apart() -> None:
    assert valid(os.fsdecode(b"caf\xe9\xff")) == "caf\\xe9\\xff"
    assert printable(os.fsdecode(b"a\n\xe9\x1b[2J\t")) == "a \\xe9\\x1b[2J "
    assert shown_path(os.fsdecode(b"caf\xe9")) == "$'caf\\351'"


@given(paths)
def test_a_path_goes_through_a_line(path: str) -> None:
    line = path_line(path)
    assert line.splitlines() == [line]
    assert parse_path_line(os.fsdecode(os.fsencode(line))) == path


def test_a_line_of_neither_kind_is_refused() -> None:
    with pytest.raises(ValueError):
        parse_path_line('"/a')


def test_a_name_is_no_option() -> None:
    assert as_argument("-r") == "./-r"
    assert as_argument("a-r") == "a-r"


def test_what_failed_is_tried_again_once() -> None:
    assert with_retry("disbatch T -r s") == "disbatch T -r s -R" == with_retry("disbatch T -r s -R")
    assert with_retry("disbatch T -r 'a -R'") == "disbatch T -r 'a -R' -R"
