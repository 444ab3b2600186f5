"""Puts what a run tells programs into the key store, in order, without letting the run wait for that."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice

from disbatch.keystore.store import KeyStore, Pair
from disbatch.model.errors import DisbatchError

BATCH = 256
"""Results that are put at once."""
FULL = 20_000
"""Results that may wait: with more the run starts nothing until some are gone."""


class Outgoing:
    """`add` one result after the other. `full(True)` is called when too much waits, `full(False)` when it
    does no more; `refused` when the store will never take some."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: KeyStore,
        *,
        full: Callable[[bool], None],
        refused: Callable[[DisbatchError], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._tell_full = full
        self._refused = refused
        self._waiting: deque[tuple[Pair, ...]] = deque()
        self._full = False
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, *pairs: Pair) -> None:
        """Put these together, after those before."""
        self._waiting.append(pairs)
        if self._task is None:
            self._task = self._loop.create_task(self._send())
        self._look()

    async def _send(self) -> None:
        # What is added in this turn of the loop goes in one batch.
        await asyncio.sleep(0)
        while self._waiting:
            batch = list(islice(self._waiting, BATCH))
            try:
                await self._store.put([pair for pairs in batch for pair in pairs])
            except DisbatchError as error:
                self._refused(error)
            for _ in batch:
                self._waiting.popleft()
            self._look()
        self._task = None

    def _look(self) -> None:
        full = len(self._waiting) > (FULL // 2 if self._full else FULL)
        if full != self._full:
            self._full = full
            self._tell_full(full)

    async def close(self, patience: float) -> int:
        """Put what waits, within so many seconds; how many could not be put."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=patience)
        if self._task is not None:
            self._task.cancel()
        return len(self._waiting)
