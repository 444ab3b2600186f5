"""Tasks from programs, through a real redis-server: sources in shell, their ends, their server's ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from command import (
    DEADLINE,
    Running,
    call,
    disbatch,
    environment,
    gone,
    processes,
    records,
    status_file,
    tasks,
    write,
)
from redis_server import RedisServer, certificates

from disbatch.model.statusline import Mark

HERE = Path(__file__).parent
SIGN_IN = """
put() { $REDIS RPUSH "$DISBATCH_KVS_PREFIX$1" "$2" >/dev/null; }
get() { $REDIS --raw BLPOP "$DISBATCH_KVS_PREFIX$1" 0 | tail -n 1; }
put 'task source name' test; put 'task source done task' DONE
put 'task source result key' R; put 'task source task key' T
"""


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


def address(redis: RedisServer) -> str:
    return f"127.0.0.1:{redis.port}"


def cli(redis: RedisServer) -> dict[str, str]:
    """The environment in which the scripts here find the server."""
    return {"REDIS": f"redis-cli -h 127.0.0.1 -p {redis.port}"}


def script(directory: Path, text: str) -> str:
    """A task command: it signs in, then does `text`."""
    path = directory / "source.bash"
    path.write_text(SIGN_IN + text)
    return f"bash {shlex.quote(str(path))}"


def read(path: Path) -> str:
    """What is in a file so far, if it is there."""
    return path.read_text() if path.exists() else ""


def by_command(directory: Path, redis: RedisServer, text: str) -> list[str]:
    """The options of a run with this task command."""
    where = ["-s", "localhost:1", "--kvsserver", address(redis)]
    return [*where, "--taskcommand", script(directory, text)]


def test_a_source_with_redis_cli_alone(tmp_path: Path, redis: RedisServer) -> None:
    lines = [
        *("#DISBATCH PREFIX x=1; ", "echo one", "#DISBATCH PREFIX"),
        *("#DISBATCH REPEAT 2 echo $DISBATCH_REPEAT_INDEX", "#DISBATCH BARRIER here"),
        *("false", "printf 'e\\xff' >&2"),
    ]
    variables = {**cli(redis), "PREFIX": "shared:"}
    # It comes first, knowing only where to meet.
    source = subprocess.Popen(
        [HERE / "source.sh", "5"],
        env=environment(variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = {"DISBATCH_KVS_PREFIX": "shared:"}
    with Running(tmp_path, "-s", "localhost:2", "--taskserver", address(redis), env=said) as run:
        out, _ = source.communicate("".join(f"{line}\n" for line in lines), timeout=DEADLINE)
        assert run.ended() == 0
        where = f"redis://{address(redis)}/0, its keys begin with shared:"
        assert f"disbatch: waiting for a task source; the key store is {where}\n" in run.err
    reports = {report["TaskId"]: report for report in map(json.loads, out.splitlines())}
    by_id = tasks(status_file(tmp_path, "STREAM_*_status.txt"))
    assert set(reports) == set(by_id) == {0, 1, 2, 4, 5}
    for id, record in by_id.items():
        report = reports[id]
        assert (report["TaskStreamIndex"], report["TaskRepIndex"]) == (record.line, record.repeat)
        assert (report["PID"], report["Host"]) == (record.pid, record.node)
        assert report["ReturnCode"] == record.return_code
        assert report["Elapsed"] == pytest.approx(record.elapsed, abs=1e-5)
        assert report["Start"] == pytest.approx(record.start, abs=1e-5)
    assert reports[0]["TaskCmd"] == "x=1;echo one"
    assert (reports[1]["OutData"], reports[1]["OutBytes"], reports[1]["Flags"]) == ("0\n", 2, " O  ")
    assert (reports[4]["ReturnCode"], reports[4]["Flags"]) == (1, "R   ")
    assert (reports[5]["ErrData"], reports[5]["ErrBytes"], reports[5]["Flags"]) == ("e\\xff", 2, "  E ")
    assert redis.do("LRANGE", "shared:here", "0", "-1") == "3"
    state = json.loads(redis.do("LINDEX", "shared:DisBatch status", "0"))
    assert (state["state"], state["done"], state["failed"]) == ("over", 5, 1)
    # What is left is what nobody has fetched.
    assert redis.names() == {"shared:here", "shared:DisBatch status"}


@pytest.mark.parametrize("password", ["", "p@ss/word"])
def test_the_source_that_the_page_shows(tmp_path: Path, password: str) -> None:
    redis = RedisServer(tmp_path, password=password)
    page = (HERE.parents[1] / "docs/keystore.md").read_text()
    (text,) = [block for block in re.findall(r"```sh\n(.*?)```", page, re.S) if "#!/bin/bash" in block]
    source = tmp_path / "source.sh"
    source.write_text(text)
    source.chmod(0o755)
    try:
        done = disbatch(
            *(tmp_path, "-s", "localhost:2", "--kvsserver", "--taskcommand", "./source.sh"),
            env={"DISBATCH_KVS_URL": redis.url.replace(f":{password}@", f":{quote(password, safe='')}@")},
        )
    finally:
        redis.kill()
    assert done.returncode == 0, done.stderr
    reports = map(json.loads, done.stdout.splitlines())
    answers = sorted((report["TaskId"], report["OutData"]) for report in reports)
    assert answers == [(0, "1\n"), (1, "4\n"), (2, "9\n")]


def test_a_source_that_speaks_the_protocol_itself(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, password="word")
    try:
        done = disbatch(
            *(tmp_path, "-s", "localhost:2", "--kvsserver", "--taskcommand", f"{HERE}/source_resp.bash 20"),
            env={"DISBATCH_KVS_URL": redis.url},
        )
    finally:
        redis.kill()
    assert done.returncode == 0, done.stderr
    assert sorted(map(int, (tmp_path / "ran").read_text().split())) == list(range(20))
    assert {int(line.split()[0]) for line in done.stdout.splitlines()} == set(range(20))
    assert "20 succeeded" in done.stderr


def test_what_a_command_finds_and_what_tasks_do_not(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, tls=certificates(tmp_path), password="geheim-7")
    command = script(
        tmp_path,
        """
        env > command.env; cat disBatch_*_kvsinfo.txt > info; stat -c %a disBatch_*_kvsinfo.txt > mode
        put T 'env > task.env; cat /proc/[0-9]*/cmdline > lines'; put T DONE
        """,
    )
    # The system's own authorities are believed, too: here by the variable that names them.
    url = redis.url.partition("?")[0]
    variables = {
        "DISBATCH_KVS_URL": url,
        "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
        "REDIS": f"redis-cli --tls --cacert {tmp_path}/ca.pem -h localhost -p {redis.port}",
        "REDISCLI_AUTH": redis.password,
    }
    try:
        done = disbatch(tmp_path, "-s", "localhost:1", "--kvsserver", "--taskcommand", command, env=variables)
    finally:
        redis.kill()
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "command.env").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if line.startswith("DISBATCH_"))
    assert found["DISBATCH_KVS_URL"] == url.replace("//:", "//default:")
    assert found["DISBATCH_KVS_PREFIX"] == f"disbatch:{found['DISBATCH_JOBID']}:"
    assert found["DISBATCH_CONNECT"] == str(tmp_path / f"STREAM_{found['DISBATCH_JOBID']}_connect.json")
    shown = f"rediss://localhost:{redis.port}/0"
    assert (tmp_path / "info").read_text() == f"{shown}\nprefix {found['DISBATCH_KVS_PREFIX']}\n"
    assert (tmp_path / "mode").read_text() == "600\n"
    assert not list(tmp_path.glob("*kvsinfo*"))
    task = (tmp_path / "task.env").read_text()
    assert "DISBATCH_KVS_URL" not in task
    assert b"geheim-7" not in (tmp_path / "lines").read_bytes()
    for path in tmp_path.glob("*_[0-9]*"):
        assert b"geheim-7" not in path.read_bytes(), path


def test_a_password_on_the_command_line_goes_no_further(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, password="geheim-8")
    url = redis.url
    try:
        command = "cat *_run.json > told; exit 4"
        done = disbatch(tmp_path, "-s", "localhost:1", "--kvsserver", url, "--taskcommand", command)
    finally:
        redis.kill()
    assert done.returncode == 3
    assert "a password on a command line can be seen by everybody" in done.stderr
    assert "resume    disbatch -s localhost:1 --kvsserver= --taskcommand" in done.stderr
    assert "geheim-8" not in done.stderr
    for path in [tmp_path / "told", *tmp_path.glob("*_[0-9]*")]:
        assert b"geheim-8" not in path.read_bytes(), path


def test_a_command_that_ends_badly(tmp_path: Path, redis: RedisServer) -> None:
    """What runs finishes, what waits does not start."""
    subprocess.run(["mkfifo", tmp_path / "started", tmp_path / "end"], check=True)
    text = "put T 'echo > started; read -r < end'; put T 'echo > second'; read -r < started; exit 5"
    with Running(tmp_path, *by_command(tmp_path, redis, text), env=cli(redis)) as run:
        run.until_said("the task command ended with exit code 5; no new task starts, running ones finish\n")
        (tmp_path / "end").write_text("\n")
        assert run.ended() == 3
    (task,) = tasks(status_file(tmp_path)).values()
    assert task.return_code == 0
    assert not (tmp_path / "second").exists()
    assert "disbatch: ended early: the task command ended with exit code 5: 1 task" in run.err
    assert "resume    disbatch -s localhost:1 --kvsserver" in run.err


def test_a_command_that_ends_too_soon(tmp_path: Path, redis: RedisServer) -> None:
    done = disbatch(tmp_path, *by_command(tmp_path, redis, "put T true; exit 0"), env=cli(redis))
    assert done.returncode == 3
    assert "the task command ended without its done token; no new task starts" in done.stderr


def test_a_command_that_never_signs_in(tmp_path: Path) -> None:
    done = disbatch(tmp_path, "-s", "localhost:1", "--taskcommand", "echo echo one")
    assert done.returncode == 3
    hint = "(to run what it prints: COMMAND | disbatch -)"
    assert f"the task command ended without signing in as a task source {hint}" in done.stderr
    assert done.stdout == "echo one\n"


def test_a_command_that_fails_after_its_last_task(tmp_path: Path, redis: RedisServer) -> None:
    text = "put T true; put T DONE; get 'R done tasks' > fetched; exit 6"
    done = disbatch(tmp_path, *by_command(tmp_path, redis, text), env=cli(redis))
    assert done.returncode == 3
    assert "the task command ended with exit code 6" in done.stderr
    assert len(tasks(status_file(tmp_path))) == 1
    assert (tmp_path / "fetched").read_text() == "0\n"


def test_a_wrong_line_ends_the_run(tmp_path: Path, redis: RedisServer) -> None:
    text = "put T true; get 'R done tasks'; put T '#DISBATCH REPEAT x'; put T true; get nothing"
    done = disbatch(tmp_path, *by_command(tmp_path, redis, text), env=cli(redis))
    assert done.returncode == 2
    assert re.search(r"disbatch: test:2: .*REPEAT.*; no new task starts", done.stderr)
    assert len(tasks(status_file(tmp_path))) == 1
    gone(lambda: processes(str(tmp_path / "source.bash")), "the command to be ended")


def test_the_end_of_a_run_is_the_end_of_its_command(tmp_path: Path, redis: RedisServer) -> None:
    text = "trap 'echo > told; exit' TERM; put T 'echo > runs; sleep 600'; get nothing & wait"
    with Running(tmp_path, *by_command(tmp_path, redis, text), env=cli(redis)) as run:
        run.until((tmp_path / "runs").exists, "a task")
        run.signal(signal.SIGINT)
        assert run.ended() == 130
    assert (tmp_path / "told").exists()
    gone(lambda: processes(str(tmp_path / "source.bash")), "the command to be ended")
    assert not list(tmp_path.glob("*kvsinfo*"))


def test_a_server_that_is_killed_loses_nothing(tmp_path: Path, redis: RedisServer) -> None:
    count = 40
    text = f"""
    for ((n = 0; n < {count}; n++)); do put T "[ $n != 5 ] || read -r < held; echo $n >> ran"; done
    put T DONE; echo > all
    read -r < go
    for ((n = 0; n < {count}; n++)); do get 'R done tasks' >> fetched; done
    """
    subprocess.run(["mkfifo", tmp_path / "go", tmp_path / "held"], check=True)
    with Running(tmp_path, *by_command(tmp_path, redis, text), env=cli(redis)) as run:
        run.until((tmp_path / "all").exists, "all tasks to be given")
        redis.kill()
        run.until_said("retrying until it answers")
        (tmp_path / "held").write_text("\n")  # so there are results while nobody takes them
        run.until(lambda: len(read(tmp_path / "ran").split()) > 10, "more tasks")
        redis.start()
        run.until_said("is there again")
        (tmp_path / "go").write_text("\n")
        assert run.ended() == 0, run.err
    assert sorted(map(int, (tmp_path / "ran").read_text().split())) == list(range(count))
    assert sorted(map(int, (tmp_path / "fetched").read_text().split())) == list(range(count))
    assert len(tasks(status_file(tmp_path))) == count


def test_two_runs_of_one_job_share_a_server(tmp_path: Path, redis: RedisServer) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    variables = {**cli(redis), "DISBATCH_SSH_JOBID": "77"}
    for directory in (here, there):
        directory.mkdir()
    text = 'put T "echo $DISBATCH_KVS_PREFIX > prefix"; get go; put T DONE'
    given = by_command(tmp_path, redis, text)
    with Running(here, *given, env=variables) as first, Running(there, *given, env=variables) as second:
        first.until(lambda: "\n" in read(here / "prefix"), "a task")
        second.until(lambda: "\n" in read(there / "prefix"), "a task")
        prefixes = {read(directory / "prefix").strip() for directory in (here, there)}
        for prefix in prefixes:
            redis.do("RPUSH", f"{prefix}go", "1")
        assert [first.ended(), second.ended()] == [0, 0]
    assert prefixes == {"disbatch:77:", "disbatch:77-2:"}
    taken = {**variables, "DISBATCH_KVS_PREFIX": "mine:"}
    redis.do("SET", "mine:.driver", "somebody")
    done = disbatch(here, *given, env=taken)
    assert (done.returncode, len(list(here.glob("*_status.txt")))) == (2, 1)
    assert "another run has the prefix mine:" in done.stderr


def test_a_run_goes_on_where_another_ended(tmp_path: Path, redis: RedisServer) -> None:
    text = 'for n in 1 2 3; do put T "echo $n >> ran; [ $n != 2 ]"; done; put T DONE; '
    assert disbatch(tmp_path, *by_command(tmp_path, redis, text), env=cli(redis)).returncode == 0
    former = status_file(tmp_path).name
    text += "for n in 1 2 3; do get \"R $(get 'R done tasks')\"; done"
    done = disbatch(tmp_path, *by_command(tmp_path, redis, text), "-r", former, "-R", env=cli(redis))
    assert done.returncode == 0, done.stderr
    reports = {report["TaskId"]: report["Flags"] for report in map(json.loads, done.stdout.splitlines())}
    assert reports == {0: "   S", 1: "R   ", 2: "   S"}
    assert (tmp_path / "ran").read_text().split() == ["1", "2", "3", "2"]


def test_a_task_file_and_the_keys_of_its_barriers(tmp_path: Path, redis: RedisServer) -> None:
    barriers = ("#DISBATCH BARRIER first", "#DISBATCH BARRIER CHECK second key")
    write(tmp_path / "Tasks", ["true", barriers[0], "true", barriers[1]])
    done = disbatch(tmp_path, "-s", "localhost:1", "--kvsserver", address(redis), "Tasks")
    assert done.returncode == 0, done.stderr
    (barrier, _) = [record.id for record in records(status_file(tmp_path)) if record.mark is Mark.BARRIER]
    (key,) = [name for name in redis.names() if name.endswith(":first")]
    assert redis.do("LRANGE", key, "0", "-1") == f"{barrier}"
    assert redis.do("LRANGE", key.replace("first", "second key"), "0", "-1") == "3"


# ---- the driver's own store ----

WITH_DBUTIL = """
put() { dbutil put "$@"; }
get() { dbutil get "$1"; }
put 'task source name' test; put 'task source done task' DONE
put 'task source result key' R; put 'task source task key' T
"""
PATH = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
OWN = ("-s", "localhost:2", "-p", "P")
FETCH = "for n in 1 2 3; do get \"R $(get 'R done tasks')\"; done"


def by_dbutil(directory: Path, text: str) -> str:
    """A source that needs no server."""
    (directory / "own.bash").write_text(WITH_DBUTIL + text)
    return f"bash {shlex.quote(str(directory / 'own.bash'))}"


def outputs(reports: str) -> list[tuple[int, str]]:
    found = [json.loads(line) for line in reports.splitlines()]
    return sorted((report["TaskId"], report["OutData"]) for report in found)


def test_a_command_without_a_server(tmp_path: Path) -> None:
    text = f"put T 'echo 1' '#DISBATCH PREFIX echo 2;' 'echo 3'; dbutil submit 'echo 4'; put T DONE; {FETCH}"
    done = disbatch(tmp_path, *OWN, "--taskcommand", by_dbutil(tmp_path, text), env=PATH)
    assert done.returncode == 0, done.stderr
    taken, *reports = done.stdout.splitlines(keepends=True)
    assert re.fullmatch(r"task [012]\n", taken)
    assert sorted(text for _, text in outputs("".join(reports))) == ["1\n", "2\n3\n", "4\n"]


def test_a_command_that_hands_its_tasks_in(tmp_path: Path) -> None:
    command = "dbutil submit 'echo a >> ran' 'exit 1'; dbutil close"
    done = disbatch(tmp_path, *OWN, "--taskcommand", command, env=PATH)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tasks 0-1\n")
    assert {id: record.return_code for id, record in tasks(tmp_path / "P_status.txt").items()} == {0: 0, 1: 1}


def bash(directory: Path, command: str) -> subprocess.CompletedProcess[str]:
    return call(["bash", "-c", command], directory, PATH)


def test_results_are_waited_for_until_they_are_fetched(tmp_path: Path) -> None:
    with Running(tmp_path, *OWN, "--taskserver", env=PATH) as run:
        run.until_said("waiting for a task source")
        assert bash(tmp_path, by_dbutil(tmp_path, "put T 'echo 1' 'echo 2' 'echo 3' DONE")).returncode == 0
        run.until_said("the key store stays until their results are fetched")
        assert len(tasks(tmp_path / "P_status.txt")) == 3
        fetched = bash(tmp_path, 'get() { dbutil get "$1"; }; ' + FETCH)
        assert outputs(fetched.stdout) == [(0, "1\n"), (1, "2\n"), (2, "3\n")]
        assert run.ended() == 0
        assert "were not fetched" not in run.err


def test_one_who_does_not_want_to_wait_for_that(tmp_path: Path) -> None:
    with Running(tmp_path, *OWN, "--taskserver", env=PATH) as run:
        run.until_said("waiting for a task source")
        assert bash(tmp_path, by_dbutil(tmp_path, "put T 'echo 1' DONE")).returncode == 0
        run.until_said("the key store stays")
        run.signal(signal.SIGINT)
        assert run.ended() == 0
        assert "some results were not fetched from the key store; they are in the status file" in run.err


def test_a_command_that_hands_tasks_in_and_does_not_close(tmp_path: Path) -> None:
    done = disbatch(tmp_path, *OWN, "--taskcommand", "dbutil submit true", env=PATH)
    assert done.returncode == 3
    assert "the task command ended without `dbutil close`, which ends the submission of tasks" in done.stderr
    assert set(tasks(tmp_path / "P_status.txt")) == {0}


def test_tasks_that_are_handed_in_beside_a_source(tmp_path: Path, redis: RedisServer) -> None:
    with Running(tmp_path, *OWN, "--taskserver", address(redis), env=PATH) as run:
        run.until_said("waiting for a task source")
        done = bash(tmp_path, "dbutil submit --wait 'echo 1' 'exit 3'")
        assert done.returncode == 1, done.stderr
        assert {line.split("\t")[1] for line in done.stdout.splitlines()} == {"0", "1"}
        run.signal(signal.SIGINT)
        assert run.ended() == 130


def test_no_such_server(tmp_path: Path, redis: RedisServer) -> None:
    redis.kill()
    write(tmp_path / "Tasks", ["true"])
    done = disbatch(tmp_path, "--kvsserver", address(redis), "Tasks")
    assert done.returncode == 2
    assert done.stderr == f"disbatch: key store redis://{address(redis)}/0: connection refused\n"
    assert [path.name for path in tmp_path.iterdir()] == ["Tasks"]
