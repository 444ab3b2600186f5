"""Going on from former runs: -r, -R, --force-resume, and what the new status file says of skipped tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import call, disbatch, records, tasks, write

from disbatch.model.statusline import Mark, Record

LINES = [
    "echo 0 >> ran",
    "echo 1 >> ran; test -e fixed",
    "#DISBATCH BARRIER",
    "echo 3 >> ran",
    "echo 4 >> ran",
]


class Runs:
    """Runs of the task file `Tasks` in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        write(directory / "Tasks", LINES)

    def run(self, name: str, *options: str, code: int = 0) -> str:
        """One run with the prefix `name`; what it said."""
        done = disbatch(self.directory, "-s", "localhost:2", "-p", name, *options, "Tasks")
        assert done.returncode == code, done.stderr
        return done.stderr

    def path(self, name: str) -> Path:
        return self.directory / f"{name}_status.txt"

    def ran(self) -> list[str]:
        """What ran since the last call."""
        path = self.directory / "ran"
        found = sorted(path.read_text().split()) if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def keep(self, name: str, ids: set[int], torn: bytes = b"") -> bytes:
        """Leave a status file with only these ids, as an interrupted run does."""
        lines = self.path(name).read_bytes().splitlines(keepends=True)
        data = b"".join(line for line in lines if int(line.split(b"\t")[1]) in ids) + torn
        self.path(name).write_bytes(data)
        return data


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    runs = Runs(tmp_path)
    runs.run("first")
    assert runs.ran() == ["0", "1", "3", "4"]
    return runs


def fields(record: Record) -> tuple[object, ...]:
    return (record.node, record.pid, record.return_code, record.start, record.finish, record.command)


def test_runs_what_is_missing(runs: Runs) -> None:
    before = runs.keep("first", {0, 1, 3}, torn=b"    \t4\t5\t-1\tvm\t12")
    said = runs.run("second", "-r", "first_status.txt")
    assert runs.ran() == ["4"]
    assert "1 succeeded, 3 done before" in said
    assert runs.path("first").read_bytes() == before
    former, new = tasks_without_torn(before), tasks(runs.path("second"))
    assert {id: record.mark for id, record in new.items()} == {
        0: Mark.SKIPPED,
        1: Mark.SKIPPED,
        3: Mark.SKIPPED,
        4: Mark.TASK,
    }
    assert all(fields(new[id]) == former[id] for id in (0, 1, 3))
    assert [record.id for record in records(runs.path("second")) if record.mark is Mark.BARRIER] == [2]


def tasks_without_torn(data: bytes) -> dict[int, tuple[object, ...]]:
    from disbatch.model.statusline import parse_line

    parsed = [parse_line(line) for line in data.split(b"\n")[:-1]]
    return {record.id: fields(record) for record in parsed if record is not None}


def test_skipped_lines_count_in_their_turn(runs: Runs) -> None:
    runs.keep("first", {0, 3})
    runs.run("second", "-r", "first_status.txt")
    assert runs.ran() == ["1", "4"]
    said = runs.run("third", "-r", "second_status.txt")
    assert runs.ran() == [] and "0 tasks" in said and "4 done before" in said
    assert {record.mark for record in tasks(runs.path("third")).values()} == {Mark.SKIPPED}


def test_several_files(runs: Runs) -> None:
    runs.run("second")
    runs.ran()
    runs.keep("first", {0})
    runs.keep("second", {0, 4})
    runs.run("third", "-r", "first_status.txt", "-r", "second_status.txt")
    assert runs.ran() == ["1", "3"]


def test_failed_tasks_run_again_only_if_asked(runs: Runs) -> None:
    said = runs.run("second", "-r", "first_status.txt")
    assert runs.ran() == [] and "4 done before" in said
    runs.run("third", "-r", "first_status.txt", "-e", code=1)
    (runs.directory / "fixed").touch()
    runs.run("fourth", "-R", "-r", "first_status.txt", "-e")
    assert runs.ran() == ["1"]
    # Success beats failure, in any order of the files.
    runs.run("fifth", "-R", "-e", "-r", "fourth_status.txt", "-r", "first_status.txt")
    assert runs.ran() == []


@pytest.mark.parametrize("source", ["Tasks", "-"])
def test_changed_command(runs: Runs, source: str) -> None:
    write(runs.directory / "Tasks", [*LINES[:3], "echo other >> ran", LINES[4]])
    before = {path.name for path in runs.directory.iterdir()}
    if source == "-":
        with (runs.directory / "Tasks").open("rb") as file:
            done = disbatch(runs.directory, "-s", "localhost:1", "-r", "first_status.txt", "-", stdin=file)
    else:
        done = disbatch(runs.directory, "-s", "localhost:1", "-r", "first_status.txt", "Tasks")
    name = "stdin" if source == "-" else "Tasks"
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"{name}:4: task 3 is not the one in first_status.txt:" in done.stderr
    assert "echo other >> ran" in done.stderr and "add --resume-by command" in done.stderr
    assert runs.ran() == [] and {path.name for path in runs.directory.iterdir()} == before
    said = runs.run("forced", "--force-resume", "-r", "first_status.txt")
    assert "1 task done before had another command (the first: Tasks:4)" in said
    assert runs.ran() == [] and b"echo other" not in runs.path("forced").read_bytes()
    assert b"echo 3 >> ran" in runs.path("forced").read_bytes()


def test_changed_command_in_a_stream_ends_it(runs: Runs) -> None:

    lines = "\\n".join([*LINES[:3], "echo other >> ran", LINES[4]])
    from command import DISBATCH

    script = f"printf '{lines}\\n' | {DISBATCH} -s localhost:1 -r first_status.txt -"
    done = call(["bash", "-c", script], runs.directory)
    assert done.returncode == 2 and "stdin:4: task 3 is not the one" in done.stderr
    assert runs.ran() == []


def test_task_file_that_grew(runs: Runs) -> None:
    write(runs.directory / "Tasks", [*LINES, "echo 5 >> ran"])
    runs.run("second", "-r", "first_status.txt")
    assert runs.ran() == ["5"]


def test_task_file_that_shrank_warns(runs: Runs) -> None:
    write(runs.directory / "Tasks", LINES[:2])
    said = runs.run("second", "-r", "first_status.txt")
    assert "beyond its end" in said and "2 done before" in said


def test_failure_before_a_check_counts_when_it_is_skipped(runs: Runs) -> None:
    write(runs.directory / "Tasks", [*LINES[:2], "#DISBATCH BARRIER CHECK", *LINES[3:]])
    runs.keep("first", {0, 1})
    said = runs.run("second", "-r", "first_status.txt", code=1)
    assert "Tasks:3: BARRIER CHECK: 1 task failed before it" in said and runs.ran() == []


def test_prefix_of_the_former_run_is_not_taken(runs: Runs) -> None:
    before = runs.path("first").read_bytes()
    runs.run("first", "-r", "first_status.txt")
    assert runs.path("first").read_bytes() == before
    assert len(tasks(runs.path("first-2"))) == 4
