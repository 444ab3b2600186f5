"""The key store in the driver's own loop: queues of values, and clients that wait for them.

Theory of operation
-------------------
A key has values or waiters, never both: a value that is put goes at once to the waiters, in the order in
which they began to wait. Each waiter that only looks (`view`) gets a copy, until the first one that takes
(`get`) has consumed the value; the waiters after it wait for the next value.

A waiter that leaves without having read its value returns it to the head of the queue, where others may wait
for it by now. So a call that is cancelled consumes nothing.

Everything counts against the limits, including keys, so that no program can make the driver grow without
bound. A put that does not fit is refused as a whole (`add`), or waits for room (`put`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from disbatch.keystore.store import Pair
from disbatch.model.errors import StoreError, UsageError
from disbatch.model.taskfile import MAX_COMMAND

OVERHEAD = 128
"""Bytes that a value takes in addition to its own, approximately."""


@dataclass(frozen=True)
class Limits:
    """The limits of a store: bytes of a key, of a value, and of everything together with its overhead; the
    most waiters at a time."""

    key: int = 1 << 10
    value: int = MAX_COMMAND
    total: int = 1 << 30
    waiters: int = 10_000


class _Waiter(NamedTuple):
    """A client that waits for a value of `key`; `takes` it, or only views it. `future` gets it."""

    key: bytes
    takes: bool
    future: asyncio.Future[bytes]


class EmbeddedStore:
    """A `KeyStore` of this process; all calls on one loop.

    `trouble(words)` is called when a put begins to wait for room, `recovered()` when it no longer waits.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        trouble: Callable[[str], None] = lambda words: None,
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        self.limits = limits or Limits()
        self.held = 0
        """Bytes of everything in the store."""
        self._trouble = trouble
        self._recovered = recovered
        self._values: dict[bytes, deque[bytes]] = {}
        self._waiters: dict[bytes, deque[_Waiter]] = {}
        self._supplies: dict[bytes, Callable[[], bytes]] = {}
        self._given: set[_Waiter] = set()
        """Waiters that got a value, and have not run since."""
        self._waiting = 0
        self._room = asyncio.Condition()
        self._blocked = 0
        self._wakes: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """The number of keys."""
        return len(self._values)

    def has(self, prefix: bytes, *, but: bytes) -> bool:
        """True if a key with this prefix, other than `but`, has a value, or a value is just being taken from
        it."""
        keys = chain(self._values, (waiter.key for waiter in self._given))
        return any(key.startswith(prefix) and key != but for key in keys)

    # ---- without waiting ----

    def add(self, pairs: Sequence[Pair]) -> None:
        """Put all or nothing. UsageError for a key or value that is too long; StoreError if they do not fit
        now."""
        self._check(pairs)
        if not self._fits(pairs):
            raise StoreError(
                f"the key store is full ({self.limits.total >> 20} MiB): take values out of it first"
            )
        self._append(pairs)

    def supply(self, key: bytes, make: Callable[[], bytes]) -> None:
        """A get or view of this key returns what `make` returns at that time, whatever is put there."""
        self._supplies[key] = make

    def _wait_for(self, key: bytes, takes: bool) -> _Waiter:
        """Begin to wait for a value; an existing one is delivered at once. StoreError if too many wait."""
        self._check([(key, b"")])
        if self._waiting >= self.limits.waiters:
            raise StoreError(f"{self._waiting:,} clients wait for values already; that is the limit")
        takes = takes and key not in self._supplies
        waiter = _Waiter(key, takes, asyncio.get_running_loop().create_future())
        if key in self._supplies:
            waiter.future.set_result(self._supplies[key]())
        elif key in self._values:
            waiter.future.set_result(self._pop(key) if takes else self._values[key][0])
        else:
            self._waiters.setdefault(key, deque()).append(waiter)
            self._waiting += 1
        return waiter

    def _check(self, pairs: Sequence[Pair]) -> None:
        limits = self.limits
        for key, value in pairs:
            if not key:
                raise UsageError("a key cannot be empty")
            if len(key) > limits.key:
                raise UsageError(f"a key of {len(key):,} bytes: it may have {limits.key:,}")
            if len(value) > limits.value:
                raise UsageError(f"a value of {len(value):,} bytes: it may have {limits.value:,}")

    def _fits(self, pairs: Sequence[Pair]) -> bool:
        """A put into an empty store always fits."""
        more = sum(len(key) + len(value) + OVERHEAD for key, value in pairs)
        return not self._values or self.held + more <= self.limits.total

    def _append(self, pairs: Sequence[Pair]) -> None:
        for key, value in pairs:
            self._hold(key).append(value)
            self.held += len(key) + len(value) + OVERHEAD
            self._serve(key)

    def _hold(self, key: bytes) -> deque[bytes]:
        return self._values.setdefault(key, deque())

    def _pop(self, key: bytes) -> bytes:
        values = self._values[key]
        value = values.popleft()
        if not values:
            del self._values[key]
        self.held -= len(key) + len(value) + OVERHEAD
        if self._blocked and self._wakes is None:
            self._wakes = asyncio.get_running_loop().create_task(self._wake())
        return value

    async def _wake(self) -> None:
        """There is more room: wake the puts that wait for it."""
        self._wakes = None
        async with self._room:
            self._room.notify_all()

    def _serve(self, key: bytes) -> None:
        """Deliver values to the waiters."""
        waiters = self._waiters.get(key)
        while waiters and key in self._values:
            waiter = waiters.popleft()
            self._waiting -= 1
            if not waiter.future.done():  # else its future was cancelled
                waiter.future.set_result(self._pop(key) if waiter.takes else self._values[key][0])
                if waiter.takes:
                    self._given.add(waiter)
        if waiters is not None and not waiters:
            del self._waiters[key]

    def _withdraw(self, waiter: _Waiter) -> None:
        """Stop waiting; a value that has arrived and was not read goes back."""
        key, _, future = waiter
        self._given.discard(waiter)
        if future.done():
            if waiter.takes and not future.cancelled() and future.exception() is None:
                self._give_back(key, [future.result()])
            return
        future.cancel()
        waiters = self._waiters.get(key, deque())
        if waiter in waiters:
            waiters.remove(waiter)
            self._waiting -= 1
            if not waiters:
                del self._waiters[key]

    def _give_back(self, key: bytes, values: Sequence[bytes]) -> None:
        """Put these back as the oldest values of the key, in this order."""
        if key in self._supplies:
            return
        self._hold(key).extendleft(reversed(values))
        self.held += sum(len(key) + len(value) + OVERHEAD for value in values)
        self._serve(key)

    # ---- as a KeyStore ----

    async def put(self, pairs: Sequence[Pair]) -> None:
        self._check(pairs)
        if self._blocked or not self._fits(pairs):
            await self._wait_for_room(pairs)
        self._append(pairs)

    async def _wait_for_room(self, pairs: Sequence[Pair]) -> None:
        self._blocked += 1
        if self._blocked == 1:
            self._trouble(f"the key store is full ({self.limits.total >> 20} MiB)")
        try:
            async with self._room:
                await self._room.wait_for(lambda: self._fits(pairs))
        finally:
            self._blocked -= 1
            if not self._blocked:
                self._recovered()

    async def offer(self, pairs: Sequence[Pair]) -> None:
        self.add(pairs)

    async def give_back(self, key: bytes, values: Sequence[bytes]) -> None:
        self._give_back(key, values)

    async def replace(self, key: bytes, value: bytes) -> None:
        self._check([(key, value)])
        for _ in range(len(self._values.get(key, ()))):
            self._pop(key)
        self._append([(key, value)])

    async def get(self, key: bytes, timeout: float | None = None) -> bytes:
        return await self._wait(key, True, timeout)

    async def take(self, key: bytes, most: int, timeout: float | None = None) -> list[bytes]:
        taken = [await self.get(key, timeout)]
        while len(taken) < most and key in self._values:
            taken.append(self._pop(key))
        return taken

    async def view(self, key: bytes, timeout: float | None = None) -> bytes:
        return await self._wait(key, False, timeout)

    async def _wait(self, key: bytes, takes: bool, timeout: float | None) -> bytes:
        waiter = self._wait_for(key, takes)
        future = waiter.future
        if future.done():
            return future.result()
        try:
            # Unlike wait_for, this does not cancel: a value that arrived at the last moment is still there.
            await asyncio.wait([future], timeout=timeout)
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise
        if future.done():
            self._given.discard(waiter)
            return future.result()
        self._withdraw(waiter)
        raise TimeoutError

    async def close(self) -> None:
        """Waiting clients are told that nothing will arrive."""
        waiters, self._waiters, self._waiting = self._waiters, {}, 0
        for waiter in (each for queue in waiters.values() for each in queue):
            if not waiter.future.done():
                waiter.future.set_exception(StoreError("the run is over, and its key store with it"))
