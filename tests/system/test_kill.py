"""kill -9 of driver, engine, keeper and tasks at random moments; then -r: every task accounted for once."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest
from processes import TOKEN, children, wait_gone

from deadline import DEADLINE
from disbatch.model.statusline import Mark, parse_line

DISBATCH = str(Path(sys.executable).with_name("disbatch"))
TASKS = 60
FIRST_SEED = int(os.environ.get("KILL_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("KILL_SEEDS", "4")))
"""More of them: make chaos KILL_SEED=100 KILL_SEEDS=50."""


class Run:
    """A directory with a task file whose tasks tell of their start through a FIFO, and runs of it."""

    def __init__(self, directory: Path, nodes: str) -> None:
        self.directory = directory
        self.nodes = nodes
        self.fifo = directory / "started"
        os.mkfifo(self.fifo)
        self.reader = os.open(self.fifo, os.O_RDWR | os.O_CLOEXEC)
        lines = [
            f"echo $DISBATCH_TASKID > started; sleep 0.0{i % 7}; echo $DISBATCH_TASKID >> ended"
            for i in range(TASKS)
        ]
        lines.insert(TASKS // 2, "#DISBATCH BARRIER")
        (directory / "Tasks").write_text("\n".join(lines) + "\n")
        self.former: list[str] = []

    def start(self) -> tuple[subprocess.Popen[bytes], str]:
        token = uuid.uuid4().hex
        command = [DISBATCH, "-s", self.nodes, "--grace", "1", "--orphan-patience", "1", "Tasks"]
        for former in self.former:
            command += ["-r", former]
        process = subprocess.Popen(
            command, cwd=self.directory, env={**os.environ, TOKEN: token}, stderr=subprocess.PIPE
        )
        return process, token

    def wait_starts(self, count: int, process: subprocess.Popen[bytes]) -> None:
        """Until that many tasks have started, or the run is over."""
        seen = 0
        gone = os.pidfd_open(process.pid)
        try:
            while seen < count:
                ready, _, _ = select.select([self.reader, gone], [], [], 60)
                assert ready, "nothing happens"
                if self.reader not in ready:
                    return
                seen += os.read(self.reader, 4096).count(b"\n")
        finally:
            os.close(gone)

    def drain(self) -> None:
        while select.select([self.reader], [], [], 0)[0]:
            os.read(self.reader, 65536)

    def status_files(self) -> list[Path]:
        return sorted(self.directory.glob("Tasks_*_status.txt"), key=lambda path: path.stat().st_ctime_ns)

    def close(self) -> None:
        os.close(self.reader)


def victim(choice: str, driver: int) -> int | None:
    """The process to kill."""
    if choice == "driver":
        return driver
    found = [driver]
    for each in ("keeper", "engine", "task"):
        found = children(found[0])
        if not found or choice == each:
            break
    return found[0] if found else None


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, err = process.communicate(timeout=DEADLINE)
    return process.returncode, err.decode()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_task_is_accounted_for_once(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    # One engine, or two: then a killed one's tasks run on the other.
    run = Run(tmp_path, "localhost:3" if seed % 8 < 4 else f"localhost:2,{os.uname().nodename}:1")
    for attempt in range(4):
        process, token = run.start()
        run.wait_starts(chance.randint(1, 25), process)
        choice = ["driver", "engine", "keeper", "task"][(seed + attempt) % 4]
        pid = victim(choice, process.pid)
        if pid is not None:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                choice = "nobody"
        if choice in ("driver", "keeper", "engine"):
            code, err = finish(process)
            # 0: all was done before the kill
            assert code in ((-9, 0) if choice == "driver" else (0, 3)), err
        else:
            os.kill(process.pid, signal.SIGTERM)
            code, err = finish(process)
            assert code in (143, 0), err
        assert "Traceback" not in err
        assert wait_gone(token, DEADLINE) == [], f"left behind after kill -9 of {choice} (seed {seed})"
        run.drain()
        run.former = [path.name for path in run.status_files()]
    process, token = run.start()
    code, err = finish(process)
    assert code == 0, err
    assert wait_gone(token, DEADLINE) == []
    check(run, tmp_path)
    run.close()


def check(run: Run, directory: Path) -> None:
    last = run.status_files()[-1]
    records = [parse_line(line) for line in last.read_bytes().splitlines()]
    assert all(record is not None for record in records)
    counting = [r for r in records if r is not None and r.mark in (Mark.TASK, Mark.SKIPPED)]
    ids = [record.id for record in counting]
    barrier = TASKS // 2
    assert sorted(ids) == [i for i in range(TASKS + 1) if i != barrier], "each task exactly once"
    ended = Counter(int(line) for line in (directory / "ended").read_text().split())
    for record in counting:
        if record.return_code == 0:
            assert ended[record.id] >= 1, f"task {record.id} is recorded as done and never came to its end"
        else:
            assert record.return_code == -9, f"only our own kill makes a task fail: {record}"
    for path in run.status_files():
        done = Counter(
            r.id for line in path.read_bytes().splitlines() if (r := parse_line(line)) and r.mark is Mark.TASK
        )
        assert not [id for id, times in done.items() if times > 1], f"{path}: a task counted twice"
    assert re.fullmatch(r"(\d+\n)*", (directory / "ended").read_text())
