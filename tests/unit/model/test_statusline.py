"""Status lines: ours there and back, and those of the original's 1.x and 3.0."""

from __future__ import annotations

from ast import literal_eval
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from disbatch.model.statusline import (
    STATUS_HEADER,
    Mark,
    Record,
    command_matches,
    format_barrier,
    format_line,
    format_recorded,
    format_skipped,
    is_header,
    mark_of,
    parse_line,
    quoted,
    quoted_snippet,
    readings,
    reason_of,
    scan_block,
    scan_line,
    unquoted,
)
from disbatch.model.task import Barrier, Outcome, Reason, Task

DATA = Path(__file__).parents[1] / "data"
QUIET = Outcome(7, 1, 8016, 0, 10.0486528873, 1458660919.78, 1458660929.83, 0, b"", 0, b"")
LOUD = Outcome(7, 1, 99, -9, 0.5, 1.0, 1.5, 6, b"out\t\xff\n", 2, "é'".encode())
SEED_LINE = (
    b'\t314\t315\t-1\tworker032\t8016\t0\t10.0486528873\t1458660919.78\t1458660929.83\t0\t""\t0\t""\t'
    b"'cd /path/to/workdir ; myprog argsFor314 > task314.log 2>&1'\n"
)


def test_a_quiet_task() -> None:
    assert format_line(314, 315, -1, b"cd /w ; prog > log 2>&1", "worker032", QUIET) == (
        b"    \t314\t315\t-1\tworker032\t8016\t0\t10.048653\t1458660919.780000\t1458660929.830000"
        b'\t0\t""\t0\t""\t\'cd /w ; prog > log 2>&1\'\n'
    )


def test_a_loud_task() -> None:
    assert format_line(0, 1, 5, b"it's \xff\ttab", "n", LOUD) == (
        b"ROE \t0\t1\t5\tn\t99\t-9\t0.500000\t1.000000\t1.500000\t6\t'out\\t\\udcff\\n'\t2\t"
        + '"é\'"'.encode()
        + b'\t"it\'s \\udcff\\ttab"\n'
    )


@pytest.mark.parametrize(
    ("mark", "flags"),
    [(Mark.TASK, b"R E "), (Mark.PER_ENGINE, b"R EP"), (Mark.SKIPPED, b"R ES"), (Mark.SUPERSEDED, b"R EZ")],
)
def test_flags(mark: Mark, flags: bytes) -> None:
    outcome = Outcome(1, 0, 2, 3, 0.0, 0.0, 0.0, 0, b"", 1, b"e")
    line = format_line(1, 2, -1, b"c", "n", outcome, mark)
    assert line.startswith(flags + b"\t")
    record = parse_line(line)
    assert record is not None
    assert record.mark is mark


def test_a_barrier() -> None:
    barrier = Barrier(2, 5, b"key", False, b"#DISBATCH BARRIER key")
    line = format_barrier(barrier, "here", 77, elapsed=0.25, start=10.0, finish=10.25)
    assert line == (
        b"   B\t2\t5\t-1\there\t77\t0\t0.250000\t10.000000\t10.250000"
        b'\t0\t""\t0\t""\t\'#DISBATCH BARRIER key\'\n'
    )


@given(
    st.integers(0, (1 << 63) - 1),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.binary(max_size=200).map(lambda b: b.replace(b"\n", b"")),
    st.text(),
    st.integers(-200, 255),
    st.floats(0, 1e10),
    st.binary(max_size=83),
    st.binary(max_size=83),
)
@example(0, 0, "\u2028 \x85 \ufeff".encode(), "a\tb\n", 0, 0.0, b"\xed\xb2\x80", b"'\"\\")
def test_there_and_back(
    id: int, repeat: int, command: bytes, node: str, code: int, seconds: float, out: bytes, err: bytes
) -> None:
    outcome = Outcome(1, 0, 5, code, seconds, seconds, seconds, len(out), out, len(err), err)
    line = format_line(id, 1, repeat, command, node, outcome)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    record = parse_line(line)
    assert record is not None
    assert (record.id, record.repeat, record.return_code) == (id, repeat, code)
    assert record.elapsed == pytest.approx(seconds, abs=1e-6)
    assert (record.out_bytes, record.err_bytes) == (len(out), len(err))
    assert (unquoted(record.out), unquoted(record.err), unquoted(record.command)) == (out, err, command)
    assert command_matches(record.command, command)
    for field, value in ((record.out, out), (record.command, command)):
        assert literal_eval(field.decode()).encode("utf-8", "surrogateescape") == value
    assert scan_line(b"x\n" + line, 2) == (2 + len(line), Mark.TASK, id, code, Reason.NONE)


