"""How a run stands: from a status file, as text, as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from report_lines import BASE, barrier, keep, line, write

from disbatch.model.errors import UsageError
from disbatch.model.statusline import Mark
from disbatch.model.task import Reason
from disbatch.model.text import memory
from disbatch.model.view import BarrierRow, EngineRow, FailureKind, FailureRow, LogRow, RunningRow, RunView
from disbatch.watch.run_state import (
    DEAD,
    DRIVER,
    OVER,
    POINTS,
    SCHEMA,
    STATUS_FILE,
    Standing,
    of_driver,
    view_of,
)
from disbatch.watch.status_text import render

ENGINE = EngineRow("0-ab", "node1", 0, "", "active", 16, 16, 4, 600, 3, 2.5, 1.2, 15.75, 13 << 30, 64 << 30)
VIEW = RunView(
    number=7,
    driver=0,
    jobid="J",
    name="Tasks",
    time=BASE + 100,
    started=BASE,
    seconds=100.0,
    mode="running",
    notice="",
    paused=False,
    barrier=None,
    total=1000,
    done=600,
    failed=3,
    skipped=10,
    skipped_failed=0,
    running=16,
    waiting=4,
    lost=1,
    retried=2,
    slots=16,
    rate=6.0,
    remaining=65.0,
    engines_count=1,
    engines=[ENGINE],
    running_tasks=[RunningRow(604, 605, "0-ab", "node1", 61.5, "./task 604")],
    failures=[
        FailureRow(
            3,
            41,
            42,
            "node1",
            3,
            1.5,
            BASE + 50,
            "o such\x1b[2J file",
            "./task\t41",
            last_line="no such file",
        )
    ],
    failure_kinds=[FailureKind(2, 3, "", "line 7: no such file", 41, 42, "node1", 1, "./task\t41")],
    failure_kinds_count=3,
    log=[LogRow(1, BASE, "node2: engine lost")],
    course=[],
)


def changed(**changes: object) -> RunView:
    return msgspec.structs.replace(VIEW, **changes)


def text(view: RunView = VIEW, **how: object) -> list[str]:
    plain = {"run": "P", "state": view.mode, "words": view.notice, "told_by": DRIVER, "view": view}
    return render(Standing(**(plain | how)), 100, 20).splitlines()  # type: ignore[arg-type]


def test_nodes_of_one_name_are_told_apart_by_their_labels() -> None:
    labels = ["", "day", "night"]
    engines = [
        msgspec.structs.replace(ENGINE, engine=f"{n}-x", rank=n, node="vm", label=each)
        for n, each in enumerate(labels)
    ]
    running = [RunningRow(n, n, f"{n}-x", "vm", 1.0, "true", each) for n, each in enumerate(labels)]
    failures = [FailureRow(n, n, n, "vm", 1, 1.0, BASE, "", "false", each) for n, each in enumerate(labels)]
    lines = text(changed(engines=engines, engines_count=3, running_tasks=running, failures=failures))
    assert lines[2] == "  slots    16 of 16 slots used, on 1 node"
    for shown in ("vm  ", "vm (day)", "vm (night)"):
        assert sum(shown in line for line in lines) == 3


def test_cancelled_tasks_have_not_failed() -> None:
    failures = [FailureRow(1, 3, 4, "vm", -15, 1.0, BASE, "", "sleep 9", reason="cancelled")]
    kinds = [FailureKind(1, -15, "cancelled", "", 3, 4, "vm", 1, "sleep 9")]
    shown = {"failures": failures, "failure_kinds": kinds, "failure_kinds_count": 1, "lost": 0}
    lines = text(changed(failed=1, cancelled=1, **shown))
    titles = [line.split()[0] for line in lines if line and line.split()[0].isupper()]
    assert "CANCELLED" in titles and not {"FAILED", "FAILURES"} & set(titles)
    lines = text(changed(failed=2, cancelled=1, **shown))
    titles = [line.split()[0] for line in lines if line and line.split()[0].isupper()]
    assert {"FAILED", "FAILURES"} < set(titles) and "CANCELLED" not in titles


# ---- from a file ----


def test_from_a_status_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "P_status.txt",
        line(0, 0, 10),
        line(1, 0, 20, code=3, err=b"no such file", command=b"./one"),
        line(2, 10, 30, node="node2", code=-9),
        line(9, 10, 1, mark=Mark.SUPERSEDED),
        barrier(3, 40),
        line(4, mark=Mark.SKIPPED),
        line(5, code=-100, pid=0, elapsed=0),
        line(6, code=-15, pid=0, elapsed=0, node="head", err=b"cancelled", reason=Reason.CANCELLED),
        line(7, code=-15, pid=0, elapsed=0, mark=Mark.SKIPPED, reason=Reason.CANCELLED),
    )
    view = view_of(path, name="P", failures=3)
    assert (view.done, view.failed, view.lost, view.skipped, view.retried) == (4, 3, 1, 2, 1)
    assert (view.cancelled, view.not_run, view.skipped_failed) == (1, 0, 1)
    assert (view.started, view.total, view.mode) == (BASE, None, "over")
    assert [(row.node, row.done, row.failed) for row in view.engines] == [("node1", 2, 1), ("node2", 1, 1)]
    assert [(row.number, row.id, row.reason) for row in view.failures] == [
        *((3, 5, ""), (4, 6, "cancelled"), (5, 7, "cancelled")),
    ]
    first = view_of(path, name="P", failures=9).failures[0]
    assert (first.snippet, first.command, first.node, first.time) == (
        "no such file",
        "./one",
        "node1",
        BASE + 20,
    )
    assert len(view.course) == POINTS + 1
    assert (view.course[-1].done, view.course[-1].failed) == (3, 2)
    assert max(point.running for point in view.course) == 3


def test_from_a_status_file_in_which_nothing_has_ended(tmp_path: Path) -> None:
    view = view_of(write(tmp_path / "P_status.txt"), name="P", failures=2)
    assert (view.done, view.seconds, view.rate, view.engines, view.course) == (0, 0.0, None, [], [])
    lines = render(Standing("P", OVER, "", STATUS_FILE, view), 80, 9).splitlines()
    assert lines == ["P: over, 0 s", "  tasks    0 done", "", "no engines"]


def test_what_is_no_status_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a status file"):
        view_of(write(tmp_path / "P_status.txt", b"hello\n"), name="P", failures=2)
    with pytest.raises(UsageError, match="cannot be read"):
        view_of(str(tmp_path / "none"), name="P", failures=2)


@pytest.mark.parametrize("kept", [False, True])
def test_kinds_of_failures_from_a_status_file(tmp_path: Path, *, kept: bool) -> None:
    whole = b"ModuleNotFoundError: No module named 'it' in line %d\n"
    said = [b"Traceback: " + b"x\n" * 99 + whole % n for n in (7, 8)]
    path = write(
        tmp_path / "P_status.txt",
        *(line(id, code=1, err=err[:40] + b"..." + err[-40:], node=f"n{id}") for id, err in enumerate(said)),
        line(2, code=-9),
    )
    shown = "… No module named 'it' in line "
    if kept:
        keep(path, dict(enumerate(said)))
        shown = "ModuleNotFoundError: No module named 'it' in line "
    view = view_of(path, name="P", failures=3)
    assert [row.last_line for row in view.failures] == [f"{shown}7", f"{shown}8", ""]
    kinds = [(it.count, it.return_code, it.id, it.nodes, it.last_line) for it in view.failure_kinds]
    assert kinds == [(2, 1, 0, 2, f"{shown}7"), (1, -9, 2, 1, "")]
    assert view.failure_kinds_count == 2


# ---- as text ----


def test_reasons_as_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "P_status.txt",
        *(line(id, code=-15, reason=reason) for id, reason in enumerate(Reason)),
        line(9, code=-100, pid=0, reason=Reason.NOT_RUN),
    )
    lines = render(
        Standing("P", OVER, "", STATUS_FILE, view_of(path, name="P", failures=9)), 80, 9
    ).splitlines()
    assert lines[1] == "  tasks    4 done, 3 failed, 1 cancelled, 2 not run"
    ended = "\n".join(lines)
    for words in ("killed by SIGTERM", "cancelled", "ended at its time limit", "out of memory", "not run"):
        assert words in ended
    assert ended.count("SIGTERM") == 2 and "-100" not in ended  # as a kind of failure, and as its task


def test_a_run_that_goes_on() -> None:
    lines = text()
    assert lines[0] == "P: running for 1:40, 6.0/s, 1:05 left"
    assert lines[1].startswith("  tasks    610 of 1,000 done, 3 failed, 10 of them before, 1 lost")
    assert lines[2] == "  slots    16 of 16 slots used, on 1 node"
    assert "node1  active     16    16   600       3  2.5/s    1 s  15.8  20% of 64 GB" in lines
    assert "    604   605  node1  1:02  ./task 604" in lines
    assert "and 15 more" in lines
    assert "    41    42  node1  exit 3  1.50 s  ./task 41" in lines
    assert "    no such file" in lines
    assert "       2  exit 3         41  node1  line 7: no such file" in lines
    assert "and 2 more kinds (2 tasks)" in lines
    assert lines[-1].endswith("node2: engine lost")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"paused": True, "notice": "paused"}, "P: paused, began 1:40 ago, 6.0/s"),
        ({"mode": "ending", "notice": "x"}, "P: ending for 1:40, 6.0/s"),
        ({"rate": None, "remaining": None}, "P: running for 1:40"),
        ({"mode": "over"}, "P: over, 1:40, 6.0/s"),
    ],
)
def test_headlines(changes: dict[str, object], words: str) -> None:
    assert text(changed(**changes))[0] == words


def test_what_people_should_know_is_told_whole() -> None:
    lines = text(state=DEAD, words="word " * 40, view=changed(barrier=BarrierRow(7, 9)))
    assert lines[0].startswith("P: dead, last heard of at ")
    assert "  barrier  waiting at that in line 9" in lines
    assert sum(line.count("word") for line in lines) == 40
    assert all(len(line) <= 100 for line in lines)


def test_of_many_engines_some_are_shown_and_those_that_are_there_first() -> None:
    rows = [
        msgspec.structs.replace(ENGINE, node=f"n{rank}", rank=rank, state="left" if rank < 5 else "active")
        for rank in range(40)
    ]
    lines = text(changed(engines=rows, engines_count=40))
    at = lines.index("")
    assert lines[at + 2].startswith("n5 ") and "and 20 more" in lines[at:]


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0.0 kB"), (700 << 20, "700 MB"), (1023 << 20, "1.0 GB"), (64 << 30, "64 GB"), (1 << 52, "4096 TB")],
)
def test_memory(number: int, words: str) -> None:
    assert memory(number) == words


# ---- as JSON ----


def test_json_is_one_line_with_these_names() -> None:
    found = of_driver("P", VIEW).json()
    assert b"\n" not in found
    told = json.loads(found)
    assert (told["schema"], told["run"], told["state"], told["told_by"]) == (SCHEMA, "P", "running", "driver")
    assert list(told) == [
        *("schema", "run", "state", "words", "told_by", "jobid", "name", "time", "started", "seconds"),
        *("paused", "barrier", "total", "done", "failed", "skipped", "skipped_failed", "running", "waiting"),
        *("lost", "retried", "slots", "rate", "remaining", "engines_count", "engines", "running_tasks"),
        *("failures", "log", "cancelled", "not_run", "failure_kinds", "failure_kinds_count"),
    ]
    assert told["engines"][0]["memory_total"] == 64 << 30


def test_every_name_is_in_the_page() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "watching.md").read_text()
    told = json.loads(of_driver("P", VIEW).json())
    names = [
        *told,
        *(
            name
            for row in ("engines", "running_tasks", "failures", "log", "failure_kinds")
            for name in told[row][0]
        ),
    ]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_names_of_files_that_are_no_text() -> None:
    told = json.loads(Standing("P\udcff", OVER, "\udcfe", STATUS_FILE, VIEW).json())
    assert (told["run"], told["words"]) == ("P\\xff", "\\xfe")
