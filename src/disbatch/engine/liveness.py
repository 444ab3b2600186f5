"""Whether the driver lives, whether it may have given this engine up, and the load of the node.

A driver that gave this engine up has handed its tasks to others; the engine learns this only from messages.
A child of the driver knows that its driver lives, even if it is stopped, by its standard input, which ends
with the first driver. A driver that took the run over is not the engine's parent, but if it is a process of
the same machine, its end can be waited for.

Load average and memory use of the node are reported for display.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from disbatch.model.task import Way
from disbatch.model.text import shell_command
from disbatch.wire.engine_protocol import Bootstrap, Welcome

log = logging.getLogger("disbatch.engine")

FIRST_HEARTBEAT = 5.0
FIRST_PATIENCE = 120.0
"""Seconds to wait for the first Welcome, or the orphan patience if that is less and no lifeline reports the
driver's end; after that, the driver tells how long to wait."""
MARGIN = 0.75
"""Share of the driver's patience: after longer silence, the driver may have given this engine up."""


class DriverLease:
    """Tracks whether the driver may have given this engine up; times in seconds of `now`.

    The driver gives up an engine that it has not heard for its patience. The engine itself knows when it last
    heard the driver, which answers each heartbeat, and whether the driver no longer knows it. An attempt that
    was running when the engine may have been given up stays in doubt, even if the engine is heard again: the
    engine is never told whether another one was given the task. `silent()`: for how long the driver was not
    heard.
    """

    def __init__(self, now: Callable[[], float], silent: Callable[[], float]) -> None:
        self.now = now
        self._silent = silent
        self._patience = float("inf")
        self._heartbeat = float("inf")
        self._ticked = now()
        self._sure_since: float | None = None
        """Attempts that began before may also run elsewhere; None: no attempt does."""

    def welcomed(self, patience: float, heartbeat: float) -> None:
        """The driver, or a successor, answered a Hello: the first, or one after a break."""
        self.tick()
        self._patience, self._heartbeat = patience, heartbeat

    def forgotten(self) -> None:
        """The driver does not know us: it has given us up, or it is a successor that does not know us yet."""
        self._doubt()

    def tick(self) -> None:
        """A heartbeat. A late one means that this process was suspended."""
        if self._is_late() or self._is_silent():
            self._doubt()
        self._ticked = self.now()

    def certain(self, begun: float) -> bool:
        """True if no other engine can have been given an attempt that runs here since `begun`."""
        if self._is_late() or self._is_silent():
            self._doubt()
        return self._sure_since is None or begun > self._sure_since

    def _is_silent(self) -> bool:
        return self._silent() > self._patience * MARGIN

    def _is_late(self) -> bool:
        return self.now() - self._ticked > self._heartbeat + self._patience * MARGIN / 2

    def _doubt(self) -> None:
        self._sure_since = self.now()


