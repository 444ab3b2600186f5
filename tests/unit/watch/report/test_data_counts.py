"""Each task counts once, however often it stands in the files."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_lines import barrier, line, reported, write

from disbatch.model.statusline import Mark
from disbatch.watch.report.data import COPY, COUNTS, NOTHING, UNCOUNTED, Counts, Lines

SKIPPED, ENDED, ENGINE = Mark.SKIPPED, Mark.SUPERSEDED, Mark.PER_ENGINE


def roles(path: Path, *lines: bytes) -> list[int]:
    read = Lines.read([write(path / "s", *lines)])
    read.close()
    return list(Counts(read).roles)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], []),
        ([line(1), line(2, code=3)], [COUNTS, COUNTS]),
        # Success beats failure, whichever is first; a failure beats a lost task.
        ([line(1, code=3), line(1)], [UNCOUNTED, COUNTS]),
        ([line(1), line(1, code=3)], [COUNTS, UNCOUNTED]),
        ([line(1, code=-100), line(1, code=3)], [UNCOUNTED, COUNTS]),
        ([line(1, code=3), line(1, code=-100)], [COUNTS, UNCOUNTED]),
        # Of two equals the later one holds.
        ([line(1), line(1)], [UNCOUNTED, COUNTS]),
        ([line(1, code=3), line(1, code=4)], [UNCOUNTED, COUNTS]),
        ([line(1, code=3), line(1), line(1, code=4), line(1)], [UNCOUNTED, UNCOUNTED, UNCOUNTED, COUNTS]),
        # A copy in the file of the run that went on is no other attempt.
        ([line(1), line(1, mark=SKIPPED)], [COUNTS, NOTHING]),
        ([line(1, mark=SKIPPED), line(1)], [NOTHING, COUNTS]),
        ([line(1, code=3), line(1, code=3, mark=SKIPPED)], [COUNTS, NOTHING]),
        ([line(1, mark=SKIPPED), line(1, mark=SKIPPED)], [NOTHING, COPY]),
        ([line(1, code=3), line(1, mark=SKIPPED)], [UNCOUNTED, COPY]),
        # What ended with its run is nothing, even alone.
        ([line(1, mark=ENDED)], [UNCOUNTED]),
        ([line(1, mark=ENDED), line(1, code=3)], [UNCOUNTED, COUNTS]),
        # Barriers and commands of engines are no tasks, and share no numbers with them.
        (
            [line(1), barrier(2, 5), line(1, mark=ENGINE), line(1, mark=ENGINE)],
            [COUNTS, NOTHING, NOTHING, NOTHING],
        ),
    ],
)
def test_roles(tmp_path: Path, history: list[bytes], expected: list[int]) -> None:
    assert roles(tmp_path, *history) == expected


def test_numbers_far_apart(tmp_path: Path) -> None:
    far = 9_000_000_000_000_000_000
    assert roles(tmp_path, line(far, code=3), line(0), line(far)) == [UNCOUNTED, COUNTS, COUNTS]


def test_totals(tmp_path: Path) -> None:
    tasks = reported(
        write(
            tmp_path / "s",
            line(0, mark=SKIPPED),
            line(1, mark=SKIPPED, code=3),
            line(2),
            line(3, code=3),
            line(3),
            line(4, code=5),
            line(5, elapsed=0, code=-100, pid=0),
            line(6, mark=ENDED, code=-15),
            barrier(7, 5.0),
            line(10),
            line(0, mark=ENGINE),
        )
    ).tasks
    assert (tasks.known, tasks.succeeded, tasks.failed, tasks.lost) == (7, 4, 2, 1)
    assert (tasks.skipped, tasks.skipped_failed) == (2, 1)
    assert (tasks.repeated, tasks.ended_attempts) == (1, 1)
    assert (tasks.without_line, tasks.highest) == (3, 10)


def test_a_run_that_was_resumed_twice(tmp_path: Path) -> None:
    """Whether all files are given or the last alone, the tasks are the same."""
    first = write(tmp_path / "1", line(0), line(1, code=3), line(2, mark=ENDED, code=-15))
    second = write(tmp_path / "2", line(0, mark=SKIPPED), line(1, code=3, mark=SKIPPED), line(2, code=4))
    third = write(tmp_path / "3", line(0, mark=SKIPPED), line(1), line(2))
    whole, last = reported(first, second, third).tasks, reported(third).tasks
    assert (whole.known, whole.succeeded, whole.failed) == (3, 3, 0)
    assert (last.known, last.succeeded, last.failed) == (3, 3, 0)
    assert (whole.skipped, last.skipped) == (0, 1)
    assert whole.repeated == 2


def test_files_of_different_runs(tmp_path: Path) -> None:
    one = write(tmp_path / "one", line(0, command=b"echo a"), line(1, command=b"echo b"))
    same = write(tmp_path / "same", line(0, command=b"echo a"))
    bare = write(tmp_path / "bare", line(0, command=b"echo a").replace(b"'echo a'", b"echo a"))
    other = write(tmp_path / "other", line(1, command=b"echo c"))
    assert reported(one, same, bare).notes == []
    assert reported(one, other).notes == ["task 1 has two different commands: are these files of one run?"]
