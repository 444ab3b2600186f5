"""Status files of any origin as columns: what is read, what is told of the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_lines import BASE, line, write

from disbatch.model.errors import UsageError
from disbatch.model.statusline import STATUS_HEADER, Mark, parse_line, scan_block
from disbatch.watch.report.data import BLOCK, NUMBER, Lines
from disbatch.watch.report.figures import File

DATA = Path(__file__).parents[2] / "data"
OLD = (
    b"R  \t3\t4\t-1\tworker032\t8016\t1\t10.0486528873\t1458660919.78\t1458660929.83\t0\t\"\"\t3\t'no\\n'"
    b"\t'cd /work ; prog > 3.log 2>&1'\n"
)


def read(*paths: str) -> Lines:
    lines = Lines.read(paths)
    lines.close()
    return lines


def file(path: str, lines: int, bad: int = 0, first: int = 0, *, torn: bool = False) -> File:
    return File(path, lines, bad, first, torn, False)


def test_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "s", line(7, 1.5, 2.25, code=3, node="n2", err=b"oh\n"), line(8, node="n1"))
    lines = read(path)
    assert (list(lines.ids), list(lines.codes), lines.node_names) == ([7, 8], [3, 0], ["n1", "n2"])
    assert (list(lines.nodes), list(lines.elapsed)) == ([1, 0], [2.25, 1.0])
    assert (list(lines.starts), list(lines.finishes)) == ([BASE + 1.5, BASE], [BASE + 3.75, BASE + 1])
    assert (list(lines.causes), list(lines.timed)) == ([0, -1], [1, 1])
    assert lines.files == [file(path, 2)]


@pytest.mark.parametrize("mark", Mark)
def test_marks(tmp_path: Path, mark: Mark) -> None:
    lines = read(write(tmp_path / "s", line(7, mark=mark)))
    assert list(lines.marks) == [NUMBER[mark]]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("original_3_header_status.txt", 2),
        ("original_3_mixed_status.txt", 13),
        ("original_3_odd_status.txt", 12),
        ("original_3_perengine_status.txt", 7),
    ],
)
def test_files_of_the_original(name: str, count: int) -> None:
    lines = read(str(DATA / name))
    assert lines.files == [file(str(DATA / name), count)]
    assert all(lines.timed)


def test_a_line_of_the_first_version(tmp_path: Path) -> None:
    lines = Lines.read([write(tmp_path / "s", OLD)])
    assert (list(lines.ids), list(lines.codes), list(lines.elapsed)) == ([3], [1], [10.0486528873])
    assert lines.record(0) == parse_line(OLD)
    lines.close()


def test_what_a_row_says_is_found_again(tmp_path: Path) -> None:
    """Also behind a bad line and in a second file."""
    one = write(tmp_path / "one", STATUS_HEADER, line(1), b"bad\n", line(2), b"\r\n", line(3))
    two = write(tmp_path / "two", *(line(id, command=b"x" * id) for id in range(4, 2000)))
    lines = Lines.read([one, two])
    assert [record.id for row in range(len(lines)) if (record := lines.record(row))] == list(range(1, 2000))
    lines.close()


@pytest.mark.parametrize(
    ("content", "lines", "bad", "first", "torn"),
    [
        ([], 0, 0, 0, False),
        ([STATUS_HEADER], 0, 0, 0, False),
        ([STATUS_HEADER, line(1)], 1, 0, 0, False),
        ([line(1), line(2)[:-1]], 1, 0, 0, True),
        ([line(1)[:20]], 0, 0, 0, True),
        ([b"nonsense\n", line(1), b"\n", line(2)], 2, 2, 1, False),
        ([line(1), b"\x00\xff\xfe\r\n", line(2)], 2, 1, 2, False),
        ([line(1), line(2)[:30], line(3)], 1, 1, 2, False),
        ([line(1), line(2).replace(b"1.000000", b"1.0.0"), line(3)], 2, 1, 2, False),
        ([line(1), line(2).replace(b"\t2\t", b"\t9999999999999999999\t"), line(3)], 2, 1, 2, False),
    ],
)
def test_what_is_no_line(
    tmp_path: Path, content: list[bytes], lines: int, bad: int, first: int, torn: bool
) -> None:
    path = write(tmp_path / "s", *content)
    assert read(path).files == [file(path, lines, bad, first, torn=torn)]


@pytest.mark.parametrize("content", [b"echo 1\necho 2\n", b"\n", b"\x7fELF\n" * 9, b"a\tb\n" * BLOCK])
def test_what_is_no_status_file(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "Tasks", content)
    with pytest.raises(UsageError, match="Tasks: is not a status file: line 1 is not a line of one"):
        read(path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, what in (
        ("nothing", "cannot be read: no such file or directory"),
        (".", "is a directory"),
        ("pipe", "is not a regular file"),
    ):
        with pytest.raises(UsageError, match=what):
            read(str(tmp_path / name))


@pytest.mark.parametrize(
    "times", [b"nan\tinf\t-inf", b"1e99\t1.0\t2.0", b"-1.0\t5.0\t4.0", b"1.0\t1e300\t2.0"]
)
def test_times_that_mean_nothing(tmp_path: Path, times: bytes) -> None:
    odd = line(1).replace(b"1.000000\t1772366400.000000\t1772366401.000000", times)
    assert odd != line(1)
    lines = read(write(tmp_path / "s", odd, line(2)))
    assert list(lines.timed) == [0, 1]
    assert (lines.elapsed[0], lines.starts[0], lines.finishes[0]) == (0, 0, 0)


@pytest.mark.parametrize("never_ran", [line(1, elapsed=0, code=-15, pid=0), line(1, elapsed=0, code=-100)])
def test_what_never_ran(tmp_path: Path, never_ran: bytes) -> None:
    assert list(read(write(tmp_path / "s", never_ran, line(2))).timed) == [0, 1]


def test_causes(tmp_path: Path) -> None:
    """Return code and snippet, where numbers count as equal; only those of tasks."""
    said = [b"no 1\n", b"no 22\n", b"at 0xdeadBEEF\n", b"at 0x1\n", b"", b""]
    failing = [line(id, code=1, err=err) for id, err in enumerate(said)]
    others = [
        line(9, code=2),
        line(10),
        line(11, code=1, mark=Mark.SUPERSEDED),
        line(12, code=1, mark=Mark.SKIPPED),
    ]
    lines = read(write(tmp_path / "s", *failing, *others))
    assert list(lines.causes) == [0, 0, 1, 1, 2, 2, 3, -1, -1, 2]


def test_a_file_named_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "s", line(1))
    (tmp_path / "link").symlink_to(path)
    lines = read(path, str(tmp_path / "link"))
    assert (len(lines), lines.duplicates) == (1, [str(tmp_path / "link")])


def test_results_that_no_driver_took(tmp_path: Path) -> None:
    """They belong to the run of the status file that they lie beside."""
    path = write(tmp_path / "run_status.txt", line(1))
    beside = write(tmp_path / "run_node1_unrecorded.txt", line(2))
    other = write(tmp_path / "more_status.txt", line(3))
    lines = read(path, other)
    assert lines.files == [file(path, 1), file(beside, 1), file(other, 1)]
    again = Lines.read([path, other])
    assert [source.run for source in again.sources] == [0, 0, 1]
    again.close()


def test_names_that_are_not_text(tmp_path: Path) -> None:
    path = os.fsdecode(bytes(tmp_path) + b"/s\xff")
    Path(path).write_bytes(line(1).replace(b"node1", b"n\xff\xfe"))
    lines = read(path)
    assert lines.node_names == ["n\\xff\\xfe"]
    assert lines.files[0].name.endswith("s\\xff")


def test_lines_longer_than_a_block(tmp_path: Path) -> None:
    long = line(2, command=b"y" * (3 * BLOCK))
    lines = Lines.read([write(tmp_path / "s", line(1), long, line(3))])
    record = lines.record(1)
    assert list(lines.ids) == [1, 2, 3]
    assert record is not None
    assert len(record.command) == 3 * BLOCK + 2
    lines.close()


@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([line(1), line(2, code=3, err=b"e")]))))
def test_a_block_is_what_its_lines_are(parts: list[bytes]) -> None:
    block = b"".join(part if part.endswith(b"\n") else part + b"\n" for part in parts)
    good = [parse_line(each + b"\n") for each in block.split(b"\n")[:-1]]
    found = scan_block(block)
    assert (found is None) == (None in good)
    assert found is None or [int(fields[1]) for fields in found] == [record.id for record in good if record]
