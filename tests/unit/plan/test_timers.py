"""Delays of the plan, told the time by events."""

from __future__ import annotations

import math
from functools import partial

from plan_world import task

from disbatch.plan.capacity import Capacity
from disbatch.plan.events import Assign, Joined, Tick
from disbatch.plan.plan import Plan
from disbatch.plan.timers import Timers


def test_delays_begin_with_the_next_tick_and_end_in_order() -> None:
    timers, called = Timers(), list[str]()
    assert timers.next is None
    timers.call_after(5, partial(called.append, "late"))
    timers.call_after(2, partial(called.append, "first"))
    timers.call_after(2, partial(called.append, "second"))
    assert timers.next == -math.inf
    timers.tick(100)
    assert not called and timers.next == 102
    timers.tick(102)
    assert called == ["first", "second"] and timers.next == 105
    timers.tick(200)
    assert called == ["first", "second", "late"] and timers.next is None


def test_what_is_called_may_set_another_delay() -> None:
    timers, called = Timers(), list[int]()

    def again() -> None:
        called.append(len(called))
        timers.call_after(1, again)

    timers.call_after(0, again)
    for now in (10, 11, 12):
        timers.tick(now)
    assert called == [0, 1, 2] and timers.next == 13


def test_a_tick_that_nothing_waits_for_changes_nothing() -> None:
    plan = Plan()
    plan.handle(Joined("a", Capacity(1), []))
    assert plan.next_tick is None and plan.handle(Tick(1.0)) == []


def test_what_follows_from_a_tick_is_done_at_once() -> None:
    plan = Plan()
    plan.handle(Joined("a", Capacity(1), []))
    plan.board.timers.call_after(3, partial(plan.board.backlog.ready.append, task(0)))
    assert plan.next_tick == -math.inf and plan.handle(Tick(10.0)) == []
    assert plan.next_tick == 13.0
    (given,) = plan.handle(Tick(13.5))
    assert isinstance(given, Assign) and plan.next_tick is None
