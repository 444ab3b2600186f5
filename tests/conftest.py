"""Every test starts from the same state of the process, whatever started pytest: a terminal, nohup, cron,
continuous integration."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_files import remove_session_files

KEPT = {"CI", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "WEB_PICTURES", "DISBATCH_PICTURES"}
"""Variables that tests may see: where programs are, and what a developer says to the tests themselves."""
KEPT_PREFIXES = ("PYTEST_", "CHAOS_", "KILL_", "PIP_")
KEPT_SUFFIXES = ("_PROXY", "_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python itself ignores; `subprocess` restores them in its children."""


def pytest_configure(config: pytest.Config) -> None:
    _restore_signals()
    os.umask(0o022)
    for descriptor in _inherited():
        os.set_inheritable(descriptor, False)
    home = tempfile.mkdtemp(prefix="disbatch-home-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    _restore_environment(home)


def _restore_signals() -> None:
    """nohup ignores SIGHUP, a shell's `&` SIGINT and SIGQUIT; children would inherit that."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN and number not in PYTHON_IGNORES:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _inherited() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2 and _is_open(int(name))]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _restore_environment(home: str) -> None:
    """An environment from scratch: no locale, terminal, scheduler or configuration of the user's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT or name.startswith(KEPT_PREFIXES) or name.upper().endswith(KEPT_SUFFIXES)
    }
    user = pwd.getpwuid(os.geteuid()).pw_name
    path = [*kept.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/sbin"]
    os.environ.clear()
    os.environ.update(
        {
            **kept,
            "PATH": os.pathsep.join(dict.fromkeys(path)),
            "HOME": home,
            "USER": user,
            "LOGNAME": user,
            "LANG": "C.UTF-8",
            "TERM": "xterm",
        }
    )


@pytest.fixture(autouse=True)
def _no_session_files(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove the session files of a test's engines."""
    directory: Path | None = None
    if "tmp_path" in request.fixturenames:
        directory = request.getfixturevalue("tmp_path")  # so it is there until all other fixtures have ended
    yield
    if directory is not None:
        remove_session_files(directory)