class ParentWatch:
    """`ended(held)` is called when standard input or a watched driver ends; `held`: if that means that the
    driver is gone. `of_driver`: standard input is the driver's."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, of_driver: bool, ended: Callable[[bool], None]
    ) -> None:
        self._loop = loop
        self._of_driver = of_driver
        self._ended = ended
        self.holds = False
        """The driver is known to live."""

    def watch_input(self) -> None:
        """Standard input is a lifeline: watch its end."""
        try:
            self._loop.add_reader(0, self._readable)
            self.holds = self._of_driver
        except (OSError, ValueError):
            log.info("standard input is a file: it cannot tell when the driver is gone")

    def watch_process(self, pid: int) -> None:
        """This process is the driver now, on the machine of our first driver; 0: not known."""
        if self.holds or not self._of_driver or not pid or not hasattr(os, "pidfd_open"):
            return
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            self._loop.add_reader(pidfd, self._driver_ended, pidfd)
            self.holds = True

    def _readable(self) -> None:
        try:
            if os.read(0, 4096):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._loop.remove_reader(0)
        self._let_go()

    def _driver_ended(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        self._let_go()

    def _let_go(self) -> None:
        held, self.holds = self.holds, False
        self._ended(held)


class DriverWatch:
    """Whether the driver, or a successor, is there. `heard()`: the loop's time at which a driver was heard
    last; None: never. `beat()` is called each heartbeat of an engine that was welcomed; `orphaned(reason)`
    when there is no driver to wait for."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bootstrap: Bootstrap,
        *,
        heard: Callable[[], float | None],
        beat: Callable[[], None],
        orphaned: Callable[[str], None],
    ) -> None:
        child = bootstrap.way is Way.CHILD and bootstrap.by_driver
        self.lease = DriverLease(_now, self._silent)
        self.welcomed = False
        """A driver has answered."""
        self._loop = loop
        self._bootstrap = bootstrap
        self._heard = heard
        self._beat = beat
        self._orphaned = orphaned
        self._parent_watch = ParentWatch(loop, of_driver=child, ended=self._parent_ended)
        self._heartbeat = FIRST_HEARTBEAT
        self._patience = FIRST_PATIENCE if child else min(FIRST_PATIENCE, bootstrap.orphan_patience)
        self._silence = FIRST_PATIENCE
        """The driver's patience in seconds; longer silence is logged."""
        self._told_of_silence = False
        self._since = loop.time()
        """Since when a driver could be expected."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Wait for the first Welcome."""
        if self._bootstrap.lifeline:
            self._parent_watch.watch_input()
        self._tick()

    def welcome(self, welcome: Welcome) -> None:
        """A driver has answered: the first, a successor, or the same after a break."""
        self._parent_watch.watch_process(welcome.pid)
        self.welcomed = True
        self._told_of_silence = False
        self._heartbeat = max(welcome.heartbeat, 0.05)
        self._patience = welcome.orphan_patience
        self._silence = welcome.patience
        self.lease.welcomed(welcome.patience, self._heartbeat)
        self.close()
        self._tick()

    def answered(self, known: bool) -> None:
        """The driver has answered a heartbeat; `known`: it knows this engine."""
        self._told_of_silence = False
        if not known:
            self.lease.forgotten()

    def close(self) -> None:
        """No more heartbeats."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._heartbeat, self._tick)
        self.lease.tick()
        silent = self._silent()
        if self._parent_watch.holds and self.welcomed:
            silent = 0.0
        if silent > self._silence and not self._told_of_silence and self.welcomed:
            self._tell_of_silence(f"no message from the driver for {self._silence:g} s")
        if silent > self._patience:
            self._orphaned(f"no message from the driver for {self._patience:g} s")
        if self.welcomed:
            self._beat()

    def _silent(self) -> float:
        """Seconds since the driver was heard, or since it could first be expected."""
        return self._loop.time() - max(self._heard() or 0.0, self._since)

    def _parent_ended(self, held: bool) -> None:
        if not self.welcomed:
            self._orphaned("the driver is gone (standard input ended)")
        elif held:
            # The driver may have been stopped for long before it ended: count its silence from now.
            self._since = self._loop.time()
            self._tell_of_silence("the driver is gone")
        else:
            did = "launched this engine" if self._bootstrap.by_driver else "attached this node"
            log.info("standard input ended: the process that %s, or the command of its step, is gone", did)

    def _tell_of_silence(self, what: str) -> None:
        self._told_of_silence = True
        command = shell_command(["disbatch", "--takeover", os.fsdecode(self._bootstrap.run)])
        log.warning("%s; `%s` can continue the run within %g s", what, command, self._patience)


def _now() -> float:
    """Seconds of a clock that also counts while the computer sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


_MEMINFO = "/proc/meminfo"
_KIB = re.compile(rb"^(MemTotal|MemAvailable): +([0-9]{1,15}) kB$", re.M)


class NodeLoad(NamedTuple):
    """The 1-minute load average; bytes of memory in use, and in total (0: not known)."""

    load: float
    memory_used: int
    memory_total: int


def node_load(meminfo: str = _MEMINFO) -> NodeLoad:
    """The present load. Memory in use is the total minus what is available without swapping, as the kernel
    estimates it."""
    return NodeLoad(_load(), *_memory(meminfo))


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
