"""What tasks find in their environment on nodes that were attached."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pool_run import Pool

HERE = socket.gethostname()
BIG = 100_000
"""Bytes of one variable; Linux takes no more than 131,071."""


def found(pool: Pool, path: Path) -> dict[bytes, bytes]:
    """What `env -0` wrote there."""
    return dict(entry.split(b"=", 1) for entry in path.read_bytes().split(b"\0") if entry)


def test_the_runs_own_and_what_is_so_there(pool: Pool) -> None:
    pool.tasks("env -0 > found")
    of_the_run = {
        "SETTING": "the run's",
        "ODD": os.fsdecode(b"\xff\xfe a\nb\t="),
        "HOME": "/the/driver's",
        "SLURM_JOB_ID": "4711",
        "SLURM_CPUS_PER_TASK": "9",
        "CUDA_VISIBLE_DEVICES": "7",
        "DISBATCH_KVS_URL": "redis://secret@there",
    }
    own = {
        "SETTING": "its own",
        "HOME": "/its/own",
        "CUDA_VISIBLE_DEVICES": "3",
        "LOADED_HERE": "too",
        "DISBATCH_KVS_URL": "redis://secret@here",
    }
    mark = dict(pool.env)
    pool.env |= of_the_run
    with pool.start("-S") as run:
        pool.env = mark
        with pool.attach("-s", "localhost:1", env=own, directory=pool.directory.parent) as attach:
            assert run.ended() == 0 and attach.ended() == 0
    task = found(pool, pool.directory / "found")
    assert task[b"SETTING"] == b"the run's" and task[b"ODD"] == b"\xff\xfe a\nb\t="
    assert task[b"HOME"] == b"/its/own" and task[b"LOADED_HERE"] == b"too"
    assert task[b"PWD"] == os.fsencode(pool.directory)
    assert task[b"CUDA_VISIBLE_DEVICES"] == b"3"
    assert not [name for name in task if name.startswith((b"SLURM_", b"DISBATCH_KVS"))]
    assert task[b"DISBATCH_JOBID"] == b"4711"


def test_a_large_one(pool: Pool) -> None:
    pool.tasks("env -0 > found; echo x > told")
    large = {f"LARGE{number}": "x" * BIG for number in range(15)}
    mark = dict(pool.env)
    pool.env |= large
    with pool.start("-S") as run:
        pool.env = mark
        with pool.attach("-s", "localhost:1") as attach:
            assert run.ended() == 0 and attach.ended() == 0
    task = found(pool, pool.directory / "found")
    assert {name: len(value) for name, value in task.items() if name.startswith(b"LARGE")} == {
        name.encode(): BIG for name in large
    }


def test_what_gives_nodes_back_finds_it_too(pool: Pool) -> None:
    """The command is called where the node was attached; one that fails is told of, once."""
    pool.tasks("true", ": < gate")
    elsewhere = pool.directory / "elsewhere"
    elsewhere.mkdir()
    with pool.start("-s", "localhost:1") as run:
        command = 'echo "$NODE $ACTIVE $RETIRED $RETCODE $(pwd)" >> about; exit 3'
        with pool.attach("-s", "localhost:1", "-k", command, directory=elsewhere) as attach:
            assert attach.ended() == 0
            assert attach.said[1:] == [
                f"dbutil: {HERE}: left",
                f"dbutil: the retire command (-k) for {HERE} failed: exit code 3",
            ]
        pool.open_gate()
        assert run.ended() == 0
    about = (elsewhere / "about").read_text().splitlines()
    assert about == [f"{HERE}  {HERE} 0 {elsewhere}"] * 3
