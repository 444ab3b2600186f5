"""How long a test waits for what must come, at most; the more tests run at once, the longer."""

from __future__ import annotations

import os

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
DEADLINE = 30.0 * (1 + WORKERS)
"""Seconds after which a condition that does not come true fails the test. None of them is a time to wait for:
a test goes on as soon as the condition is true."""
