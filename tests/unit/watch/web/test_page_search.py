"""watch/web/page.py: tasks in a status file, newest first, a piece at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from disbatch.model.statusline import STATUS_HEADER, Mark, format_barrier, format_line
from disbatch.model.task import Barrier, Outcome
from disbatch.watch.web import page as module
from disbatch.watch.web.page import search


def line(id: int, command: bytes = b"true", code: int = 0, out: bytes = b"", mark: Mark = Mark.TASK) -> bytes:
    outcome = Outcome(id + 1, 0, 4711, code, 1.5, 100.0 + id, 101.5 + id, len(out), out, 0, b"")
    return format_line(id, id + 1, -1, command, f"n{id % 3}", outcome, mark)


def write(directory: Path, lines: list[bytes]) -> str:
    path = directory / "status.txt"
    path.write_bytes(b"".join(lines))
    return str(path)


def ids(path: str, query: str, *, failed: bool = False, before: int | None = None) -> list[int]:
    """Of all pieces."""
    found: list[int] = []
    while before != 0:
        result = search(path, query, failed=failed, before=before)
        assert not result.problem
        found += [task.id for task in result.found]
        before = result.before
    return found


@pytest.fixture
def path(tmp_path: Path) -> str:
    barrier = format_barrier(Barrier(4, 5, None, False, b"x"), "n", 1, elapsed=1, start=1, finish=2)
    return write(
        tmp_path,
        [
            STATUS_HEADER,
            line(0, b"./one --seed 12"),
            line(1, b"./two 'it\\'s'", code=3, out=b"no such file"),
            line(2, "./größer".encode()),
            line(3, b"./two", mark=Mark.SUPERSEDED),
            barrier,
            line(12, b"./three \xff", code=-9),
        ],
    )


@pytest.mark.parametrize(
    ("query", "failed", "found"),
    [
        ("", False, [12, 3, 2, 1, 0]),
        ("", True, [12, 1]),
        ("TWO", False, [3, 1]),
        ("two", True, [1]),
        ("12", False, [12, 0]),
        ("such file", False, [1]),
        ("it\\'s", False, [1]),
        ("Größer", False, [2]),
        ("n2", False, [2]),
        ("4711", False, []),
        ("\t", False, []),
        ("x" * 10_000, False, []),
    ],
)
def test_what_is_found(path: str, query: str, failed: bool, found: list[int]) -> None:
    assert ids(path, query, failed=failed) == found


def test_what_is_told_of_a_task(path: str) -> None:
    (task,) = search(path, "such", failed=False, before=None).found
    assert (task.line, task.node, task.return_code, task.seconds) == (2, "n1", 3, 1.5)
    assert (task.snippet, task.command, task.mark) == ("no such file", "./two 'it\\'s'", "")
    assert search(path, "two", failed=False, before=None).found[0].mark == "does not count"


@pytest.mark.parametrize("block", [1, 7, 64, 1000, 1 << 20])
def test_in_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    path = write(tmp_path, [line(id, b"x" * (id % 90)) for id in range(40)])
    assert ids(path, "") == list(range(39, -1, -1))
    assert ids(path, "17") == [17]


@pytest.mark.parametrize("block", [50, 300])
def test_bounded_searches_go_on_where_they_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    path = write(tmp_path, [line(id) for id in range(50)])
    monkeypatch.setattr(module, "MOST_FOUND", 7)
    assert ids(path, "") == list(range(49, -1, -1))
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "MOST_SECONDS", -1.0)
    assert ids(path, "") == list(range(49, -1, -1))
    assert ids(path, "true", failed=True) == []


def test_a_torn_end_and_a_growing_file(tmp_path: Path) -> None:
    path = write(tmp_path, [line(0), line(1), b"    \t2\t3"])
    assert ids(path, "") == [1, 0]
    assert ids(path, "", before=1 << 60) == [1, 0]
    assert search(write(tmp_path, []), "", failed=False, before=None).found == []


def test_no_file(tmp_path: Path) -> None:
    problem = search(str(tmp_path / "none"), "", failed=False, before=None).problem
    assert problem == "the status file cannot be read: No such file or directory"
