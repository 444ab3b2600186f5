"""Failures by return code and snippet."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_lines import keep, line, reported, write

from disbatch.model.failure import how_failed
from disbatch.model.statusline import Mark
from disbatch.model.task import SNIPPET_EDGE, Reason
from disbatch.watch.report.statistics import MOST_EXAMPLES, MOST_GROUPS
from disbatch.watch.report.wording import outcomes, title_of_failures


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


def test_the_last_line_of_an_error_tells_the_kind(tmp_path: Path) -> None:
    """Whatever stands before it, in which numbers need not agree either."""
    said = [b"step %d of 9\nNo convergence\n\n" % n for n in (1, 7)] + [b"warning\rNo convergence"]
    path = write(tmp_path / "s", *(line(id, code=2, err=err) for id, err in enumerate(said)), line(9, code=2))
    (one, silent) = reported(path).failures
    assert (one.count, one.last_line, one.snippet) == (3, "No convergence", "step 1 of 9\nNo convergence\n\n")
    assert (silent.count, silent.last_line) == (1, "")


def test_what_was_cancelled_before_it_ran_said_nothing(tmp_path: Path) -> None:
    """Its snippet says that it was cancelled, which is said already."""
    early = line(0, code=-15, pid=0, err=b"cancelled", reason=Reason.CANCELLED).replace(b"\t9\t", b"\t0\t")
    late = line(1, code=-15, reason=Reason.CANCELLED)
    (found,) = reported(write(tmp_path / "s", early, late)).failures
    assert (found.how, found.count, found.last_line) == ("cancelled", 2, "")


def cut(text: bytes) -> bytes:
    """The snippet of a text."""
    return text[:SNIPPET_EDGE] + b"..." + text[-SNIPPET_EDGE:]


def test_a_snippet_is_shown_from_a_whole_word_on(tmp_path: Path) -> None:
    """Longer numbers move the cut."""
    line_of = b"Traceback: x.py\nNotFoundError: %d is no key of all that were given to it in file%d.fits\n"
    said = (line_of % (n, n) for n in (1, 77, 12345678))
    path = write(tmp_path / "s", *(line(id, code=1, err=cut(err)) for id, err in enumerate(said)))
    (found,) = reported(path).failures
    assert (found.count, found.last_line) == (3, "… that were given to it in file1.fits")


def test_ends_of_lines_that_are_too_short_to_tell(tmp_path: Path) -> None:
    said = (b"a" * 50 + b"b" * n + b" no such file" for n in (25, 26))
    other = b"a" * 50 + b"c" * 15 + b" and there is no such file"
    path = write(tmp_path / "s", *(line(id, code=1, err=cut(err)) for id, err in enumerate((*said, other))))
    assert [(it.count, it.last_line) for it in reported(path).failures] == [
        (2, "… no such file"),
        (1, "… and there is no such file"),
    ]


WHOLE = b"Traceback: x.py\n" + b"y\n" * 5000 + b"NotFoundError: of all that were given to it, no %d.fits\n"


def test_whole_lines_from_what_was_kept(tmp_path: Path) -> None:
    """Of one task of each kind."""
    said = [WHOLE % id for id in range(1000)]
    lines = [line(id, code=1, err=err)[:-1] + b"\n" for id, err in enumerate(said)]
    path = write(tmp_path / "P_status.txt", *lines)
    before = reported(path).failures
    keep(path, {0: said[0]})
    (found,) = reported(path).failures
    assert (found.count, found.last_line) == (1000, "NotFoundError: of all that were given to it, no 0.fits")
    assert found.snippet == before[0].snippet


@pytest.mark.parametrize("said", [b"", WHOLE[:100]])
def test_output_that_is_not_all_there_does_not_tell_the_line(tmp_path: Path, said: bytes) -> None:
    path = write(
        tmp_path / "P_status.txt",
        line(0, code=1, err=cut(b"a" * 60 + b" is no file")).replace(b"\t83\t", b"\t900\t"),
    )
    keep(path, {0: said})
    (found,) = reported(path).failures
    assert found.last_line == "… is no file"


@pytest.mark.parametrize("text", [b"", b"{}", b"[1", b'{"directory": 5}'])
def test_a_damaged_file_of_output_is_left_aside(tmp_path: Path, text: bytes) -> None:
    path = write(tmp_path / "P_status.txt", line(0, code=1, err=b"no file"))
    (tmp_path / "P_output.json").write_bytes(text)
    assert reported(path).failures[0].last_line == "no file"


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


def test_cancelled_tasks_alone_are_no_failures(tmp_path: Path) -> None:
    cancelled = line(1, code=-15, reason=Reason.CANCELLED)
    alone, both = (
        reported(write(tmp_path / name, line(0), cancelled, line(2, code=code)))
        for name, code in (("alone", 0), ("both", 1))
    )
    assert (title_of_failures(alone.tasks), title_of_failures(both.tasks)) == ("Cancelled tasks", "Failures")
