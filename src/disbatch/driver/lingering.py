"""Keeps the driver's own key store for a while when all tasks have ended: results may still be fetched.

A program that we did not start may live on, and the store ends with us. So we stay until it has fetched the
reports of all tasks; but not for one who is gone (he asked for nothing in SILENT seconds), nor for one who
fetches nothing any more (for IDLE seconds).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SILENT = 60.0
IDLE = 600.0


class Lingering:
    """`left()` is true while there are results that nobody has fetched; `stirred` is to be called when
    somebody asked for something, `end` when we shall go at once."""

    def __init__(self, left: Callable[[], bool], *, silent: float = SILENT, idle: float = IDLE) -> None:
        self._left = left
        self._silent = silent
        self._idle = idle
        self._ended = False
        self._event = asyncio.Event()

    def stirred(self) -> None:
        """Somebody asked."""
        self._event.set()

    def end(self) -> None:
        """Wait no more."""
        self._ended = True
        self._event.set()

    async def last(self, held: Callable[[], int]) -> None:
        """Wait. `held()`: how much there is, which becomes less as somebody fetches."""
        loop = asyncio.get_running_loop()
        before, since = held(), loop.time()
        while self._left() and not self._ended:
            if (now := held()) < before:
                before, since = now, loop.time()
            left = min(self._silent, since + self._idle - loop.time())
            self._event.clear()
            try:
                async with asyncio.timeout(left):
                    await self._event.wait()
            except TimeoutError:
                return
