"""Status files written by the original, 3.0 and 1.x, are resumed from and stay as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command import disbatch, status_file, tasks, write

from disbatch.model.statusline import Mark, unquoted

DATA = Path(__file__).resolve().parents[1] / "unit" / "data"


@pytest.mark.parametrize(
    ("name", "not_directives_there", "completed"),
    [("mixed", (3, 4), 11), ("odd", (5, 13), 11), ("perengine", (), 4)],
)
def test_original_3(tmp_path: Path, name: str, not_directives_there: tuple[int, ...], completed: int) -> None:
    """Lines that 3.0 takes for comments (a bare PREFIX, other blanks, other case) are comments here too."""
    lines = (DATA / f"original_3_{name}.tasks").read_bytes().split(b"\n")
    for at in not_directives_there:
        lines[at] = b"#"
    (tmp_path / "Tasks").write_bytes(b"\n".join(lines))
    former = tmp_path / "former_status.txt"
    shutil.copy(DATA / f"original_3_{name}_status.txt", former)
    before = former.read_bytes()
    done = disbatch(tmp_path, "-s", "localhost:1", "-p", "new", "-r", "former_status.txt", "Tasks")
    # The task file of `mixed` has a BARRIER CHECK after a failed task.
    assert done.returncode == (1 if name == "mixed" else 0), done.stderr
    new = tasks(tmp_path / "new_status.txt")
    assert {record.mark for record in new.values()} == {Mark.SKIPPED} and len(new) == completed
    assert former.read_bytes() == before


def test_original_3_with_header(tmp_path: Path) -> None:
    shutil.copy(DATA / "original_3_header_status.txt", tmp_path / "old_status.txt")
    write(tmp_path / "Tasks", ["false", "true", "touch third"])
    done = disbatch(tmp_path, "-s", "localhost:1", "-r", "old_status.txt", "-R", "Tasks")
    assert done.returncode == 0, done.stderr
    (tmp_path / "old_status.txt").unlink()
    marks = {id: record.mark for id, record in tasks(status_file(tmp_path)).items()}
    assert marks == {0: Mark.TASK, 1: Mark.SKIPPED, 2: Mark.TASK}
    assert (tmp_path / "third").exists()


EXAMPLE = (
    '{}\t314\t315\t-1\tworker032\t8016\t0\t10.0486528873\t1458660919.78\t1458660929.83\t0\t""\t0\t""\t'
    "'cd /path/to/workdir ; myprog argsFor314 > task314.log 2>&1'\n"
)


@pytest.mark.parametrize("flags", ["", "   ", "    ", "  S", "   S"])
def test_line_of_1(tmp_path: Path, flags: str) -> None:
    (tmp_path / "old_status.txt").write_text(EXAMPLE.format(flags))
    lines = ["#DISBATCH REPEAT 313 :", "# one line apart", "true"]
    write(tmp_path / "Tasks", [*lines, "cd /path/to/workdir ; myprog argsFor314 > task314.log 2>&1"])
    done = disbatch(tmp_path, "-s", "localhost:4", "-p", "new", "-r", "old_status.txt", "Tasks")
    assert done.returncode == 0 and "1 done before" in done.stderr, done.stderr
    record = tasks(tmp_path / "new_status.txt")[314]
    assert record.mark is Mark.SKIPPED and (record.node, record.pid) == ("worker032", 8016)
    assert unquoted(record.command) == b"cd /path/to/workdir ; myprog argsFor314 > task314.log 2>&1"
    assert (record.start, record.finish) == (1458660919.78, 1458660929.83)


def test_failed_and_barrier_lines_of_1(tmp_path: Path) -> None:
    """Three columns of flags; a barrier's line tells of no task."""
    text = (
        "R E\t0\t1\t-1\tn1\t5\t3\t1.5\t1.0\t2.5\t0\t\"\"\t5\t'oops\\n'\t'exit 3'\n"
        'B  \t1\t2\t-1\tn1\t5\t0\t1.5\t1.0\t2.5\t0\t""\t0\t""\t\'#DISBATCH BARRIER\'\n'
        " O \t2\t3\t-1\tn1\t5\t0\t1.5\t1.0\t2.5\t3\t'hi\\n'\t0\t\"\"\t'echo hi'\n"
    )
    (tmp_path / "old_status.txt").write_text(text)
    write(tmp_path / "Tasks", ["exit 3", "#DISBATCH BARRIER", "echo hi"])
    done = disbatch(tmp_path, "-s", "localhost:1", "-p", "plain", "-r", "old_status.txt", "Tasks")
    assert done.returncode == 0 and "2 done before" in done.stderr, done.stderr
    done = disbatch(tmp_path, "-s", "localhost:1", "-p", "again", "-R", "-r", "old_status.txt", "Tasks")
    marks = {id: record.mark for id, record in tasks(tmp_path / "again_status.txt").items()}
    assert marks == {0: Mark.TASK, 2: Mark.SKIPPED}
    assert (tmp_path / "old_status.txt").read_text() == text
