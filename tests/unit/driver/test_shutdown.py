"""driver/shutdown.py: what ends a run, and what is waited for then."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from disbatch.driver.ending import (
    DriverFailed,
    FinishedEarly,
    Interrupted,
    NoEngines,
    TakenOver,
    TimeUp,
    find,
)
from disbatch.driver.shutdown import Shutdown
from disbatch.plan import events
from disbatch.plan.plan import Mode

Course = Callable[["Bench"], Awaitable[None]]


class Engines:
    """Nobody is there."""

    def __init__(self, did: list[str]) -> None:
        self.expected = self.ever_joined = self.ended_by_scheduler = False
        self.node_messages = SimpleNamespace(flush=lambda: None)
        self._did = did

    def expect_the_living(self) -> None:
        self._did.append("expect the living")

    def abandon_retirement(self) -> None:
        self._did.append("abandon retirement")

    def give_up(self, why: str) -> None:
        self._did.append("give up")


class Bench:
    """A run that waits for nobody, and what was done to end it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.did: list[str] = []
        self.told: list[events.Event] = []
        self.loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self.loop.create_future()
        self.plan = SimpleNamespace(mode=Mode.RUNNING, is_over=False, present=0, is_behind=False)
        self.engines = Engines(self.did)
        self.limit = SimpleNamespace(words="", too_late="")
        files = SimpleNamespace(script=Path.cwd() / "P_dbUtil.sh")
        parts: Any = SimpleNamespace(
            loop=self.loop,
            over=self.over,
            settings=SimpleNamespace(
                waits=0.0,
                moved=False,
                grace=0.0,
                takeover=None,
                pool=SimpleNamespace(task_limit=None),
                claimed=SimpleNamespace(files=files),
            ),
            plan=self.plan,
            engines=self.engines,
            engine_table=SimpleNamespace(entries={"0-a": None}),
            attachments={},
            time_limit=self.limit,
            feed=SimpleNamespace(goes_on=False),
            keystore=SimpleNamespace(stop_waiting=lambda: self.did.append("stop waiting")),
            record=SimpleNamespace(abandon=lambda: self.did.append("abandon record")),
        )
        self.shutdown = Shutdown(parts, handle_event=self.told.append, notify_user=self.said.append)


def run(course: Course) -> None:
    async def with_bench() -> None:
        await course(Bench())

    asyncio.run(with_bench())


def test_the_first_signal_ends_tasks_and_the_second_waits_for_nothing() -> None:
    async def course(bench: Bench) -> None:
        bench.shutdown.interrupt(signal.SIGINT)
        assert bench.shutdown.ending == Interrupted(signal.SIGINT)
        assert bench.told == [events.Interrupt(at_once=False)]
        assert bench.did == ["stop waiting", "expect the living"]
        bench.shutdown.interrupt(signal.SIGTERM)
        assert bench.shutdown.ending == Interrupted(
            signal.SIGINT, at_once=True, after=Interrupted(signal.SIGINT)
        )
        assert bench.told[1:] == [events.Interrupt(at_once=True)]
        assert bench.did[-2:] == ["abandon record", "abandon retirement"]
        assert bench.said == [
            "SIGINT: ending the running tasks; once more to end at once",
            "SIGTERM: ending everything at once",
        ]

    run(course)


def test_a_second_sighup_is_the_first_once_more() -> None:
    async def course(bench: Bench) -> None:
        bench.shutdown.interrupt(signal.SIGHUP)
        bench.shutdown.interrupt(signal.SIGHUP)
        assert bench.shutdown.ending == Interrupted(signal.SIGHUP) and len(bench.told) == 1

    run(course)


def test_a_signal_after_finish() -> None:
    async def course(bench: Bench) -> None:
        bench.shutdown.finish()
        assert bench.shutdown.ending == FinishedEarly("dbutil finish")
        bench.shutdown.interrupt(signal.SIGTERM)
        assert bench.shutdown.ending == Interrupted(signal.SIGTERM, after=FinishedEarly("dbutil finish"))
        assert bench.said == [
            "dbutil finish: ending the running tasks",
            "SIGTERM: ending the running tasks; once more to end at once",
        ]

    run(course)


@pytest.mark.parametrize(
    ("ever_joined", "words", "reason"),
    [
        (True, "", "no engine is left"),
        (False, "", "no engine could start"),
        (True, "the allocation's time is up", "the allocation's time is up"),
    ],
)
def test_no_engine_is_left(ever_joined: bool, words: str, reason: str) -> None:
    async def course(bench: Bench) -> None:
        bench.engines.ever_joined, bench.limit.words = ever_joined, words
        bench.shutdown.look_for_engines()
        assert bench.shutdown.ending == (TimeUp(reason) if words else NoEngines(reason))
        assert bench.over.done() and bench.shutdown.is_ending

    run(course)


def test_engines_are_there_or_expected() -> None:
    async def course(bench: Bench) -> None:
        bench.engines.expected = True
        bench.shutdown.look_for_engines()
        bench.engines.expected, bench.plan.present = False, 1
        bench.shutdown.look_for_engines()
        assert bench.shutdown.ending is None and not bench.over.done()

    run(course)


def test_finish_is_why_no_engine_is_left() -> None:
    async def course(bench: Bench) -> None:
        bench.shutdown.finish("the web page")
        bench.limit.words = "the allocation's time is up"
        bench.shutdown.look_for_engines()
        assert bench.shutdown.ending == FinishedEarly("the web page") and bench.over.done()

    run(course)


def test_another_driver_has_the_run() -> None:
    async def course(bench: Bench) -> None:
        bench.shutdown.interrupt(signal.SIGINT)
        bench.shutdown.taken_over()
        bench.shutdown.interrupt(signal.SIGINT)
        assert find(bench.shutdown.ending, TakenOver) == TakenOver(after=Interrupted(signal.SIGINT))
        assert bench.over.done()

    run(course)


def test_an_error_in_a_callback_ends_the_run() -> None:
    async def course(bench: Bench) -> None:
        error = ValueError("wrong")
        bench.shutdown.failed(bench.loop, {"message": "callback", "exception": error})
        assert bench.shutdown.ending == DriverFailed()
        with pytest.raises(ValueError, match="wrong"):
            await bench.over

    run(course)
