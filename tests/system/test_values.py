"""dbutil put, get, view: values of a run's key store, by tasks and shells, in the face of kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import DBUTIL, DEADLINE, Running, dbutil, disbatch, environment, tasks, write
from redis_server import RedisServer

from disbatch.api import DisBatch, RunEndedError

PATH = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
"""Tasks find `dbutil`."""
HELD = ("-s", "localhost:1", "-p", "P", "--keep-open")


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


def getting(directory: Path, *words: str) -> subprocess.Popen[bytes]:
    """`dbutil get` or `view`, which waits."""
    pipe = subprocess.PIPE
    return subprocess.Popen([DBUTIL, *words], cwd=directory, stdout=pipe, stderr=pipe, env=environment())


def start(directory: Path, *options: str, env: dict[str, str] | None = None) -> Running:
    run = Running(directory, *(options or HELD), env={**PATH, **(env or {})})
    run.until((directory / "P_connect.json").exists, "the connect file")
    return run


def until_waiting(run: Running, count: int) -> None:
    """So many asked for values, of which the last waits: the driver's log, at level debug, tells."""
    log = run.directory / "P_driver.txt"
    run.until(lambda: log.read_text().count("a program asks for a value") >= count, "somebody who waits")


def end(run: Running) -> None:
    assert dbutil(run.directory, "close")[0] == 0
    assert run.ended() == 0, run.err


