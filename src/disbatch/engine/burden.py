"""What the node has to bear, for people: its load and how much of its memory is taken."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_MEMINFO = "/proc/meminfo"
_KIB = re.compile(rb"^(MemTotal|MemAvailable): +([0-9]{1,15}) kB$", re.M)


class Burden(NamedTuple):
    """The 1-minute load average; bytes of memory that are taken, and that there are (0: nobody knows)."""

    load: float
    memory_used: int
    memory_total: int


def burden_now(meminfo: str = _MEMINFO) -> Burden:
    """As it is now. Taken is what could not be had without swapping, as the kernel estimates it."""
    return Burden(_load(), *_memory(meminfo))


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except OSError:
        return 0.0


def _memory(meminfo: str) -> tuple[int, int]:
    try:
        descriptor = os.open(meminfo, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0, 0
    try:
        found = {name: int(kib) << 10 for name, kib in _KIB.findall(os.read(descriptor, 4096))}
    except OSError:
        return 0, 0
    finally:
        os.close(descriptor)
    total, available = found.get(b"MemTotal", 0), found.get(b"MemAvailable")
    return (0, 0) if available is None or not total else (max(0, total - available), total)
