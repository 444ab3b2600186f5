"""dbutil status: of a run that goes on, whose driver is killed and replaced, that ends, that is over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import DBUTIL, DEADLINE, call, disbatch, environment, until, write
from held_run import Held


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    run = Held(tmp_path)
    yield run
    run.close()


def dbutil(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return call([DBUTIL, *words], directory)


def told(directory: Path, *words: str, code: int = 0) -> dict[str, Any]:
    done = dbutil(directory, "status", "--json", *words)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (code, "", 1), done
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Stream:
    """`dbutil status --watch --json`, and what it has said."""

    def __init__(self, directory: Path, name: str = "stream") -> None:
        self.directory = directory
        self._out = directory / name
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(
                [DBUTIL, "status", "--run", "P", "--watch", "--json"],
                cwd=directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
            )

    @property
    def told(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for line in self._out.read_bytes().splitlines(keepends=True)
            if line[-1:] == b"\n"
        ]

    def until(self, **wanted: object) -> dict[str, Any]:
        """Wait until it says that."""

        def found() -> dict[str, Any] | None:
            told = [each for each in self.told if all(each[name] == value for name, value in wanted.items())]
            return told[-1] if told else None

        return until(found, f"{wanted}", self.directory)

    def ended(self) -> int:
        return self._process.wait(DEADLINE)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def test_a_run_that_goes_on(held: Held) -> None:
    held.lines += ["echo bad words >&2; exit 3"]
    held.task(1)
    held.task(2)
    held.lines += ["#DISBATCH BARRIER", "true"]
    with held.beginning("-s", "localhost:2") as run:
        held.until_ran(1, 2)
        held.until_recorded(1)
        now = told(held.directory)
        assert (now["state"], now["run"], now["told_by"], now["total"]) == ("running", "P", "driver", 4)
        assert (now["done"], now["failed"], now["running"], now["slots"]) == (1, 1, 2, 2)
        assert now["barrier"] == {"id": 3, "line": 4}
        (engine,) = now["engines"]
        assert (engine["slots"], engine["running"], engine["done"], engine["state"]) == (2, 2, 1, "active")
        (failure,) = now["failures"]
        assert (failure["id"], failure["return_code"], failure["snippet"]) == (0, 3, "bad words\n")
        assert {row["id"] for row in now["running_tasks"]} == {1, 2}
        assert told(held.directory, "--running", "1", "--failures", "0")["failures"] == []
        text = dbutil(held.directory, "status").stdout
        assert text.startswith("P: running for ") and "1 of 4 done, 1 failed, 2 running" in text
        assert "bad words" in text and "exit 3" in text
        held.dbutil("pause")
        assert told(held.directory)["paused"]
        assert "P: paused, began " in dbutil(held.directory, "status").stdout
        held.dbutil("resume")
        held.let_go(1)
        held.let_go(2)
        assert run.ended() == 0
    after = told(held.directory, "--run", "P")
    assert (after["state"], after["told_by"], after["done"], after["failed"]) == ("over", "status file", 4, 1)
    assert dbutil(held.directory, "status", "--run", "P").stdout.startswith("P: over, ")


def test_a_node_tells_of_its_load_and_memory(held: Held) -> None:
    held.task(1)
    with held.beginning("-s", "localhost:1", "--heartbeat", "0.5") as run:
        held.until_ran(0)
        stream = Stream(held.directory)
        try:
            until(
                lambda: any(row["seconds"] for now in stream.told for row in now["running_tasks"]),
                "a heartbeat while the task runs",
                held.directory,
            )
        finally:
            stream.close()
        (row,) = told(held.directory)["engines"]
        assert 0 < row["memory_used"] < row["memory_total"] and row["load"] >= 0 and row["heard"] < DEADLINE
        (task,) = told(held.directory)["running_tasks"]
        assert task["seconds"] > 0
        held.let_go(1)
        assert run.ended() == 0


def test_a_stream_through_death_takeover_and_end(held: Held) -> None:
    held.task()
    held.task(1)
    held.task(2)
    with held.beginning("-s", "localhost:2") as run:
        held.until_ran(1, 2)
        held.until_recorded(1)
        stream = Stream(held.directory)
        try:
            stream.until(state="running", running=2, done=1)
            held.kill(run)
            dead = stream.until(state="dead")
            assert "--takeover" in dead["words"] and dead["done"] == 1
            after = told(held.directory, code=3)
            assert (after["state"], after["told_by"], after["done"]) == ("dead", "status file", 1)
            with held.taking_over() as next_run:
                next_run.until_said("all engines are there")
                held.let_go(1)
                stream.until(state="running", done=2, running=1)
                held.let_go(2)
                assert next_run.ended() == 0
            assert stream.ended() == 0
            last = stream.told[-1]
            assert (last["state"], last["done"], last["words"]) == ("over", 3, "complete")
            assert (last["engines"][0]["done"], last["rate"] is None or last["rate"] < 100) == (3, True)
        finally:
            stream.close()


def test_a_driver_that_does_not_answer(held: Held) -> None:
    held.task(1)
    with held.beginning("-s", "localhost:1") as run:
        held.until_ran(0)
        run.signal(signal.SIGSTOP)
        found = told(held.directory, "--timeout", "0.5", code=3)
        assert (found["state"], found["told_by"]) == ("silent", "status file")
        assert "suspended" in found["words"]
        run.signal(signal.SIGCONT)
        held.let_go(1)
        assert run.ended() == 0


def test_who_may_not_read_the_keys_reads_the_status_file(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    assert disbatch(tmp_path, "-s", "localhost:1", "-p", "P", "Tasks").returncode == 0
    (tmp_path / "P_connect.json").write_text("{")
    found = told(tmp_path, "--run", "P", code=3)
    assert found["state"] == "silent" and "the driver cannot be asked: P_connect.json" in found["words"]
    assert found["done"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--run", "none"), "none: there is no such run"),
        ((), "no run is live in this directory"),
        (("--run", "other"), "is not a status file"),
        (("--running", "1001"), "--running: 1001: give a number up to 1,000"),
        (("--log", "-1"), "give a number"),
        (("--engines", "many"), "give a number"),
    ],
)
def test_words_that_mean_nothing(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "other_status.txt").write_text("hello\n")
    done = dbutil(tmp_path, "status", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert said in done.stderr


def test_nobody_reads_on(held: Held) -> None:
    held.task(1)
    with held.beginning("-s", "localhost:1") as run:
        held.until_ran(0)
        read, write_end = os.pipe()
        os.close(read)
        with open(write_end, "wb") as closed:
            done = subprocess.run(
                [DBUTIL, "status", "--watch"],
                cwd=held.directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=closed,
                stderr=subprocess.PIPE,
                timeout=DEADLINE,
                check=False,
            )
        assert (done.returncode, done.stderr) == (3, b"")
        held.let_go(1)
        assert run.ended() == 0


def test_many_watch_at_once(held: Held) -> None:
    held.gated(3)
    with held.beginning("-s", "localhost:1") as run:
        held.until_ran(0)
        streams = []
        try:
            for number in range(3):
                stream = Stream(held.directory, f"stream{number}")
                streams.append(stream)
                stream.until(running=1)
            held.let_pass(3)
            assert run.ended() == 0
            assert [stream.ended() for stream in streams] == [0, 0, 0]
        finally:
            for stream in streams:
                stream.close()
