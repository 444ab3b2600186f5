"""Attachments of other processes as the driver knows them: what they hear, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from disbatch.driver.attachments import Attachments
from disbatch.driver.engine_table import EngineEntry
from disbatch.wire.client_protocol import Answer, Attach, Event, Fate, Heed, Newcomer, News, Request
from disbatch.wire.engine_protocol import PROTOCOL


def attach(*engines: str, label: str = "", kill_wait: float | None = None) -> Attach:
    nodes = [Newcomer(engine, "n1", 1) for engine in engines]
    return Attach(label, "host", 7, nodes, scheduled=kill_wait is not None, kill_wait=kill_wait)


class Bench:
    """Attachments of the second driver of a run, one of which is there."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        loop = asyncio.get_running_loop()
        self.contexts = Attachments(loop, lambda request, answer: self.answers.append(answer), history=1)
        self.name = self.contexts.add(attach("a", "b")).name

    def asked(self, known: int, history: int, context: str = "") -> Answer | None:
        verb = Heed(context or self.name, known, history)
        return self.contexts.heed(Request(PROTOCOL, f"{known}-{history}".ljust(16), "0", verb), verb)

    def became(self, engine: str, fate: Fate) -> None:
        self.contexts.became(EngineEntry(engine, "n1", 0, 1, context=self.name), fate)


def run(course: Callable[[Bench], Awaitable[None]]) -> None:
    async def with_bench() -> None:
        await course(Bench())

    asyncio.run(with_bench())


def test_news_come_at_once_or_when_there_are_some() -> None:
    async def course(bench: Bench) -> None:
        assert bench.asked(0, 1) is None and bench.answers == []
        bench.became("a", Fate.JOINED)
        (answer,) = bench.answers
        assert answer.value == News(0, [Event("a", Fate.JOINED)], history=1)
        bench.became("b", Fate.JOINED)
        told = bench.asked(1, 1)
        assert told is not None and told.value == News(1, [Event("b", Fate.JOINED)], history=1)
        assert bench.asked(2, 1) is None
        bench.contexts.close()
        assert bench.answers[1].value == News(0, [], over=True)

    run(course)


def test_who_knows_another_history_is_told_all_of_this_one() -> None:
    """Even if both have the same length: what happened is not the same."""

    async def course(bench: Bench) -> None:
        bench.became("a", Fate.JOINED)
        bench.became("a", Fate.LEFT)
        told = bench.asked(2, 0)
        events = [Event("a", Fate.JOINED), Event("a", Fate.LEFT)]
        assert told is not None and told.value == News(0, events, history=1)
        told = bench.asked(0, 0)
        assert told is not None and told.value == News(0, events, history=1)

    run(course)


def test_strangers() -> None:
    async def course(bench: Bench) -> None:
        told = bench.asked(0, 1, context="c9")
        assert told == Answer("0-1".ljust(16), False, ["this run does not know that context"])
        assert bench.contexts.get("c9") is None and bench.contexts.engines("c9") == []
        assert not bench.contexts.is_heard("c9") and bench.contexts.grace("c9", 5.0) == 5.0

    run(course)


def test_what_is_known_of_each() -> None:
    async def course(bench: Bench) -> None:
        asked = attach("x", label="rack", kill_wait=3.0)
        name = bench.contexts.add(asked, "c5").name
        assert name == "c5" and bench.contexts.find(asked) == "c5"
        assert bench.contexts.find(attach("y")) is None
        assert (bench.contexts.label("c5"), bench.contexts.label("")) == ("rack", "")
        assert bench.contexts.is_scheduled("c5") and not bench.contexts.is_scheduled(bench.name)
        assert bench.contexts.grace("c5", 5.0) == 1.5 and bench.contexts.grace(bench.name, 5.0) == 5.0
        assert bench.contexts.is_heard("c5") and bench.contexts.engines("c5") == ["x"]

    run(course)


def test_names_do_not_repeat_after_a_takeover() -> None:
    """The former driver's were c1 and c2, of which c2 is known."""

    async def course(bench: Bench) -> None:
        contexts = Attachments(asyncio.get_running_loop(), lambda request, answer: None, history=1)
        contexts.add(attach("a"), "c1")
        contexts.add(attach("b"), "c2")
        assert contexts.add(attach("c")).name == "c3"

    run(course)
