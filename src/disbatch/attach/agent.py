"""Launch a context's engines for a run that another process drives, and stay until they have left.

Theory of operation
-------------------
The engines are announced to the driver, then started as the driver would start its own; from then on they
talk to the driver, not to us. What we know first (a launch that failed, a process that ended) we report to
the driver. What the driver knows first (an engine joined, left or is lost) it tells us in answer to a long
poll. Both survive a driver that is killed and taken over: requests are sent again until they are answered.

We stay because something ends with us: an allocation, tunnels, the command that gives nodes back. We wait for
an engine until the driver says that it left, or until the process that we started for it has ended; one that
is lost may come back, as long as its process lives. When the run is over, or when no driver was heard for as
long as the engines wait for one, we wait for none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import zmq

from disbatch.attach.addresses import DriverAddresses, environment_of_tasks
from disbatch.attach.engines import LaunchedEngine, LaunchedEngines
from disbatch.client.run_client import IS_OVER, OverError, RunClient, line_opener
from disbatch.contexts.context import Preempted
from disbatch.contexts.launcher import Launcher
from disbatch.contexts.node_messages import NodeMessages
from disbatch.contexts.pool import Pool
from disbatch.contexts.retire import choose_retirement
from disbatch.contexts.walltime import TIME_IS_UP, TimeLimit, grace_within
from disbatch.driver.engine_orders import BootstrapFactory
from disbatch.model.errors import (
    EXIT_COMPLETE,
    EXIT_INCOMPLETE,
    SIGNAL_EXIT,
    DisbatchError,
    LaunchError,
    SilenceError,
    UsageError,
)
from disbatch.plan.events import Drain, Stop
from disbatch.rundir.output_manifest import Output
from disbatch.rundir.paths import RunFiles
from disbatch.wire.client_protocol import (
    MOST_NODES,
    Answer,
    Attach,
    Attached,
    Detach,
    Ended,
    Event,
    Fate,
    Heed,
    Newcomer,
    News,
    Verb,
)
from disbatch.wire.connect import ConnectFile

PATIENCE = 10.0
"""Seconds that the driver has to accept the context."""
LEAST_MISSED = 30.0
"""Seconds that a started engine has at least to join."""
SEE_OFF = 1.0
"""Seconds after its Goodbye at which an engine's process and tunnel are ended."""


