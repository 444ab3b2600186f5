"""Give nodes back to Slurm while the run goes on, by making the job smaller.

Theory of operation
-------------------
A job is made smaller by naming the nodes that it keeps. Others may change the job, too (another run in the
same job, an administrator, a node that died), and everything on a node that is missing in the list is ended.
So each call first asks which nodes the job has now, and whether anything else runs on those that we no longer
need. Then it names all nodes but these. So a node that we never used, one whose engine has not joined yet,
and a dead node that Slurm has not noticed yet remain in the list.

Only nodes that were released as spare are taken out of the job. Nodes that engines leave at the end of the
run stay: the batch script goes on, or ends and gives everything back.

A call may be refused ("try again in a bit"), or a node may still be in use. Then everything is tried again
after a while, with the nodes that were released meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from disbatch.contexts import command as commands
from disbatch.contexts.command import SHELL, in_directory
from disbatch.contexts.context import Retirement
from disbatch.contexts.slurm.commands import SlurmSilentError, job_facts, nodes_in_use
from disbatch.contexts.slurm.job import Allocation
from disbatch.model.text import short_list

log = logging.getLogger(__name__)

JOIN_DELAY = 4.0
"""Seconds that a node waits for others: where Slurm keeps no accounts it takes one change of a job, and then
says for ever to try again in a bit."""
PAUSE = 5.0
"""Seconds between two changes of the job: each is work for the controller of the whole cluster."""
RETRIES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds after which a call is made again."""
CALL_TIMEOUT = 60.0
LAST_CALL = 5.0
"""Seconds that the end of the run waits for a call that is going on."""
STILL_IN_USE = "something else still runs there"


class Shrinker(Retirement):
    """Gives the nodes of one run back.

    `command` is run by /bin/sh in `directory`, because scontrol leaves scripts where it is called. Its
    environment is that of a retire command, with SLURM_JOBID; DRIVER_NODE is the driver's node if no engine
    is there. `notify_user` gets one line if nodes cannot be given back.
    """

    def __init__(
        self,
        allocation: Allocation,
        command: str,
        directory: str,
        notify_user: Callable[[str], None],
        *,
        run: commands.Run = commands.run,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self._allocation = allocation
        self._command = in_directory(directory, [SHELL, "-c", command])
        self._notify_user = notify_user
        self._run = run
        self._sleep = sleep
        self._clock = clock or asyncio.get_running_loop().time
        self._calling = False
        self._notified = False
        self._next = 0.0
        """When the job may be changed again, by the clock."""

    def left(self, node: str, return_code: int, *, spare: bool) -> None:
        """Give the node back soon, if it is spare."""
        if spare and not self._over and node not in self._allocation.keep:
            self._waiting[node] = return_code
            self._start(self._shrink_repeatedly)

    async def finish(self) -> None:
        """Start no further call, and wait a moment for one that is going on."""
        self._over = True
        if self._task is None or self._task.done():
            return
        if self._calling:
            await asyncio.wait([self._task], timeout=LAST_CALL)
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._waiting:
            log.info("not given back, the run is over: %s", ",".join(self._waiting))

    async def _shrink_repeatedly(self) -> None:
        await self._sleep(max(JOIN_DELAY, self._next - self._clock()))
        waits = iter(RETRIES)
        while self._waiting and not self._over:
            problem = await self._shrink()
            if problem is None:
                waits, wait = iter(RETRIES), PAUSE
                self._next = self._clock() + PAUSE
            else:
                log.info("%s: not given back yet: %s", ",".join(self._waiting), problem)
                wait = next(waits, 0.0)
                if not wait:
                    self._report(problem)
                    return
            if self._waiting and not self._over:
                await self._sleep(wait)

    def _report(self, problem: str) -> None:
        if not self._notified and problem != STILL_IN_USE:
            self._notified = True
            self._notify_user(f"{short_list(list(self._waiting))}: cannot be given back to Slurm: {problem}")

    async def _shrink(self) -> str | None:
        """Take out of the job what can be. What went wrong, or None if there is nothing to say."""
        job = self._allocation.job
        try:
            nodes = (await job_facts(job, self._run)).nodes or []
            for node in set(self._waiting).difference(nodes):
                del self._waiting[node]  # it is gone already
            if not self._waiting:
                return None
            used = await nodes_in_use(job, list(self._waiting), self._run)
        except SlurmSilentError as error:
            return str(error)
        free = [node for node in self._waiting if node not in used]
        left = [node for node in nodes if node not in free]
        if not free or not left:
            return STILL_IN_USE
        return await self._call(free, left)

    async def _call(self, free: list[str], left: list[str]) -> str | None:
        own, active, driver_node = self._allocation.own_node, left, ""
        if own in left and len(left) > 1 and own not in self._active:
            active, driver_node = [node for node in left if node != own], own
        nodes = {node: self._waiting[node] for node in free}
        environment = self._environment(nodes, active, driver_node) | {"SLURM_JOBID": self._allocation.job}
        self._calling = True
        try:
            problem = (await self._run(self._command, environment, CALL_TIMEOUT)).problem
        finally:
            self._calling = False
        if problem is None:
            log.info("gave %s back; the job keeps %s", ",".join(free), ",".join(left))
            self._retired += free
            for node in free:
                self._waiting.pop(node, None)
        return problem
