"""Whether the driver of a run is dead, as far as that can be seen from here."""

from __future__ import annotations

from disbatch.driver.held import is_held_at
from disbatch.wire.keys import ConnectFile
from disbatch.wire.reach import is_here, listens_here
from disbatch.wire.runscript import status_file


def is_dead(prefix: str, connect: ConnectFile) -> bool:
    """The driver of this run ended without ending the run. Of a driver on another host only that host
    knows."""
    return is_here(connect) and not listens_here(connect) and not is_held_at(status_file(prefix))
