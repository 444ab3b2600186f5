"""Programs written for disBatch 3.0: its own example as it stands, and DisBatcher in a run that is there."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import DEADLINE, Running, environment, tasks
from redis_server import RedisServer

from disbatch import DisBatcher, DisbatchError, UsageError
from disbatch.model.errors import RunEndedError

HERE = ("-s", "localhost:2", "-p", "P")


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), password="word")
    yield server
    server.kill()


@pytest.fixture
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dberTest.py of the original, from the package index."""
    directory = tmp_path_factory.mktemp("original")
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    # pip asks what it fetches for its name; in an environment of its own for that, it would take a minute.
    done = subprocess.run(
        [*words, "--no-build-isolation", "--dest", str(directory), "disbatch==3.0"],
        env={**os.environ, "HOME": pwd.getpwuid(os.geteuid()).pw_dir},  # where pip is configured
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
        check=False,
    )
    archives = list(directory.glob("disbatch-3.0.tar.gz"))
    if not archives:
        problem = f"the original cannot be fetched: {done.stderr.strip()[-300:]}"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(problem)
    with tarfile.open(archives[0]) as archive:
        member = archive.extractfile("disbatch-3.0/exampleTaskFiles/dberTest.py")
        assert member is not None
        # As it was published it ends with an error of its own, whatever the run does: this formats a bool.
        text = member.read().replace(b"matched: {:s}", b"matched: {!s}")
        (directory / "dberTest.py").write_bytes(text)
    return directory / "dberTest.py"


def test_its_example(tmp_path: Path, example: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(example), "15", "-s", "localhost:15"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()[:15], done.stdout.splitlines()[15:]
    returned = dict(re.findall(r"^task (\d+): .* returned (\d+), matched: False", "\n".join(first), re.M))
    assert returned == {str(n): str(int(n == 7)) for n in range(15)}
    found = dict(re.findall(r"^task (\d+): returned (\d+), ", "\n".join(second), re.M))
    assert sorted(map(int, found)) == list(range(15, 30))
    assert [id for id, code in found.items() if code != "0"] == ["19"]
    assert "14^2 196" in (tmp_path / "square.log_014").read_text()
    assert f"142^3 {142**3}" in (tmp_path / "cube.log_142").read_text()


def give(kvsserver: str) -> None:
    """Tasks to a run that is there, their reports, and the end."""
    db = DisBatcher("a guest", kvsserver=kvsserver)
    for line in ("echo 1", "exit 3", "#DISBATCH REPEAT 2 echo $DISBATCH_REPEAT_INDEX"):
        db.submit(line)
    reports = db.syncTasks([1, 0])
    assert {id: report["ReturnCode"] for id, report in reports.items()} == {0: 0, 1: 3}
    assert reports[0]["OutData"] == "1\n"
    assert sorted(db.wait_one_task()["TaskId"] for _ in range(2)) == [2, 3]
    assert db.syncTasks([0]) == {0: reports[0]}
    with pytest.raises(ValueError, match="unknown directive"):
        db.submit("#DISBATCH NO")
    with pytest.raises(ValueError, match="no more tasks"):
        db.submit("a guest done!")
    db.submit("echo last")
    db.done()
    db.done()
    with pytest.raises(RuntimeError, match="closed"):
        db.submit("true")
    assert db.wait_one_task()["OutData"] == "last\n"  # of the driver's own store, too: it stays until then


def test_a_run_with_a_server(tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISBATCH_KVS_URL", redis.url)
    monkeypatch.setenv("DISBATCH_KVS_PREFIX", "mine:")
    both = {name: os.environ[name] for name in ("DISBATCH_KVS_URL", "DISBATCH_KVS_PREFIX")}
    for kvsserver in (redis.url, "kvsinfo"):
        with Running(tmp_path, *HERE, "--taskserver", env=both) as run:
            run.until_said("waiting for a task source")
            (info,) = tmp_path.glob("P*_kvsinfo.txt")
            if kvsserver == "kvsinfo":
                monkeypatch.delenv("DISBATCH_KVS_PREFIX")
            give(str(info) if kvsserver == "kvsinfo" else kvsserver)
            assert run.ended() == 0, run.err


def test_a_run_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Running(tmp_path, *HERE, "--taskserver") as run:
        run.until_said("waiting for a task source")
        give("P_kvsinfo.txt")
        assert run.ended() == 0, run.err
    assert len(tasks(tmp_path / "P_status.txt")) == 5


def test_a_run_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Running(tmp_path, *HERE, "--taskserver") as run:
        run.until_said("waiting for a task source")
        db = DisBatcher("guest", kvsserver="P_kvsinfo.txt")
        run.process.terminate()
        with pytest.raises(RunEndedError, match="the run is over"):
            db.wait_one_task()
        assert run.ended() == 143


def test_no_such_run(tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old_kvsinfo.txt").write_text(f"tcp://here:1\nconnect {tmp_path}/old_connect.json\n")
    (tmp_path / "wrong_kvsinfo.txt").write_bytes(b"\0\xff\n")
    for where, words in (
        ("localhost:1234", "which run. name its kvsinfo.txt, or set DISBATCH_KVS_PREFIX"),
        ("redis://:secret@localhost:1234", "kvsserver of that name: which run"),
        ("old_kvsinfo.txt", "there is no such run"),
        ("wrong_kvsinfo.txt", "wrong_kvsinfo.txt"),
    ):
        with pytest.raises(UsageError, match=words):
            DisBatcher("x", kvsserver=where)
    monkeypatch.setenv("DISBATCH_KVS_PREFIX", "mine:")
    for where, words in (("nowhere", "write HOST:PORT"), (f"127.0.0.1:{redis.port}", "password")):
        with pytest.raises(UsageError, match=words):
            DisBatcher("x", kvsserver=where)
    redis.kill()
    with pytest.raises(DisbatchError, match="connection refused"):
        DisBatcher("x", kvsserver=redis.url)
    with pytest.raises(UsageError, match="has its options"):
        DisBatcher("x", ["-c", "2"], redis.url)
