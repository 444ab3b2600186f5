"""Starts a context's engines for a run that another process drives, and stays until they have left.

Theory of operation
-------------------
The engines are announced to the driver, then started as the driver would start its own; from then on they
talk to the driver, not to us. What we know before the driver (a launch that failed, a process that ended) we
tell it; what it knows before us (an engine joined, left or is lost) it tells us, in answer to a request that
waits. Both survive a driver that is killed and taken over: requests are sent again until they are answered.

We stay because of what ends with us: Slurm's allocation, tunnels, the command that gives nodes back. An
engine is done with when the driver says that it left, or when the process that we started for it has ended;
one that is lost may come back, as long as its process lives. When the run is over, or its driver was not
heard for as long as the engines wait for one, nobody is waited for any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import zmq

from disbatch.attach.reach import Reach, environment_of_tasks
from disbatch.contexts.context import Context
from disbatch.contexts.launch import Launcher
from disbatch.driver.files import RunFiles
from disbatch.driver.retirement import choose_retirement
from disbatch.driver.settings import Output
from disbatch.driver.starting import Orders
from disbatch.driver.timelimit import TimeLimit
from disbatch.model.errors import (
    EXIT_COMPLETE,
    EXIT_INCOMPLETE,
    SIGNAL_EXIT,
    LaunchError,
    SilenceError,
    UsageError,
)
from disbatch.plan.events import Drain
from disbatch.wire.caller import Caller
from disbatch.wire.keys import ConnectFile
from disbatch.wire.requests import Attach, Attached, Detach, Ended, Event, Fate, Heed, Newcomer, News, Verb

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that the driver has to let us in."""
HEED_PATIENCE = 20.0
"""Seconds without any answer, after which the driver may be dead: it answers every 10."""
SEE_OFF = 1.0
"""Seconds after its Goodbye at which an engine's process and tunnel are looked after."""