@given(st.binary())
def test_literals(data: bytes) -> None:
    assert unquoted(quoted(data).encode()) == data
    assert unquoted(repr(data).encode()) == data
    assert data in readings(data)
    assert literal_eval(quoted_snippet(data)) is not None


def test_the_seed_documents_line() -> None:
    record = parse_line(SEED_LINE)
    assert record == Record(
        Mark.TASK, 314, 315, -1, "worker032", 8016, 0, 10.0486528873, 1458660919.78, 1458660929.83,
        0, b'""', 0, b'""', b"'cd /path/to/workdir ; myprog argsFor314 > task314.log 2>&1'",
    )  # fmt: skip
    assert command_matches(record.command, b"cd /path/to/workdir ; myprog argsFor314 > task314.log 2>&1")


@pytest.mark.parametrize(
    ("field", "command", "same"),
    [
        (b"echo a", b"echo a", True),
        (b"echo a", b"echo b", False),
        (b"'echo a'", b"echo a", True),
        (b"'echo a'", b"'echo a'", True),
        (b'"it\'s"', b"it's", True),
        (b"b'echo \\xff'", b"echo \xff", True),
        (b"'echo \\xe9'", b"echo \xe9", True),
        (b"'echo \\xe9'", "echo é".encode(), True),
        (b"'echo \xe9'", b"echo \xe9", True),
        (b"'a' 'b'", b"ab", False),
        (b"'a' 'b'", b"'a' 'b'", True),
        (b"'a' + 'b'", b"ab", False),
        (b"''", b"", True),
        (b"", b"", True),
        (b"'\\x'", b"'\\x'", True),
        (b"'\\ud800'", b"'\\ud800'", True),
        (b"r'a'", b"a", False),
        (b"f'a'", b"a", False),
        (b"'''a'''", b"a", False),
        (b"'a\tb'", b"a\tb", True),
    ],
)
def test_commands_of_any_writer(field: bytes, command: bytes, same: bool) -> None:
    assert command_matches(field, command) is same


@pytest.mark.parametrize(
    ("flags", "mark"),
    [
        (b"", Mark.TASK),
        (b"   ", Mark.TASK),
        (b"R E", Mark.TASK),
        (b"ROE ", Mark.TASK),
        (b"B    ", Mark.BARRIER),
        (b"C    ", Mark.BARRIER),
        (b"B  ", Mark.BARRIER),
        (b"  S", Mark.SKIPPED),
        (b"ROES", Mark.SKIPPED),
        (b" O P", Mark.PER_ENGINE),
        (b"R  Z", Mark.SUPERSEDED),
    ],
)
def test_flags_of_any_writer(flags: bytes, mark: Mark) -> None:
    assert mark_of(flags) is mark
    record = parse_line(flags + SEED_LINE)
    assert record is not None
    assert record.mark is mark


@pytest.mark.parametrize("mark", [Mark.TASK, Mark.SKIPPED, Mark.SUPERSEDED])
@pytest.mark.parametrize("reason", Reason)
def test_a_reason_there_and_back(reason: Reason, mark: Mark) -> None:
    """In the fifth column, which is there only if there is one."""
    outcome = msgspec.structs.replace(LOUD, reason=reason)
    line = format_line(3, 4, -1, b"c", "n", outcome, mark)
    assert line.startswith(f"ROE{mark.value}{reason.value}\t3\t".encode())
    record = parse_line(line)
    assert record is not None
    assert (record.mark, record.reason) == (mark, reason)
    assert scan_line(line, 0) == (len(line), mark, 3, -9, reason)
    assert scan_block(line + line) is not None
    again = format_recorded(record, Task(3, 4, -1, b"c"))
    assert again == line
    assert format_skipped(record, Task(3, 4, -1, b"c")).startswith(f"ROES{reason.value}\t".encode())


