"""The main job on this machine: what tasks find, what the status file says of them, what the options do."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest
from command import Running, disbatch, processes, records, status_file, tasks, until, write

from disbatch.model.statusline import STATUS_HEADER, Mark, Record, unquoted
from disbatch.wire.connect import ConnectFile


def complete(directory: Path, lines: list[str], *options: str, code: int = 0) -> dict[int, Record]:
    """Run these lines on one slot (unless options say otherwise); the lines that count."""
    write(directory / "Tasks", lines)
    done = disbatch(directory, *(options or ("-s", "localhost:1")), "Tasks")
    assert done.returncode == code, done.stderr
    return tasks(status_file(directory))


def command_of(record: Record) -> bytes:
    command = unquoted(record.command)
    assert command is not None
    return command


# ---- tasks ----


def test_one_slot_keeps_the_order(tmp_path: Path) -> None:
    lines = [f"echo {n} >> order" for n in range(30)]
    complete(tmp_path, lines)
    assert (tmp_path / "order").read_text().split() == [str(n) for n in range(30)]
    assert [record.id for record in records(status_file(tmp_path))] == list(range(30))


def test_environment_of_tasks(tmp_path: Path) -> None:
    dump = "env -0 > env.$DISBATCH_TASKID; cat > in.$DISBATCH_TASKID; pwd > pwd.$DISBATCH_TASKID"
    write(tmp_path / "Tasks", ["# first", dump, "", f"#DISBATCH REPEAT 2 start 5 step -7 {dump}"])
    env = {"DISBATCH_SSH_JOBID": "job 7", "MINE": "a\nb", "DISBATCH_SMTP": "mail:secret"}
    done = disbatch(tmp_path, "-s", "localhost:3", "-c", "1.5", "Tasks", env=env)
    assert done.returncode == 0, done.stderr
    status = tasks(status_file(tmp_path))
    for id, line, repeat, padded in ((0, 2, "-1", "-00001"), (1, 4, "5", "000005"), (2, 4, "-2", "-00002")):
        found = dict(
            word.split("=", 1) for word in (tmp_path / f"env.{id}").read_text().split("\0") if "=" in word
        )
        assert found["DISBATCH_TASKID"] == str(id) and found["DISBATCH_TASKID_ZP"] == f"{id:06}"
        assert found["DISBATCH_STREAM_INDEX"] == str(line)
        assert found["DISBATCH_STREAM_INDEX_ZP"] == f"{line:06}"
        assert found["DISBATCH_REPEAT_INDEX"] == repeat and found["DISBATCH_REPEAT_INDEX_ZP"] == padded
        assert found["DISBATCH_JOBID"] == "job_7" and found["DISBATCH_NAMETASKS"] == "Tasks"
        assert found["DISBATCH_CORES_PER_TASK"] == "1.5" and found["DISBATCH_ENGINE_RANK"] == "0"
        assert found["DISBATCH_CYLINDER_RANK"] in "01"
        assert found["MINE"] == "a\nb" and "DISBATCH_SMTP" not in found
        assert (tmp_path / f"in.{id}").read_bytes() == b""
        assert (tmp_path / f"pwd.{id}").read_text() == f"{tmp_path}\n"
        assert (status[id].line, status[id].repeat) == (line, int(repeat))


def test_ranks_are_of_slots_that_run_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "meet")
    meet = (
        "echo $DISBATCH_CYLINDER_RANK >> ranks; if [ $DISBATCH_TASKID = 0 ]; then : < meet; else : > meet; fi"
    )
    complete(tmp_path, [meet, meet], "-s", "localhost:2")
    assert sorted((tmp_path / "ranks").read_text().split()) == ["0", "1"]


def test_what_the_status_file_says(tmp_path: Path) -> None:
    status = complete(
        tmp_path,
        [
            "true",
            "exit 3",
            "kill -TERM $$",
            "printf 'out\\tput\\n'",
            "printf %0100d 7; echo oops >&2; exit 255",
            "printf '\\377\\000x'",
        ],
    )
    assert [status[id].return_code for id in range(6)] == [0, 3, -15, 0, 255, 0]
    raw = [line.split(b"\t", 14) for line in status_file(tmp_path).read_bytes().splitlines()]
    assert [fields[0] for fields in raw] == [b"    ", b"R   ", b"R   ", b" O  ", b"ROE ", b" O  "]
    assert {fields[4] for fields in raw} == {os.uname().nodename.encode()}
    assert all(record.finish >= record.start and record.elapsed >= 0 for record in status.values())
    assert all(re.fullmatch(rb"\d+\.\d{3,}", field) for fields in raw for field in fields[7:10])
    outs = [(status[id].out_bytes, unquoted(status[id].out)) for id in range(6)]
    cut = b"0" * 40 + b"..." + b"0" * 39 + b"7"
    assert outs == [(0, b""), (0, b""), (0, b""), (8, b"out\tput\n"), (100, cut), (3, b"\xff\0x")]
    assert (status[4].err_bytes, unquoted(status[4].err)) == (5, b"oops\n")
    assert raw[0][11] == raw[0][13] == b'""' and raw[0][14] == b"'true'"


def test_what_failed_says_so_in_its_own_words_and_the_summary_fits(tmp_path: Path) -> None:
    long = "there is a long message that would be cut at its beginning by a snippet of forty bytes"
    tasks = [f"echo '{long}:' {n} >&2; exit {3 + n % 2}" for n in range(40)]
    start = "#DISBATCH PERENGINE START echo 'no scratch directory on this node, which has none' >&2; exit 9"
    write(tmp_path / "Tasks", [start, *tasks, *(f"exit {10 + n}" for n in range(20))])
    done = disbatch(tmp_path, "-s", "localhost:2", "Tasks")
    said = [row for row in done.stderr.splitlines() if "PERENGINE" in row]
    assert len(said) == 1
    assert said[0].endswith(": no scratch directory on this node, which has none")
    rows = done.stderr[done.stderr.index("disbatch: complete") :].splitlines()
    assert len(rows) <= 10, done.stderr
    for row, code, start in ((rows[2], 3, "  failed    "), (rows[3], 4, "            ")):
        assert re.match(rf"{start}20 tasks: exit {code}, e\.g\. task \d+: there is a long message", row), row
    assert any("more kinds" in row for row in rows)


def test_directives(tmp_path: Path) -> None:
    status = complete(
        tmp_path,
        [
            "#DISBATCH PERENGINE START echo start $DISBATCH_CYLINDER_RANK $DISBATCH_TASKID >> log",
            "#DISBATCH PERENGINE STOP echo stop $DISBATCH_CYLINDER_RANK >> log; exit 4",
            "#DISBATCH PREFIX echo '<' ",
            "#DISBATCH SUFFIX  '>' >> log",
            "one",
            "#DISBATCH BARRIER",
            "#DISBATCH PREFIX",
            "#DISBATCH REPEAT 2 echo $DISBATCH_REPEAT_INDEX",
            "#DISBATCH REPEAT 0 never",
        ],
    )
    assert (tmp_path / "log").read_text() == "start -1 0\n< one >\n0 >\n1 >\nstop -1\n"
    assert sorted(status) == [0, 2, 3]
    assert command_of(status[0]) == b"echo '<' one '>' >> log"
    assert command_of(status[2]) == b"echo $DISBATCH_REPEAT_INDEX '>' >> log"
    lines = records(status_file(tmp_path))
    assert [record.mark.value for record in lines] == ["P", " ", "B", " ", " ", "P"]
    assert (lines[2].id, lines[2].line, command_of(lines[2])) == (1, 6, b"#DISBATCH BARRIER")
    assert [(record.id, record.return_code) for record in lines if record.mark is Mark.PER_ENGINE] == [
        (0, 0),
        (0, 4),
    ]


def test_barrier_holds_the_later_tasks_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    write(tmp_path / "Tasks", ["read x < go; touch first", "true", "#DISBATCH BARRIER", "test -e first"])
    with Running(tmp_path, "-s", "localhost:2", "Tasks") as run:
        path = run.until(lambda: next(tmp_path.glob("*_status.txt"), None), "a status file")
        run.until(lambda: 1 in tasks(path), "task 1 to be recorded")
        (tmp_path / "go").write_text("go\n")
        assert run.ended() == 0
    assert tasks(path)[3].return_code == 0


def test_barrier_check_ends_the_run_and_says_why(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["false", "true", "exit 7", "#DISBATCH BARRIER CHECK", "touch never"])
    done = disbatch(tmp_path, "-s", "localhost:2", "Tasks")
    assert done.returncode == 1
    assert "Tasks:4: BARRIER CHECK: 2 tasks failed before it (first task 0, line 1)" in done.stderr
    assert sorted(tasks(status_file(tmp_path))) == [0, 1, 2]
    assert not (tmp_path / "never").exists()


def test_failed_barrier_check_resumes_with_its_failures(tmp_path: Path) -> None:
    """Without -R what failed would count as done, and the check fail again for ever."""
    write(tmp_path / "Tasks", ["test -e mended", "echo x >> once", "#DISBATCH BARRIER CHECK", "touch after"])
    done = disbatch(tmp_path, "-s", "localhost:2", "Tasks")
    (resume,) = re.findall(r"^ *resume +disbatch (.*)$", done.stderr, re.M)
    (tmp_path / "mended").touch()
    assert disbatch(tmp_path, *shlex.split(resume)).returncode == 0
    assert (tmp_path / "after").exists() and (tmp_path / "once").read_text() == "x\n"


def test_barrier_check_passes_when_nothing_failed_since_the_last(tmp_path: Path) -> None:
    lines = ["false", "#DISBATCH BARRIER", "true", "#DISBATCH BARRIER CHECK", "touch after"]
    complete(tmp_path, lines)
    assert (tmp_path / "after").exists()


# ---- task files ----


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n  \n# only a comment", []),
        (b"echo a > out", [b"echo a > out"]),
        (b"true\r\necho x\r\n", [b"true", b"echo x"]),
        (b"  echo b\t> out  \n", [b"  echo b\t> out  "]),
        ("echo ä > ö\n".encode(), ["echo ä > ö".encode()]),
        (b"echo \xff\xfe > out\n", [b"echo \xff\xfe > out"]),
        (b": " + b"x" * 1_000_000 + b"\ntrue\n", [b": " + b"x" * 1_000_000, b"true"]),
    ],
)
def test_bytes_of_commands(tmp_path: Path, content: bytes, expected: list[bytes]) -> None:
    (tmp_path / "Tasks").write_bytes(content)
    done = disbatch(tmp_path, "-s", "localhost:1", "Tasks")
    assert done.returncode == 0, done.stderr
    status = tasks(status_file(tmp_path))
    assert [command_of(status[id]) for id in sorted(status)] == expected
    assert all(record.return_code == 0 for record in status.values())


def test_bytes_reach_the_shell(tmp_path: Path) -> None:
    (tmp_path / "Tasks").write_bytes(b"printf %s \xff\xc3\xa4 > out\n")
    assert disbatch(tmp_path, "-s", "localhost:1", "Tasks").returncode == 0
    assert (tmp_path / "out").read_bytes() == b"\xff\xc3\xa4"


def test_no_tasks_at_all(tmp_path: Path) -> None:
    done = disbatch(tmp_path, "-s", "localhost:1", "/dev/null")
    assert done.returncode == 0 and "0 tasks" in done.stderr
    assert status_file(tmp_path).name.startswith("STREAM_")


# ---- options ----


def test_exit_code(tmp_path: Path) -> None:
    complete(tmp_path, ["true", "false", "touch last"], "-s", "localhost:1", "-e", code=1)
    assert (tmp_path / "last").exists()


def test_exit_code_if_none_failed(tmp_path: Path) -> None:
    complete(tmp_path, ["true"], "-e", code=0)


def test_fail_fast_ends_what_runs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "up")
    lines = [": > up; FAILFAST_TEST=1 sleep 600", "read x < up; exit 9", "touch never"]
    write(tmp_path / "Tasks", lines)
    done = disbatch(tmp_path, "-s", "localhost:2", "-f", "Tasks")
    assert done.returncode == 1
    status = {record.id: record for record in records(status_file(tmp_path))}
    assert status[1].return_code == 9 and status[1].mark is Mark.TASK
    assert status[0].mark is Mark.SUPERSEDED
    assert not (tmp_path / "never").exists() and not processes("FAILFAST_TEST=1")
    assert f" -r {status_file(tmp_path).name}" in done.stderr


@pytest.mark.parametrize("limit", [1, 7])
def test_task_limit_is_exact(tmp_path: Path, limit: int) -> None:
    write(tmp_path / "Tasks", ["#DISBATCH REPEAT 40 echo x >> ran"])
    done = disbatch(tmp_path, "-s", "localhost:4", "-C", str(limit), "Tasks")
    assert len(tasks(status_file(tmp_path))) == limit
    assert len((tmp_path / "ran").read_text().split()) == limit
    assert done.returncode == 3 and " -r " in done.stderr, done.stderr


def test_task_limit_that_is_not_reached(tmp_path: Path) -> None:
    assert len(complete(tmp_path, ["true"] * 3, "-s", "localhost:2", "-C", "3")) == 3


def test_task_limit_of_none(tmp_path: Path) -> None:
    assert len(complete(tmp_path, ["true"] * 3, "-s", "localhost:2", "-C", "0")) == 3


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        (["-s", "localhost:4", "-t", "2"], 2),
        (["-s", "localhost:4", "-t", "9"], 4),
        (["-s", "localhost:4", "-c", "1.5"], 2),
        (["-s", "localhost:1", "-c", "0.5"], 2),
        (["-s", "localhost:1,localhost:2"], 3),
    ],
)
def test_slots(tmp_path: Path, options: list[str], slots: int) -> None:
    write(tmp_path / "Tasks", ["true"])
    done = disbatch(tmp_path, *options, "Tasks")
    assert done.returncode == 0 and f"{slots} slots on 1 node" in done.stderr, done.stderr


def test_two_names_of_this_machine_are_two_engines(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "meet")
    lines = ["echo $DISBATCH_ENGINE_RANK >> ranks; : < meet", "echo $DISBATCH_ENGINE_RANK >> ranks; : > meet"]
    complete(tmp_path, lines, "-s", "localhost:1", "-s", "127.0.0.1:1")
    assert sorted((tmp_path / "ranks").read_text().split()) == ["0", "1"]


def test_status_header(tmp_path: Path) -> None:
    complete(tmp_path, ["true"], "--status-header")
    assert status_file(tmp_path).read_bytes().startswith(STATUS_HEADER)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


NODE = os.uname().nodename
FIXED = {"DISBATCH_SSH_JOBID": "J1"}


def test_names_of_files(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    (tmp_path / "Folder").mkdir()
    assert disbatch(tmp_path, "-s", "localhost:1", "Tasks", env=FIXED).returncode == 0
    usual = {
        "Tasks_J1_status.txt",
        "Tasks_J1_dbUtil.sh",
        f"Tasks_J1_{NODE}_engine.txt",
        "disBatch_J1_driver.txt",
    }
    assert names(tmp_path) == {"Tasks", "Folder"} | usual
    before = names(tmp_path)
    assert disbatch(tmp_path, "-s", "localhost:1", "-p", "mine", "Tasks", env=FIXED).returncode == 0
    own = {"mine_status.txt", "mine_dbUtil.sh", f"mine_{NODE}_engine.txt", "mine_driver.txt"}
    assert names(tmp_path) - before == own
    for folder in ("Folder", "Folder/"):
        (tmp_path / "Folder").mkdir(exist_ok=True)
        done = disbatch(tmp_path, "-s", "localhost:1", "-p", folder, "Tasks", env=FIXED)
        assert done.returncode == 0, done.stderr
    again = {name.replace("J1", "J1-2") for name in usual}
    assert names(tmp_path / "Folder") == usual | again


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    for _ in range(3):
        assert disbatch(tmp_path, "-s", "localhost:1", "-p", "run", "Tasks").returncode == 0
    for stem in ("run", "run-2", "run-3"):
        assert len(records(tmp_path / f"{stem}_status.txt")) == 1
    (tmp_path / "other_status.txt").write_text("mine\n")
    (tmp_path / "third_driver.txt").write_text("mine\n")
    (tmp_path / "fourth_connect.json").write_text("mine\n")
    for stem, file in (("other", "status.txt"), ("third", "driver.txt"), ("fourth", "connect.json")):
        assert disbatch(tmp_path, "-s", "localhost:1", "-p", stem, "Tasks").returncode == 0
        assert (tmp_path / f"{stem}_{file}").read_text() == "mine\n"
        assert len(records(tmp_path / f"{stem}-2_status.txt")) == 1


def test_two_runs_at_once_share_no_file(tmp_path: Path) -> None:
    for name in ("go.1", "go.2"):
        os.mkfifo(tmp_path / name)
    write(tmp_path / "Tasks", ["touch up.$WHICH; read x < go.$WHICH"])
    with (
        Running(tmp_path, "-s", "localhost:1", "Tasks", env={**FIXED, "WHICH": "1"}) as one,
        Running(tmp_path, "-s", "localhost:1", "Tasks", env={**FIXED, "WHICH": "2"}) as two,
    ):
        until(lambda: {"up.1", "up.2"} <= names(tmp_path), "both to run", tmp_path)
        assert len(list(tmp_path.glob("*_connect.json"))) == 2
        for name in ("go.1", "go.2"):
            (tmp_path / name).write_text("go\n")
        assert one.ended() == two.ended() == 0
    for stem in ("J1", "J1-2"):
        assert len(records(tmp_path / f"Tasks_{stem}_status.txt")) == 1
        assert {f"disBatch_{stem}_driver.txt", f"Tasks_{stem}_{NODE}_engine.txt"} <= names(tmp_path)


def test_log_file_is_appended_to(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    complete(tmp_path, ["true"], "-s", "localhost:1", "-l", "log", "--loglevel", "DEBUG")
    text = (tmp_path / "log").read_text()
    assert text.startswith("before\n") and "engine joined" in text
    assert not list(tmp_path.glob("*_driver.txt"))


RETIRE = 'echo "$NODE|$RETCODE|$NODES|$RETCODES|$ACTIVE|$RETIRED|$DRIVER_NODE" >> retired'


def test_retire_command(tmp_path: Path) -> None:
    complete(tmp_path, ["test ! -e retired"], "-s", "localhost:1", "-k", RETIRE, "-e")
    assert (tmp_path / "retired").read_text() == f"{NODE}|0|{NODE}|0||{NODE}|{NODE}\n"


def test_no_retire(tmp_path: Path) -> None:
    complete(tmp_path, ["true"], "-s", "localhost:1", "-K", "-k", RETIRE)
    assert not (tmp_path / "retired").exists()


# ---- secrets ----


def test_secrets(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    write(tmp_path / "Tasks", ["env -0 > env; touch up; read x < go"])
    with Running(tmp_path, "-s", "localhost:1", "--loglevel", "debug", "Tasks") as run:
        run.until((tmp_path / "up").exists, "the task")
        (path,) = tmp_path.glob("*_connect.json")
        about = path.stat()
        assert stat.S_IMODE(about.st_mode) == 0o600
        connect = msgspec.json.decode(path.read_bytes(), type=ConnectFile)
        secrets = [connect.server_secret, connect.client_secret, connect.client_key, connect.server_key]
        assert all(len(secret) == 40 for secret in secrets)
        assert not any(processes(secret) for secret in secrets)
        folder = Path(connect.addresses[0].removeprefix("ipc://")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert all(address.startswith("tcp://") for address in connect.addresses[1:])
        (tmp_path / "go").write_text("go\n")
        assert run.ended() == 0
    assert not path.exists() and not folder.exists()
    for file in tmp_path.iterdir():
        if file.is_file():
            text = file.read_text(errors="replace")
            assert not any(secret in text for secret in secrets), file


def test_where_the_key_store_is(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["cp disBatch_*_kvsinfo.txt told; stat -c %a disBatch_*_kvsinfo.txt > mode"])
    done = disbatch(tmp_path, "-s", "localhost:1", "Tasks")
    assert done.returncode == 0, done.stderr
    address, connect = (tmp_path / "told").read_text().splitlines()
    assert address.startswith("ipc://")
    assert re.fullmatch(rf"connect {re.escape(str(tmp_path))}/Tasks_\w+_connect.json", connect)
    assert (tmp_path / "mode").read_text() == "600\n"
    assert not list(tmp_path.glob("*kvsinfo*"))


def test_script_of_the_run(tmp_path: Path) -> None:
    complete(tmp_path, ["true"])
    (script,) = tmp_path.glob("*_dbUtil.sh")
    assert os.access(script, os.X_OK)
    assert "--run" in script.read_text()
    (tmp_path / "argparse.py").write_text("raise SystemExit('a file of the user')")
    checked = subprocess.run([script, "check", "Tasks"], cwd=tmp_path, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, b"Tasks: 1 task\n"), checked.stderr


def test_files_that_cannot_be_removed_at_the_end(tmp_path: Path) -> None:
    """The directory has become read-only, or, as here, something else has their names."""
    write(tmp_path / "Tasks", ["for name in connect run; do rm P_$name.json; mkdir P_$name.json; done"])
    done = disbatch(tmp_path, "-s", "localhost:1", "-p", "P", "Tasks")
    assert done.returncode == 0, done.stderr
    assert "complete: 1 task" in done.stderr
    assert done.stderr.count("P_connect.json: cannot be removed: Is a directory") == 1
