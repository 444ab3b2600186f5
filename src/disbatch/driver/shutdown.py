"""End a run, because of a signal or request, at the end of its time, or without engines; and close its parts.

Whatever ends a run sets its one `Ending` (see `ending`). If the user ends it, the engines get the time that
they need to end their tasks; those that do not answer in this time are given up. A run without engines waits
for engines to be attached, for as long as its options say, and is then given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from typing import Any

import msgspec

from disbatch.contexts.context import Preempted
from disbatch.driver.ending import (
    DriverFailed,
    Ending,
    FinishedEarly,
    Interrupted,
    NoEngines,
    Result,
    TakenOver,
    TimeUp,
    find,
    is_ordered,
)
from disbatch.driver.engine_wait import EngineWait
from disbatch.driver.parts import Parts
from disbatch.driver.tally import NAMED_KINDS
from disbatch.model.text import as_argument, counted, printable, shell_word, short_list, with_retry
from disbatch.model.view import Summary
from disbatch.plan import events
from disbatch.plan.plan import Mode
from disbatch.wire.client_protocol import Wants

log = logging.getLogger(__name__)

ENDING_MARGIN = 10.0
"""Seconds beyond the grace that engines have to end their tasks before they are given up."""
ENDING_AT_LIMIT = 2.5
"""The same if the end of the allocation is near."""
AT_ONCE = 3.0
"""Seconds that engines have to end their tasks after a second signal."""
LAST_WORDS = 0.5
"""Seconds that clients and engines have to learn that the run is over."""


class Shutdown:
    """`ending` is why the run ends; None as long as nothing ends it. `handle_event` gets events for the plan,
    `notify_user` lines for the user."""

    def __init__(
        self,
        parts: Parts,
        *,
        handle_event: Callable[[events.Event], None],
        notify_user: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._handle_event = handle_event
        self._notify_user = notify_user
        self._engine_wait = EngineWait(
            *(parts.loop, parts.settings),
            notify_user=notify_user,
            give_up=lambda why: self._end(NoEngines(why)),
        )
        self._preemption: asyncio.Task[None] | None = None
        """Waits for the scheduler to end this job, which it preempts."""
        self.ending: Ending | None = None

    # ---- state ----

    @property
    def is_ending(self) -> bool:
        """The run is ending, or over."""
        p = self._parts
        return p.over.done() or p.plan.mode not in (Mode.RUNNING, Mode.WINDING_DOWN)

    @property
    def notice(self) -> str:
        """The notice for displays about the end; empty if there is none."""
        return "" if self.ending is None else self.ending.notice

    @property
    def notice_of_wait(self) -> str:
        """The notice for displays about missing engines; empty if there is none."""
        return self._engine_wait.notice

    @property
    def _is_taken_over(self) -> bool:
        return find(self.ending, TakenOver) is not None

    @property
    def _leaves_engines(self) -> bool:
        """This driver took the run over and was to end it, and not all of its engines were heard: another
        driver may hear them."""
        table, takeover = self._parts.engine_table, self._parts.settings.takeover
        if takeover is None or not is_ordered(self.ending):
            return False
        return bool(table.not_heard or (takeover.finish and table.out_of_reach))

    # ---- the user ends it ----

    def interrupt(self, number: int) -> None:
        """End the run because of SIGINT, SIGTERM or SIGHUP: in order after the first one, at once after the
        second. A second SIGHUP does not count, since the kernel and the shell each send one when a terminal
        is closed."""
        former = find(self.ending, Interrupted)
        if former is not None and number == signal.SIGHUP:
            return
        first = former is None
        self.ending = Interrupted(
            number if former is None else former.signal, at_once=not first, after=self.ending
        )
        self._parts.keystore.stop_waiting()
        once_more = "; once more to end at once" if first else ""
        self._notify_user(f"{signal.Signals(number).name}: {self.notice}{once_more}")
        self._end_tasks(at_once=not first)
        if not first:
            self._parts.record.abandon()
            self._parts.engines.abandon_retirement()

    def finish(self, by: str = "") -> None:
        """A user ends the run, to be resumed later, through `by`: a command or page; "": `dbutil finish`."""
        by = printable(by) or "dbutil finish"
        self.ending = FinishedEarly(by, after=self.ending)
        self._notify_user(f"{by}: {self.notice}")
        self._end_tasks(at_once=False)

    def _end_tasks(self, *, at_once: bool) -> None:
        self._handle_event(events.Interrupt(at_once))
        s = self._parts.settings
        if s.takeover is not None and not s.takeover.readable:
            self._handle_event(events.SourceEnded(broken=True))
        self._parts.engines.expect_the_living()
        self._give_up_after(AT_ONCE if at_once else s.grace + ENDING_MARGIN)

    def end_of_allocation_is_near(self, grace: float) -> None:
        """The tasks are being ended, and have `grace` seconds for that."""
        self._give_up_after(grace + ENDING_AT_LIMIT)

    def _give_up_after(self, seconds: float) -> None:
        self._parts.loop.call_later(seconds, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        """Give up the engines that did not end their tasks in time."""
        p, interrupted = self._parts, find(self.ending, Interrupted)
        p.engines.give_up("did not end its tasks in time")
        if p.plan.is_behind and p.feed.goes_on and not (interrupted and interrupted.at_once):
            return  # the results of all engines are here; they are recorded when their tasks are read
        if not p.over.done():
            self._note_time_is_up()
            p.over.set_result(None)

    # ---- it cannot continue ----

    def look_for_engines(self) -> None:
        """Without engines, present or expected, the run cannot be completed, unless some are attached."""
        p = self._parts
        if p.over.done() or p.plan.is_over or self._preemption is not None:
            return
        if is_ordered(self.ending) and p.plan.is_behind:
            return  # it ends when the rest of the source is read
        if p.plan.present or p.engines.expected:
            self._engine_wait.end()
            return
        self._note_time_is_up()
        if self.ending is not None and self.ending.words:
            self._stop_waiting()
            return
        p.engines.node_messages.flush()
        self._engine_wait.begin(self._why_no_engines())

    def _note_time_is_up(self) -> None:
        """Set `ending` if the end of the allocation ends the run, and nothing before did that has words."""
        limit = self._parts.time_limit
        words = limit.words or limit.too_late
        if words and not (self.ending is not None and self.ending.words):
            self.ending = TimeUp(words, after=self.ending)

    def _why_no_engines(self) -> str:
        p = self._parts
        limit = p.settings.pool.task_limit
        if limit is not None and not len(p.attachments) and p.plan.has_reached_limit(""):
            return f"ended after {counted(limit, 'task')}, as -C asks"
        if not p.engine_table.entries:
            return "no engines were attached"
        return "no engine is left" if p.engines.ever_joined else "no engine could start"

    def _end(self, ending: Ending) -> None:
        self.ending = msgspec.structs.replace(ending, after=self.ending)
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        """End the run now; but wait if the scheduler may be about to end this process, too."""
        p = self._parts
        if p.over.done():
            return
        if p.engines.ended_by_scheduler and find(self.ending, Interrupted) is None:
            self._preemption = p.loop.create_task(self._await_preemption())
        else:
            p.over.set_result(None)

    async def _await_preemption(self) -> None:
        """When a scheduler preempts a job, it ends the steps first, and the script after a grace. A script
        that ended by itself in this time would make the job count as failed, and it would not be requeued."""
        over = self._parts.over
        state = await self._parts.settings.pool.context.job_state()
        if isinstance(state, Preempted) and not over.done():
            self._notify_user(state.words)
            if state.again is not False:
                await asyncio.wait([over], timeout=state.left)
        if not over.done():
            over.set_result(None)

    def taken_over(self) -> None:
        """Another driver has taken the run over; the engines of this one are still to be ended."""
        self._notify_user("another driver has taken this run over; leaving it alone")
        self._end(TakenOver())

    def failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised an unexpected error: the plan's state may be wrong, so the run ends."""
        error, over = context.get("exception"), self._parts.over
        log.error("%s", context.get("message"), exc_info=error)
        if isinstance(error, Exception) and not over.done():
            self._note_failure()
            over.set_exception(error)

    def _note_failure(self) -> None:
        self.ending = DriverFailed(after=self.ending)

    # ---- closing ----

    async def close(self) -> bytes:
        """Close all parts, in order. Returns the text that could not be written to the status file."""
        p = self._parts
        await self._stop_parts()
        try:
            with contextlib.suppress(OSError):  # then the record waits until it is known
                if not self._is_taken_over and p.journal.is_taken_over():
                    self.ending = TakenOver(after=self.ending)
            if not self._is_taken_over:
                await p.engines.retire_all()
            if is_ordered(self.ending):
                p.record.abandon()  # a user who ends the run does not wait for room on the disk
            await self._close_connections()
            return await self._close_files()
        finally:
            self._withdraw()

    async def leave(self) -> bytes:
        """Leave a run as it was that could not be taken over: its engines wait for another driver."""
        await self._stop_parts()
        self._parts.hub.close()
        return await self._close_files()

    async def _stop_parts(self) -> None:
        p = self._parts
        p.files.close()
        p.time_limit.close()
        self._engine_wait.end()
        if self._preemption is not None:
            self._preemption.cancel()
        p.engines.stop_watching()
        p.feed.close()
        await p.feed.end()

    async def _close_connections(self) -> None:
        p, interrupted = self._parts, find(self.ending, Interrupted)
        patience = 1.0 if interrupted and interrupted.at_once else 5.0
        await p.record.settle()
        await p.keystore.settle(patience)
        # First acknowledge what is recorded, so that no engine writes it again. Then tell the engines that
        # are still there (given up, or waiting for one that was cut off) to leave, while there are tunnels.
        p.acknowledgements.send()
        p.hub.turn_away_all("another driver has the run" if self._is_taken_over else "the run is over")
        p.attachments.close()
        words = self._words_for_programs()
        p.status_feed.close(words)
        await p.result_feed.close(words)
        await p.engines.close(patience)
        if p.feed.expects_stranger and not (is_ordered(self.ending) or self._is_taken_over):
            await p.keystore.wait_for_fetching()
        await p.keystore.close()
        await p.hub.until_left(LAST_WORDS)
        p.hub.close(linger=LAST_WORDS)

    async def _close_files(self) -> bytes:
        p = self._parts
        await p.addresses.port.close()
        p.result_feed.shut()
        p.observer.stop()
        unwritten = await p.record.close()
        p.journal.close()
        return unwritten

    def _withdraw(self) -> None:
        """Remove the files by which others find the run, unless they are still needed."""
        p = self._parts
        if not self._is_taken_over and not self._leaves_engines:
            resumable = not self.result().complete
            p.addresses.withdraw(self._notify_user, keep_run=resumable and bool(p.engine_table.out_of_reach))

    # ---- the result ----

    def result(self) -> Result:
        """How the run ended."""
        p = self._parts
        return Result(
            conclusion=p.plan.conclusion,
            over=p.plan.is_over,
            ending=self.ending,
            damaged=p.files.is_damaged,
            broken=p.feed.error,
            tally=p.tally,
            mind_failures=p.settings.exit_code,
        )

    def conclude(self, unwritten: bytes) -> tuple[int, Summary]:
        """The exit code and the summary, after `close`; warns the user of engines that may run on."""
        table, result = self._parts.engine_table, self.result()
        if self._leaves_engines:
            names = short_list(table.not_heard or table.out_of_reach)
            prefix = shell_word(as_argument(str(self._parts.settings.claimed.files.prefix)))
            words = f"the run is left as it was: `dbutil finish --run {prefix}` tries again"
            self._notify_user(f"{names}: not heard; {words}")
        elif not result.complete:
            self._parts.engines.warn_of_the_lost()
        return result.exit_code, self._summary(result, unwritten)

    def failed_summary(self) -> Summary:
        """The summary after the driver raised an error."""
        if find(self.ending, DriverFailed) is None:
            self._note_failure()
        return self._summary(self.result(), b"")

    def _words_for_programs(self) -> str:
        """How the run ended."""
        result = self.result()
        if result.complete:
            return result.words
        return f"{result.words}; resume with: {self._resume_hint(retry=result.needs_retry)}"

    def _resume_hint(self, *, retry: bool) -> str:
        s, submissions = self._parts.settings, self._parts.feed.submissions
        handed_in = submissions is not None and not submissions.is_unused
        hint = s.resume_hint_with_submitted if handed_in else s.resume_hint
        command = hint(self._parts.files.names)
        return with_retry(command) if retry else command

    def _summary(self, result: Result, unwritten: bytes) -> Summary:
        p = self._parts
        for task, record in p.feed.not_counted(p.plan):
            p.tally.count_again(task, record)
        tally, taken_over, now = p.tally, self._is_taken_over, p.loop.time()
        entries = p.engine_table.entries.values()
        slot_time = sum(entry.slot_time(now) for entry in entries)
        joined = [entry for entry in entries if entry.state.has_joined]
        only_failures = result.complete and not taken_over and tally.failed + tally.skipped_failed
        incomplete = not result.complete and not taken_over
        return Summary(
            view=p.collector.now(Wants(engines=0, kinds=NAMED_KINDS)),
            conclusion=printable(result.words),
            ended=tally.ended,
            utilisation=min(1.0, tally.busy / slot_time) if slot_time else None,
            nodes=len({entry.name for entry in joined}),
            slots=sum(entry.slots for entry in joined),
            slowest=tally.slowest,
            status_file=str(p.files.names.status),
            retry=self._resume_hint(retry=True) if only_failures else "",
            resume=self._resume_hint(retry=result.needs_retry) if incomplete else "",
            unwritten=unwritten,
            elsewhere=taken_over,
            goes_on=self._leaves_engines,
        )
