"""Retire nodes that are no longer needed: with the user's command (-k), or in the scheduler's way.

The command finds NODE and RETCODE (the node, and how its engine ended), NODES and RETCODES (all nodes of this
call, comma separated), ACTIVE (nodes still in use), RETIRED (all that are not, with these), and DRIVER_NODE
if the driver's node is not in ACTIVE. Retirements that come close together are joined into one call if the
command mentions NODES, ACTIVE or RETIRED; a command that knows only its NODE is called once for each. A
failed call is tried again. A call is over when its shell is, whatever that left running in the background.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection

from disbatch.contexts.command import SHELL, run
from disbatch.contexts.context import Retirement
from disbatch.contexts.pool import Pool

log = logging.getLogger(__name__)

JOIN_DELAY = 0.2
"""Seconds that a retirement waits for others."""
CALL_TIMEOUT = 60.0
ATTEMPTS = 3
FIRST_RETRY = 1.0
_LOOKS_AT_ALL = re.compile(r"\b(NODES|ACTIVE|RETIRED)\b")


class Retirer(Retirement):
    """Retires nodes with the user's command: all but those of `keep`, the last ones at the end of the run.

    `driver_node`: "" if the owner of the nodes does not know it. `notify_user` gets a line when a command
    failed for good; `retry`: seconds until the second attempt.
    """

    def __init__(
        self,
        command: str,
        driver_node: str,
        notify_user: Callable[[str], None],
        retry: float = FIRST_RETRY,
        keep: Collection[str] = (),
    ) -> None:
        super().__init__()
        self._keep = keep
        self._command = command
        self._driver_node = driver_node
        self._notify_user = notify_user
        self._retry = retry
        self._joins = _LOOKS_AT_ALL.search(command) is not None

    def left(self, node: str, return_code: int, *, spare: bool) -> None:
        """Retire the node soon."""
        if node in self._keep:
            if node != self._driver_node:
                self._active[node] = 1  # others use it
            return
        self._retired.append(node)
        self._waiting[node] = return_code
        if not self._over:
            self._start(self._call_all)

    async def finish(self) -> None:
        """Wait until every call was made, which is bounded in time, or was abandoned."""
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._waiting:
            log.warning("not retired: %s", ",".join(self._waiting))

    async def _call_all(self) -> None:
        await asyncio.sleep(JOIN_DELAY)
        while self._waiting:
            first = next(iter(self._waiting))
            nodes = self._waiting if self._joins else {first: self._waiting[first]}
            self._waiting = {node: code for node, code in self._waiting.items() if node not in nodes}
            await self._call(nodes)

    async def _call(self, nodes: dict[str, int]) -> None:
        driver_node = "" if self._driver_node in self._active else self._driver_node
        environment = self._environment(nodes, self._active, driver_node)
        for attempt in range(ATTEMPTS):
            problem = (await run([SHELL, "-c", self._command], environment, CALL_TIMEOUT)).problem
            if problem is None:
                log.info("retired %s", environment["NODES"])
                return
            log.warning("retire command for %s: %s", environment["NODES"], problem)
            if attempt + 1 < ATTEMPTS:
                await asyncio.sleep(self._retry * 2**attempt)
        self._notify_user(f"the retire command (-k) for {environment['NODES']} failed: {problem}")


def choose_retirement(
    pool: Pool, hostname: str, directory: str, notify_user: Callable[[str], None]
) -> Retirement | None:
    """How the nodes of a pool are retired. `directory`: where a command may leave files."""
    context = pool.context
    if pool.retire_command:
        own = context.own_node if context.scheduler else hostname
        return Retirer(pool.retire_command, own, notify_user, keep=context.keep)
    return context.releaser(directory, notify_user) if pool.release else None
