"""Going on after the list was edited: --resume-by command, and what --force-resume tells and writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import DBUTIL, Running, disbatch, environment, status_file, tasks, write
from held_run import QUICK, Held

from disbatch.model.statusline import Mark, format_line
from disbatch.model.task import Outcome

BY_COMMAND = ("--resume-by", "command")


def former(directory: Path, *commands: str) -> str:
    """A status file that has these as completed."""
    outcome = Outcome(1, 0, 4711, 0, 1.0, 2.0, 3.0, 0, b"", 0, b"")
    lines = [format_line(id, id + 1, -1, text.encode(), "n", outcome) for id, text in enumerate(commands)]
    (directory / "former_status.txt").write_bytes(b"".join(lines))
    return "former_status.txt"


def marks(path: Path) -> str:
    """Of the tasks, in the order of their ids: S was skipped, - ran."""
    return "".join("S" if record.mark is Mark.SKIPPED else "-" for _, record in sorted(tasks(path).items()))


def cat(directory: Path, run: str, ids: str) -> str:
    done = subprocess.run(
        [DBUTIL, "cat", "--run", run, ids],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.mark.parametrize("way", [(), ("--output-pack",)], ids=["files", "pack"])
def test_an_edited_list_runs_what_is_new_and_keeps_what_was_printed(
    tmp_path: Path, way: tuple[str, ...]
) -> None:
    def run(name: str, lines: list[str], *options: str) -> str:
        write(tmp_path / "Tasks", lines)
        keep = ("--output", "out", *way)
        done = disbatch(tmp_path, "-s", "localhost:2", "-p", name, *keep, *options, "Tasks")
        assert done.returncode == 0, done
        return done.stderr

    lines = ["echo a", "echo b; echo error >&2", "#DISBATCH REPEAT 2 echo $DISBATCH_REPEAT_INDEX"]
    run("P", lines)
    lines = ["echo new", "#DISBATCH BARRIER", *lines]
    refused = disbatch(tmp_path, "-s", "localhost:2", "-r", "P_status.txt", "Tasks")
    assert refused.returncode == 0  # the list has not changed yet
    write(tmp_path / "Tasks", lines)
    refused = disbatch(tmp_path, "-s", "localhost:2", "-r", "P_status.txt", "Tasks")
    assert refused.returncode == 2 and "add --resume-by command" in refused.stderr
    said = run("Q", lines, "-r", "P_status.txt", *BY_COMMAND)
    assert "Tasks: by command: 4 done before, 1 new" in said
    assert said.index("4 done before, 1 new") < said.index("complete")
    assert marks(tmp_path / "Q_status.txt") == "-SSSS"
    assert cat(tmp_path, "Q", "0") + cat(tmp_path, "Q", "2-5") == "new\na\nb\n0\n1\n"
    assert cat(tmp_path, "P", "0-3") == "a\nb\n0\n1\n"
    run("R", [*lines, "echo last"], "-r", "Q_status.txt")
    assert marks(tmp_path / "R_status.txt") == "SSSSS-"
    run("S", [*lines[2:], *lines[:1]], "-r", "R_status.txt", *BY_COMMAND)
    assert cat(tmp_path, "S", "0-4") == "a\nb\n0\n1\nnew\n"
    assert cat(tmp_path, "R", "0") + cat(tmp_path, "R", "6") == "new\nlast\n"
    assert marks(tmp_path / "S_status.txt") == "SSSSS"


def test_a_list_of_something_else_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    name = former(tmp_path, "false")
    done = disbatch(tmp_path, "-r", name, *BY_COMMAND, "Tasks")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    assert "Tasks: none of its commands is one that former_status.txt has as completed" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Tasks", name]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    held = Held(tmp_path)
    yield held
    held.close()


def taken_over(held: Held, *options: str) -> str:
    """The run is begun, and its driver killed while a task is held; what the next one said."""
    held.begin_and_kill(1, options=("-s", "localhost:1", *options))
    with held.taking_over() as run:
        run.until_said("all engines are there")
        held.let_go(0)
        assert run.ended() == 0, run.err
        return run.err


def test_a_takeover_finds_the_same_copies_done(held: Held) -> None:
    """One copy of the quick task was done before: the first. The second, which the first driver had not come
    to, is none."""
    name = former(held.directory, QUICK)
    held.task()
    held.task(held=0)
    held.task()
    taken_over(held, "-r", name, *BY_COMMAND)
    assert marks(held.directory / "P_status.txt") == "S--"
    assert sorted(held.ran().elements()) == [1, 2]


def test_a_takeover_knows_what_was_forced(held: Held) -> None:
    name = former(held.directory, "something else")
    held.task()
    held.task(held=0)
    said = taken_over(held, "-r", name, "--force-resume")
    assert "1 task done before had another command" in said
    assert marks(held.directory / "P_status.txt") == "S-"
    assert tasks(held.directory / "P_status.txt")[0].command == b"'something else'"


def test_a_stream_is_compared_as_it_comes(tmp_path: Path) -> None:
    name = former(tmp_path, "echo b", "echo c")
    with Running(tmp_path, "-s", "localhost:2", "-r", name, *BY_COMMAND, "-", stdin=subprocess.PIPE) as run:
        assert run.process.stdin is not None
        run.process.stdin.write(b"echo a\necho b\n")
        run.process.stdin.close()
        assert run.ended() == 0
        assert "stdin: by command: 1 done before, 1 new, 1 of the former tasks" in run.err
    path = status_file(tmp_path, "STREAM*_status.txt")
    assert marks(path) == "-S"


def test_a_python_program_may_hand_them_in_in_another_order(tmp_path: Path) -> None:
    name = former(tmp_path, "echo b", "echo c")
    program = f"""
from disbatch import DisBatch
with DisBatch(nodes="localhost:2", resume_from={name!r}, resume_by="command") as run:
    results = [task.result() for task in [run.submit(f"echo {{x}}") for x in "cab"]]
assert [result.kind for result in results] == ["skipped", "task", "skipped"], results
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
