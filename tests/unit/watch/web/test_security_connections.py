"""Connections of strangers are few, and short; those of others are left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import clock_loop

from disbatch.watch.web.security import PATIENCE, Strangers


class Crowd:
    """Connections by number, and those of them that were closed."""

    def __init__(self, most: int) -> None:
        self.strangers = Strangers(most)
        self.closed: list[int] = []
        self._close: dict[int, Callable[[], None]] = {}

    def connect(self, number: int) -> None:
        self._close[number] = partial(self.closed.append, number)
        self.strangers.add(self._close[number])

    def admit(self, number: int) -> None:
        self.strangers.remove(self._close[number])


def test_the_oldest_makes_room() -> None:
    async def play() -> list[int]:
        crowd = Crowd(3)
        for number in range(4):
            crowd.connect(number)
        crowd.admit(1)
        crowd.connect(4)
        crowd.connect(5)
        return crowd.closed

    assert clock_loop.run(play()) == [0, 2]


def test_each_has_its_time() -> None:
    async def play() -> list[list[int]]:
        crowd = Crowd(10)
        crowd.connect(0)
        await asyncio.sleep(PATIENCE / 2)
        crowd.connect(1)
        crowd.connect(2)
        crowd.admit(1)
        seen = [list(crowd.closed)]
        await asyncio.sleep(PATIENCE * 3 / 4)
        seen.append(list(crowd.closed))
        await asyncio.sleep(PATIENCE)
        return [*seen, crowd.closed]

    assert clock_loop.run(play()) == [[], [0], [0, 2]]
