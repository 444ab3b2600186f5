"""dbutil report on what real runs left: over, resumed, and still going on."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from command import DEADLINE, DISBATCH, Running, call, disbatch, environment, status_file, tasks, write

from disbatch.watch.report.figures import Report

DBUTIL = str(Path(sys.executable).with_name("dbutil"))
LINES = [
    "#DISBATCH PERENGINE START : up",
    "#DISBATCH PREFIX : glued; ",
    "#DISBATCH REPEAT 20 i=$DISBATCH_REPEAT_INDEX; printf 'no \\377 input %d\\n' $i >&2; exit $((i % 2))",
    "#DISBATCH BARRIER",
    "test -e fixed || exit 127",
    "printf '<b>\\t%s\\n' \"it's\"; kill -9 $$",
]


def report(directory: Path, *arguments: str) -> str:
    done = call([DBUTIL, "report", *arguments], directory)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def figures(directory: Path, *files: str) -> Report:
    return msgspec.json.decode(report(directory, "--json", *files), type=Report)


@pytest.fixture
def first(tmp_path: Path) -> str:
    """The status file of a run of these lines under a default name."""
    write(tmp_path / "Tasks", LINES)
    assert disbatch(tmp_path, "-s", "localhost:3", "Tasks").returncode == 0
    return status_file(tmp_path).name


@pytest.mark.parametrize("pack", [(), ("--output-pack",)])
def test_last_lines_are_whole_if_output_was_kept(tmp_path: Path, pack: tuple[str, ...]) -> None:
    said = (
        "echo first >&2; echo 'NotFoundError: of all the files that were given to it, no %d.fits' >&2; exit 3"
    )
    write(tmp_path / "Tasks", [said % 7, said % 8000000, "echo on stdout; exit 4"])
    assert (
        disbatch(tmp_path, "-s", "localhost:1", "-p", "P", "--output", "out", *pack, "Tasks").returncode == 0
    )
    both, one = figures(tmp_path, "P_status.txt").failures
    whole = "NotFoundError: of all the files that were given to it, no 7.fits"
    assert (both.count, both.last_line, one.last_line) == (2, whole, "on stdout")
    assert f"    > {whole}\n" in report(tmp_path, "P_status.txt")
    report(tmp_path, "P_status.txt", "--html", "P.html")
    assert whole in (tmp_path / "P.html").read_text()


def test_a_run(tmp_path: Path, first: str) -> None:
    found = figures(tmp_path, first)
    assert (found.tasks.known, found.tasks.succeeded, found.tasks.failed) == (22, 10, 12)
    assert (found.barrier_count, [each.command for each in found.per_engine]) == (1, [": up"])
    assert found.slots <= 3
    assert found.utilisation is not None
    assert 0 < found.utilisation <= 1
    assert found.slot_seconds.whole == pytest.approx(found.slots * found.seconds, rel=1e-3)
    grouped = [(each.count, each.how, each.snippet) for each in found.failures]
    assert grouped[0][:2] == (10, "exit 1")
    assert grouped[0][2].startswith("no \\xff input ")
    assert sorted(grouped[1:]) == [
        (1, "exit 127 (command not found)", ""),
        (1, "killed by SIGKILL", "<b>\tit's\n"),
    ]
    assert found.notes == []


def test_text_and_page(tmp_path: Path, first: str) -> None:
    words = report(tmp_path, first)
    assert "  tasks       22: 10 succeeded, 12 failed\n" in words
    assert "  barriers    1; they kept tasks waiting for " in words
    assert report(tmp_path, first, "--html", "report.html").startswith("report.html: written, ")
    page = (tmp_path / "report.html").read_text()
    assert page.endswith("</html>\n")
    assert "&lt;b&gt; it&#x27;s" in page


def test_the_command_that_it_names_goes_on(tmp_path: Path, first: str) -> None:
    (tmp_path / "fixed").touch()
    command = shlex.split(figures(tmp_path, first).resume.failed)
    assert command[0] == "disbatch"
    again = [DISBATCH, *command[1:], "-s", "localhost:3", "-p", "again"]
    subprocess.run(again, cwd=tmp_path, env=environment(), timeout=DEADLINE, check=True, capture_output=True)
    second = "again_status.txt"
    both, last = figures(tmp_path, first, second), figures(tmp_path, second)
    assert len(tasks(tmp_path / second)) == 22
    for found in (both, last):
        assert (found.tasks.known, found.tasks.succeeded, found.tasks.failed) == (22, 11, 11)
    assert (both.tasks.skipped, both.tasks.repeated, last.tasks.skipped) == (0, 12, 10)
    assert [run.tasks for run in both.runs] == [10, 12]
    assert both.slot_seconds.uncounted > 0


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    write(tmp_path / "Tasks", ["true", "true", ": < go"])
    status = tmp_path / "live_status.txt"
    with Running(tmp_path, "-s", "localhost:2", "-p", "live", "Tasks") as run:
        run.until(lambda: status.exists() and status.read_bytes().count(b"\n") == 2, "two lines")
        found = figures(tmp_path, "live_status.txt")
        script = subprocess.run(
            ["./live_dbUtil.sh", "report"], cwd=tmp_path, capture_output=True, timeout=DEADLINE, check=True
        )
        (tmp_path / "go").write_bytes(b"")
        assert run.ended() == 0
    assert found.files[0].live
    assert found.tasks.known == 2
    assert b"live_status.txt: a run is still writing it" in script.stdout
    assert not figures(tmp_path, "live_status.txt").files[0].live


def test_a_complete_run_goes_on_only_with_what_failed(tmp_path: Path) -> None:
    """With the options that it had, from wherever that is asked, as its last lines say, too."""
    write(tmp_path / "Tasks", ["true", "test -e fixed || exit 3"])
    asked = ["-s", "localhost:2", "--output", "out", "-p", "P"]
    done = disbatch(tmp_path, *asked, "Tasks")
    retry = "disbatch -s localhost:2 --output out -p P Tasks -r P_status.txt -R"
    assert f"  retry     {retry}\n  report    dbutil report {tmp_path}/P_status.txt\n" in done.stderr
    found = figures(tmp_path, "P_status.txt").resume
    assert (found.rest, found.failed) == ("", retry)
    words = report(tmp_path, "P_status.txt")
    assert words.endswith(f"Go on\n  all tasks have ended; run the unsuccessful ones again:\n    {retry}\n")
    (tmp_path / "there").mkdir()
    there = figures(tmp_path / "there", str(tmp_path / "P_status.txt")).resume
    assert there.failed == f"cd {tmp_path} && {retry}"
    (tmp_path / "fixed").touch()
    path = f"{Path(DISBATCH).parent}:{os.environ['PATH']}"
    again = subprocess.run(
        ["bash", "-c", there.failed], env=environment({"PATH": path}), timeout=DEADLINE, check=True
    )
    assert again.returncode == 0
    last = figures(tmp_path, "P-2_status.txt")
    assert (last.tasks.succeeded, last.tasks.failed, last.resume.rest) == (2, 0, "")
    assert "Go on" not in report(tmp_path, "P-2_status.txt")


def test_what_goes_on_is_a_guess_for_files_that_were_moved_or_are_not_ours(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    assert disbatch(tmp_path, "-s", "localhost:2", "-p", "P", "Tasks").returncode == 0
    for name in ("status.txt", "dbUtil.sh"):
        (tmp_path / f"P_{name}").rename(tmp_path / f"Q_{name}")
    assert figures(tmp_path, "Q_status.txt").resume.rest == "disbatch -r Q_status.txt TASKFILE"
    (tmp_path / "Q_status.txt").rename(tmp_path / "P_status.txt")
    for text in ("", "# run: {", "# run: [1]", "# run: " + "[" * 100_000):
        (tmp_path / "P_dbUtil.sh").write_text(text)
        assert figures(tmp_path, "P_status.txt").resume.rest == "disbatch -r P_status.txt TASKFILE"


def test_tasks_that_were_handed_in_go_on_as_well(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["false"])
    with Running(tmp_path, "-s", "localhost:1", "-p", "P", "--keep-open", "Tasks") as run:
        run.until((tmp_path / "P_connect.json").exists, "the run")
        for words in (["submit", "--run", "P", "true"], ["close", "--run", "P"]):
            subprocess.run([DBUTIL, *words], cwd=tmp_path, env=environment(), timeout=DEADLINE, check=True)
        assert run.ended() == 0
    rest = "cat Tasks P_tasks.txt | disbatch -s localhost:1 -p P - -r P_status.txt"
    found = figures(tmp_path, "P_status.txt").resume
    assert (found.rest, found.failed) == (rest, f"{rest} -R")
