"""One engine: messages in, tasks run, results out, and a complete clean-up however it ends.

Theory of operation
-------------------
Everything happens in callbacks on one loop: `Runner` runs tasks, `Outbox` sends and keeps results,
`EngineLink` exchanges messages, `KeeperClient` listens to the keeper. The engine's own life is one coroutine,
`run`: it waits for a reason to depart, and then departs:

| reason | what happens | exit status |
|---|---|---|
| Leave, and every task has ended and is acknowledged | | 0 |
| neither the driver nor a successor was heard for `orphan_patience` | tasks are ended | 3 |
| no driver ever answered: standard input ended, or the first patience is over | | 3 |
| Refuse | tasks are ended | 4 |
| an error in the engine itself | the keeper ends the tasks | 1 |
| SIGTERM, SIGINT, SIGHUP (twice: at once) | tasks are ended, their outcomes delivered | 128 + signal |
| the keeper was killed, or there is not room for a single task | the same | 1 |

A child of the driver knows that its driver lives as long as its standard input is open, and waits without
limit until then; after that, and for all other engines, only messages tell (a child of an attached context is
such an engine: the process that started it may outlive the driver). An engine that hears nothing continues
with the tasks that it has, since another driver may take the run over.

A scheduler signals an engine in its job together with all its tasks, see `scheduler_signals`. Signals by
which jobs send messages to their programs (SIGUSR1, SIGUSR2) are for the tasks, and do nothing to the engine.

In every case, processes that ended tasks left running are ended, and results that no driver has acknowledged
are written beside the log. Each signal counts once, whether it was sent to the engine, to its keeper or, as
schedulers do, to both.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple

import zmq

from disbatch.engine import session_file
from disbatch.engine.bootstrap import Ready, remove_socket
from disbatch.engine.capture import Counting
from disbatch.engine.environment import TaskEnvironment
from disbatch.engine.keeper import Keeper
from disbatch.engine.keeper_client import KeeperClient
from disbatch.engine.limits import raise_descriptor_limit
from disbatch.engine.liveness import DriverWatch, node_load
from disbatch.engine.outbox import Outbox, write_unrecorded
from disbatch.engine.process_tree import boot_id, look, watch_children
from disbatch.engine.scheduler_signals import SignalFilter
from disbatch.engine.slots import Job, Runner
from disbatch.model.job import is_job
from disbatch.model.log import LogFormatter
from disbatch.model.task import Ending, Outcome, Phase, Way
from disbatch.model.text import valid
from disbatch.model.version import VERSION
from disbatch.wire.engine_protocol import (
    AS_TOLD,
    MAX_ATTEMPTS,
    PROTOCOL,
    Beat,
    Claim,
    End,
    Goodbye,
    Hello,
    Leave,
    Pulse,
    Recall,
    Recalled,
    Refuse,
    Start,
    StartPerEngine,
    ToEngine,
    Trouble,
    Welcome,
)
from disbatch.wire.engine_socket import EngineLink

if TYPE_CHECKING:
    from disbatch.engine.output import Output

log = logging.getLogger("disbatch.engine")

EXIT_FAILED = 1
EXIT_ORPHANED = 3
EXIT_REFUSED = 4

GOODBYE_PATIENCE = 5.0
"""Seconds for the driver to receive the last results."""
MOST_RUNNING_TOLD = 20_000
"""The most running attempts in one Beat: keeps it below MAX_FROM_ENGINE."""
LONGEST_TROUBLE = 4000
MOST_ERRORS_TOLD = 10


class Departure(NamedTuple):
    """Why the engine departs. `deliver`: the driver is there to receive results and expects Goodbye."""

    reason: str
    status: int
    deliver: bool


class Engine:
    """Carries out the orders of one driver on this node; see the module's docstring."""

    def __init__(self, ready: Ready, keeper: Keeper, loop: asyncio.AbstractEventLoop) -> None:
        bootstrap = ready.bootstrap
        self._ready = ready
        self._keeper = keeper
        self._bootstrap = bootstrap
        self._loop = loop
        self._departure: asyncio.Future[Departure] = loop.create_future()
        self._idle = asyncio.Event()
        self._delivered = asyncio.Event()
        self._leaving = False
        self._errors = 0
        self._ran: set[tuple[Phase, int]] = set()
        """PERENGINE commands that have delivered their outcome."""
        self._environment = TaskEnvironment(
            ready.environment, bootstrap.engine, bootstrap.cores_per_task, ready.division
        )
        # Before the ZeroMQ context: it aborts the process if there are no descriptors, and its new thread
        # might receive the signal that a child has ended.
        files = raise_descriptor_limit(ready.division.slots)
        children = watch_children()
        self._context = zmq.Context()
        self._link = EngineLink(
            loop,
            self._context,
            bootstrap,
            hello=self._hello,
            receive=self._receive,
            acknowledged=self._acknowledged,
            bad=lambda problem: log.warning("from the driver: %s", problem),
        )
        self._driver = DriverWatch(
            loop,
            bootstrap,
            heard=lambda: self._link.heard,
            beat=self._beat,
            orphaned=lambda reason: self._go(reason, EXIT_ORPHANED, deliver=False),
        )
        self._keeper_client = KeeperClient(loop, keeper, self._keeper_signalled, self._keeper_died)
        self._signals = [0, 0]
        """The number of signals to the engine, and to its keeper."""
        self._in_job = bootstrap.way is Way.STEP or is_job(os.environb)
        self._output = self._keep_output()
        self._filter = SignalFilter(
            loop, self._ended if self._output is None else self._output.add, hold=self._in_job
        )
        self._runner = self._make_runner(files, children)
        self._outbox = Outbox(
            loop, self._link, lambda: self._link.session.unacknowledged, lambda: self._runner.waiting
        )

    def _make_runner(self, files: tuple[int, int] | None, children: int | None) -> Runner:
        runner = Runner(
            self._loop,
            self._environment,
            self._ready.division,
            self._keeper_client,
            self._output or Counting(),
            ended=self._filter.add,
            idle=self._on_idle,
            report=log.warning,
            trouble=self._trouble,
            files=files,
            children=children,
            no_room=lambda reason: self._go(reason, EXIT_FAILED, deliver=True),
        )
        if self._output is not None:
            self._output.room = runner.go_on
        return runner

    def _keep_output(self) -> Output | None:
        bootstrap = self._bootstrap
        if not bootstrap.output:
            return None
        from disbatch.engine.output import choose_output

        return choose_output(
            self._loop,
            bootstrap,
            self._driver.lease,
            give=self._ended,
            supply=lambda: self._runner.waiting,
            trouble=self._trouble,
            broken=lambda error: self._broken(self._loop, {"message": "keeping output", "exception": error}),
        )

    # ---- life ----

    async def run(self) -> int:
        """From the first Hello to the last message; the exit status."""
        self._loop.set_exception_handler(self._broken)
        self._heed_signals()
        self._link.connect(self._ready.address)
        for trouble in self._ready.troubles:
            self._trouble(trouble)
        self._driver.start()
        try:
            departure = await self._departure
            log.info("going: %s", departure.reason)
            await self._depart(departure)
        except Exception:
            # The keeper ends running tasks.
            log.exception("the engine failed")
            self._filter.release()
            if self._output is not None:
                self._output.release()
            self._write_unrecorded()
            return EXIT_FAILED
        return departure.status

    def _heed_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._signalled, number)
            if self._in_job:
                # Runs before the loop's own handler, which does nothing: the signal number wakes the loop.
                signal.signal(number, lambda *_: self._filter.note_signal())
                signal.siginterrupt(number, False)
        if self._in_job:
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, lambda *_: None)

    async def _depart(self, departure: Departure) -> None:
        self._runner.end_all(at_once=False)
        while self._runner.busy:
            self._idle.clear()
            await self._idle.wait()
        await self._end_leftovers()
        self._keeper_client.leave()
        self._filter.release()
        if self._output is not None:
            await self._output.close()
        if departure.deliver and self._driver.welcomed:
            self._outbox.post(Goodbye(departure.reason[:LONGEST_TROUBLE]))
            self._acknowledged()
            try:
                await asyncio.wait_for(self._delivered.wait(), GOODBYE_PATIENCE)
            except TimeoutError:
                log.warning("the driver did not acknowledge everything within %g s", GOODBYE_PATIENCE)
        self._write_unrecorded()
        if departure.status == EXIT_ORPHANED:
            remove_socket(self._ready.address)
        self._driver.close()
        self._link.close()
        self._context.destroy(linger=0)
        log.info("gone")

    async def _end_leftovers(self) -> None:
        gone = asyncio.Event()
        found = self._runner.end_leftovers(gone.set)
        if found:
            log.info("ending %d processes that ended tasks left running", found)
        await gone.wait()

    def _write_unrecorded(self) -> None:
        results = self._outbox.results()
        try:
            written = write_unrecorded(results, self._bootstrap.node, self._ready.log_path)
        except OSError:
            log.exception("results that no driver acknowledged could not be written: %r", results)
            return
        if written:
            log.warning("%d results that no driver acknowledged are in %s", written[1], written[0])

    def _go(self, reason: str, status: int, deliver: bool) -> None:
        """Depart, for the first reason that comes; after a later one, do not wait for a driver that is
        gone."""
        if not self._departure.done():
            self._departure.set_result(Departure(reason, status, deliver))
        elif not deliver:
            self._delivered.set()

    # ---- events ----

    def _keeper_died(self) -> None:
        self._trouble("its keeper, which ends tasks if the engine is killed, was killed itself")
        self._go("its keeper was killed", EXIT_FAILED, deliver=True)

    def _keeper_signalled(self, number: int) -> None:
        if self._in_job:
            self._filter.note_signal()
        self._signalled(number, by_keeper=True)

    def _signalled(self, number: int, *, by_keeper: bool = False) -> None:
        known = max(self._signals)
        self._signals[by_keeper] += 1
        if max(self._signals) == known:
            return
        if self._departure.done():
            self._runner.ender.hurry()
        log.info("got %s", signal.Signals(number).name)
        self._filter.release()
        self._go(f"ended by {signal.Signals(number).name}", 128 + number, deliver=True)

    def _broken(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        told = error if isinstance(error, BaseException) else None
        log.error("%s", context.get("message", "an error"), exc_info=told)
        self._errors += 1
        if self._errors <= MOST_ERRORS_TOLD:
            self._trouble(f"an error in the engine, see its log: {told!r}")

    def _trouble(self, text: str) -> None:
        log.warning("%s", text)
        self._outbox.post(Trouble(valid(text)[:LONGEST_TROUBLE]))

    def _beat(self) -> None:
        running = self._runner.running()[:MOST_RUNNING_TOLD]
        self._link.tell(Beat(running, self._runner.waiting, *node_load()))

    def _ended(self, job: Job, outcome: Outcome) -> None:
        if outcome.ending is Ending.ORDERED:
            log.info("attempt %d (line %d) ended by order", outcome.attempt, job.order.line)
        if job.phase is not None:
            self._ran.add((job.phase, job.order.task_id))
        self._outbox.add(job, outcome)

    def _on_idle(self) -> None:
        self._idle.set()
        if self._leaving:
            self._outbox.flush()
            self._leave_if_done()

    def _acknowledged(self) -> None:
        self._outbox.acknowledged()
        if self._departure.done():
            if self._outbox.empty:
                self._delivered.set()
        else:
            self._leave_if_done()

    def _leave_if_done(self) -> None:
        written = self._output is None or self._output.empty
        if self._leaving and not self._runner.busy and self._filter.empty and written and self._outbox.empty:
            self._go(AS_TOLD, 0, deliver=True)

    # ---- messages ----

    def _hello(self, orders_seen: int, results_from: int) -> Hello:
        log.info("connected to %s", self._ready.address)
        kept = [job for job, _ in self._outbox.results()]
        unwritten = [] if self._output is None else self._output.jobs()
        holding = kept + unwritten + self._filter.jobs() + self._runner.jobs()
        if len(holding) > MAX_ATTEMPTS:
            log.error("holding %d attempts, more than a Hello can name", len(holding))
        process = look(self._keeper.pid)
        return Hello(
            protocol=PROTOCOL,
            engine=self._bootstrap.engine,
            node=self._bootstrap.node,
            host=socket.gethostname(),
            pid=self._keeper.pid,
            slots=self._ready.division.slots,
            version=VERSION,
            orders_seen=orders_seen,
            results_from=results_from,
            holding=[Claim(j.order.attempt, j.order.task_id, j.phase) for j in holding[:MAX_ATTEMPTS]],
            ran=sorted(self._ran)[:MAX_ATTEMPTS],
            leaving=self._leaving,
            boot=boot_id(),
            started=0 if process is None else process.start,
            recorded=self._outbox.recorded,
        )

    def _receive(self, message: ToEngine) -> None:
        try:
            self._act(message)
        except Exception as error:
            # The boundary of one message: later ones are still processed.
            self._broken(self._loop, {"message": f"acting on {type(message).__name__}", "exception": error})

    def _act(self, message: ToEngine) -> None:
        match message:
            case Start(orders):
                self._runner.add(orders)
            case Welcome():
                self._on_welcome(message)
            case StartPerEngine(phase, order):
                self._runner.add_per_engine(phase, order)
            case Recall(attempts):
                self._on_recall(attempts)
            case End(attempts, at_once):
                self._runner.end(attempts, at_once)
            case Leave():
                log.info("told to leave")
                self._leaving = True
                self._outbox.flush()
                self._leave_if_done()
            case Refuse(reason):
                self._go(f"refused by the driver: {reason}", EXIT_REFUSED, deliver=False)
            case Pulse(known):
                self._driver.answered(known)

    def _on_welcome(self, welcome: Welcome) -> None:
        log.info("welcomed as engine %d of %s", welcome.rank, welcome.jobid)
        self._runner.ender.grace = welcome.grace
        self._environment.joined(welcome.rank, welcome.jobid, welcome.task_name)
        self._driver.welcome(welcome)

    def _on_recall(self, attempts: list[int]) -> None:
        given = self._runner.recall(attempts)
        for first in range(0, max(len(given), 1), MAX_ATTEMPTS):
            self._outbox.post(Recalled(given[first : first + MAX_ATTEMPTS]))
        self._leave_if_done()


async def run(ready: Ready, keeper: Keeper) -> int:
    """Run an engine from a checked Bootstrap until it departs; the exit status."""
    # A log that cannot be written (a full disk) must not print errors elsewhere.
    logging.raiseExceptions = False
    stream = io.TextIOWrapper(ready.log, encoding="utf-8", errors="backslashreplace", write_through=True)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    log.info(
        "engine %s on %s: %d slots, pid %d, its keeper %d, disbatch %s, python %s",
        *(ready.bootstrap.engine, ready.bootstrap.node, ready.division.slots, os.getpid(), keeper.pid),
        *(VERSION, sys.version.split()[0]),
    )
    if keeper.session_file is None:
        log.warning("sessions of tasks cannot be recorded in %s", session_file.DIRECTORY)
    if description := ready.division.description():
        log.info("%s", description)
    return await Engine(ready, keeper, asyncio.get_running_loop()).run()
