"""Whether the driver of a run is dead, as far as that can be seen from here."""

from __future__ import annotations

import os

from disbatch.driver.held import is_held
from disbatch.wire.keys import ConnectFile
from disbatch.wire.reach import is_here, listens_here


def is_dead(prefix: str, connect: ConnectFile) -> bool:
    """The driver of this run ended without ending the run. Of a driver on another host only that host
    knows."""
    return is_here(connect) and not listens_here(connect) and not _is_written(f"{prefix}_status.txt")


def _is_written(status: str) -> bool:
    """Somebody holds the status file."""
    try:
        descriptor = os.open(status, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return is_held(descriptor)
    finally:
        os.close(descriptor)
