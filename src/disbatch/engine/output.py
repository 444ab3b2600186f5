"""Keep what tasks print (--output): collect it from the pipes, have it written, and only then release the
result.

Theory of operation
-------------------
    pipe --> KeptCapture --(64 KiB, or a second)--> Piece --+
    outcome ----------------------------------------> Done --+--> one writer thread --> output files or packs
                                                                    |
    the driver <-- outbox <-- outcome <---------- written ----------+

The engine reads all pipes anyway, since it counts the bytes and keeps both ends for the status line. An
outcome waits until its output is written, so the files of a recorded task are complete even if the engine is
killed in the next moment. The task's slot does not wait.

No task can fill the memory: while PENDING bytes of one stream are unwritten, its pipe is not read, and the
task blocks as it would on a slow disk; while MOST_PENDING bytes of all streams are unwritten, no pipe is read
and no task started.

No task fails because a file system is full or does not answer. What could not be written is missing in the
files, with a marker there if more output follows. If nothing at all is written for STALL seconds, outcomes
and tasks no longer wait: output beyond MOST_PENDING is dropped until the thread continues.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable

from disbatch.engine.capture import Capture
from disbatch.engine.liveness import DriverLease
from disbatch.engine.output_capture import KeptCapture
from disbatch.engine.output_writer import Done, Files, WriterThread
from disbatch.engine.slots import Job
from disbatch.model.output import ERR, OUT, head_and_tail
from disbatch.model.pack import About, End, Piece
from disbatch.model.task import Ending, Outcome, Phase
from disbatch.wire.engine_protocol import Bootstrap, Order

PASS_ON = 65536
"""Bytes of one stream that are collected before they are passed to the thread."""
PENDING = 4 * PASS_ON
MOST_PENDING = 32 << 20
BATCH = 1 << 20
"""The most bytes handed to the thread at a time: its progress is counted in whole batches."""
FLUSH_AFTER = 1.0
"""Seconds that output of a running task waits for more."""
WELL_SUPPLIED = 64
GATHER = 0.01
GATHER_WHEN_SUPPLIED = 0.05
"""Seconds that an outcome waits for others while the engine has its next tasks: some, or WELL_SUPPLIED."""
STALL = 10.0
STALL_AT_END = 5.0


class _Batch:
    """What is handed to the thread at once, and the outcomes that wait for it."""

    __slots__ = ("results", "sizes", "total", "work")

    def __init__(self) -> None:
        self.work: list[Piece | Done] = []
        self.results: list[tuple[Job, Outcome]] = []
        self.sizes: list[tuple[KeptCapture, int]] = []
        self.total = 0


class Output:
    """The output that is kept on this engine: makes the captures, and passes outcomes on (`give(job,
    outcome)`) when the output of these tasks is written.

    `files` does the writing. `limit`: bytes kept of each stream of a task. `now` is the clock of `begun` in
    `output_writer.Done`; `supply()` is how many tasks wait on the engine; `room()` is called when tasks may
    be started and pipes be read again; `trouble` gets a line for the user, `broken` an error in the program.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        files: Files,
        *,
        limit: int,
        give: Callable[[Job, Outcome], None],
        now: Callable[[], float],
        supply: Callable[[], int],
        trouble: Callable[[str], None],
        broken: Callable[[Exception], None],
        stall: float = STALL,
    ) -> None:
        self._loop = loop
        self._files = files
        self._thread = WriterThread(loop, files, self._batch_written, broken)
        self.head, self.tail = head_and_tail(limit)
        self._give = give
        self._now = now
        self._supply = supply
        self._trouble = trouble
        self._stall = stall
        self.room: Callable[[], None] = lambda: None
        self._tasks: dict[int, tuple[KeptCapture, KeptCapture, float]] = {}
        self._dirty: set[KeptCapture] = set()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._batch = _Batch()
        self._hand_over_timer: asyncio.Handle | None = None
        self._handed: deque[_Batch] = deque()
        self._jobs: dict[int, Job] = {}
        self._pending = 0
        self._wanted = False
        """`room` is to be called."""
        self._count = 0
        """Batches written, by which a stall is detected."""
        self._stalled = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._written = asyncio.Event()

    # ---- what a task prints ----

    def captures(self, order: Order, phase: Phase | None) -> tuple[Capture, Capture]:
        """The captures of stdout and stderr of an attempt; the output of a PERENGINE command (`phase`) is not
        kept."""
        if phase is not None:
            return Capture(-1), Capture(-1)
        out = KeptCapture(self, order.task_id, order.attempt, OUT)
        err = KeptCapture(self, order.task_id, order.attempt, ERR)
        self._tasks[order.attempt] = (out, err, self._now())
        return out, err

    @property
    def full(self) -> bool:
        """True while no task should be started; `room` is called when that is over."""
        if self._pending <= MOST_PENDING or self._stalled:
            return False
        self._wanted = True
        return True

    def is_full(self, capture: KeptCapture) -> bool:
        """True while that pipe should not be read; `room` is called when that is over."""
        if (capture.pending <= PENDING and self._pending <= MOST_PENDING) or self._stalled:
            return False
        self._wanted = True
        return True

    def collected(self, capture: KeptCapture) -> None:
        """The capture holds new output to keep."""
        if capture.size >= PASS_ON:
            self._dirty.discard(capture)
            self._pass_on(capture)
        elif capture not in self._dirty:
            self._dirty.add(capture)
            if self._flush_timer is None:
                self._flush_timer = self._loop.call_later(FLUSH_AFTER, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        dirty, self._dirty = self._dirty, set()
        for capture in dirty:
            self._pass_on(capture)

    def _pass_on(self, capture: KeptCapture) -> None:
        piece = capture.take()
        if not self._stalled or self._pending <= MOST_PENDING:
            self._add(capture, piece)
        self._hand_over_soon()

    def _add(self, capture: KeptCapture, piece: Piece) -> None:
        size = len(piece.data)
        capture.pending += size
        self._pending += size
        self._batch.work.append(piece)
        self._batch.sizes.append((capture, size))
        self._batch.total += size
        if self._batch.total >= BATCH:
            self._hand_over()

    # ---- results ----

    def add(self, job: Job, outcome: Outcome) -> None:
        """A task has ended, and its pipes will not be read again."""
        kept = self._tasks.pop(outcome.attempt, None)
        own = outcome.ending is Ending.OWN
        if kept is None or not (outcome.out_bytes or outcome.err_bytes or (own and self._files.clears)):
            self._give(job, outcome)
            return
        for capture in kept[:2]:
            self._dirty.discard(capture)
            if capture.parts:
                self._pass_on(capture)
            rest = capture.last()
            if rest is not None and not self._stalled:
                self._add(capture, rest)
        self._jobs[outcome.attempt] = job
        task = job.order.task_id
        self._batch.work.append(Done(task, outcome.attempt, End.of(outcome), own, kept[2]))
        self._batch.results.append((job, outcome))
        if self._stalled:
            self._release(self._batch)
        self._hand_over_soon()

    @property
    def empty(self) -> bool:
        """True if no outcome waits."""
        return not self._jobs

    def jobs(self) -> list[Job]:
        """The jobs whose outcomes wait."""
        return list(self._jobs.values())

    def release(self) -> None:
        """Pass all outcomes on, whether their output is written or not."""
        for batch in (*self._handed, self._batch):
            self._release(batch)

    def _release(self, batch: _Batch) -> None:
        results, batch.results = batch.results, []
        for job, outcome in results:
            del self._jobs[outcome.attempt]
            self._give(job, outcome)

    # ---- to the thread and back ----

    def _hand_over_soon(self) -> None:
        if self._hand_over_timer is None:
            supply = self._supply()
            if supply:
                pause = GATHER if supply < WELL_SUPPLIED else GATHER_WHEN_SUPPLIED
                self._hand_over_timer = self._loop.call_later(pause, self._hand_over)
            else:
                self._hand_over_timer = self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        if self._hand_over_timer is not None:
            self._hand_over_timer.cancel()
            self._hand_over_timer = None
        if self._batch.work:
            batch, self._batch = self._batch, _Batch()
            self._handed.append(batch)
            self._thread.put(batch.work)
            batch.work = []
            if self._stall_timer is None:
                self._watch_for_stall()

    def _batch_written(self) -> None:
        """The oldest batch is written, or, without one, all files are closed."""
        self._count += 1
        if not self._handed:
            self._written.set()
            return
        batch = self._handed.popleft()
        for capture, size in batch.sizes:
            capture.pending -= size
        self._pending -= batch.total
        if self._stalled:
            self._stalled = False
            self._trouble("output is written again")
        self._release(batch)
        if self._wanted and self._pending <= MOST_PENDING // 2:
            self._wanted = False
            self.room()

    def _watch_for_stall(self) -> None:
        self._stall_timer = self._loop.call_later(self._stall, self._check_for_stall, self._count)

    def _check_for_stall(self, count: int) -> None:
        self._stall_timer = None
        if not self._handed:
            return
        if self._count == count and not self._stalled:
            self._stalled = True
            self._trouble(f"output could not be written for {self._stall:g} s: results no longer wait for it")
            self.release()
            self.room()
        self._watch_for_stall()

    async def close(self, patience: float = STALL_AT_END) -> None:
        """Wait until everything is written, but not while there is no progress for `patience` seconds; then
        pass the remaining outcomes on."""
        for timer in (self._flush_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._flush()
        self._hand_over()
        self._thread.close()
        count = -1
        while count != self._count and not self._written.is_set():
            count = self._count
            try:
                await asyncio.wait_for(self._written.wait(), patience)
            except TimeoutError:
                continue
        if not self._written.is_set():
            self._trouble("not all output could be written")
        self.release()


def choose_output(
    loop: asyncio.AbstractEventLoop,
    bootstrap: Bootstrap,
    lease: DriverLease,
    *,
    give: Callable[[Job, Outcome], None],
    supply: Callable[[], int],
    trouble: Callable[[str], None],
    broken: Callable[[Exception], None],
) -> Output:
    """The `Output` that the Bootstrap asks for; the other arguments are its own."""
    directory = os.fsdecode(bootstrap.output)
    told: set[str] = set()

    def tell(reason: str) -> None:
        if reason not in told:
            told.add(reason)
            trouble(f"--output {directory}: {reason}; output of tasks is missing there until that changes")

    def failed(error: OSError) -> None:
        """Called in the thread."""
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, error.strerror or str(error))

    files: Files
    if bootstrap.output_pack:
        from disbatch.engine.output_packs import PackWriter

        run = bootstrap.run.decode(errors="backslashreplace")
        files = PackWriter(bootstrap.output, About(run, bootstrap.node, bootstrap.engine), failed)
    else:
        from disbatch.engine.output_files import OutputDirectory

        files = OutputDirectory(bootstrap.output, bootstrap.engine, lease.certain, failed)
    return Output(
        loop,
        files,
        limit=bootstrap.output_limit,
        give=give,
        now=lease.now,
        supply=supply,
        trouble=trouble,
        broken=broken,
    )
