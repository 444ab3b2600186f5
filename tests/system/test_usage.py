"""What a newcomer does wrong gets one clear line and exit code 2; nothing runs, no file is made."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from command import DISBATCH, call, disbatch, in_copy, write

from disbatch.cli.main import main

NOBODY = 65534
GOOD = "touch ran\n"


def place(directory: Path) -> Path:
    """A directory with something to do wrong in it."""
    (directory / "Tasks").write_text(GOOD)
    (directory / "Folder").mkdir()
    (directory / "Dangling").symlink_to("nowhere")
    (directory / "Loop").symlink_to("Loop")
    (directory / "Unknown").write_text(f"{GOOD}#DISBATCH PREFXI x\n")
    (directory / "Three").write_text(f"#DISBATCH FOO\n#DISBATCH FOO\n{GOOD}#DISBATCH REPEAT\n")
    (directory / "Many").write_text("#DISBATCH FOO\n" * 30)
    (directory / "Repeat").write_text(f"{GOOD}\n#DISBATCH REPEAT many true\n")
    (directory / "Late").write_text(f"{GOOD}#DISBATCH PERENGINE START true\n")
    (directory / "Nul").write_bytes(b"touch ran\necho \0\n")
    (directory / "Binary").write_bytes(bytes(range(256)) * 20)
    (directory / "Foreign").write_text("sample\t1\t2\n")
    return directory


def contents(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything in the directory: name, size, time of change and content."""
    found = {}
    for path in sorted(directory.rglob("*")):
        about = path.lstat()
        data = path.read_bytes() if path.is_file() and os.access(path, os.R_OK) else b""
        found[str(path)] = (about.st_size, about.st_mtime_ns, data)
    return found


def complaint(directory: Path, *arguments: str) -> str:
    """What the command says to wrong input, all of it; in a copy of this process, which is quick."""
    before = contents(directory)
    return only_line(*in_copy(main, directory, *arguments), directory, before)


def complaint_of_command(directory: Path, *arguments: str | bytes, env: dict[str, str] | None = None) -> str:
    """The same of the installed command."""
    before = contents(directory)
    done = disbatch(directory, *arguments, env=env)
    return only_line(done.returncode, done.stdout, done.stderr, directory, before)


