"""Names of files that are not UTF-8, or that a shell, a terminal or a line would take for something else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import DBUTIL, DISBATCH, Running, disbatch, environment, status_file, tasks
from held_run import Held

from deadline import DEADLINE

NAMES = [b"caf\xe9.txt", b"\xff\xfe name\n$(x)\"'.txt", b"-t\ttab`y`", "\u2028é\u202e".encode()]
LONG = b"\xe9" * 200


def named(directory: Path, name: bytes) -> Path:
    """A directory of that name, and in it a task file of that name."""
    path = directory / os.fsdecode(name)
    path.mkdir()
    return path


def command(directory: Path, *words: str | bytes | Path) -> subprocess.CompletedProcess[str]:
    """Run that to its end, our commands before others of their names."""
    return subprocess.run(
        words,
        cwd=directory,
        env=environment({"PATH": f"{Path(DISBATCH).parent}:{os.environ['PATH']}"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=DEADLINE,
        check=False,
    )


def pasted(text: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """What a user does who copies a command from the terminal."""
    return command(directory, "bash", "-c", text)


def summary_of(text: str, label: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"  {label} ")]
    return line.split(None, 1)[1]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_run_that_is_ended_is_resumed_as_its_last_line_says(tmp_path: Path, name: bytes) -> None:
    where = named(tmp_path, name)
    file = where / os.fsdecode(name)
    file.write_text('printf %s "$DISBATCH_NAMETASKS" > name\nexit 3\n#DISBATCH BARRIER CHECK\ntrue\n')
    done = disbatch(where, "-s", "localhost:1", "--", name)
    assert done.returncode == 1, done
    assert done.stderr.replace("\n", "").isprintable()
    assert (where / "name").read_bytes() == name
    shown = summary_of(done.stderr, "status")
    assert pasted(f"cat {shown}", where).stdout.count("\n") == 3
    file.write_text(file.read_text().replace("exit 3", "true  "))
    again = pasted(summary_of(done.stderr, "resume").replace("-r ", "--force-resume -r "), where)
    assert again.returncode == 0, again
    assert "1 done before" in again.stderr


@pytest.mark.parametrize("option", ["-p", "-l", "--output"])
def test_files_that_are_named_so(tmp_path: Path, option: str) -> None:
    (tmp_path / "T").write_text("echo 1\n")
    name = NAMES[1]
    done = disbatch(tmp_path, option, name, "T")
    assert done.returncode == 0, done
    found = [os.fsencode(path.name) for path in tmp_path.iterdir()]
    assert any(each.startswith(name) for each in found)
    if option == "--output":
        told = command(tmp_path, DBUTIL, "cat", "0")
        assert (told.returncode, told.stdout) == (0, "1\n"), told


def test_everything_that_asks_a_run_of_such_a_name(tmp_path: Path) -> None:
    where = named(tmp_path, NAMES[1])
    held = Held(where)
    held.task(held=0)
    (where / os.fsdecode(NAMES[0])).write_text(f"exit 3\n{held.lines[0]}\n")
    with Running(where, "-w", "-s", "localhost:2", NAMES[0], env=held.mark) as run:
        run.until(lambda: 1 in held.ran(), "the second task")
        prefix = os.fsencode(status_file(where)).removesuffix(b"_status.txt")
        run.until(lambda: len(tasks(status_file(where))) == 1, "the first line")
        (script,) = where.glob("*_dbUtil.sh")

        def asked(*words: str | bytes) -> str:
            done = command(where, script, *words)
            assert (done.returncode, done.stderr) == (0, ""), done
            return done.stdout

        told = json.loads(asked("status", "--json"))
        assert told["name"] == "caf\\xe9.txt"
        assert "caf\\xe9.txt" in told["run"]
        assert "caf\\xe9.txt" in asked("status")
        asked("put", "key", "value")
        assert asked("get", "key") == "value\n"
        assert json.loads(asked("report", "--json"))["tasks"]["failed"] == 1
        (url,) = where.glob("*_url.txt")
        assert url.read_text().startswith("http://127.0.0.1:")
        held.kill(run)
    dead = command(where, script, "status")
    assert dead.returncode == 3 and "the driver" in dead.stdout
    held.let_go(0)
    after = disbatch(where, "--takeover", prefix)
    assert after.returncode == 0, after
    assert sorted(tasks(Path(os.fsdecode(prefix + b"_status.txt")))) == [0, 1]
    page = command(where, DBUTIL, "report", "--html", b"r\xe9.html", prefix + b"_status.txt")
    assert page.returncode == 0, page
    assert b"caf" in (where / os.fsdecode(b"r\xe9.html")).read_bytes()
    held.close()


PROGRAM = """\
import glob, os
from disbatch import DisBatch, DisBatcher
name = os.fsencode("{name}")
with DisBatch(nodes="localhost:1", prefix=name) as run:
    assert bytes(run.prefix) == os.path.join(os.getcwdb(), name)
    assert run.submit("exit 3").result().return_code == 3
    run.put("key", "value")
    with DisBatch.connect(run.prefix) as other:
        assert other.submit("true").result().ok
    (info,) = glob.glob("*_kvsinfo.txt")
    from disbatch.api.compat import open_values
    assert open_values(info).get("key", 10) == b"value"
"""


@pytest.mark.parametrize("name", [NAMES[1], NAMES[3]], ids=repr)
def test_a_python_program_has_such_a_prefix(tmp_path: Path, name: bytes) -> None:
    where = named(tmp_path, name)
    program = PROGRAM.replace('os.fsencode("{name}")', repr(name))
    done = command(where, sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("length", [200, 220, 224, 226, 235, 255])
def test_a_name_that_leaves_no_room_for_others_is_told_in_a_line(tmp_path: Path, length: int) -> None:
    name = b"\xe9" * length
    (tmp_path / os.fsdecode(name)).write_text("true\n")
    done = disbatch(tmp_path, "-w", name, env={"DISBATCH_SSH_JOBID": "J"})
    assert done.returncode in (0, 2), done
    assert "internal error" not in done.stderr
    if done.returncode:
        assert done.stderr.count("\n") == 1 and "File name too long" in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == [os.fsdecode(name)]
