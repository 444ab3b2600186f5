"""The command that goes on from a run, made of the one that started it."""

from __future__ import annotations

from pathlib import Path

import pytest

from disbatch.cli.options import parse_run
from disbatch.rundir.paths import RunFiles
from disbatch.rundir.resume_hint import ResumeHint


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("-s a:1 -", "cat SAME_TASKS | disbatch -s a:1 - -r P_status.txt"),
        ("/dev/fd/63 -R -r -", "cat SAME_TASKS | disbatch - -r - -r P_status.txt -R"),
        ("/dev/stdin", "cat SAME_TASKS | disbatch - -r P_status.txt"),
        ("-s a:1 T", "disbatch -s a:1 T -r P_status.txt"),
        ("T -r O_status.txt -R", "disbatch T -r O_status.txt -r P_status.txt -R"),
        ("--retry -r O_status.txt -- T", "disbatch -r O_status.txt T -r P_status.txt -R"),
        ("-- -R", "disbatch ./-R -r P_status.txt"),
    ],
)
def test_it_tries_again_what_failed_if_the_run_did(words: str, hint: str) -> None:
    files = RunFiles(Path("P"), Path("P_driver.txt"))
    taskfile = parse_run(words.split()).source.taskfile
    assert ResumeHint(words.split(), taskfile).command(files) == hint
