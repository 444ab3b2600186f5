r"""The slots of an engine: which order runs where, from the start of its shell to its outcome.

Theory of operation
-------------------
    waiting --spawn--> running --shell ends--> draining --pipes end, or DRAIN_GRACE--> outcome
       |                  \--End--> `KillTarget` (see `termination`) --gone-------------> outcome
       \--Recall--> given back

A task is over when its shell is. Its slot is then free at once; the outcome waits a moment for what is still
in the pipes. A background child may hold a pipe open for as long as it likes: such a pipe is *parked*, which
means that it is read and its data discarded, so that the child is not killed by SIGPIPE.

There is no future, coroutine or thread for each task, only callbacks of the loop on two descriptors and
SIGCHLD. Processes that tasks leave running become children of this process when their parent ends, and are
reaped as shells are.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import resource
import signal
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from disbatch.engine import process_tree
from disbatch.engine.capture import Capture, Captures
from disbatch.engine.environment import TaskEnvironment
from disbatch.engine.keeper_client import KeeperClient
from disbatch.engine.limits import Parked, Readiness, Shortage
from disbatch.engine.resources import Division
from disbatch.engine.spawn import Binding, spawn
from disbatch.engine.termination import Ender, KillTarget
from disbatch.model.task import SNIPPET_EDGE, Ending, Outcome, Phase
from disbatch.wire.engine_protocol import Order, Running

DRAIN_GRACE = 0.25
"""Seconds that an outcome waits for pipes that are still open after the shell's end."""
LISTEN_DELAY = 0.02
"""Seconds after which a task's pipes are watched. Most short tasks end before and print little: what a pipe
holds then (64 KiB) is read at their end, without an extra wake-up."""
UNSTARTED_CODE = 126
SIGNAL_SIZE = 128
"""Bytes of one signalfd record; at most one signal is pending."""
PER_ENGINE_SLOT = -1


class Job(NamedTuple):
    """An order and, for a PERENGINE command, its phase."""

    order: Order
    phase: Phase | None


class _Task:
    """A job whose shell was started. `status` is the result of waitpid, None before."""

    __slots__ = (
        "begun", "elapsed", "err", "finish", "job", "kill_target", "listened", "out", "pid", "slot", "start",
        "status",
    )  # fmt: skip

    out: Capture
    err: Capture

    def __init__(self, job: Job, slot: int, start: float, begun: float) -> None:
        self.job = job
        self.slot = slot
        self.start = start
        self.begun = begun
        self.pid = 0
        self.elapsed = -1.0
        self.finish = 0.0
        self.status: int | None = None
        self.kill_target: KillTarget | None = None
        self.listened = False

    def over(self) -> None:
        """Record the time of the shell's end, once."""
        if self.elapsed < 0:
            self.elapsed = time.monotonic() - self.begun
            self.finish = time.time()