@pytest.mark.parametrize(
    ("flags", "mark", "reason"),
    [
        (b"R  SX", Mark.SKIPPED, Reason.CANCELLED),
        (b"    T", Mark.TASK, Reason.TIME_LIMIT),
        (b"R E M", Mark.TASK, Reason.MEMORY),
        (b"R   N", Mark.TASK, Reason.NOT_RUN),
        (b"B    ", Mark.BARRIER, Reason.NONE),
        (b"C    ", Mark.BARRIER, Reason.NONE),
        (b"R E", Mark.TASK, Reason.NONE),
    ],
)
def test_flags_with_a_reason(flags: bytes, mark: Mark, reason: Reason) -> None:
    assert (mark_of(flags), reason_of(flags)) == (mark, reason)
    record = parse_line(flags + SEED_LINE)
    assert record is not None
    assert (record.mark, record.reason) == (mark, reason)


@pytest.mark.parametrize("flags", [b"X", b"RX", b"R X ", b"X   ", b"R  X", b"R   XX", b"R   Q", b"R   X "])
def test_a_reason_elsewhere_is_none_of_ours(flags: bytes) -> None:
    assert parse_line(flags + SEED_LINE) is None


def test_outcomes_of_an_engine_that_knows_no_reasons() -> None:
    """The field was appended: what an engine of the version before sends has none."""
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(LOUD))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(fields[:-1]), type=Outcome) == LOUD
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([*fields, "new"]), type=Outcome) == LOUD


GOOD = format_line(3, 4, -1, b"c", "n", QUIET)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"echo hello\n",
        GOOD.replace(b"\t3\t", b"\tx\t", 1),
        GOOD.replace(b"\t3\t", b"\t-3\t", 1),
        GOOD.replace(b"\t3\t", b"\t" + b"3" * 5000 + b"\t", 1),
        GOOD.replace(b"    ", b"Q   ", 1),
        GOOD.replace(b"10.048653", b"1.2.3", 1),
        GOOD.rsplit(b"\t", 1)[0],
        GOOD + GOOD,
        STATUS_HEADER,
    ],
)
def test_not_a_status_line(line: bytes) -> None:
    assert parse_line(line) is None


def test_headers() -> None:
    assert is_header(STATUS_HEADER)
    assert is_header((DATA / "original_3_header_status.txt").read_bytes().splitlines()[0])
    assert not is_header(GOOD)
    assert not is_header(b"echo hello")
    assert not is_header(b"\t" * 14)


def test_a_skipped_task_keeps_what_was() -> None:
    task = Task(4, 9, -1, b"cmd")
    former = parse_line(format_line(4, 8, -1, b"cmd", "n1", LOUD))
    assert former is not None
    line = format_skipped(former, task)
    assert line == format_line(4, 9, -1, b"cmd", "n1", LOUD, Mark.SKIPPED)


def test_a_skipped_line_of_3_0() -> None:
    line = b" O  \t0\t1\t-1\tvm\t3796\t0\t1.004\t5.494\t6.499\t6\t'start\\n'\t0\t''\techo start\n"
    former = parse_line(line)
    assert former is not None
    assert format_skipped(former, Task(0, 1, -1, b"echo start")) == (
        b" O S\t0\t1\t-1\tvm\t3796\t0\t1.004000\t5.494000\t6.499000\t6\t'start\\n'\t0\t''\t'echo start'\n"
    )


@pytest.mark.parametrize("name", ["mixed", "perengine", "odd", "header"])
def test_files_of_the_original(name: str) -> None:
    lines = (DATA / f"original_3_{name}_status.txt").read_bytes().splitlines(keepends=True)
    records = [parse_line(line) for line in lines if not is_header(line)]
    assert len(records) >= 2
    assert None not in records
    assert all(unquoted(record.out) is not None for record in records if record)
