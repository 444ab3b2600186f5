"""Asking scontrol and srun, which are scripts here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from disbatch.contexts.slurm.commands import MAX_OUTPUT, ask
from disbatch.contexts.slurm.hetjob import JobFacts

SCONTROL = """\
case "$*" in
"show job -d -o 7") echo "JobId=7 JobState=RUNNING BatchFlag=1 EndTime=$end NodeList=n[1-2] BatchHost=n1 ";;
"show config") echo "KillWait                = 30 sec";;
*) echo "$@" >&2; exit 9;;
esac
"""
SRUN = 'test "$*" = --version && echo slurm 23.11.4'
LIMIT = 30.0
"""Seconds that no test here needs."""


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """Where commands can be put; the only ones that are found, beside the system's."""
    put(tmp_path, "scontrol", SCONTROL)
    put(tmp_path, "srun", SRUN)
    return tmp_path


def put(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def environ(directory: Path) -> dict[str, str]:
    return {"PATH": f"{directory}:/usr/bin:/bin", "end": "1795355713"}


def test_all_answer(commands: Path) -> None:
    assert ask("7", environ(commands), LIMIT) == JobFacts(
        nodes=["n1", "n2"], batch_host="n1", end=1795355713.0, kill_wait=30.0, version=(23, 11)
    )


def test_times_do_not_depend_on_the_user_s_format(commands: Path) -> None:
    put(commands, "scontrol", 'end=$(date -d @1795355713 "+$SLURM_TIME_FORMAT")\n' + SCONTROL)
    facts = ask("7", {**environ(commands), "SLURM_TIME_FORMAT": "relative", "TZ": "Asia/Tokyo"}, LIMIT)
    assert facts.end == 1795355713.0


def test_no_such_job(commands: Path) -> None:
    put(commands, "scontrol", "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1")
    assert ask("7", environ(commands), LIMIT).gone == "Slurm knows no such job (Invalid job id specified)"


@pytest.mark.parametrize(
    ("scontrol", "problem"),
    [
        ("exit 3", "scontrol show job -d -o 7: exit code 3"),
        ("kill -9 $$", "scontrol show job -d -o 7: signal 9"),
        ("echo a >&2; echo b >&2; echo >&2; exit 1", "scontrol show job -d -o 7: b"),
        ("printf 'x\\033[2Jy' >&2; exit 1", "scontrol show job -d -o 7: x\\x1b[2Jy"),
        ("echo hello", "scontrol says nothing of job 7"),
        ("", "scontrol says nothing of job 7"),
    ],
)
def test_a_failure_is_a_line_and_the_others_count(commands: Path, scontrol: str, problem: str) -> None:
    put(commands, "scontrol", scontrol)
    assert ask("7", environ(commands), LIMIT) == JobFacts(version=(23, 11), problem=problem)


def test_no_commands(tmp_path: Path) -> None:
    none = {"PATH": str(tmp_path)}
    assert ask("7", none) == JobFacts(problem="there is no scontrol command in PATH")
    put(tmp_path, "scontrol", "exit 1")
    (tmp_path / "scontrol").chmod(0o644)
    assert ask("7", none).problem == "scontrol cannot be run: Permission denied"


def test_no_srun(commands: Path) -> None:
    (commands / "srun").unlink()
    facts = ask("7", {**environ(commands), "PATH": f"{commands}"}, LIMIT)
    assert facts.problem == "there is no srun command in PATH"
    assert (facts.nodes, facts.version) == (["n1", "n2"], None)


def test_what_does_not_answer_is_killed_with_all_that_it_started(commands: Path) -> None:
    """A site's own script around the real command, which tries to reach its controller."""
    os.mkfifo(commands / "alive")
    reader = os.open(commands / "alive", os.O_RDONLY | os.O_NONBLOCK)
    put(commands, "scontrol", f"exec 3>{commands}/alive; sleep 1000 & wait")
    facts = ask("7", environ(commands), 0.5)
    assert facts.problem == "scontrol show job -d -o 7: no answer within 0.5 s"
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""  # once nobody holds the other end any more
    os.close(reader)


def test_one_that_closed_its_output_but_does_not_end(commands: Path) -> None:
    put(commands, "srun", "exec >&- 2>&-; exec sleep 1000")
    facts = ask("7", environ(commands), 0.5)
    assert facts.problem == "srun --version: no answer within 0.5 s"
    assert facts.nodes == ["n1", "n2"]


def test_endless_output_is_bounded(commands: Path) -> None:
    put(commands, "scontrol", "exec yes")
    facts = ask("7", environ(commands), 0.3)
    assert facts.problem == "scontrol show job -d -o 7: no answer within 0.3 s"
    put(commands, "scontrol", f"head -c {MAX_OUTPUT + 100_000} /dev/zero")
    assert ask("7", environ(commands), LIMIT).problem == "scontrol says nothing of job 7"


def test_no_descriptor_is_left(commands: Path) -> None:
    before = os.listdir("/proc/self/fd")
    ask("7", environ(commands), LIMIT)
    put(commands, "srun", "exec sleep 1000")
    ask("7", environ(commands), 0.2)
    assert len(os.listdir("/proc/self/fd")) == len(before)