class Attachment:
    """Attaches the nodes of `pool` to the run whose files begin with `prefix`; `run` returns the exit code.
    `output`: the run's --output. `say` gets lines for the user; `enter` gets the environment of tasks, for
    commands that are started here. UsageError if the driver refuses the context, SilenceError if it does not
    answer."""

    def __init__(
        self,
        pool: Pool,
        connect: ConnectFile,
        prefix: str,
        output: Output | None,
        *,
        hostname: str,
        say: Callable[[str], None],
        enter: Callable[[Mapping[bytes, bytes]], None],
    ) -> None:
        if len(pool.nodes) > MOST_NODES:
            raise UsageError(f"at most {MOST_NODES:,} nodes at a time")
        self._pool = pool
        self._connect = connect
        self._prefix = prefix
        self._output = output
        self._hostname = hostname
        self._write = say
        self._enter = enter
        self._told: Attached | None = None
        self._history = 0
        self._heeding: asyncio.Task[Answer] | None = None
        self._abandoned = False
        self._calls: set[asyncio.Task[None]] = set()
        self._signal = 0
        self._signals = 0
        self._interrupted = asyncio.Event()
        self._leaving = asyncio.Event()
        self._error: BaseException | None = None

    async def run(self) -> int:
        """Attach, and stay."""
        loop = self._loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._broke)
        self._messages = NodeMessages(loop, self._write)
        self._say = self._messages.notify
        self._engines = LaunchedEngines(self._pool, self._hostname, self._messages)
        with zmq.Context() as context, tempfile.TemporaryDirectory(prefix="disbatch-") as folder:
            self._addresses = DriverAddresses(self._connect, self._pool)
            self._client = RunClient(
                *(line_opener(context), self._connect, self._prefix), notify_user=self._notify_user
            )
            try:
                attaching = loop.create_task(self._attach())
                if await self._unless_left(attaching):
                    await self._stay(attaching.result(), folder)
            finally:
                self._messages.flush()
                for call in self._calls:
                    call.cancel()
                self._client.close()
        if self._error is not None:
            raise self._error
        return self._exit_code()

    def _exit_code(self) -> int:
        if self._signal:
            return SIGNAL_EXIT + self._signal
        none_came = self._engines.failures > 0 and not self._engines.came
        return EXIT_INCOMPLETE if self._abandoned or none_came else EXIT_COMPLETE

    def interrupt(self, number: int) -> None:
        """A signal came: the first detaches our engines, whose tasks run elsewhere; the second does not wait
        for that."""
        if self._signals and number == signal.SIGHUP:
            return
        self._signals += 1
        self._signal = self._signal or number
        self._interrupted.set()
        if self._signals > 1:
            self._leaving.set()
            return
        runs = "leaving; what runs here runs again elsewhere" if self._told is not None else "leaving"
        self._say(f"{signal.Signals(number).name}: {runs}; once more to leave at once")
        self._leave()

    def _leave(self) -> None:
        if self._told is not None:
            self._tell(Detach(self._told.context))

    def _broke(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised an unexpected exception."""
        self._error = context.get("exception") or RuntimeError(context.get("message"))
        self._leaving.set()

    async def _unless_left(self, task: asyncio.Task[Any]) -> bool:
        """Wait for the task, and raise what it raises; False if we must leave at once."""
        leaving = self._loop.create_task(self._leaving.wait())
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not task.done():
            task.cancel()
            return False
        task.result()
        return True

    # ---- attach and launch ----

    async def _attach(self) -> Attached:
        pool, context = self._pool, self._pool.context
        verb = Attach(
            label=pool.label,
            host=self._hostname,
            pid=os.getpid(),
            nodes=[Newcomer(each.id, each.name, each.node.slots) for each in self._engines.engines.values()],
            limit=pool.task_limit,
            spare_after=pool.spare_after,
            keep=sorted(pool.context.keep),
            scheduled=bool(context.scheduler),
            kill_wait=context.kill_wait,
            far=self._addresses.wants_port,
        )
        answer = await self._client.ask(verb, PATIENCE)
        if not answer.ok:
            raise UsageError(" ".join(answer.lines))
        assert isinstance(answer.value, Attached)
        return answer.value

    async def _stay(self, told: Attached, folder: str) -> None:
        self._told = told
        if self._addresses.wants_port:
            connect = msgspec.structs.replace(self._connect, addresses=told.addresses)
            self._addresses = DriverAddresses(connect, self._pool)
        limit = self._time_limit(told)
        if limit.too_late:
            await self._tell_surely(Detach(told.context))
            raise DisbatchError(limit.too_late)
        environment = environment_of_tasks(told.environment, os.environb, told.directory)
        self._enter(environment)
        self._addresses.prefer(self._client.proven)
        self._engines.retirement = choose_retirement(self._pool, self._hostname, folder, self._say)
        self._launcher = self._new_launcher()
        if self._signal:
            self._leave()
        else:
            self._launch(told, environment)
        limit.start()
        try:
            await self._unless_left(self._loop.create_task(self._until_left()))
        finally:
            limit.close()
            await self._close()

    def _time_limit(self, told: Attached) -> TimeLimit:
        return TimeLimit(
            *(self._pool, grace_within(self._pool.context.kill_wait, told.grace)),
            notify_user=self._say,
            handle_event=self._time_is_up,
            engines=lambda: [told.context],
            launches_end=lambda: None,
            end_is_near=lambda grace: None,
            then="runs again elsewhere",
        )

    def _time_is_up(self, event: Drain | Stop) -> None:
        kindly = isinstance(event, Drain)
        if kindly and self._pool.time_limit_margin is None:
            return  # tasks are ended at the same moment
        why = "the allocation ends soon" if kindly else TIME_IS_UP
        self._tell(Detach(event.engine, kindly, why))

    def _new_launcher(self) -> Launcher:
        pool = self._pool
        return Launcher(
            self._loop,
            pool.context,
            on_started=self._started,
            on_failed=self._failed,
            on_exit=self._exited,
            on_trouble=self._say,
            ssh=pool.ssh,
            tunnel_to=self._addresses.tunnel_end if pool.tunnel else None,
        )

    def _launch(self, told: Attached, environment: dict[bytes, bytes]) -> None:
        prefix = Path(os.fsdecode(told.prefix))
        self._files = RunFiles(prefix, prefix, Path(os.fsdecode(told.known)) if told.known else None)
        keys = self._connect.keys
        orders = BootstrapFactory(
            *(self._pool, told.directory, environment, self._files, keys),
            orphan_patience=told.orphan_patience,
            by_driver=False,
            output=self._output,
        )
        for each in self._engines.engines.values():
            addresses = self._addresses.of(each.node)
            bootstrap = orders.bootstrap(each.node, name=each.name, engine=each.id, addresses=addresses)
            self._launcher.start(each.node, bootstrap)

    # ---- reports to the driver ----

    def _started(self, engine: str) -> None:
        assert self._told is not None
        patience = max(2 * self._told.patience, LEAST_MISSED)
        self._loop.call_later(patience, self._missed, engine, patience)

    def _missed(self, engine: str, patience: float) -> None:
        launched = self._engines.engines[engine]
        if launched.joined or not launched.staying:
            return
        if self._client.silence is not None:  # there was no driver to join
            self._loop.call_later(patience, self._missed, engine, patience)
            return
        log = self._files.engine_log(launched.name)
        self._failed(engine, LaunchError(launched.name, f"its engine started but did not join; see {log}"))
        self._launcher.end(engine)

    def _failed(self, engine: str, error: LaunchError) -> None:
        self._engines.failed(self._engines.engines[engine], str(error))
        self._ended(engine, came=False, return_code=0, words=str(error))
        self._give_up_if_alone()

    def _exited(self, engine: str, return_code: int, words: str) -> None:
        if self._engines.exited(self._engines.engines[engine], return_code, words):
            self._ended(engine, came=True, return_code=return_code, words=words)
        self._give_up_if_alone()

    def _ended(self, engine: str, *, came: bool, return_code: int, words: str) -> None:
        assert self._told is not None
        self._tell(Ended(self._told.context, engine, came, return_code, words[:4096]))

    def _tell(self, verb: Verb) -> None:
        """Send a request to the driver, as soon as there is one."""
        call = self._loop.create_task(self._tell_surely(verb))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _tell_surely(self, verb: Verb) -> None:
        assert self._told is not None
        with contextlib.suppress(SilenceError):
            await self._client.ask(verb, self._told.orphan_patience)

    # ---- news from the driver ----

    async def _until_left(self) -> None:
        await self._heed()
        if self._engines.ended_by_others and not self._signals:
            # If the script ended by itself now, the job would count as done and would not be started again.
            state = await self._pool.context.job_state()
            if isinstance(state, Preempted):
                self._say(state.words)
                if state.again is not False:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._interrupted.wait(), state.left)

    async def _heed(self) -> None:
        assert self._told is not None
        self._client.patience = self._told.orphan_patience
        context, known = self._told.context, 0
        while self._engines.is_staying:
            self._heeding = self._loop.create_task(self._client.ask(Heed(context, known, self._history)))
            try:
                await asyncio.wait([self._heeding])
                news = None if self._heeding.cancelled() else self._news(self._heeding.result())
            except OverError as error:
                self._say(str(error))
                return
            except SilenceError as error:
                self._give_up(str(error))
                return
            finally:
                self._heeding.cancel()
            if news is None:
                return
            self._history, known = news.history, news.since + len(news.events)

    def _notify_user(self, text: str) -> None:
        """The driver is silent, or is heard again."""
        self._say(text)
        self._give_up_if_alone()

    def _give_up_if_alone(self) -> None:
        """Do not wait for another driver when no engine is left."""
        silence = self._client.silence
        if self._heeding is None or silence is None or self._engines.is_staying:
            return
        if self._heeding.cancel():
            self._give_up(silence.words)

    def _give_up(self, words: str) -> None:
        self._abandoned = True
        self._say(f"{words}; giving up")

    def _news(self, answer: Answer) -> News | None:
        """The news in the answer; None if there will be no more."""
        news = answer.value
        if not isinstance(news, News):
            self._say(" ".join(answer.lines))
            return None
        if news.over:
            self._say(IS_OVER)
            self._client.close()  # the driver waits for that
            return None
        for event in news.events:
            if event.engine in self._engines.engines:
                self._became(event, self._engines.engines[event.engine])
        return news

    def _became(self, event: Event, launched: LaunchedEngine) -> None:
        self._engines.became(launched, event.fate)
        if event.fate in (Fate.LEFT, Fate.SPARE):
            self._loop.call_later(SEE_OFF, self._launcher.end, event.engine)
        elif event.fate is Fate.LOST and launched.node.local:
            self._launcher.end(event.engine)

    # ---- the end ----

    async def _close(self) -> None:
        patience = 1.0 if self._signals > 1 else 5.0
        await self._engines.go(at_once=self._signals > 1)
        if self._calls and self._signals < 2:
            await asyncio.wait(self._calls, timeout=patience)
        await self._launcher.close(patience, self._engines.lost)
