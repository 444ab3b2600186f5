"""What became of a step's tasks when the whole step was signalled: histories of ends, signals and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from disbatch.engine.scheduler_signals import HOLD, HOLD_OF_SUCCESS, SignalFilter, hold_of
from disbatch.engine.slots import Job
from disbatch.model.task import Ending, Outcome
from disbatch.wire.engine_protocol import Order


class Clock:
    """A loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None], Clock.Timer]] = []

    class Timer:
        cancelled = False

        def cancel(self) -> None:
            self.cancelled = True

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        return self.call_at(self.now + delay, call)

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        timer = Clock.Timer()
        self.timers.append((when, call, timer))
        return timer

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted((t for t in self.timers if t[0] <= end), key=lambda timer: timer[0]):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            if not due[0][2].cancelled:
                due[0][1]()
        self.now = end


def outcome(attempt: int, code: int, ending: Ending = Ending.OWN, elapsed: float = 1.0) -> Outcome:
    return Outcome(attempt, 0, 99, code, elapsed, 5.0, 6.0, 0, b"", 0, b"", ending)


OWN, ORDERED, UNSTARTED = Ending.OWN, Ending.ORDERED, Ending.UNSTARTED
SIGNAL, RELEASE = "signal", "release"


@pytest.mark.parametrize(
    ("history", "given"),
    [
        # A number waits so many seconds; (attempt, code) is a task's end.
        ([(1, 0)], []),
        ([(1, 0), HOLD_OF_SUCCESS], [(1, OWN)]),
        ([(1, 0), HOLD_OF_SUCCESS / 2, SIGNAL, RELEASE], [(1, ORDERED)]),
        (
            [(1, 0), HOLD_OF_SUCCESS / 2, (2, 0), HOLD_OF_SUCCESS / 2, SIGNAL, RELEASE],
            [(1, OWN), (2, ORDERED)],
        ),
        ([(1, 3)], []),
        ([(1, 3), HOLD], [(1, OWN)]),
        ([(1, 3), (2, 0), HOLD], [(2, OWN), (1, OWN)]),
        ([(1, 3), HOLD / 2, (2, -9), HOLD / 2], [(1, OWN)]),
        ([(1, 3), HOLD / 2, (2, -9), HOLD / 2, HOLD / 2], [(1, OWN), (2, OWN)]),
        ([(1, -15), HOLD / 2, SIGNAL, RELEASE], [(1, ORDERED)]),
        # The handler has run, its loop has not come round, and the timer is due first.
        ([(1, 143), HOLD / 2, (2, 1), SIGNAL, HOLD / 2], [(1, ORDERED), (2, ORDERED)]),
        ([(1, 3), HOLD, (2, -15), SIGNAL, RELEASE], [(1, OWN), (2, ORDERED)]),
        ([SIGNAL, (1, 0), (2, 3), (3, -9)], [(1, ORDERED), (2, ORDERED), (3, ORDERED)]),
        ([(1, 126, UNSTARTED), (2, -15, ORDERED)], [(1, UNSTARTED), (2, ORDERED)]),
        ([(1, 3), (2, 4), RELEASE, HOLD], [(1, OWN), (2, OWN)]),
    ],
)
def test_history(history: list[Any], given: list[tuple[int, Ending]]) -> None:
    clock = Clock()
    seen: list[tuple[int, Ending]] = []
    held = SignalFilter(
        cast(asyncio.AbstractEventLoop, clock),
        lambda _, result: seen.append((result.attempt, result.ending)),
        hold=True,
    )
    ended = []
    for event in history:
        match event:
            case float():
                clock.wait(event)
            case str() if event == SIGNAL:
                held.note_signal()
            case str():
                held.release()
            case (attempt, code, *ending):
                ended.append(attempt)
                held.add(Job(Order(attempt, 1, 1, -1, b":"), None), outcome(attempt, code, *ending))
        waiting = [job.order.attempt for job in held.jobs()]
        assert sorted([attempt for attempt, _ in seen] + waiting) == sorted(ended)
        assert held.empty == (not held.jobs())
    assert seen == given


def test_nothing_is_held_or_changed_where_no_step_is() -> None:
    seen: list[Ending] = []
    held = SignalFilter(
        cast(asyncio.AbstractEventLoop, Clock()), lambda _, result: seen.append(result.ending), hold=False
    )
    job = Job(Order(1, 1, 1, -1, b":"), None)
    held.add(job, outcome(1, 3))
    held.note_signal()
    held.add(job, outcome(2, -15))
    assert seen == [OWN, OWN]


@pytest.mark.parametrize(
    ("code", "elapsed", "held"),
    [(0, 0.01, HOLD_OF_SUCCESS), (0, 2.0, 0.02), (0, 1e6, HOLD), (1, 0.01, HOLD), (-15, 1e6, HOLD)],
)
def test_success_is_held_more_briefly_as_its_slot_may_have_nothing_else(
    code: int, elapsed: float, held: float
) -> None:
    assert hold_of(outcome(1, code, elapsed=elapsed)) == pytest.approx(held)
