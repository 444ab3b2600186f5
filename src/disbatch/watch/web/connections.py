"""Bounds the connections that have not shown yet that they may see the page, so that they keep no others out.

Anybody on this host can connect. A connection counts as a stranger's until a request on it has brought the
token or the cookie (`guard`). There are MOST_STRANGERS of these at most: another one takes the place of the
oldest. None lasts longer than PATIENCE, whatever comes on it, and each is closed after its first answer. A
browser says all in its first packet, so its connection is a stranger's for a moment only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from disbatch.wire.descriptors import limit

PATIENCE = 10.0
"""Seconds."""
MOST_STRANGERS = 1024
ADMIT = "admit"
"""In the state of a request: what to call when it has shown that it may pass."""


def most_strangers() -> int:
    """How many connections of strangers we have room for. As many again may be accepted at once, a few times,
    before the first of them is closed."""
    return min(MOST_STRANGERS, max(8, limit() // 8))


class Strangers:
    """Closes the connections of those who have shown nothing, by calling what `add` was given: the oldest
    when there are more than `most`, and each after PATIENCE."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}

    def add(self, close: Callable[[], None]) -> None:
        """One has connected."""
        while len(self._timers) >= self._most:
            self._close(next(iter(self._timers)))
        loop = asyncio.get_running_loop()
        self._timers[close] = loop.call_later(PATIENCE, self._close, close)

    def remove(self, close: Callable[[], None]) -> None:
        """It is none any more, or is gone."""
        timer = self._timers.pop(close, None)
        if timer is not None:
            timer.cancel()

    def _close(self, close: Callable[[], None]) -> None:
        self.remove(close)
        close()


class Connection(H11Protocol):
    """One connection of the page's server."""

    def __init__(
        self,
        strangers: Strangers,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, ADMIT: self._admit}, _loop)
        self._strangers = strangers
        self._admitted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """From asyncio."""
        super().connection_made(transport)
        self._strangers.add(transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio."""
        self._strangers.remove(self.transport.abort)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """From uvicorn."""
        if not self._admitted:
            self.transport.close()
        super().on_response_complete()

    def _admit(self) -> None:
        self._admitted = True
        self._strangers.remove(self.transport.abort)
