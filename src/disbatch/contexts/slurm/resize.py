"""Gives nodes back to Slurm while the run goes on: makes the job smaller with the default retire command.

Theory of operation
-------------------
A job is made smaller by naming the nodes that it keeps. Others may change the job, too (another run in the
same job, an administrator, a node that died), and a node that the list forgets is lost to all that runs
there. So each call looks first: which nodes does the job have now, and does anything else still run on
those that we have done with? It then names all but these. Nodes with an engine that is still on its way,
nodes that we never used, and dead nodes that Slurm has not noticed yet stay in the list by themselves.

Only nodes that were given back as spare are taken out of the job. What engines leave at the end of the run
stays: the batch script goes on, or ends and gives everything back.

A call may be refused ("try again in a bit"), or a node may still be in use: both are tried again after a
while, the whole from its beginning, with what was given back meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from disbatch.contexts import command as commands
from disbatch.contexts.command import in_directory
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


class Shrinker:
    """The nodes that one run gives back; a `Retirement`.

    `command` is run by /bin/sh in `directory`, because scontrol leaves scripts where it is called. It finds
    SLURM_JOBID, ACTIVE, DRIVER_NODE (the driver's node, if no engine is there), NODE(S), RETCODE(S) and
    RETIRED. `trouble(text)` gets one line if nodes cannot be given back.
    """

    def __init__(
        self,
        allocation: Allocation,
        command: str,
        directory: str,
        trouble: Callable[[str], None],
        *,
        run: commands.Run = commands.run,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._allocation = allocation
        self._command = in_directory(directory, ["/bin/sh", "-c", command])
        self._trouble = trouble
        self._run = run
        self._sleep = sleep
        self._clock = clock or asyncio.get_running_loop().time
        self._active: dict[str, int] = {}
        self._returned: dict[str, int] = {}
        """Nodes that wait to be taken out of the job, and how their engines ended."""
        self._retired: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._calling = False
        self._over = False
        self._told = False
        self._next = 0.0
        """When the job may be changed again, by the clock."""

    def joined(self, node: str) -> None:
        """An engine is there on the node, which is in use (again)."""
        self._active[node] = self._active.get(node, 0) + 1
        self._returned.pop(node, None)

    def retire(self, node: str, return_code: int, *, spare: bool) -> None:
        """An engine of the node is gone; the node is given back if it was the last there, and spare."""
        if node not in self._active:
            return
        self._active[node] -= 1
        if self._active[node]:
            return
        del self._active[node]
        if not spare or self._over or node in self._allocation.keep:
            return
        self._returned[node] = return_code
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._course())

    async def finish(self) -> None:
        """Begin no further call, and wait a moment for one that is going on."""
        self._over = True
        if self._task is None or self._task.done():
            return
        if self._calling:
            await asyncio.wait([self._task], timeout=LAST_CALL)
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._returned:
            log.info("not given back, the run is over: %s", ",".join(self._returned))

    def abandon(self) -> None:
        """End the call that is going on, and make no other."""
        self._over = True
        if self._task is not None:
            self._task.cancel()

    async def _course(self) -> None:
        await self._sleep(max(JOIN_DELAY, self._next - self._clock()))
        waits = iter(RETRIES)
        while self._returned and not self._over:
            problem = await self._shrink()
            if problem is None:
                waits, wait = iter(RETRIES), PAUSE
                self._next = self._clock() + PAUSE
            else:
                log.info("%s: not given back yet: %s", ",".join(self._returned), problem)
                wait = next(waits, 0.0)
                if not wait:
                    self._tell(problem)
                    return
            if self._returned and not self._over:
                await self._sleep(wait)

    def _tell(self, problem: str) -> None:
        if not self._told and problem != STILL_IN_USE:
            self._told = True
            self._trouble(f"{short_list(list(self._returned))}: cannot be given back to Slurm: {problem}")

    async def _shrink(self) -> str | None:
        """Take out of the job what can be. What went wrong, or None if there is nothing to say."""
        job = self._allocation.job
        try:
            nodes = (await job_facts(job, self._run)).nodes or []
            for node in set(self._returned).difference(nodes):
                del self._returned[node]  # it is gone already
            if not self._returned:
                return None
            used = await nodes_in_use(job, list(self._returned), self._run)
        except SlurmSilentError as error:
            return str(error)
        free = [node for node in self._returned if node not in used]
        left = [node for node in nodes if node not in free]
        if not free or not left:
            return STILL_IN_USE
        return await self._call(free, left)

    async def _call(self, free: list[str], left: list[str]) -> str | None:
        codes = [str(self._returned[node]) for node in free]
        own, active = self._allocation.own_node, left
        environment = {name: value for name, value in os.environ.items() if name != "DRIVER_NODE"}
        if own in left and len(left) > 1 and own not in self._active:
            environment["DRIVER_NODE"] = own
            active = [node for node in left if node != own]
        environment |= {
            "SLURM_JOBID": self._allocation.job,
            "NODE": free[0],
            "RETCODE": codes[0],
            "NODES": ",".join(free),
            "RETCODES": ",".join(codes),
            "ACTIVE": ",".join(active),
            "RETIRED": ",".join([*self._retired, *free]),
        }
        self._calling = True
        try:
            problem = (await self._run(self._command, environment, CALL_TIMEOUT)).problem
        finally:
            self._calling = False
        if problem is None:
            log.info("gave %s back; the job keeps %s", ",".join(free), ",".join(left))
            self._retired += free
            for node in free:
                self._returned.pop(node, None)
        return problem
