"""keystore/redis.py with a server that does what the client library does at its worst."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from clock_loop import run

from disbatch.keystore.redis import ExternalStore
from disbatch.keystore.redis_server import Server


class DeafServer:
    """Nothing is in it, and a command that is cancelled ends as if it had not been."""

    async def persist(self, step: Callable[[Any], Awaitable[Any]]) -> None:
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.5, 1.7])
def test_a_cancellation_that_is_lost_ends_the_wait(seconds: float) -> None:
    async def play() -> None:
        store = ExternalStore(cast(Server, DeafServer()), b"run:")
        waiting = [
            asyncio.ensure_future(each)
            for each in (store.view(b"k"), store.take(b"k", 9), store.view(b"k", 1000.0))
        ]
        await asyncio.sleep(seconds)
        for each in waiting:
            each.cancel()
        done, late = await asyncio.wait(waiting, timeout=5)
        assert not late and all(each.cancelled() for each in done)

    run(play())


def test_a_timeout_is_one_although_its_cancellation_is_lost() -> None:
    async def play() -> None:
        store = ExternalStore(cast(Server, DeafServer()), b"run:")
        with pytest.raises(TimeoutError):
            await store.view(b"k", 1.2)

    run(play())
