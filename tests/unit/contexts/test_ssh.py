"""The commands that go through other people's login shells, and what is made of their answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from disbatch.contexts.launch_errors import engine_said, local_words, ssh_words, tidy, tunnel_words
from disbatch.contexts.local import BOOT, engine_argv, step_argv
from disbatch.contexts.ssh import TUNNEL_MARK, SshOptions, launch_argv, tunnel_argv
from disbatch.engine.search_path import package_path
from disbatch.model.errors import UsageError
from disbatch.wire.engine_protocol import ERROR_MARK

SHELLS = [
    shell for shell in ("sh", "bash", "dash", "csh", "tcsh", "fish", "zsh", "ksh") if shutil.which(shell)
]
AWKWARD = '/tmp/it\'s a "py" $HOME `x` ~ * ü'


LOADERS = [
    (
        127,
        "/x/py: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file",
    ),
    (127, "Error loading shared library libpython3.11.so.1.0: No such file or directory (needed by /x/py)"),
    (127, "/x/py: symbol lookup error: /x/py: undefined symbol: Py_BytesMain"),
    (1, "/x/py: /lib/libc.so.6: version `GLIBC_2.34' not found (required by /x/py)"),
    (126, "/bin/sh: 1: exec: /x/py: Exec format error"),
    (126, "/bin/sh: /x/py: /opt/py: bad interpreter: No such file or directory"),
    (127, "/bin/sh: line 1: /x/py: cannot execute: required file not found"),
]
FATAL = b"""\
  sys.path = [
Fatal Python error: init_fs_encoding: failed to get the Python codec of the filesystem encoding
Python runtime state: core initialized
ModuleNotFoundError: No module named 'encodings'

Current thread 0x00007f259ec0db80 (most recent call first):
  <no Python frame>
"""


def _say_arguments(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\nfor word in "$@"; do printf "<%s>" "$word"; done\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("shell", SHELLS)
def test_any_login_shell_understands_the_command(shell: str, tmp_path: Path) -> None:
    python = _say_arguments(tmp_path / 'it\'s a $py `x` "q" *' / "python")
    command = launch_argv("h", SshOptions(python=str(python), package=AWKWARD))[-1]
    done = subprocess.run([shell, "-c", command], check=False, capture_output=True, text=True)
    assert done.stdout == f"<-c><{BOOT}><{AWKWARD}>", done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_our_own_interpreter_runs_if_it_is_there_else_python3(shell: str, tmp_path: Path) -> None:
    command = launch_argv("h", SshOptions())[-1]
    done = subprocess.run([shell, "-c", command], check=False, stdin=subprocess.DEVNULL, capture_output=True)
    assert (
        engine_said(done.stdout, done.stderr)
        == "standard input ended before the driver's orders were complete"
    )

    _say_arguments(tmp_path / "python3")
    command = command.replace(sys.executable, "/not/there")
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([shell, "-c", command], check=False, env=environ, capture_output=True)
    assert done.stdout.decode() == f"<-c><{BOOT}><{package_path()}>"


def test_the_first_words_of_the_command() -> None:
    argv = launch_argv("me@host", SshOptions(connect_timeout=7))
    assert argv[0] == "ssh"
    assert "-oBatchMode=yes" in argv
    assert "-oConnectTimeout=7" in argv
    assert argv[-3:-1] == ["--", "me@host"]
    assert not set("!\\\n") & set(argv[-1])


def test_boot_agrees_with_the_protocol_and_is_quotable_everywhere() -> None:
    assert ERROR_MARK in BOOT
    assert not set("!\\\n'") & set(BOOT)
    assert engine_argv()[0] == sys.executable
    assert (Path(package_path()) / "disbatch" / "__init__.py").is_file()


def test_nothing_is_imported_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "asyncio.py").write_text("raise SystemExit('the wrong one')")
    done = subprocess.run(
        engine_argv(), cwd=tmp_path, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert "the wrong one" not in done.stderr
    assert done.returncode != 0


def test_a_step_that_cannot_run_reports_why_and_stays_until_its_input_ends(tmp_path: Path) -> None:
    python, option, program, _ = step_argv()
    step = subprocess.Popen(
        [python, "-S", "-I", option, program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert step.stdin is not None and step.stdout is not None
    line = step.stdout.readline()
    assert engine_said(line, b"", "INSTALL") == "its Python has no disbatch: INSTALL"
    assert step.poll() is None
    step.stdin.write(b"orders" * 100_000)
    assert step.communicate()[0] == b""
    assert step.returncode == 1


@pytest.mark.parametrize("path", ["", "/a!b", "/a\\b", "/a\nb", "-c"])
def test_interpreters_that_cannot_be_named(path: str) -> None:
    with pytest.raises(UsageError):
        SshOptions(python=path)


def test_tunnel_command(tmp_path: Path) -> None:
    place = str(tmp_path / "place")
    argv = tunnel_argv("host", SshOptions(), place, "3", "/run/d.sock")
    assert argv[argv.index("-R") + 1] == f"{place}.3:/run/d.sock"
    Path(f"{place}.3").write_text("as good as a socket")
    tunnel = subprocess.Popen(
        ["sh", "-c", argv[-1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert tunnel.stdin is not None
    assert tunnel.stdout is not None
    assert tunnel.stdout.readline() == f"{TUNNEL_MARK}\n"
    assert (tmp_path / "place" / "s").is_file()
    assert (tmp_path / "place").stat().st_mode & 0o777 == 0o700
    tunnel.stdin.write("bye\n")
    tunnel.stdin.close()
    assert tunnel.wait() == 0
    tunnel.stdout.close()
    assert not (tmp_path / "place").exists()


def test_a_tunnel_that_breaks_leaves_its_directory_to_the_next_one(tmp_path: Path) -> None:
    place = str(tmp_path / "place")
    command = tunnel_argv("host", SshOptions(), place, "1", "/run/d.sock")[-1]
    Path(f"{place}.1").touch()
    done = subprocess.run(
        ["sh", "-c", command], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"{TUNNEL_MARK}\n")
    assert (tmp_path / "place" / "s").is_file()


@pytest.mark.parametrize("socket", ["relative", "/with:colon"])
def test_sockets_that_ssh_cannot_forward(socket: str) -> None:
    with pytest.raises(UsageError):
        tunnel_argv("host", SshOptions(), "/tmp/p", "1", socket)


@pytest.mark.parametrize(
    ("err", "says"),
    [
        (
            b"root@h: Permission denied (publickey).\r\n",
            "ssh was not let in: root@h: Permission denied (publickey);",
        ),
        (b"@@@@\nIDENTIFICATION HAS CHANGED\nHost key verification failed.\r\n", "run `ssh h` once by hand"),
        (b"ssh: Could not resolve hostname h: Name or service not known\r\n", "no such host"),
        (b"ssh: connect to host h port 22: Connection refused\r\n", "refuses ssh connections"),
        (b"ssh: connect to host h port 22: Connection timed out\r\n", "unreachable"),
        (b"ssh: connect to host h port 22: No route to host\r\n", "unreachable"),
        (b"Timeout, server h not responding.\r\n", "unreachable"),
        (
            b"kex_exchange_identification: Connection closed by remote host\nConnection closed by h\n",
            "it closed the",
        ),
        (
            b"Bad owner or permissions on /x/config\r\n",
            "ssh failed: Bad owner or permissions on /x/config; try",
        ),
        (
            b"",
            "ssh failed without a message, or its command was killed; try `ssh h true` by hand",
        ),
    ],
)
def test_what_ssh_says(err: bytes, says: str) -> None:
    words = ssh_words("h", None, 255, b"Welcome to h\n", b"Banner\n" + err if err else b"")
    assert says in words
    assert words.isprintable()


@pytest.mark.parametrize(
    ("python", "code", "out", "err", "says"),
    [
        (None, 127, b"", b"sh: 1: exec: python3: not found\n", "there is no python3 there: install it there"),
        ("/x/py", 127, b"", b"", "/x/py cannot be run there (not found)"),
        ("/x/py", 126, b"", b"", "/x/py cannot be run there (not executable)"),
        (
            None,
            1,
            b"",
            b"Traceback\nModuleNotFoundError: No module named 'zmq'\n",
            "its Python has no zmq: install it",
        ),
        (
            None,
            1,
            b"",
            b"ModuleNotFoundError: No module named 'msgspec._core'\n",
            "its Python has no msgspec._core",
        ),
        (
            None,
            1,
            b"",
            b"ModuleNotFoundError: No module named 'disbatch'\nbye\n",
            "its Python has no disbatch: install it",
        ),
        (
            None,
            1,
            b"",
            f"{ERROR_MARK} Python 3.6.8 is too old there, disbatch needs 3.11: \n".encode(),
            "--ssh-python",
        ),
        (
            None,
            2,
            f"noise{ERROR_MARK} /home/x: no such directory\n".encode(),
            b"",
            "/home/x: no such directory",
        ),
        (None, 1, b"This account is not available.\n", b"", "exit code 1): This account is not available."),
        (None, 1, b"", b"", "the command there failed (exit code 1)"),
        (None, -15, b"", b"", "ssh was ended by signal 15"),
        *(
            (python, code, b"", f"Welcome\n{line}\nbye\n".encode(), f"cannot run there ({line})")
            for python in (None, "/x/py")
            for code, line in LOADERS
        ),
        (None, 1, b"", FATAL, "(exit code 1): Fatal Python error: init_fs_encoding: failed to get"),
        (
            "/x/py",
            126,
            b"",
            b"sh: 1: exec: /x/py: Is a directory\n",
            "(not executable: sh: 1: exec: /x/py: Is a",
        ),
        (
            None,
            126,
            b"",
            b"sh: 1: exec: python3: Permission denied\n",
            "python3 cannot be run there (not exec",
        ),
    ],
)
def test_what_the_other_host_says(python: str | None, code: int, out: bytes, err: bytes, says: str) -> None:
    assert says in ssh_words("h", python, code, out, err)


def test_other_modules_are_not_ours_to_install() -> None:
    assert engine_said(b"", b"ModuleNotFoundError: No module named 'sitecustomized'\n") is None


def test_words_of_a_tunnel() -> None:
    err = b"Warning: remote port forwarding failed for listen path /tmp/x.1\nmv: cannot stat\n"
    assert "AllowStreamLocalForwarding" in tunnel_words("h", 3, b"", err)
    assert "unreachable" in tunnel_words("h", 255, b"", err + b"Timeout, server h not responding.\n")


def test_words_of_a_local_engine() -> None:
    assert local_words(1, b"", FATAL).startswith("Fatal Python error: init_fs_encoding")
    assert local_words(-9, b"", b"") == "it ended with signal 9"
    assert local_words(1, b"", b"Traceback\n  x\nOSError: no room\n") == "OSError: no room (exit code 1)"
    assert local_words(2, f"{ERROR_MARK} /nowhere: no such directory\n".encode(), b"") == (
        "/nowhere: no such directory (exit code 2)"
    )


def test_lines_from_elsewhere_are_made_harmless() -> None:
    assert tidy("a\x1b[2Jb\tc\u202e") == "a\\x1b[2Jb c\\u202e"
    assert len(tidy("x" * 10_000)) == 300
