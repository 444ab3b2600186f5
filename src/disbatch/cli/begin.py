"""The first steps of the commands: while what they need is imported, ^C ends them without a word. Python
would tell where it was just then.

`python -m disbatch.cli.begin` is `dbutil`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _importing() -> Iterator[None]:
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and not ignored, as behind nohup
    if usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    if usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def disbatch() -> int:
    """`disbatch`; the exit code."""
    with _importing():
        from disbatch.cli.main import main
    return main()


def dbutil() -> int:
    """`dbutil`; the exit code."""
    with _importing():
        from disbatch.cli.dbutil import main
    return main()


if __name__ == "__main__":
    sys.exit(dbutil())
