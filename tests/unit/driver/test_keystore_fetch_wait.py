"""driver/keystore.py: how long the driver waits for results that nobody has fetched."""

from __future__ import annotations

import asyncio

from deadline import DEADLINE
from disbatch.driver.keystore import FetchWait


def lingered(left: int, *, fetches: bool = False, asks: bool = False, **patience: float) -> int:
    """How many results are left in the end; somebody may fetch them one by one, or ask for nothing."""

    async def play() -> int:
        results = list(range(left))
        wait = FetchWait(lambda: bool(results), **patience)

        async def visit() -> None:
            while True:
                await asyncio.sleep(0.001)
                if fetches:
                    results.pop()
                wait.requested()

        visitor = asyncio.ensure_future(visit()) if fetches or asks else None
        async with asyncio.timeout(DEADLINE):
            await wait.wait(lambda: len(results))
        if visitor is not None:
            visitor.cancel()
        return len(results)

    return asyncio.run(play())


def test_until_all_are_fetched() -> None:
    assert lingered(0) == 0
    assert lingered(20, fetches=True) == 0


def test_not_for_one_who_is_gone() -> None:
    assert lingered(3, silent=0.05) == 3


def test_not_for_one_who_fetches_nothing() -> None:
    assert lingered(3, asks=True, idle=0.05) == 3


def test_until_we_shall_go() -> None:
    async def play() -> None:
        wait = FetchWait(lambda: True)
        waiting = asyncio.ensure_future(wait.wait(lambda: 1))
        await asyncio.sleep(0)
        wait.end()
        async with asyncio.timeout(DEADLINE):
            await waiting

    asyncio.run(play())
