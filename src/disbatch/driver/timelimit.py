"""What a run does when its allocation ends: no engine gets more tasks, and then each ends what it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from disbatch.contexts.context import Context
from disbatch.driver.allowance import TIME_IS_UP, Allowance, ask_slurm
from disbatch.plan.events import Drain, Stop


class TimeLimit:
    """`say` gets lines for the user, `tell` events for the plan about each of `engines()`; `launches_end` is
    called when engines that are on their way need not come any more, and `end_is_near` when engines that do
    not answer are to be given up after so many seconds; tasks that are ended have `grace` seconds, and
    `then` says what becomes of them. An allocation without an end asks for nothing."""

    def __init__(
        self,
        context: Context,
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
        allocation = context.allocation
        if allocation is not None and allocation.end is not None:
            self._allowance = Allowance(
                allocation.end,
                grace=grace,
                margin=context.time_limit_margin,
                ask=ask_slurm(allocation.job),
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
