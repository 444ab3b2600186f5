"""Failures by return code and snippet."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_lines import line, reported, write

from disbatch.model.failure import how_failed
from disbatch.model.outcome import Reason
from disbatch.model.status import Mark
from disbatch.watch.report.failures import MOST_EXAMPLES, MOST_GROUPS
from disbatch.watch.report.text import outcomes


def test_groups(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s",
        *(line(id, code=1, err=b"no file %d\n" % id, node=f"n{id % 3 // 2}") for id in range(30, 0, -1)),
        line(40, code=2, err=b"no file 7\n"),
        line(41, code=-9),
        line(42, code=-9, mark=Mark.SKIPPED),
        line(43, code=-9, mark=Mark.SUPERSEDED),
        line(44, code=1, mark=Mark.PER_ENGINE),
        line(45),
    )
    report = reported(path)
    assert report.failure_groups == 3
    most, killed, other = report.failures
    assert (most.return_code, most.count, most.snippet) == (1, 30, "no file 30\n")
    assert (most.nodes, most.most_on, most.most) == (2, "n0", 20)
    assert most.tasks == list(range(30 - MOST_EXAMPLES + 1, 31))
    assert (killed.how, killed.count, killed.snippet, killed.tasks) == ("killed by SIGKILL", 2, "", [41, 42])
    assert (other.return_code, other.count) == (2, 1)


def test_reasons(tmp_path: Path) -> None:
    """A group each; and what was cancelled is no failure of its node."""
    path = write(
        tmp_path / "s",
        *(line(2 * at, code=-15, reason=reason) for at, reason in enumerate(Reason)),
        line(20, code=-100, pid=0, reason=Reason.NOT_RUN),
        line(21, code=-100, pid=0),
        line(22, code=-15, reason=Reason.CANCELLED),
        line(22),
    )
    report = reported(path)
    assert {(failure.how, failure.count) for failure in report.failures} == {
        *(("killed by SIGTERM", 1), ("cancelled", 1), ("ended at its time limit", 1), ("out of memory", 1)),
        *(("not run", 1), ("lost with its node", 1)),
    }
    tasks = report.tasks
    assert (tasks.known, tasks.succeeded, tasks.failed, tasks.lost) == (8, 1, 4, 3)
    assert (tasks.cancelled, tasks.not_run) == (1, 2)
    assert [node.failed for node in report.nodes] == [4]
    text = outcomes(tasks)
    assert text == "1 succeeded, 3 failed, 1 cancelled, 1 lost with its node, 2 not run"


def test_what_counts_is_the_line_that_counts(tmp_path: Path) -> None:
    report = reported(write(tmp_path / "s", line(1, code=3), line(1), line(2, code=3), line(2, code=4)))
    assert [(failure.return_code, failure.tasks) for failure in report.failures] == [(4, [2])]


def test_many_kinds(tmp_path: Path) -> None:
    lines = [line(id, code=1, err=b"x" * (id // 50) + b"y" * (id % 50)) for id in range(200)]
    report = reported(write(tmp_path / "s", *lines))
    assert report.failure_groups == 200
    assert len(report.failures) == MOST_GROUPS


def test_the_snippet_of_output_if_there_is_no_other(tmp_path: Path) -> None:
    told = line(1, code=1).replace(b'\t0\t""\t0\t""\t', b"\t3\t'on \\udcff'\t0\t''\t")
    assert [failure.snippet for failure in reported(write(tmp_path / "s", told)).failures] == ["on \\xff"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (3, "exit 3"),
        (127, "exit 127 (command not found)"),
        (126, "exit 126 (cannot be executed)"),
        (137, "exit 137 (SIGKILL)"),
        (191, "exit 191"),
        (255, "exit 255"),
        (-11, "killed by SIGSEGV"),
        (-100, "lost with its node"),
        (-99, "exit -99"),
    ],
)
def test_words(code: int, words: str) -> None:
    assert how_failed(code) == words
