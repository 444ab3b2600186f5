"""The end of an allocation: a warning early, then no more tasks, then the end of those that still run.

Theory of operation
-------------------
Three moments, each so many seconds before the end: the warning; the last start of a task (`margin`); and the
last moment at which what runs can be ended in order and recorded before the scheduler kills it (`reserve`).
Unless the user asks for a longer margin the last two are the same.

The end may move: an administrator extends a job, or shortens it. So the scheduler is asked again now and
then, and shortly before each moment; if the end is later now, so is the moment. All is computed from the wall
clock each time: a timer's clock and the scheduler's drift apart in a week, and one stands still while a
machine sleeps.
"""

from __future__ import annotations

import asyncio
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


class Allowance:
    """The time that an allocation has until `end` (epoch seconds).

    `grace`: seconds that tasks have when they are ended; `margin`: of --time-limit-margin, or None. `ask`
    tells the end as the scheduler knows it now, within so many seconds: None if it does not tell. `say` gets
    lines for the user. `last_start` is called when nothing more shall start, `last_run` when what runs shall
    end; what becomes of that is what `then` says.
    """

    def __init__(
        self,
        end: float,
        *,
        grace: float,
        margin: float | None,
        ask: Callable[[float], Awaitable[float | None]],
        say: Callable[[str], None],
        last_start: Callable[[], None],
        last_run: Callable[[], None],
        then: str = "can be resumed",
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        recheck: float = RECHECK,
    ) -> None:
        self.end = end
        self._reserve = reserve(grace)
        self._margin = max(self._reserve, margin or 0.0)
        self._ask = ask
        self._say = say
        self._last_start = last_start
        self._last_run = last_run
        self._then = then
        self._clock = clock
        self._sleep = sleep
        self._recheck = recheck
        self._asked_at = clock()

    @property
    def left(self) -> float:
        """Seconds to the end."""
        return self.end - self._clock()

    @property
    def too_late(self) -> str:
        """Why nothing can start any more; empty if something can."""
        if self.left > self._margin:
            return ""
        if self.left <= 0:
            return TIME_IS_UP
        margin = f" (--time-limit-margin {self._margin:g})" if self._margin > self._reserve else ""
        return f"the allocation ends in {duration(self.left)}: too late to start tasks{margin}"

    async def watch(self) -> None:
        """From now to the end."""
        early = max(self._margin + EARLY_LEAST, min(EARLY_MOST, EARLY_SHARE * self.left))
        await self._reach(early)
        self._warn()
        await self._reach(self._margin)
        if self._margin > self._reserve:
            left = duration(self.left - self._reserve)
            ends = f"the allocation ends in {duration(self.left)}"
            self._say(f"{ends}: no more tasks start, and those that run have {left}")
        self._last_start()
        await self._reach(self._reserve)
        self._last_run()

    def _warn(self) -> None:
        now = self._clock()
        stop = clock_time(self.end - self._reserve, now)
        words = f"what still runs at {stop} is ended, and {self._then}"
        if self._margin > self._reserve:
            words = f"no task starts after {clock_time(self.end - self._margin, now)}, and {words}"
        self._say(f"the allocation ends at {clock_time(self.end, now)}, in {duration(self.left)}: {words}")

    async def _reach(self, before: float) -> None:
        """Until so many seconds before the end, as the scheduler tells it shortly before."""
        asked = False
        while (left := self.left - before) > 0:
            if left > ASK_AHEAD:
                asked = False
                await self._sleep(min(left - ASK_AHEAD, LONGEST_SLEEP))
                if self._clock() - self._asked_at >= self._recheck and self.left - before > ASK_AHEAD:
                    await self._ask_again(ASK_AHEAD)
            elif asked or left < LAST_ASK:
                await self._sleep(left)
            else:
                asked = True
                await self._ask_again(left)

    async def _ask_again(self, timeout: float) -> None:
        self._asked_at = self._clock()
        self.end = await self._ask(timeout) or self.end


class TimeLimit:
    """`say` gets lines for the user, `tell` events for the plan about each of `engines()`; `launches_end` is
    called when engines that are on their way need not come any more, and `end_is_near` when engines that do
    not answer are to be given up after so many seconds; tasks that are ended have `grace` seconds, and
    `then` says what becomes of them. An allocation without an end asks for nothing."""

    def __init__(
        self,
        pool: Pool,
        grace: float,
        *,
        say: Callable[[str], None],
        tell: Callable[[Drain | Stop], None],
        engines: Callable[[], Iterable[str]],
        launches_end: Callable[[], None],
        end_is_near: Callable[[float], None],
        then: str = "can be resumed",
    ) -> None:
        self._tell = tell
        self._engines = engines
        self._launches_end = launches_end
        self._end_is_near = end_is_near
        self._grace = grace
        self._event: type[Drain] | type[Stop] | None = None
        self._task: asyncio.Task[None] | None = None
        self._allowance: Allowance | None = None
        if pool.context.end is not None:
            self._allowance = Allowance(
                pool.context.end,
                grace=grace,
                margin=pool.time_limit_margin,
                ask=pool.context.current_end,
                say=say,
                last_start=lambda: self._all(Drain),
                last_run=self._last_run,
                then=then,
            )

    @property
    def too_late(self) -> str:
        """Why the run cannot start any task; empty if it can."""
        return "" if self._allowance is None else self._allowance.too_late

    @property
    def words(self) -> str:
        """Why the run ended, if that is why; else empty."""
        return TIME_IS_UP if self._event is not None else ""

    def start(self) -> None:
        """Watch the clock."""
        if self._allowance is not None:
            self._task = asyncio.get_running_loop().create_task(self._allowance.watch())

    def close(self) -> None:
        """Watch it no longer."""
        if self._task is not None:
            self._task.cancel()

    def lets_go(self, context: str) -> bool:
        """An engine comes too late. One of another context, whose id is not empty, has its own time."""
        return self._event is not None and not context

    def joined(self, engine: str, context: str) -> None:
        """This engine came, maybe too late."""
        if self._event is not None and self.lets_go(context):
            self._tell(self._event(engine))

    def _all(self, event: type[Drain] | type[Stop]) -> None:
        self._event = event
        for engine in list(self._engines()):
            self._tell(event(engine))
        self._launches_end()

    def _last_run(self) -> None:
        self._end_is_near(self._grace)
        self._all(Stop)
