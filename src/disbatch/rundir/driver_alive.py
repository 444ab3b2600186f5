"""Find out whether the driver of a run is dead, as far as that can be seen from here."""

from __future__ import annotations

from disbatch.rundir.lock import is_held_at
from disbatch.rundir.runscript import status_file
from disbatch.wire.connect import ConnectFile, is_here, listens_here


def is_dead(prefix: str, connect: ConnectFile) -> bool:
    """True if the driver of this run ended without ending the run. For a driver on another host, only that
    host knows."""
    return is_here(connect) and not listens_here(connect) and not is_held_at(status_file(prefix))
