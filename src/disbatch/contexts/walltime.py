"""The end of an allocation: warn the user early, then start no more tasks, then end those that still run.

Theory of operation
-------------------
There are three moments, each so many seconds before the end: the warning; the last start of a task
(`margin`); and the last moment at which running tasks can be ended and recorded before the scheduler kills
them (`reserve`). Unless the user asks for a longer margin, the last two are the same.

An administrator may extend or shorten a job. So the scheduler is asked again from time to time, and shortly
before each moment. The wall clock is read each time, because a timer's clock drifts in a week, and stands
still while a machine sleeps.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable

from disbatch.contexts.pool import Pool
from disbatch.plan.events import Drain, Stop

RECORDING = 5.0
"""Seconds beyond the grace that it takes to end, record and leave."""
EARLY_MOST = 600.0
EARLY_SHARE = 0.1
EARLY_LEAST = 30.0
"""The warning comes when a tenth of the time is left, at most ten minutes and at least half a minute before
the last start."""
ASK_AHEAD = 10.0
"""Seconds before a moment at which the scheduler is asked, and how long that may take."""
LAST_ASK = 1.0
"""Seconds before a moment from which nobody is asked any more."""
LONGEST_SLEEP = 60.0
RECHECK = 600.0
"""Seconds after which the scheduler is asked anyway: an end may come nearer, too."""
KILL_MARGIN = 1.5
"""Seconds before the scheduler's SIGKILL at which ours comes, so that the outcome is still recorded."""
LEAST_GRACE = 0.5

TIME_IS_UP = "the allocation's time is up"


def grace_within(kill_wait: float | None, grace: float) -> float:
    """The grace (seconds) that tasks can have where a scheduler sends SIGKILL `kill_wait` seconds after
    SIGTERM."""
    return grace if kill_wait is None else min(grace, max(LEAST_GRACE, kill_wait - KILL_MARGIN))


def reserve(grace: float) -> float:
    """Seconds before the end at which what runs is ended."""
    return grace + RECORDING


def clock_time(moment: float, now: float) -> str:
    """A moment (epoch) as people say it today: `14:05:30`, or `Mon 14:05:30`, or with its date."""
    there, here = time.localtime(moment), time.localtime(now)
    if there[:3] == here[:3]:
        return time.strftime("%H:%M:%S", there)
    near = moment - now < 6 * 86400
    return time.strftime("%a %H:%M:%S" if near else "%Y-%m-%d %H:%M:%S", there)


def duration(seconds: float) -> str:
    """`40 s`, `9 min 30 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        parts = [(whole // 3600, "h"), (whole % 3600 // 60, "min")]
    else:
        parts = [(whole // 60, "min"), (whole % 60, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


class TimeLimit:
    """The end of the allocation of a pool; without an end it does nothing.

    `grace`: seconds that tasks have when they are ended; `then` says what becomes of them. `notify_user` gets
    lines for the user; `handle_event` gets a Drain, and later a Stop, for each of `engines()`. `launches_end`
    is called when engines that have not joined need not come any more; `end_is_near` with the seconds after
    which engines that do not answer are given up. `recheck`: seconds after which the scheduler is asked
    again.
    """

    def __init__(
        self,
        pool: Pool,
        grace: float,
        *,
        notify_user: Callable[[str], None],
        handle_event: Callable[[Drain | Stop], None],
        engines: Callable[[], Iterable[str]],
        launches_end: Callable[[], None],
        end_is_near: Callable[[float], None],
        then: str = "can be resumed",
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        recheck: float = RECHECK,
    ) -> None:
        self._end = math.inf if pool.context.end is None else pool.context.end
        self._ask = pool.context.current_end
        self._grace = grace
        self._reserve = reserve(grace)
        self._margin = max(self._reserve, pool.time_limit_margin or 0.0)
        self._notify_user = notify_user
        self._handle_event = handle_event
        self._engines = engines
        self._launches_end = launches_end
        self._end_is_near = end_is_near
        self._then = then
        self._clock = clock
        self._sleep = sleep
        self._recheck = recheck
        self._asked_at = clock()
        self._event: type[Drain] | type[Stop] | None = None
        """What each engine got last."""
        self._task: asyncio.Task[None] | None = None

    @property
    def _left(self) -> float:
        """Seconds to the end."""
        return self._end - self._clock()

    @property
    def too_late(self) -> str:
        """Why no task can start any more; "" if one can."""
        if self._left > self._margin:
            return ""
        if self._left <= 0:
            return TIME_IS_UP
        margin = f" (--time-limit-margin {self._margin:g})" if self._margin > self._reserve else ""
        return f"the allocation ends in {duration(self._left)}: too late to start tasks{margin}"

    @property
    def words(self) -> str:
        """Why the run ended, if this is why; else ""."""
        return TIME_IS_UP if self._event is not None else ""

    def start(self) -> None:
        """Watch the clock from now on."""
        if math.isfinite(self._end):
            self._task = asyncio.get_running_loop().create_task(self.watch())

    def close(self) -> None:
        """Watch it no longer."""
        if self._task is not None:
            self._task.cancel()

    def lets_go(self, context: str) -> bool:
        """True if an engine of ours comes too late; an attached context (its id is not "") has its own
        time."""
        return self._event is not None and not context

    def joined(self, engine: str, context: str) -> None:
        """This engine came, maybe too late."""
        if self._event is not None and self.lets_go(context):
            self._handle_event(self._event(engine))

    async def watch(self) -> None:
        """Warn, drain and stop, each at its time."""
        early = max(self._margin + EARLY_LEAST, min(EARLY_MOST, EARLY_SHARE * self._left))
        await self._reach(early)
        self._warn()
        await self._reach(self._margin)
        if self._margin > self._reserve:
            left = duration(self._left - self._reserve)
            ends = f"the allocation ends in {duration(self._left)}"
            self._notify_user(f"{ends}: no more tasks start, and those that run have {left}")
        self._send_all(Drain)
        await self._reach(self._reserve)
        self._end_is_near(self._grace)
        self._send_all(Stop)

    def _warn(self) -> None:
        now = self._clock()
        stop = clock_time(self._end - self._reserve, now)
        words = f"what still runs at {stop} is ended, and {self._then}"
        if self._margin > self._reserve:
            words = f"no task starts after {clock_time(self._end - self._margin, now)}, and {words}"
        end = f"the allocation ends at {clock_time(self._end, now)}, in {duration(self._left)}"
        self._notify_user(f"{end}: {words}")

    def _send_all(self, event: type[Drain] | type[Stop]) -> None:
        self._event = event
        for engine in list(self._engines()):
            self._handle_event(event(engine))
        self._launches_end()

    async def _reach(self, before: float) -> None:
        """Wait until so many seconds before the end, as the scheduler tells it shortly before."""
        asked = False
        while (left := self._left - before) > 0:
            if left > ASK_AHEAD:
                asked = False
                await self._sleep(min(left - ASK_AHEAD, LONGEST_SLEEP))
                if self._clock() - self._asked_at >= self._recheck and self._left - before > ASK_AHEAD:
                    await self._ask_again(ASK_AHEAD)
            elif asked or left < LAST_ASK:
                await self._sleep(left)
            else:
                asked = True
                await self._ask_again(left)

    async def _ask_again(self, timeout: float) -> None:
        self._asked_at = self._clock()
        self._end = await self._ask(timeout) or self._end