def test_values_as_they_were_put(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        assert dbutil(tmp_path, "put", "k", "1", "two words") == (0, b"", "")
        assert dbutil(tmp_path, "view", "k") == (0, b"1\n", "")
        assert dbutil(tmp_path, "get", "k") == (0, b"1\n", "")
        assert dbutil(tmp_path, "get", "--raw", "k") == (0, b"two words", "")
        for words in (("put", "k", "-"), ("put", "k")):
            assert dbutil(tmp_path, *words, stdin=b"a\0\xff\n") == (0, b"", "")
        assert dbutil(tmp_path, "get", "k") == (0, b"a\0\xff\n", "")
        assert dbutil(tmp_path, "view", "k", "--timeout", "0", "--raw") == (0, b"a\0\xff\n", "")
        assert dbutil(tmp_path, "put", b"\xffkey", b"\xfe") == (0, b"", "")
        assert dbutil(tmp_path, "get", b"\xffkey") == (0, b"\xfe\n", "")
        assert dbutil(tmp_path, "put", "empty", "") == (0, b"", "")
        assert dbutil(tmp_path, "get", "empty", "--raw") == (0, b"", "")
        state = json.loads(dbutil(tmp_path, "view", "DisBatch status")[1])
        assert (state["state"], state["done"], state["total"]) == ("running", 0, None)
        end(run)
    log = (tmp_path / "P_driver.txt").read_text()
    assert "two words" not in log


def test_what_there_is_not(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        assert dbutil(tmp_path, "get", "k", "--timeout", "0") == (1, b"", "dbutil: P: no value under k\n")
        within = "dbutil: P: no value under k within 0.2 s\n"
        assert dbutil(tmp_path, "view", "k", "--timeout", "0.2") == (1, b"", within)
        for words, said in (
            (("put", "", "x"), "P: a key cannot be empty"),
            (("get", "k" * 1025), "P: a key of 1,025 bytes: it may have 1,024"),
            (("put", "k", "-", "-"), "put: standard input can be read once only"),
        ):
            assert dbutil(tmp_path, *words) == (2, b"", f"dbutil: {said}\n")
        code, _, said = dbutil(tmp_path, "put", "k", stdin=b"x" * (1 << 20) + b"x")
        assert (code, "more than 1,048,576 bytes" in said) == (2, True)
        assert dbutil(tmp_path, "put", "k", stdin=b"x" * (1 << 20))[0] == 0
        assert len(dbutil(tmp_path, "get", "k", "--raw")[1]) == 1 << 20
        end(run)
    assert dbutil(tmp_path, "--run", "P", "get", "k")[0] == 2


def test_tasks_talk_to_each_other_and_hear_of_barriers(tmp_path: Path) -> None:
    write(
        tmp_path / "Tasks",
        [
            'x=$(dbutil get question); dbutil put answer "$x$x"',
            "dbutil put question 21; dbutil get answer > said",
            "#DISBATCH BARRIER half done",
            "dbutil get 'half done' > barrier",
        ],
    )
    (tmp_path / "elsewhere").mkdir()
    done = disbatch(tmp_path, "-s", "localhost:2", "-p", "elsewhere/P", "Tasks", env=PATH)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "said").read_text() == "2121\n"
    assert (tmp_path / "barrier").read_text() == "2\n"
    assert {record.return_code for record in tasks(tmp_path / "elsewhere/P_status.txt").values()} == {0}


def test_one_who_is_killed_while_he_waits_takes_nothing(tmp_path: Path) -> None:
    with start(tmp_path, *HELD, "--loglevel", "debug") as run:
        dead = getting(tmp_path, "get", "k")
        until_waiting(run, 1)
        alive = getting(tmp_path, "get", "k")
        until_waiting(run, 2)
        dead.kill()
        dead.wait()
        assert dbutil(tmp_path, "put", "k", "1")[0] == 0
        # It was given to the dead one, who waited first, until he is known to be dead.
        assert alive.communicate(timeout=DEADLINE) == (b"1\n", b"")
        assert dbutil(tmp_path, "get", "k", "--timeout", "0")[0] == 1
        end(run)


def test_one_who_is_stopped_with_a_value_on_its_way_does_not_use_it_twice(tmp_path: Path) -> None:
    with start(tmp_path, *HELD, "--loglevel", "debug") as run:
        slow = getting(tmp_path, "get", "k")
        until_waiting(run, 1)
        slow.send_signal(signal.SIGSTOP)
        assert dbutil(tmp_path, "put", "k", "1")[0] == 0
        assert dbutil(tmp_path, "get", "k") == (0, b"1\n", "")  # when its time is over
        slow.send_signal(signal.SIGCONT)
        until_waiting(run, 2)
        assert dbutil(tmp_path, "put", "k", "2")[0] == 0
        assert slow.communicate(timeout=DEADLINE) == (b"2\n", b"")
        end(run)


def test_a_value_that_cannot_be_printed_goes_back(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        assert dbutil(tmp_path, "put", "k", "1", "2")[0] == 0
        for verb, said in (("view", ""), ("get", "; the value went back, behind the others")):
            with Path("/dev/full").open("wb") as full:
                words, pipe = [DBUTIL, verb, "k"], subprocess.PIPE
                done = subprocess.run(
                    words, cwd=tmp_path, stdout=full, stderr=pipe, env=environment(), check=False
                )
            assert (done.returncode, "No space left on device" + said in done.stderr.decode()) == (3, True)
        assert [dbutil(tmp_path, "get", "k")[1] for _ in range(2)] == [b"2\n", b"1\n"]
        end(run)


def test_ctrl_c(tmp_path: Path) -> None:
    with start(tmp_path, *HELD, "--loglevel", "debug") as run:
        waiting = getting(tmp_path, "get", "k")
        until_waiting(run, 1)
        waiting.send_signal(signal.SIGINT)
        assert waiting.communicate(timeout=DEADLINE) == (b"", b"")
        assert waiting.returncode == 130
        assert dbutil(tmp_path, "put", "k", "1")[0] == 0
        assert dbutil(tmp_path, "get", "k", "--timeout", "0") == (0, b"1\n", "")
        end(run)


def test_the_end_of_the_run_ends_the_waiting(tmp_path: Path) -> None:
    with start(tmp_path, *HELD, "--loglevel", "debug") as run:
        waiting = getting(tmp_path, "get", "k")
        until_waiting(run, 1)
        end(run)
        out, err = waiting.communicate(timeout=DEADLINE)
        assert (waiting.returncode, out) == (3, b"")
        assert err.decode() == "dbutil: P: the run is over, and its key store with it\n"


def test_another_driver_begins_with_an_empty_store(tmp_path: Path) -> None:
    with start(tmp_path, *HELD, "--loglevel", "debug") as run:
        assert dbutil(tmp_path, "put", "k", "1")[0] == 0
        waiting = getting(tmp_path, "get", "other")
        log = tmp_path / "P_driver.txt"
        # Who is told that a second time has heard it the first time, and knows the store.
        run.until(lambda: log.read_text().count("nothing yet") >= 2, "it to know the store")
        run.signal(signal.SIGKILL)
        run.ended()
        with Running(tmp_path, "--takeover", "P", env=PATH) as second:
            second.until(lambda: dbutil(tmp_path, "get", "k", "--timeout", "0")[0] == 1, "the store")
            assert dbutil(tmp_path, "put", "other", "2")[0] == 0
            out, err = waiting.communicate(timeout=DEADLINE)
            assert out == b"2\n"
            assert "what the key store of the one before it held is lost" in err.decode()
            end(second)


def test_of_a_run_with_a_server(tmp_path: Path, redis: RedisServer) -> None:
    server = ("--kvsserver", f"127.0.0.1:{redis.port}")
    with start(tmp_path, *HELD, *server, "--loglevel", "debug", env={"DISBATCH_KVS_PREFIX": "x:"}) as run:
        assert dbutil(tmp_path, "put", "k", "1", "2")[0] == 0
        assert redis.do("LRANGE", "x:k", "0", "-1") == "1\n2"
        assert dbutil(tmp_path, "view", "k", "--timeout", "0") == (0, b"1\n", "")
        assert dbutil(tmp_path, "get", "k", "--timeout", "0") == (0, b"1\n", "")
        dead = getting(tmp_path, "get", "other")
        until_waiting(run, 1)
        dead.kill()
        dead.wait()
        redis.do("RPUSH", "x:other", "3")
        assert dbutil(tmp_path, "get", "other") == (0, b"3\n", "")
        assert dbutil(tmp_path, "get", "k") == (0, b"2\n", "")
        end(run)
    assert redis.names() == {"x:DisBatch status"}


def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with DisBatch(nodes="localhost:1", prefix="P", environment=environment(PATH)) as run:
        run.put("k", "1", b"\0\xff")
        assert [run.view("k"), run.get("k"), run.get("k", 0)] == [b"1", b"1", b"\0\xff"]
        with pytest.raises(TimeoutError, match=r"^no value under 'k'$"):
            run.get("k", 0)
        with pytest.raises(TimeoutError, match=r"^no value under 'k' within 0\.01 s$"):
            run.view("k", 0.01)
        task = run.submit("dbutil put from-task $(dbutil get to-task)")
        run.put("to-task", "7")
        assert run.get("from-task") == b"7"
        assert task.result().ok
        with pytest.raises(TypeError):
            run.put("k", 1)  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            run.put("k")
    with pytest.raises((RuntimeError, RunEndedError)):
        run.get("k")


def test_a_python_program_beside_a_run_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "Tasks", ["dbutil get go"])
    with start(tmp_path, "-s", "localhost:1", "-p", "P", "Tasks") as run:
        with DisBatch.connect("P", tasks=False) as beside:
            assert json.loads(beside.view("DisBatch status"))["state"] == "running"
            beside.put("go", "now")
        assert run.ended() == 0
