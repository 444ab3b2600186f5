"""What happens to nodes that are no longer needed: the user's command (-k), the scheduler's way, or nothing.

The command finds NODE and RETCODE (the node, and how its engine ended), NODES and RETCODES (all that this
call is about, comma separated), ACTIVE (nodes still in use), RETIRED (all that are not, with these), and
DRIVER_NODE if the driver's node is not in ACTIVE. Retirements that come close together are joined into one
call if the command's text shows that it looks at the whole (it mentions NODES, ACTIVE or RETIRED); a command
that knows just its NODE is called once for each. A failed call is tried again. A call is over when its shell
is, whatever that left running in the background.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Collection

from disbatch.contexts.command import run
from disbatch.contexts.context import Retirement
from disbatch.contexts.pool import Pool

log = logging.getLogger(__name__)

JOIN_DELAY = 0.2
"""Seconds that a retirement waits for others."""
CALL_TIMEOUT = 60.0
ATTEMPTS = 3
FIRST_RETRY = 1.0
_LOOKS_AT_ALL = re.compile(r"\b(NODES|ACTIVE|RETIRED)\b")


class Retirer:
    """The retirements of a run with the user's command: all nodes, the last ones at the end of the run, but
    those of `keep`. A `Retirement`. `driver_node`: the driver's, or None if it is none that the nodes' owner
    knows. `trouble(text)` gets one line when a command failed for good; `retry` seconds after it failed first
    it is tried again."""

    def __init__(
        self,
        command: str,
        driver_node: str | None,
        trouble: Callable[[str], None],
        retry: float = FIRST_RETRY,
        keep: Collection[str] = (),
    ) -> None:
        self._keep = keep
        self._command = command
        self._driver_node = driver_node
        self._trouble = trouble
        self._retry = retry
        self._joins = _LOOKS_AT_ALL.search(command) is not None
        self._active: dict[str, int] = {}
        """How many engines there are on each node in use."""
        self._retired: list[str] = []
        self._waiting: list[tuple[str, int]] = []
        self._task: asyncio.Task[None] | None = None
        self._abandoned = False

    def joined(self, node: str) -> None:
        """An engine is there on the node, which is in use (again)."""
        if node in self._retired:
            self._retired.remove(node)
        self._active[node] = self._active.get(node, 0) + 1

    def retire(self, node: str, return_code: int, *, spare: bool = False) -> None:
        """An engine of the node is gone; the node is not needed any more if that was its last."""
        if node not in self._active:
            return
        self._active[node] -= 1
        if self._active[node]:
            return
        if node in self._keep and node != self._driver_node:
            self._active[node] = 1  # somebody else's
            return
        del self._active[node]
        if node in self._keep:
            return
        self._retired.append(node)
        self._waiting.append((node, return_code))
        if self._abandoned:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def finish(self) -> None:
        """Wait until every call was made, which is bounded in time, or was abandoned."""
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._waiting:
            log.warning("not retired: %s", ",".join(node for node, _ in self._waiting))

    def abandon(self) -> None:
        """End the call that is going on, and make no other."""
        self._abandoned = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        await asyncio.sleep(JOIN_DELAY)
        while self._waiting:
            if self._joins:
                batch, self._waiting = self._waiting, []
            else:
                batch = [self._waiting.pop(0)]
            await self._call(batch)

    async def _call(self, batch: list[tuple[str, int]]) -> None:
        nodes, codes = [node for node, _ in batch], [str(code) for _, code in batch]
        environment = {
            **os.environ,
            "NODE": nodes[0],
            "RETCODE": codes[0],
            "NODES": ",".join(nodes),
            "RETCODES": ",".join(codes),
            "ACTIVE": ",".join(self._active),
            "RETIRED": ",".join(self._retired),
        }
        environment.pop("DRIVER_NODE", None)
        if self._driver_node is not None and self._driver_node not in self._active:
            environment["DRIVER_NODE"] = self._driver_node
        for attempt in range(ATTEMPTS):
            problem = (await run(["/bin/sh", "-c", self._command], environment, CALL_TIMEOUT)).problem
            if problem is None:
                log.info("retired %s", environment["NODES"])
                return
            log.warning("retire command for %s: %s", environment["NODES"], problem)
            if attempt + 1 < ATTEMPTS:
                await asyncio.sleep(self._retry * 2**attempt)
        self._trouble(f"the retire command (-k) for {environment['NODES']} failed: {problem}")


def choose_retirement(
    pool: Pool, hostname: str, directory: str, trouble: Callable[[str], None]
) -> Retirement | None:
    """How the nodes of a pool are retired. `directory`: one of the run's own, for what a command litters."""
    context = pool.context
    if pool.retire_command:
        own = (context.own_node or None) if context.scheduler else hostname
        return Retirer(pool.retire_command, own, trouble, keep=context.keep)
    return context.releaser(directory, trouble) if pool.release else None
