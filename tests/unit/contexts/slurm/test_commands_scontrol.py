"""Asking scontrol and srun, which are scripts here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from disbatch.contexts.command import MAX_OUTPUT
from disbatch.contexts.slurm.commands import ask
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
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands can be put; the only ones that are found, beside the system's."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("end", "1795355713")
    put(tmp_path, "scontrol", SCONTROL)
    put(tmp_path, "srun", SRUN)
    return tmp_path


def put(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def test_all_answer(commands: Path) -> None:
    assert ask("7", LIMIT) == JobFacts(
        nodes=["n1", "n2"], batch_host="n1", end=1795355713.0, kill_wait=30.0, version=(23, 11)
    )


def test_times_do_not_depend_on_the_user_s_format(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    put(commands, "scontrol", 'end=$(date -d @1795355713 "+$SLURM_TIME_FORMAT")\n' + SCONTROL)
    assert ask("7", LIMIT).end == 1795355713.0


def test_no_such_job(commands: Path) -> None:
    put(commands, "scontrol", "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1")
    assert ask("7", LIMIT).gone == "Slurm knows no such job (Invalid job id specified)"


@pytest.mark.parametrize(
    ("scontrol", "problem"),
    [
        ("exit 3", "scontrol show job: exit code 3"),
        ("kill -9 $$", "scontrol show job: signal 9"),
        ("echo a >&2; echo b >&2; echo >&2; exit 1", "scontrol show job: exit code 1: b"),
        ("printf 'x\\033[2Jy' >&2; exit 1", "scontrol show job: exit code 1: x\\x1b[2Jy"),
        ("echo hello", "scontrol says nothing of job 7"),
        ("", "scontrol says nothing of job 7"),
    ],
)
def test_a_failure_is_a_line_and_the_others_count(commands: Path, scontrol: str, problem: str) -> None:
    put(commands, "scontrol", scontrol)
    assert ask("7", LIMIT) == JobFacts(version=(23, 11), problem=problem)


def test_no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask("7").problem == "scontrol show job: there is no scontrol command in PATH here"
    put(tmp_path, "scontrol", "exit 1")
    (tmp_path / "scontrol").chmod(0o644)
    assert ask("7").problem == "scontrol show job: cannot run scontrol: Permission denied"


def test_no_srun(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (commands / "srun").unlink()
    monkeypatch.setenv("PATH", str(commands))
    facts = ask("7", LIMIT)
    assert facts.problem == "srun --version: there is no srun command in PATH here"
    assert (facts.nodes, facts.version) == (["n1", "n2"], None)


def test_what_does_not_answer_is_killed_with_all_that_it_started(commands: Path) -> None:
    """A site's own script around the real command, which tries to reach its controller."""
    os.mkfifo(commands / "alive")
    reader = os.open(commands / "alive", os.O_RDONLY | os.O_NONBLOCK)
    put(commands, "scontrol", f"exec 3>{commands}/alive; sleep 1000 & wait")
    facts = ask("7", 0.5)
    assert facts.problem == "scontrol show job: not done after 0.5 s"
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""  # once nobody holds the other end any more
    os.close(reader)


def test_one_that_closed_its_output_but_does_not_end(commands: Path) -> None:
    put(commands, "srun", "exec >&- 2>&-; exec sleep 1000")
    facts = ask("7", 0.5)
    assert facts.problem == "srun --version: not done after 0.5 s"
    assert facts.nodes == ["n1", "n2"]


def test_endless_output_is_bounded(commands: Path) -> None:
    put(commands, "scontrol", "exec yes")
    facts = ask("7", 0.3)
    assert facts.problem == "scontrol show job: not done after 0.3 s"
    put(commands, "scontrol", f"head -c {MAX_OUTPUT + 100_000} /dev/zero")
    assert ask("7", LIMIT).problem == "scontrol show job: its answer is too long"


def test_no_descriptor_is_left(commands: Path) -> None:
    before = os.listdir("/proc/self/fd")
    ask("7", LIMIT)
    put(commands, "srun", "exec sleep 1000")
    ask("7", 0.2)
    assert len(os.listdir("/proc/self/fd")) == len(before)