def only_line(code: int, out: str, err: str, directory: Path, before: object) -> str:
    assert (code, out) == (2, ""), err
    assert contents(directory) == before
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert err.startswith("disbatch: ") and "Traceback" not in err
    return err.removeprefix("disbatch: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no task file", "--help"]),
        (["none"], ["none: No such file"]),
        ([""], ["name", "empty"]),
        (["Folder"], ["Folder: is a directory"]),
        (["Dangling"], ["Dangling: No such file"]),
        (["Loop"], ["Loop: Too many levels of symbolic links"]),
        (["Tasks/x"], ["Tasks/x: Not a directory"]),
        (["x" * 300], ["File name too long"]),
        (["two\nlines"], ["two lines: No such file"]),
        (["#DISBATCH REPEAT 6 id"], ["6 id: No such file", "echo '#DISBATCH REPEAT 6 id' | disbatch -"]),
        (["x " * 300], ["File name too long", "echo LINES | disbatch -"]),
        (["Tasks", "Tasks"], ["one task file", "Tasks"]),
        (["--bogus", "Tasks"], ["--bogus", "--help"]),
        (["--cpus", "2", "Tasks"], ["--cpus", "--help"]),
        (["Unknown"], ["Unknown:2: ", "'PREFXI'", "PREFIX"]),
        (["Repeat"], ["Repeat:3: ", "REPEAT", "whole number"]),
        (["Late"], ["Late:2: ", "PERENGINE", "precede"]),
        (["Nul"], ["Nul:2: ", "NUL"]),
        (["Binary"], ["Binary:1: ", "NUL"]),
        (["Three"], ["Three:1: ", "'FOO'", "lines 2, 4 are wrong, too", "dbutil check"]),
        (["Many"], ["Many:1: ", "lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 19 more are wrong, too"]),
    ],
)
def test_task_files(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    said = complaint(place(tmp_path), *arguments)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-s", "localhost"], ["-s localhost", "how many cores", "localhost:4"]),
        (["-s", "localhost:0"], ["localhost:0", "at least 1"]),
        (["-s", "localhost:-2"], ["localhost:-2", "at least 1"]),
        (["-s", "localhost:two"], ["localhost:two", "whole number"]),
        (["-s", "localhost:2,"], ["missing between two commas"]),
        (["-s", ":2"], ["host's name is missing"]),
        (["-s", ""], ["HOST:CORES"]),
        (["-s", "host name:2"], ["not a host's name"]),
        (["-s=-oProxyCommand=x:2"], ["-oProxyCommand"]),
        (["-s", "localhost:99999999"], ["more than 100000"]),
        (["-s"], ["-s", "expected one argument"]),
        (["-c", "0"], ["-c", "more than 0", "'0'"]),
        (["-c", "-1"], ["-c", "more than 0", "'-1'"]),
        (["-c", "x"], ["-c", "'x'"]),
        (["-c", "nan"], ["-c", "'nan'"]),
        (["-c", "inf"], ["-c", "'inf'"]),
        (["-c", ""], ["-c", "''"]),
        (["-c", "1e-12"], ["-c", "100000"]),
        (["-c", "3", "-s", "localhost:2"], ["no node has room", "2 cores", "-c 3"]),
        (["-t", "0"], ["-t", "at least 1"]),
        (["-t", "1.5"], ["-t", "whole number"]),
        (["-t", "x"], ["-t", "'x'"]),
        (["-C", "-1"], ["-C", "at least 0"]),
    ],
)
def test_where_tasks_run(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    tail = [] if arguments[-1] == "-s" else ["Tasks"]
    said = complaint(place(tmp_path), *arguments, *tail)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "none/run"], ["-p none/run", "no directory none"]),
        (["-p", "Tasks/run"], ["-p Tasks/run", "Tasks is not a directory"]),
        (["-p", ""], ["-p", "empty"]),
        (["-p", "/proc/run"], ["/proc/run_status.txt", "cannot be created", "-p"]),
        (["-p", "x" * 300], ["cannot be created: File name too long"]),
        (["-l", "none/log"], ["none/log", "cannot be created", "-l"]),
        (["-l", "Folder"], ["Folder", "directory", "-l"]),
        (["-l", ""], ["-l", "empty"]),
        (["--loglevel", "loud"], ["--loglevel", "loud", "debug"]),
        (["-r", "none"], ["none", "no such file"]),
        (["-r", ""], ["-r", "empty"]),
        (["-r", "Folder"], ["Folder: is a directory", "-r"]),
        (["-r", "Binary"], ["Binary:1: not a line of a status file"]),
        (["-r", "Foreign"], ["Foreign:1: not a line of a status file"]),
        (["-r", "/dev/zero"], ["/dev/zero", "not a regular file"]),
        (["-R"], ["-R", "-r STATUSFILE"]),
        (["--force-resume"], ["--force-resume", "-r STATUSFILE"]),
    ],
)
def test_files(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    said = complaint(place(tmp_path), *arguments, "Tasks")
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--use-address", "host"], ["--use-address host", "HOST:PORT"]),
        (["--use-address", ":5"], ["--use-address :5", "HOST:PORT"]),
        (["--use-address", "host:65536"], ["--use-address host:65536", "HOST:PORT"]),
        (["--use-address", "host:99999"], ["--use-address host:99999", "HOST:PORT"]),
        (["--use-address", "host:port"], ["--use-address host:port", "HOST:PORT"]),
        (["--use-address", "ho st:5000"], ["--use-address ho st:5000", "HOST:PORT"]),
        (["--use-address", ""], ["--use-address", "HOST:PORT"]),
        (["--tunnel", "--use-address", "localhost:5000"], ["--tunnel", "--use-address"]),
        (["--heartbeat", "0"], ["--heartbeat", "0.1"]),
        (["--patience", "2"], ["--patience", "--heartbeat"]),
        (["--orphan-patience", "x"], ["--orphan-patience", "'x'"]),
        (["--grace", "-1"], ["--grace", "at least 0"]),
        (["--max-losses", "1.5"], ["--max-losses", "whole number"]),
    ],
)
def test_engines_and_network(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    said = complaint(place(tmp_path), *arguments, "Tasks")
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mailFreq", "5"], ["--mailFreq", "--mailTo ADDR"]),
        (["--mailFreq", "0", "--mailTo", "me"], ["--mailFreq", "at least 1"]),
        (["--mailTo", ""], ["--mailTo", "empty"]),
        (["--mailTo", "me,"], ["--mailTo 'me,'", "ADDRESS,ADDRESS"]),
        (["--mailTo", "me@here\nBcc: you@there"], ["--mailTo", "ADDRESS,ADDRESS"]),
        (["--web-address", "localhost:0"], ["--web-address", "-w only"]),
        (["-w", "--web-address", "localhost:x"], ["--web-address", "HOST or HOST:PORT"]),
        (["-w", "--web-address", "localhost:65536"], ["--web-address", "HOST or HOST:PORT"]),
        (["-w", "--web-address", ""], ["--web-address", "HOST or HOST:PORT"]),
        (["-w", "--web-address", "nobody.invalid"], ["--web-address nobody.invalid:0: cannot listen there"]),
        (["-w", "--web-address", "192.0.2.1:80"], ["--web-address 192.0.2.1:80: cannot listen there"]),
        (["--on-finish", " "], ["--on-finish", "the command is empty"]),
        (["--on-failure", ""], ["--on-failure", "the command is empty"]),
    ],
)
def test_notices(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    said = complaint(place(tmp_path), "--on-finish", "touch ran", *arguments, "Tasks")
    assert all(word in said for word in words), said
    assert not (tmp_path / "ran").exists()


def test_environment(tmp_path: Path) -> None:
    place(tmp_path)
    said = complaint_of_command(tmp_path, "Tasks", env={"DISBATCH_SSH_NODELIST": "localhost"})
    assert "DISBATCH_SSH_NODELIST localhost: " in said
    said = complaint_of_command(tmp_path, "Tasks", env={"DISBATCH_CONFIG": str(tmp_path / "none.toml")})
    assert "none.toml" in said and "DISBATCH_CONFIG" in said
    said = complaint_of_command(
        tmp_path, "--mailTo", "me", "Tasks", env={"DISBATCH_SMTP": "smtp://me:secret@/"}
    )
    assert "DISBATCH_SMTP" in said and "secret" not in said
    said = complaint_of_command(tmp_path, "Tasks", env={"SLURM_JOB_ID": "5"})
    assert "SLURM_JOB_ID" in said and "-s" in said


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    assert "No such file" in complaint_of_command(tmp_path, b"\xff\xfe")


def test_address_in_use(tmp_path: Path) -> None:
    import socket

    place(tmp_path)
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        port = taken.getsockname()[1]
        said = complaint_of_command(
            tmp_path, "-s", "localhost:1", "--use-address", f"127.0.0.1:{port}", "Tasks"
        )
    assert f":{port}" in said and "in use" in said


def as_nobody(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user who owns nothing."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() or setpriv is None:
        if os.environ.get("CI") == "true":
            pytest.fail("needs root and setpriv")
        pytest.skip("needs root and setpriv")
    change = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return call([*change, DISBATCH, *arguments], directory, {"HOME": "/nonexistent"})


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """A directory that everybody can see and only its owner change."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and len(folder.parts) > 2:
            folder.chmod(folder.stat().st_mode | 0o055)
    return place(tmp_path)


def test_what_another_user_may_not_do(others: Path) -> None:
    (others / "Secret").write_text(GOOD)
    (others / "Secret").chmod(0o600)
    before = contents(others)
    for arguments, words in (
        (["Secret"], "Secret: cannot be read: permission denied"),
        (["-r", "Secret", "Tasks"], "Secret: cannot be read: permission denied"),
        (["Tasks"], "cannot be created: Permission denied; choose another place with -p"),
        (["-p", "run", "Tasks"], "cannot be created: Permission denied; choose another place with -p"),
    ):
        done = as_nobody(others, *arguments)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert contents(others) == before


def test_port_that_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = disbatch(tmp_path, "-s", "localhost:1", "--use-address", address, "Tasks")
    assert done.returncode == 2
    assert done.stderr.startswith(f"disbatch: cannot listen at tcp://{address}: Address already in use")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["Tasks"]


@pytest.mark.parametrize("arguments", [["Tasks"], ["--takeover", "/none/P"]])
def test_working_directory_that_is_not_there_any_more(tmp_path: Path, arguments: list[str]) -> None:
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    done = call(["sh", "-c", script, "sh", DISBATCH, *arguments], tmp_path)
    words = "disbatch: the working directory: No such file or directory; cd to one that is there\n"
    assert (done.returncode, done.stderr) == (2, words)
