"""cli/entry.py: the first steps of our processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from disbatch.cli import entry


def test_an_ignored_sigchld_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """With it the kernel would discard the exit codes of all commands."""
    found: list[Any] = []

    def main() -> int:
        found.append(signal.getsignal(signal.SIGCHLD))
        return 7

    monkeypatch.setitem(sys.modules, "probe_of_tests", cast(Any, SimpleNamespace(main=main)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert entry._main_of("probe_of_tests", "probe") == 7
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert found == [signal.SIG_DFL]


def test_an_interrupt_while_we_begin_ends_us_without_a_word() -> None:
    program = (
        "import os, signal; from disbatch.cli import entry;"
        "entry.prefer_own = lambda: os.kill(os.getpid(), signal.SIGINT);"
        "entry._main_of('none', 'dbutil')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")
