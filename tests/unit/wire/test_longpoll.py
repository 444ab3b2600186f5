"""wire/longpoll.py: questions wait for news, or for the end of their time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from clock_loop import run

from disbatch.wire.longpoll import NOTHING_NEW, LongPoll


class Bench:
    """A long poll, and when it said of which question that there is nothing new."""

    def __init__(self, seconds: float = NOTHING_NEW) -> None:
        self.loop = asyncio.get_running_loop()
        self.in_vain: list[tuple[str, float]] = []
        self.poll: LongPoll[str] = LongPoll(self.loop, self._nothing_new, seconds)

    def _nothing_new(self, question: str) -> None:
        self.in_vain.append((question, self.loop.time()))


def play(course: Callable[[Bench], Awaitable[None]], seconds: float = NOTHING_NEW) -> None:
    async def with_bench() -> None:
        await course(Bench(seconds))

    run(with_bench())


def test_who_waits_in_vain_is_told_so_after_a_while() -> None:
    async def course(bench: Bench) -> None:
        bench.poll.wait("a", "usual")
        bench.poll.wait("b", "shorter", 2.0)
        await asyncio.sleep(6.0)
        assert bench.in_vain == [("shorter", 2.0), ("usual", 5.0)] and not bench.poll
        bench.poll.wait("b", "again", 2.0)
        await asyncio.sleep(100.0)
        assert bench.in_vain[2:] == [("again", 8.0)] and not bench.poll

    play(course, 5.0)


def test_who_is_answered_does_not_wait() -> None:
    async def course(bench: Bench) -> None:
        bench.poll.wait("a", "one")
        bench.poll.wait("b", "other")
        assert bench.poll.get("a") == "one" and bench.poll.get("c") is None
        assert (bench.poll.take("a"), bench.poll.take("a"), bench.poll.get("a")) == ("one", None, None)
        assert bench.poll.take_all() == ["other"] and not bench.poll
        await asyncio.sleep(2 * NOTHING_NEW)
        assert bench.in_vain == []

    play(course)


def test_some_are_concerned_and_others_wait_on() -> None:
    async def course(bench: Bench) -> None:
        for question in ("a1", "b1", "a2"):
            bench.poll.wait(question, question)
        assert bench.poll.take_all(lambda question: question.startswith("a")) == ["a1", "a2"]
        await asyncio.sleep(2 * NOTHING_NEW)
        assert bench.in_vain == [("b1", NOTHING_NEW)]

    play(course)


def test_without_a_limit_and_asked_anew_under_the_same_key() -> None:
    async def course(bench: Bench) -> None:
        bench.poll.wait("a", "first", 1.0)
        bench.poll.wait("a", "second", math.inf)
        await asyncio.sleep(1e6)
        assert bench.in_vain == [] and bench.poll.take_all() == ["second"]

    play(course)
