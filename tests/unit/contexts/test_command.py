"""Short commands beside the run: what they answered, or in a few words why not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from disbatch.contexts.command import Answer, in_directory, run


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo one; echo two", Answer(None, "one\ntwo\n")),
        ("cat", Answer(None, "")),
        ("echo no >&2; exit 3", Answer("exit code 3: no", "")),
        ("echo out; exit 3", Answer("exit code 3: out", "out\n")),
        ("kill -9 $$", Answer("signal 9", "")),
        ("head -c 9000000 /dev/zero", Answer("its answer is too long", "")),
    ],
)
def test_answers(script: str, answer: Answer) -> None:
    assert asyncio.run(run(["/bin/sh", "-c", script])) == answer


def test_a_command_that_is_not_there() -> None:
    assert (
        asyncio.run(run(["disbatch-no-such"])).problem == "there is no disbatch-no-such command in PATH here"
    )


def test_a_command_that_does_not_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    answer = asyncio.run(run(["cat", str(tmp_path / "never")], timeout=0.1))
    assert answer == Answer("not done after 0.1 s", "")


def test_environment_and_directory(tmp_path: Path) -> None:
    argv = in_directory(str(tmp_path), ["/bin/sh", "-c", 'pwd; echo "$A $1"', "sh", "it's"])
    answer = asyncio.run(run(argv, {"A": "b", "PATH": os.defpath}))
    assert answer == Answer(None, f"{tmp_path}\nb it's\n")
    assert asyncio.run(run(in_directory(f"{tmp_path}/no", ["true"]))).problem is not None
