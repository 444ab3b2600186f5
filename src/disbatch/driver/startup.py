"""Begin a run: open its key store, restore the state of a former driver, and launch the engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from disbatch.contexts.nodes import Node, affordable
from disbatch.contexts.retire import choose_retirement
from disbatch.driver.parts import Parts
from disbatch.driver.settings import Settings, Takeover
from disbatch.driver.takeover import EngineRecovery
from disbatch.model.errors import DisbatchError
from disbatch.plan import events
from disbatch.plan.plan import Plan
from disbatch.rundir.journal import JournalState
from disbatch.sources.keystore import SourceAccess

ATTEMPTS = 1 << 40
"""The most attempts of one driver of a run: those of the next driver have higher numbers."""


def new_plan(settings: Settings) -> Plan:
    """The plan of a run that begins, or is taken over."""
    return Plan(
        max_losses=settings.max_losses,
        fail_fast=settings.fail_fast,
        limits=task_limits(settings),
        first_attempt=max(1, settings.number * ATTEMPTS),
    )


def task_limits(settings: Settings) -> dict[str, int]:
    """How many tasks each known context that has a limit (-C) may complete. Its engines report those that
    they completed for a former driver, unless that was of a version that counted them in the journal."""
    takeover, limit = settings.takeover, settings.pool.task_limit
    limits = {} if limit is None else {"": limit}
    if takeover is None:
        return limits
    told = takeover.told
    limits |= {name: asked.limit for name, asked in told.attached.items() if asked.limit is not None}
    counted = {name: told.counted[name].count for name in limits if name in told.counted}
    return {name: max(0, limit - counted.get(name, 0)) for name, limit in limits.items()}


class Startup:
    """`reach_store` comes first, then `begin`. `handle_event` gets events for the plan, `notify_user` lines
    for the user; `feed_plan` is called when there may be more tasks to read."""

    def __init__(
        self,
        parts: Parts,
        *,
        handle_event: Callable[[events.Event], None],
        feed_plan: Callable[[], None],
        notify_user: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._handle_event = handle_event
        self._feed_plan = feed_plan
        self._notify_user = notify_user

    async def reach_store(self) -> bool:
        """Connect to the key store, which may be remote; False if the run ends before that. UsageError."""
        over = self._parts.over
        reaching = self._parts.loop.create_task(self._parts.keystore.reach())
        either: list[asyncio.Future[Any]] = [reaching, over]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not reaching.done():
            reaching.cancel()
            return False
        reaching.result()
        return not over.done()

    def affordable_nodes(self) -> list[Node]:
        """The nodes of the pool for whose engines there are file descriptors. UsageError if for none."""
        pool = self._parts.settings.pool
        if not pool.nodes:
            return []
        nodes, words = affordable(pool.nodes, tunnel=pool.tunnel, connected=True)
        if words:
            self._notify_user(words)
        return nodes

    def begin(self, nodes: list[Node], access: SourceAccess) -> None:
        """Read tasks, and launch engines on `nodes`, or expect those of a former driver. Programs sign in at
        `access`."""
        p, s = self._parts, self._parts.settings
        retirement = choose_retirement(s.pool, p.hostname, p.addresses.folder, self._notify_user)
        too_late = bool(p.time_limit.too_late)
        p.feed.start(p.loop, self._feed_plan, access)
        if p.feed.submissions is not None:
            p.submissions.begin(p.feed.submissions, p.result_feed)
        p.files.keep(p.keystore.info.path, p.keystore.info.write_again)
        if p.feed.submitted_file is not None:
            p.files.keep_submitted(p.feed.submitted_file)
        recovery = None if s.takeover is None else self._recover(s.takeover)
        for listener in p.listeners:
            listener.start(p.collector.now)
        finish = s.takeover is not None and s.takeover.finish
        p.engines.launch([] if too_late or finish else nodes, p.early, retirement, recovery)

    # ---- after a former driver ----

    def _recover(self, takeover: Takeover) -> EngineRecovery:
        p, told = self._parts, takeover.told
        patience = p.settings.patience_with(told)
        recovery = EngineRecovery(
            *(p.engines, p.holds, patience, told),
            ended=takeover.ended,
            look_beside=self._look_beside,
        )
        self._restore(told)
        return recovery

    def _restore(self, told: JournalState) -> None:
        """Restore what users and contexts asked of former drivers, which the engines do not know."""
        p = self._parts
        here = told.engines.keys() | told.lost.keys()
        for name, asked in told.attached.items():
            p.attach_requests.restore(name, asked, here)
        p.user_commands.restore(told)

    def _look_beside(self) -> None:
        """Read the results of engines that ended without a driver and wrote them beside their logs."""
        try:
            self._parts.feed.look_beside()
        except DisbatchError as error:
            self._notify_user(str(error))
