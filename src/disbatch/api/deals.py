"""Puts, gets and views of a run's key store, on the loop of its courier."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from disbatch.model.errors import RunEndedError


class Store(Protocol):
    """A key store, as programs use it: `wire.storefront.Storefront`, or `keystore.external.ExternalStore`."""

    async def put(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Append each value to its key's queue."""

    async def get(self, key: bytes, timeout: float | None = None) -> bytes:
        """Take the oldest value, when there is one."""

    async def view(self, key: bytes, timeout: float | None = None) -> bytes:
        """The oldest value, when there is one."""


Result = TypeVar("Result")
Deal = Callable[[Store], Coroutine[Any, Any, Result]]
"""Something to do with a key store."""


class Deals:
    """Those that are not done; on `loop`, from when there is a `store`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: set[asyncio.Task[Any]] = set()
        self._over = False
        self.store: Store | None = None

    def begin(self, deal: Deal[Result]) -> Future[Result]:
        """Do this; from any thread. RunEndedError if it is over before."""
        return asyncio.run_coroutine_threadsafe(self._do(deal), self._loop)

    async def _do(self, deal: Deal[Result]) -> Result:
        task = asyncio.current_task()
        assert task is not None and self.store is not None
        if self._over:
            raise RunEndedError("this run is closed")
        self._open.add(task)
        try:
            return await deal(self.store)
        except asyncio.CancelledError:
            if self._over:
                raise RunEndedError("this run is closed") from None
            raise
        finally:
            self._open.discard(task)

    async def end(self) -> None:
        """Nobody gets anything any more."""
        self._over = True
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
