"""driver/keystore.py: results go into the key store in order, and the run does not wait for that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from disbatch.driver.keystore import BATCH, FULL, PutQueue
from disbatch.keystore.store import Pair
from disbatch.model.errors import DisbatchError, StoreError


class SlowStore:
    """Takes what is put when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[Pair]] = []
        self.lets = asyncio.Semaphore(0)
        self.error: StoreError | None = None

    async def put(self, pairs: Sequence[Pair]) -> None:
        await self.lets.acquire()
        if self.error is not None:
            raise self.error
        self.batches.append(list(pairs))


class Scene:
    """A PutQueue, and what it told."""

    def __init__(self) -> None:
        self.store = SlowStore()
        self.told: list[bool | DisbatchError] = []
        self.out = PutQueue(
            asyncio.get_running_loop(),
            self.store,  # type: ignore[arg-type]
            full=self.told.append,
            refused=self.told.append,
        )

    def add(self, count: int) -> None:
        for number in range(count):
            self.out.add((b"k", b"%d" % number))

    async def let(self, times: int) -> None:
        for _ in range(times):
            self.store.lets.release()
        for _ in range(10 * times):
            await asyncio.sleep(0)


def play(test: Callable[[Scene], Awaitable[None]]) -> None:
    async def on_loop() -> None:
        await test(Scene())

    asyncio.run(on_loop())


def test_in_order_and_in_batches() -> None:
    async def test(s: Scene) -> None:
        s.add(2 * BATCH + 1)
        await s.let(3)
        assert [len(batch) for batch in s.store.batches] == [BATCH, BATCH, 1]
        assert [value for batch in s.store.batches for _, value in batch] == [
            b"%d" % number for number in range(2 * BATCH + 1)
        ]
        assert len(s.out) == 0
        s.add(1)
        await s.let(1)
        assert s.store.batches[3:] == [[(b"k", b"0")]]

    play(test)


def test_it_tells_when_too_much_waits_and_when_no_more() -> None:
    async def test(s: Scene) -> None:
        s.add(FULL)
        assert s.told == []
        s.add(2)
        assert s.told == [True]
        await s.let(FULL // BATCH + 1)
        assert s.told == [True, False]

    play(test)


def test_what_is_refused_is_told_and_the_rest_goes_on() -> None:
    async def test(s: Scene) -> None:
        s.store.error = StoreError("no list")
        s.add(1)
        await s.let(1)
        assert s.told == [s.store.error]
        s.store.error = None
        s.add(1)
        await s.let(1)
        assert len(s.store.batches) == 1

    play(test)


def test_closing_waits_for_a_while() -> None:
    async def test(s: Scene) -> None:
        s.add(3)
        closing = asyncio.ensure_future(s.out.close(60))
        await s.let(1)
        assert await closing == 0
        s.add(3)
        assert await s.out.close(0.01) == 3

    play(test)