class Runner:
    """Runs jobs in the slots of `division`, lowest free slot first, in order of arrival.

    `captures` makes the readers of a task's pipes; when it was full, `go_on` is called later. `ended(job,
    outcome)` is called once for every job that was not recalled; `idle()` whenever nothing waits or runs any
    more; `report` gets a line for the log, `trouble` one for the user; `no_room(reason)`: no task can be
    started. `files`: the limits on open files for tasks, if not ours. `children`: from `watch_children`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        environment: TaskEnvironment,
        division: Division,
        keeper: KeeperClient,
        captures: Captures,
        *,
        ended: Callable[[Job, Outcome], None],
        idle: Callable[[], None],
        report: Callable[[str], None],
        trouble: Callable[[str], None],
        no_room: Callable[[str], None],
        files: tuple[int, int] | None,
        children: int | None,
    ) -> None:
        self._loop = loop
        self._readiness = Readiness(loop)
        self._environment = environment
        self._binding = Binding(division.shares, trouble)
        self._keeper_client = keeper
        self._captures = captures
        self._ended = ended
        self._idle = idle
        self._report = report
        self.ender = Ender(loop, self._spare, report)
        self._free = list(range(division.slots))
        self._waiting: OrderedDict[int, Job] = OrderedDict()
        self._per_engine: deque[Job] = deque()
        self._per_engine_runs: Job | None = None
        self._running: dict[int, _Task] = {}
        self._shells: dict[int, _Task] = {}
        self._draining: dict[int, _Task] = {}
        self._parked = Parked(self._readiness)
        self._unheard: list[_Task] = []
        self._resting: list[tuple[_Task, Capture]] = []
        self._closed = False
        self._shortage = Shortage(loop, self._fill, trouble, no_room)
        self._files = files
        self._children = children
        if self._children is None:
            loop.add_signal_handler(signal.SIGCHLD, self._children_ended)
        else:
            self._readiness.watch(self._children, self._children_ended)

    # ---- requests of the engine ----

    @property
    def waiting(self) -> int:
        """The number of jobs that have not started."""
        return len(self._waiting) + len(self._per_engine)

    @property
    def busy(self) -> bool:
        """True while a job waits, runs, or has not given its outcome."""
        return bool(self._running or self._draining or self._waiting or self._per_engine)

    def jobs(self) -> list[Job]:
        """All jobs that have not delivered their outcome."""
        started = [task.job for tasks in (self._draining, self._running) for task in tasks.values()]
        return [*started, *self._per_engine, *self._waiting.values()]

    def running(self) -> list[Running]:
        """The running attempts."""
        now = time.monotonic()
        return [Running(attempt, task.slot, now - task.begun) for attempt, task in self._running.items()]

    def add(self, orders: Iterable[Order]) -> None:
        """Run these as slots become free. After `end_all` they are ignored: the driver, which did not know,
        gives them to others after Goodbye."""
        if self._closed:
            return
        for order in orders:
            self._waiting[order.attempt] = Job(order, None)
        self._fill()

    def add_per_engine(self, phase: Phase, order: Order) -> None:
        """Run this outside the slots, after earlier ones; not after `end_all`."""
        if self._closed:
            return
        self._per_engine.append(Job(order, phase))
        self._fill()

    def recall(self, attempts: Iterable[int]) -> list[int]:
        """Drop those of `attempts` that have not started, and return them."""
        return [attempt for attempt in attempts if self._waiting.pop(attempt, None) is not None]

    def end(self, attempts: Iterable[int], at_once: bool) -> None:
        """End these, wherever they are; unknown ones are ignored."""
        wanted = set(attempts)
        self._drop([self._waiting.pop(attempt) for attempt in wanted if attempt in self._waiting])
        dropped = [job for job in self._per_engine if job.order.attempt in wanted]
        self._per_engine = deque(job for job in self._per_engine if job.order.attempt not in wanted)
        self._drop(dropped)
        self._reap()
        tasks = [self._running[attempt] for attempt in wanted if attempt in self._running]
        fresh: list[KillTarget] = []
        for task in tasks:
            if task.kill_target is None:
                target = KillTarget(task.pid, (), lambda task=task: self._gone(task))  # type: ignore[misc]
                task.kill_target = target
                fresh.append(target)
        if at_once:
            self.ender.hurry(
                [task.kill_target for task in tasks if task.kill_target and task.kill_target not in fresh]
            )
        self.ender.end(fresh, at_once)
        self._fill()

    def end_all(self, at_once: bool) -> None:
        """End everything, and start nothing more."""
        self._closed = True
        self.end([job.order.attempt for job in self.jobs()], at_once)
        if not self.busy:
            self._idle()

    def end_leftovers(self, gone: Callable[[], None]) -> int:
        """End everything that ended tasks left running; `gone` is called at the end. Returns how many
        processes were found at first."""
        processes = process_tree.table()
        here = os.getpid()
        roots = [process.pid for process in processes.values() if process.parent == here]
        found = len(process_tree.family(processes, roots, (), self._spare()))
        self.ender.end([KillTarget(None, roots, gone)], at_once=False)
        return found

    def _spare(self) -> set[int]:
        return {os.getpid(), os.getsid(0), *self._shells}

    # ---- start ----

    def _fill(self) -> None:
        if self._closed or self._shortage.waits or self._captures.full:
            return
        while self._per_engine and self._per_engine_runs is None and not self._shortage.waits:
            self._start(self._per_engine.popleft(), PER_ENGINE_SLOT)
        if self._joining():
            return
        waiting, free = self._waiting, self._free
        while waiting and free and not self._shortage.waits:
            _, job = waiting.popitem(last=False)
            self._start(job, heapq.heappop(free))

    def _joining(self) -> bool:
        """True while tasks wait for a PERENGINE START command."""
        current = self._per_engine_runs
        return (current is not None and current.phase is Phase.START) or any(
            job.phase is Phase.START for job in self._per_engine
        )

    def _start(self, job: Job, slot: int) -> None:
        task = _Task(job, slot, time.time(), time.monotonic())
        try:
            self._launch(task)
        except (OSError, ValueError) as error:
            if self._shortage.waits_for(error, idle=not self._running):
                self._wait_for_room(task)
            else:
                self._unstarted(task, error)
            return
        self._shortage.over()
        self._running[job.order.attempt] = task
        if slot == PER_ENGINE_SLOT:
            self._per_engine_runs = job
        if not self._unheard:
            self._loop.call_later(LISTEN_DELAY, self._listen_to_all)
        self._unheard.append(task)

    def _listen_to_all(self) -> None:
        tasks, self._unheard = self._unheard, []
        for task in tasks:
            if task.status is None:
                self._listen(task)

    def _listen(self, task: _Task) -> None:
        """From now on, read its pipes whenever there is data."""
        if not task.listened:
            task.listened = True
            for capture in (task.out, task.err):
                if not capture.ended:
                    self._readiness.watch(capture.descriptor, self._readable, task, capture)

    def _launch(self, task: _Task) -> None:
        order = task.job.order
        environment = self._environment.of(order, task.slot)
        with self._binding.at(task.slot):
            child = spawn(order.command, environment)
        task.pid = child.pid
        self._shells[child.pid] = task
        self._keeper_client.record(task.slot, child.pid)
        task.out, task.err = self._captures.captures(order, task.job.phase)
        task.out.descriptor = child.out
        task.err.descriptor = child.err
        if self._files is not None and hasattr(resource, "prlimit"):
            resource.prlimit(child.pid, resource.RLIMIT_NOFILE, self._files)

    def _unstarted(self, task: _Task, error: Exception) -> None:
        self._give_slot_back(task)
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        text = f"disbatch: not started: {reason}".encode()[: 2 * SNIPPET_EDGE]
        self._report(f"line {task.job.order.line}: not started: {reason}")
        outcome = Outcome(
            *(task.job.order.attempt, task.slot, 0, UNSTARTED_CODE, 0.0, task.start, task.start),
            *(0, b"", len(text), text, Ending.UNSTARTED),
        )
        self._ended(task.job, outcome)
        self._say_if_idle()

    def _wait_for_room(self, task: _Task) -> None:
        """The node has no process or descriptor to spare: try again when a task has ended, or later."""
        self._give_slot_back(task)
        job = task.job
        if job.phase is None:
            self._waiting[job.order.attempt] = job
            self._waiting.move_to_end(job.order.attempt, last=False)
        else:
            self._per_engine.appendleft(job)

    def _give_slot_back(self, task: _Task) -> None:
        if task.slot == PER_ENGINE_SLOT:
            self._per_engine_runs = None
        else:
            heapq.heappush(self._free, task.slot)

    # ---- output ----

    def _readable(self, task: _Task, capture: Capture) -> None:
        capture.read()
        if capture.ended:
            self._close(capture)
            if task.status is not None and task.out.ended and task.err.ended:
                self._deliver(task)
        elif capture.full:
            self._readiness.rest(capture.descriptor)
            self._resting.append((task, capture))

    def go_on(self) -> None:
        """Output can be kept again: continue."""
        resting, self._resting = self._resting, []
        for task, capture in resting:
            if not capture.ended:
                self._readiness.watch(capture.descriptor, self._readable, task, capture)
        self._fill()

    def _close(self, capture: Capture) -> None:
        self._readiness.close(capture.descriptor)
        capture.descriptor = -1

    def _drain(self, capture: Capture) -> None:
        if not capture.ended:
            capture.drain()
            if capture.ended:
                self._close(capture)

    def _park(self, capture: Capture) -> None:
        if not capture.ended:
            capture.ended = True
            self._parked.park(capture.descriptor)

    # ---- end ----

    def _children_ended(self) -> None:
        if self._children is not None:
            os.read(self._children, SIGNAL_SIZE)
        self._reap()
        self._fill()

    def _reap(self) -> None:
        """Reap every child that has ended: shells, and processes that ended tasks had left running."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            task = self._shells.pop(pid, None)
            if task is not None:
                task.over()
                task.status = status
                if task.kill_target is None:
                    self._over(task)

    def _over(self, task: _Task) -> None:
        """Free its slot, and prepare its outcome."""
        attempt = task.job.order.attempt
        del self._running[attempt]
        self._draining[attempt] = task
        self._keeper_client.record(task.slot, 0)
        self._give_slot_back(task)
        self._shortage.eased()
        self._drain(task.out)
        self._drain(task.err)
        if task.out.ended and task.err.ended:
            self._deliver(task)
        else:
            self._listen(task)
            self._loop.call_later(DRAIN_GRACE, self._deliver, task)

    def _gone(self, task: _Task) -> None:
        """All processes of an ended task are gone."""
        self._reap()
        self._over(task)
        self._deliver(task)
        self._fill()

    def _drop(self, jobs: Iterable[Job]) -> None:
        now = time.time()
        for job in jobs:
            slot = 0 if job.phase is None else PER_ENGINE_SLOT
            killed = -signal.SIGTERM
            self._ended(
                job,
                Outcome(job.order.attempt, slot, 0, killed, 0.0, now, now, 0, b"", 0, b"", Ending.ORDERED),
            )
        self._say_if_idle()

    def _deliver(self, task: _Task) -> None:
        """Deliver the outcome, once."""
        attempt = task.job.order.attempt
        if self._draining.pop(attempt, None) is None or task.status is None:
            return
        out, err = task.out, task.err
        self._park(out)
        self._park(err)
        return_code = os.waitstatus_to_exitcode(task.status)
        outcome = Outcome(
            attempt,
            task.slot,
            task.pid,
            return_code,
            task.elapsed,
            task.start,
            task.finish,
            out.count,
            out.snippet(),
            err.count,
            err.snippet(),
            Ending.OWN if task.kill_target is None else Ending.ORDERED,
            last_line=(err.last_line() or out.last_line()) if return_code else "",
        )
        self._ended(task.job, outcome)
        self._say_if_idle()

    def _say_if_idle(self) -> None:
        if not self.busy:
            self._idle()
