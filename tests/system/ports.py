"""Ports for the servers of tests, which no other test, on any worker, is given meanwhile."""

from __future__ import annotations

import random
import socket

FIRST, LAST = 10_000, 30_000
"""Below those that the kernel gives to clients."""
_reserved: list[socket.socket] = []
"""Held until this process ends."""


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has."""
    while True:
        first = random.randrange(FIRST, LAST - count)
        held = [_reserve(port) for port in range(first, first + count)]
        if None not in held:
            _reserved.extend(each for each in held if each)
            return first


def free_port() -> int:
    """A port that nobody has."""
    return free_ports(1)


def _reserve(port: int) -> socket.socket | None:
    """A name that only one process can have, if nobody listens at the port. The port itself stays free: its
    server binds it later, and anew when it is started again."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0disbatch-test-port-{port}")
        with socket.socket() as probe:
            probe.bind(("", port))
    except OSError:
        name.close()
        return None
    return name
