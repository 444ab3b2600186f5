"""What people see: words, plain lines, the progress line, the summary."""

from __future__ import annotations

import asyncio
import io
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from disbatch.model.task import how_ended
from disbatch.model.text import cells, count, counted, duration, one_line, per_second, run_time, whole_seconds
from disbatch.model.view import EndedTask, FailureKind, RunView, Summary
from disbatch.watch.progress import (
    LINES_INTERVAL,
    LONGEST_INTERVAL,
    PlainLines,
    ProgressLine,
    line,
    pause_after,
    progress_words,
)
from disbatch.watch.summary import render
from disbatch.watch.terminal import lasting
from views import engine, view


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.0304, "30 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (2.534, "2.53 s"),
        (9.996, "10.0 s"),
        (12.34, "12.3 s"),
        (59.96, "1:00"),
        (245, "4:05"),
        (3599.6, "1:00:00"),
        (7384, "2:03:04"),
        (3 * 86400 + 4 * 3600 + 5 * 60, "3d 04:05"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (1250.4, "1,250/s"),
        (100, "100/s"),
        (12.34, "12.3/s"),
        (1, "1.0/s"),
        (0.5, "30.0/min"),
        (0.01, "36.0/h"),
    ],
)
def test_rate(rate: float, words: str) -> None:
    assert per_second(rate) == words


@pytest.mark.parametrize(
    ("rate", "beside", "words"),
    [
        (0.2, 3.2, "0.2/s"),
        (0.0123, 3.2, "0.012/s"),
        (0.00001, 3.2, "0/s"),
        (12.34, 400, "12.3/s"),
        (1.5, 0.5, "90.0/min"),
        (2.0, 0.5, "120/min"),
        (0.5, None, "30.0/min"),
        (0.5, 0.0, "30.0/min"),
        (0, 0.01, "0/h"),
    ],
)
def test_rates_beside_each_other_have_one_unit(rate: float, beside: float | None, words: str) -> None:
    assert per_second(rate, beside) == words


@pytest.mark.parametrize(
    ("seconds", "going_on", "taken"),
    [
        (0, "0 s", "0 s"),
        (0.01, "0 s", "0.1 s"),
        (0.34, "0 s", "0.3 s"),
        (9.96, "10 s", "10 s"),
        (12.34, "12 s", "12 s"),
        (59.4, "59 s", "59 s"),
        (59.6, "1:00", "1:00"),
        (7384.4, "2:03:04", "2:03:04"),
    ],
)
def test_times_of_a_run(seconds: float, going_on: str, taken: str) -> None:
    assert (whole_seconds(seconds), run_time(seconds)) == (going_on, taken)


def test_counts() -> None:
    assert (count(1234567), counted(1, "task"), counted(0, "task")) == ("1,234,567", "1 task", "0 tasks")


def test_one_line() -> None:
    assert one_line(b"  a\tb\nc\x1b[2J \xff ", 40) == "a b c\\x1b[2J \ufffd"
    assert one_line(b"x" * 50, 10) == "x" * 9 + "…"


def run_view(**changes: object) -> RunView:
    plain: dict[str, object] = {
        "seconds": 10.0, "total": 1000, "done": 120, "failed": 0, "running": 8, "slots": 8,
        "rate": None, "remaining": None,
    }  # fmt: skip
    return view([engine(1, 8)], **(plain | changes))


PACE = {"rate": 12.0, "remaining": 73.3}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "120 of 1,000 done, 8 running"),
        ({"total": None}, "120 done, 8 running"),
        ({"failed": 3, "skipped": 30}, "150 of 1,000 done, 3 failed, 8 running"),
        ({"notice": "ending the running tasks"}, "120 of 1,000 done, 8 running, ending the running tasks"),
        (PACE, "120 of 1,000 done, 8 running, 12.0/s, 1:13 left"),
        (PACE | {"notice": "paused"}, "120 of 1,000 done, 8 running, 12.0/s, paused"),
        (PACE | {"slots": 0, "running": 0}, "120 of 1,000 done, 0 running, 12.0/s"),
        ({"done": 300, "skipped": 700, "remaining": 0.0}, "1,000 of 1,000 done, 8 running"),
    ],
)
def test_progress_words(changes: dict[str, object], words: str) -> None:
    assert progress_words(run_view(**changes)) == words


