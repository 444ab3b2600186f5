"""Whether a test can mount a file system of its own."""

from __future__ import annotations

import os
import shutil

import pytest


def needs_root() -> None:
    missing = "not root" if os.geteuid() else "no unshare" if not shutil.which("unshare") else ""
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"cannot mount a small disk: {missing}")
    if missing:
        pytest.skip(f"cannot mount a small disk: {missing}")
