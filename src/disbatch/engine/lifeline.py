"""Tells a child of the driver whether that is there, be it stopped: messages cannot.

The first driver holds the other end of our standard input, which ends with it. One that took the run over is
no parent of ours, but a process of the same machine, which can be waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

log = logging.getLogger("disbatch.engine")


class Lifeline:
    """`ended(held)` is called when standard input ends, or a driver; `held`: if that means that the driver is
    gone. `of_driver`: standard input is the driver's."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, of_driver: bool, ended: Callable[[bool], None]
    ) -> None:
        self._loop = loop
        self._of_driver = of_driver
        self._ended = ended
        self.holds = False
        """The driver is known to be there."""

    def watch_input(self) -> None:
        """Standard input is somebody's lifeline."""
        try:
            self._loop.add_reader(0, self._readable)
            self.holds = self._of_driver
        except (OSError, ValueError):
            log.info("standard input is a file: it cannot tell when the driver is gone")

    def watch_process(self, pid: int) -> None:
        """This is the driver now, on the machine on which the one was whose child we are; 0: nobody knows."""
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