def test_plain_lines_come_at_the_interval() -> None:
    async def course() -> str:
        stream = io.StringIO()
        lines = PlainLines(stream, interval=0.01)
        enough = asyncio.Event()
        asked = 0

        def now() -> RunView:
            nonlocal asked
            asked += 1
            if asked == 3:
                enough.set()
            return run_view(seconds=float(asked), done=asked, rate=1.0, remaining=1000.0 - asked)

        lines.start(now)
        assert stream.getvalue() == ""
        await asyncio.wait_for(enough.wait(), 20)
        lines.stop()
        lines.say("bye")
        return stream.getvalue()

    said = asyncio.run(course()).splitlines()
    assert said[0] == "disbatch: 1 s: 1 of 1,000 done, 8 running, 1.0/s, 16:39 left"
    assert said[-1] == "disbatch: bye" and len(said) == 4


def test_nobody_reads_the_lines_any_more() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as pipe:
        stream = lasting(pipe)
        lines = PlainLines(stream)
        lines.say("one")
        assert os.read(reading, 100) == b"disbatch: one\n"
        os.close(reading)
        lines.say("two")
        stream.write("x" * (1 << 20))
        stream.flush()


def test_stream_without_a_descriptor_stays() -> None:
    stream = io.StringIO()
    assert lasting(stream) is stream


def drawn(width: int, **changes: object) -> str:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=False, color_system=None)
    console.print(line(run_view(**(PACE | changes)), width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [20, 50, 80, 200])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"total": None, "remaining": None},
        {"total": 0, "done": 0},
        {"total": 12_345_678, "done": 1_234_567, "failed": 98_765, "running": 12_345},
        {"notice": "/a/very/long/path/of/a/status/file_status.txt: No space left on device; no task starts"},
    ],
)
def test_progress_is_one_line_that_fits(width: int, changes: dict[str, object]) -> None:
    text = drawn(width, **changes)
    assert text.count("\n") == 1 and len(text.rstrip("\n")) <= width


def test_progress_line() -> None:
    text = drawn(80, failed=3)
    assert re.search(r"━.* 120 of 1,000 done  3 failed  8 running  12\.0/s  1:13 left", text)
    assert "━" not in drawn(50)


@pytest.mark.parametrize(
    ("failed", "cancelled", "words"),
    [(3, 1, "done  2 failed  1 cancelled  8 running"), (1, 1, "done  1 cancelled  8 running")],
)
def test_cancelled_tasks_have_not_failed(failed: int, cancelled: int, words: str) -> None:
    assert words in drawn(90, failed=failed, cancelled=cancelled)


def test_progress_of_a_run_that_is_held_up() -> None:
    text = drawn(80, notice="paused")
    assert "paused" in text and "left" not in text


def test_progress_tells_whole_seconds() -> None:
    assert "120 done  8 running  12.0/s  4 s" in drawn(80, total=None, remaining=None, seconds=4.0)


def test_progress_that_does_not_move_is_not_drawn_again() -> None:
    """As in a run that waits for engines, for days."""

    async def course() -> list[int]:
        stream = io.StringIO()
        stream.isatty = lambda: True  # type: ignore[method-assign]
        progress = ProgressLine(stream, interval=0.01)
        looked, lengths = asyncio.Queue[None](), []
        now: dict[str, object] = {"notice": "no engines", "running": 0}

        def look() -> RunView:
            looked.put_nowait(None)
            return run_view(**now)

        async def after(looks: int) -> None:
            for _ in range(looks):
                await asyncio.wait_for(looked.get(), 20)
            lengths.append(len(stream.getvalue()))

        progress.start(look)
        await after(2)
        await after(5)
        progress.say("attached")
        await after(1)
        now["running"] = 2
        await after(2)
        progress.stop()
        return lengths

    drawn, later, said, moved = asyncio.run(course())
    assert 0 < drawn == later < said < moved