class Attachment:
    """`run` carries it out; the exit code. `output`: what the run keeps of what tasks print. `is_on()` tells
    whether the run goes on, as far as can be seen; `say` gets lines for the user. UsageError if the driver
    does not let us in, SilenceError if it does not answer."""

    def __init__(
        self,
        context: Context,
        connect: ConnectFile,
        output: Output | None,
        *,
        hostname: str,
        is_on: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self._context = context
        self._connect = connect
        self._output = output
        self._hostname = hostname
        self._is_on = is_on
        self._say = say
        token = secrets.token_hex(8)
        self._nodes = {f"a{n}-{token}": node for n, node in enumerate(context.nodes)}
        self._staying = set(self._nodes)
        """Engines that may be there, or come."""
        self._joined: set[str] = set()
        self._codes: dict[str, int] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._signal = 0
        self._signals = 0
        self._leaving = asyncio.Event()

    async def run(self) -> int:
        """Attach, and stay."""
        loop = self._loop = asyncio.get_running_loop()
        with zmq.Context() as context, tempfile.TemporaryDirectory(prefix="disbatch-") as folder:
            reach = Reach(self._connect, self._context)
            self._caller = Caller(loop, context, self._connect)
            try:
                self._attached = await self._attach()
                await self._stay(reach, folder)
            finally:
                for call in self._calls:
                    call.cancel()
                self._caller.close()
        if self._signal:
            return SIGNAL_EXIT + self._signal
        return EXIT_COMPLETE if self._joined else EXIT_INCOMPLETE

    def interrupt(self, number: int) -> None:
        """A signal came: the first lets our engines go, their tasks to be run elsewhere; the second does not
        wait for that."""
        if self._signals and number == signal.SIGHUP:
            return
        self._signals += 1
        self._signal = self._signal or number
        if self._signals > 1:
            self._leaving.set()
            return
        name = signal.Signals(number).name
        self._say(f"{name}: leaving; what runs here runs again elsewhere; once more to leave at once")
        self._tell(Detach(self._name))

    # ---- coming ----

    @property
    def _name(self) -> str:
        return self._attached.context

    def _name_of(self, engine: str) -> str:
        return self._context.name_of(self._nodes[engine], self._hostname)

    async def _attach(self) -> Attached:
        context = self._context
        verb = Attach(
            label=context.label,
            host=self._hostname,
            pid=os.getpid(),
            nodes=[Newcomer(e, self._name_of(e), node.slots) for e, node in self._nodes.items()],
            limit=context.task_limit,
            spare_after=context.spare_after,
            keep=sorted(context.keep),
            scheduled=context.allocation is not None,
        )
        answer = await self._caller.call(verb, PATIENCE)
        if not answer.ok:
            raise UsageError(" ".join(answer.lines))
        assert isinstance(answer.value, Attached)
        return answer.value

    async def _stay(self, reach: Reach, folder: str) -> None:
        told, context = self._attached, self._context
        environment = environment_of_tasks(told.environment, os.environb, told.directory)
        os.environb.clear()
        os.environb.update(environment)  # for what we start here: srun passes it on
        prefix = Path(os.fsdecode(told.prefix))
        orders = Orders(
            *(context, told.directory, environment, RunFiles(prefix, prefix), self._connect.keys),
            orphan_patience=told.orphan_patience,
            by_driver=False,
            output=self._output,
        )
        self._retirement = choose_retirement(context, self._hostname, folder, self._say)
        self._launcher = Launcher(
            self._loop,
            on_started=lambda engine: None,
            on_failed=self._failed,
            on_exit=self._exited,
            on_trouble=self._say,
            ssh=context.ssh,
            srun=context.srun,
            tunnel_to=reach.tunnel_end if context.tunnel else None,
        )
        limit = TimeLimit(
            *(context, told.grace),
            say=self._say,
            tell=lambda event: self._tell(Detach(self._name, kindly=isinstance(event, Drain))),
            engines=lambda: [self._name],
            launches_end=lambda: None,
            end_is_near=lambda grace: None,
        )
        for engine, node in self._nodes.items():
            name, addresses = self._name_of(engine), reach.addresses(node)
            self._launcher.start(node, orders.bootstrap(node, name=name, engine=engine, addresses=addresses))
        limit.start()
        try:
            await self._heed_until_left()
        finally:
            limit.close()
            await self._close()

    # ---- what we tell ----

    def _failed(self, engine: str, error: LaunchError) -> None:
        self._say(str(error))
        self._tell(Ended(self._name, engine, came=False, return_code=0, words=str(error)[:4096]))
        self._left(engine, spare=False)

    def _exited(self, engine: str, return_code: int, words: str) -> None:
        self._codes[engine] = return_code
        if engine in self._staying:
            if return_code:
                self._say(f"{self._name_of(engine)}: {words}")
            self._tell(Ended(self._name, engine, came=True, return_code=return_code, words=words[:4096]))
            self._left(engine, spare=False)

    def _tell(self, verb: Verb) -> None:
        """Tell the driver, as soon as there is one."""
        call = self._loop.create_task(self._tell_surely(verb))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _tell_surely(self, verb: Verb) -> None:
        with contextlib.suppress(SilenceError):
            await self._caller.call(verb, self._attached.orphan_patience)

    # ---- what we hear ----

    async def _heed_until_left(self) -> None:
        heeding = self._loop.create_task(self._heed())
        leaving = self._loop.create_task(self._leaving.wait())
        done, pending = await asyncio.wait((heeding, leaving), return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()

    async def _heed(self) -> None:
        driver, known, heard, silent = 0, 0, self._loop.time(), False
        while self._staying:
            try:
                answer = await self._caller.call(Heed(self._name, driver, known), HEED_PATIENCE)
            except SilenceError as error:
                if not self._is_on():
                    self._say("the run is over")
                    return
                if self._loop.time() - heard > self._attached.orphan_patience + HEED_PATIENCE:
                    self._say(f"{error}; its engines have given it up")
                    return
                if not silent:
                    self._say(f"{error}; waiting for it, or for one that takes the run over")
                silent = True
                continue
            if silent:
                self._say("the driver is heard again")
            heard, silent = self._loop.time(), False
            news = answer.value
            if not isinstance(news, News):
                self._say(" ".join(answer.lines))
                return
            if news.over:
                return
            for event in news.events:
                self._became(event)
            driver, known = news.driver, news.since + len(news.events)

    def _became(self, event: Event) -> None:
        engine = event.engine
        if engine not in self._nodes:
            return
        if event.fate is Fate.JOINED:
            self._join(engine)
        elif event.fate is Fate.LOST:
            self._say(f"{self._name_of(engine)}: the driver does not hear its engine any more")
            if self._nodes[engine].local:
                self._launcher.end(engine)
        else:
            self._loop.call_later(SEE_OFF, self._launcher.end, engine)
            self._left(engine, spare=event.fate is Fate.SPARE)

    def _join(self, engine: str) -> None:
        self._staying.add(engine)
        if engine not in self._joined:
            self._joined.add(engine)
            slots = self._nodes[engine].slots
            self._say(f"{self._name_of(engine)}: joined with {slots} slot{'' if slots == 1 else 's'}")
        if self._retirement is not None:
            self._retirement.joined(self._name_of(engine))

    def _left(self, engine: str, *, spare: bool) -> None:
        if engine not in self._staying:
            return
        self._staying.discard(engine)
        if self._retirement is not None:
            self._retirement.retire(self._name_of(engine), self._codes.get(engine, 0), spare=spare)

    # ---- going ----

    async def _close(self) -> None:
        patience = 1.0 if self._signals > 1 else 5.0
        if self._retirement is not None:
            if self._signals > 1:
                self._retirement.abandon()
            for engine in sorted(self._staying & self._joined):
                self._left(engine, spare=False)
            await self._retirement.finish()
        if self._calls and self._signals < 2:
            await asyncio.wait(self._calls, timeout=patience)
        await self._launcher.close(patience)
