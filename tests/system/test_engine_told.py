"""An engine that somebody else tells to end: the user hears why the run stopped, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

from command import disbatch, status_file, tasks, write


def test_an_engine_ended_by_a_signal(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true", "true", "kill -TERM $PPID; sleep 1000", "true"])
    done = disbatch(tmp_path, "-s", "localhost:1", "Tasks")
    assert done.returncode == 3
    assert "its engine left: ended by SIGTERM" in done.stderr
    assert sorted(tasks(status_file(tmp_path))) == [0, 1]
    assert not list(tmp_path.glob("*_unrecorded.txt")), "everything was recorded"


def test_tasks_find_the_environment_of_the_command_and_no_more(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["env > found"])
    assert disbatch(tmp_path, "-s", "localhost:1", "Tasks", env={"LC_ALL": "", "LANG": "C"}).returncode == 0
    assert "LC_CTYPE" not in (tmp_path / "found").read_text()