@pytest.mark.parametrize("columns", [80, 50])
def test_progress_in_a_real_terminal(tmp_path: Path, columns: int) -> None:
    """Through tmux, which knows what a terminal shows."""
    if shutil.which("tmux") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no tmux")
    disbatch = Path(sys.executable).with_name("disbatch")
    (tmp_path / "Tasks").write_text("false\n#DISBATCH REPEAT 3 true\nread x < go\n#DISBATCH REPEAT 9 true\n")
    subprocess.run(["mkfifo", tmp_path / "go"], check=True)
    tmux = ["tmux", "-S", str(tmp_path / "socket"), "-f", "/dev/null"]
    command = f"cd {tmp_path} && {shlex.quote(str(disbatch))} -s localhost:1 Tasks; echo $? > code; cat"
    size = ["-x", str(columns), "-y", "24"]
    start = [*tmux, "new-session", "-d", *size, f"bash -c {shlex.quote(command)}"]
    subprocess.run(start, check=True, env={**os.environ, "COLUMNS": "100"})
    subprocess.run(["mkfifo", tmp_path / "drawn"], check=True)
    drawn = os.open(tmp_path / "drawn", os.O_RDWR)
    subprocess.run([*tmux, "pipe-pane", f"cat > {tmp_path}/drawn"], check=True)

    def screen(pattern: str) -> str:
        """Look whenever something was drawn."""
        while True:
            shown = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True)
            if re.search(pattern, shown.stdout):
                return shown.stdout
            assert select.select([drawn], [], [], 30)[0], shown.stdout
            os.read(drawn, 65536)

    try:
        running = screen(r"4 of 14 done  1 failed  1 running")
        assert len([row for row in running.splitlines() if row.strip()]) == 1, running
        (tmp_path / "go").write_text("go\n")
        ended = screen(r"status ")
        assert "running" not in ended and "disbatch: complete: 14 tasks" in ended
        assert "13 succeeded, 1 failed" in ended
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
        os.close(drawn)


def kind(count: int, code: int, line: str, id: int = 7, **changes: object) -> FailureKind:
    plain = FailureKind(count, code, "", line, id, id + 5, "node1", 1, f"prog --arg\t{id}")
    return msgspec.structs.replace(plain, **changes)


RESULT = {"done": 1000, "failed": 2, "running": 0, "seconds": 100.0}


def summary(*, kinds: list[FailureKind] | None = None, kinds_count: int = 2, **changes: object) -> Summary:
    """`changes` of the view and of the summary."""
    kinds = [kind(1, 3, "no such file"), kind(1, -9, "", 8)] if kinds is None else kinds
    of_view = {name: changes.pop(name) for name in list(changes) if name in RunView.__struct_fields__}
    plain: dict[str, object] = {
        "view": run_view(**(RESULT | {"failure_kinds": kinds, "failure_kinds_count": kinds_count} | of_view)),
        "conclusion": "complete",
        "ended": 0,
        "utilisation": 0.984,
        "nodes": 1,
        "slots": 8,
        "slowest": [EndedTask(9, 14, "node1", 0, 2.5, b"x" * 300, b"")],
        "status_file": "/here/Tasks_J1_status.txt",
        "resume": "",
    }
    return Summary(**(plain | changes))  # type: ignore[arg-type]


def many_kinds(number: int, each: int = 10, **changes: object) -> Summary:
    kinds = [kind(each, 1 + id, f"{LINES[id % len(LINES)]} {'in words ' * id}", id) for id in range(number)]
    counts = {"done": number * each, "failed": number * each}
    said = {"retry": "disbatch T -r P_status.txt -R", "status_file": "P_status.txt"}
    return summary(kinds=kinds[:10], kinds_count=number, **(counts | said | changes))


LINES = ("KeyError: 'x'", "", "schöne Größe 中文", "w" * 200)


def test_summary() -> None:
    rows = render(summary()).splitlines()
    assert rows[0] == "disbatch: complete: 1,000 tasks in 1:40, 10.0/s"
    assert rows[1:3] == ["  done      998 succeeded, 2 failed", "  used      98% of 8 slots on 1 node"]
    assert rows[3] == "  failed    task 7: exit 3: no such file"
    assert rows[4] == "              line 12 on node1: prog --arg 7"
    assert rows[5] == "            task 8: killed by SIGKILL"
    assert rows[7].startswith("  slowest   2.50 s, task 9 (line 14) on node1: xxx") and rows[7][-1] == "…"
    assert rows[-1] == "  status    /here/Tasks_J1_status.txt"
    assert max(map(len, rows)) <= 80


@pytest.mark.parametrize("width", [50, 80, 120])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 7, 30])
def test_summary_fits_ten_rows_of_a_terminal(width: int, number: int) -> None:
    rows = render(many_kinds(number), width).splitlines()
    assert len(rows) <= 10
    assert all(cells(row) <= width for row in rows)
    assert sum("e.g. task" in row for row in rows) >= min(number, 3)
    shown = [int(row.split()[-2].strip("(")) for row in rows if "more kind" in row]
    assert sum(shown) == 10 * (number - sum(" tasks: exit" in row for row in rows))


def test_summary_shows_a_last_line_whole_if_there_is_room() -> None:
    line = "FileNotFoundError: [Errno 2] No such file or directory: '/data/run1/input_of_the_model.csv'"
    rows = render(summary(kinds=[kind(1500, 1, line)], kinds_count=1), 60).splitlines()
    told = " ".join(row.strip() for row in rows[3:6])
    assert told.startswith(f"failed    1,500 tasks: exit 1, e.g. task 7: {line}")


def test_commands_and_paths_in_a_summary_are_whole_and_their_rows_count() -> None:
    path = f"/scratch/{'long/' * 30}P_status.txt"
    retry = f"disbatch -r {path} -R"
    rows = render(many_kinds(9, retry=retry, status_file=path)).splitlines()
    assert {f"  status    {path}", f"  retry     {retry}"} <= set(rows)
    assert sum(-(-len(row) // 80) for row in rows) <= 10
    assert sum("e.g. task" in row for row in rows) >= 1


def test_summary_acts_upon_no_terminal() -> None:
    bad = "\x1b[2J\x9b31m\u202e"
    rows = render(summary(conclusion=bad, kinds=[kind(2, 1, bad, node=bad, command=bad)])).splitlines()
    assert all(row.isprintable() for row in rows)


def test_summary_says_nothing_twice() -> None:
    kinds = [
        kind(5, 127, "/bin/bash: line 1: prog: command not found", 1),
        kind(4, 127, "env: 'prog': No such file", 2),
        kind(3, 126, "/bin/bash: line 12: ./prog: Permission denied", 3),
    ]
    rows = render(summary(kinds=kinds, kinds_count=3), 120).splitlines()
    assert rows[3:9:2] == [
        "  failed    5 tasks: exit 127, e.g. task 1: prog: command not found",
        "            4 tasks: exit 127 (command not found), e.g. task 2: env: 'prog': No such file",
        "            3 tasks: exit 126 (cannot be executed), e.g. task 3: ./prog: Permission denied",
    ]


def test_summary_does_not_call_cancelled_tasks_failed() -> None:
    cancelled = [kind(3, -15, "", 8, reason="cancelled"), kind(1, -15, "half way", 9, reason="cancelled")]
    both = summary(kinds=[cancelled[0], kind(1, 3, "no"), cancelled[1]], kinds_count=3)
    assert render(both).splitlines()[3:8:2] == [
        "  failed    task 7: exit 3: no",
        "  cancelled 3 tasks, e.g. task 8",
        "            task 9: half way",
    ]
    alone = render(summary(kinds=cancelled, kinds_count=2))
    assert "  cancelled 3 tasks, e.g. task 8\n" in alone and "  failed " not in alone


def test_summary_of_a_complete_run_says_how_to_retry_what_failed() -> None:
    rows = render(summary(retry="disbatch T -r P_status.txt -R", status_file="/my runs/P_status.txt"))
    assert rows.splitlines()[-3:] == [
        "  status    /my runs/P_status.txt",
        "  retry     disbatch T -r P_status.txt -R",
        "  report    dbutil report '/my runs/P_status.txt'",
    ]


def test_summary_of_an_interrupted_run() -> None:
    interrupted = summary(
        done=100,
        skipped=50,
        failed=0,
        conclusion="interrupted",
        ended=2,
        lost=1,
        kinds=[],
        kinds_count=0,
        resume="disbatch Tasks -r Tasks_J1_status.txt",
    )
    rows = render(interrupted, 120).splitlines()
    assert rows[1].startswith("  done      100 succeeded, 50 done before, 1 lost with its node, 849 not done")
    assert "2 attempts ended" in rows[1]
    assert rows[-1] == "  resume    disbatch Tasks -r Tasks_J1_status.txt"


def test_summary_of_a_run_that_was_taken_over() -> None:
    """Not all was done in the time of the last driver."""
    head = render(summary(driver=1, inherited=900), 100).splitlines()[0]
    assert head == "disbatch: complete: 1,000 tasks, 100 of them in the 1:40 since the takeover, 1.0/s"
    head = render(summary(driver=1, inherited=1000), 100).splitlines()[0]
    assert head == "disbatch: complete: 1,000 tasks, 0 of them in the 1:40 since the takeover"


def test_how_ended() -> None:
    assert [how_ended(code) for code in (3, -15, -200)] == ["exit 3", "killed by SIGTERM", "exit -200"]


def test_plain_lines_come_less_often_as_time_goes_by() -> None:
    assert pause_after(0, LINES_INTERVAL) == pause_after(600, LINES_INTERVAL) == 30
    assert pause_after(3600, LINES_INTERVAL) == 180
    assert pause_after(1e6, LINES_INTERVAL) == LONGEST_INTERVAL
