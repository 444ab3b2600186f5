"""`DisBatch`: a run of disbatch to which a program submits tasks."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Never

from disbatch.api.courier import Courier, Reached
from disbatch.api.keyvalue import Operation, Result, Values
from disbatch.api.launched import Launched
from disbatch.api.submissions import Line
from disbatch.api.task import Task
from disbatch.api.template import Template, command_line, whole_number
from disbatch.client.command_line import option_words
from disbatch.client.find import Run, find_run
from disbatch.model.errors import RunEndedError, UsageError
from disbatch.model.result import TaskResult
from disbatch.model.taskfile import LARGEST
from disbatch.model.text import counted
from disbatch.rundir.resume_hint import hint_for_killed
from disbatch.rundir.runscript import status_file
from disbatch.rundir.task_output import read_output

log = logging.getLogger("disbatch")

MOST = 100_000
"""The most tasks of a program that may be submitted and not done, by default."""
PATIENCE = 60.0
"""Seconds to wait for another driver if that of a run is killed, by default."""
AHEAD = 1000
"""Tasks that `imap` submits ahead of the next result, by default."""
MOST_REPEATS = 1_000_000


class DisBatch(Values):
    """A `disbatch` process that is started with this object, and ends when the object is closed and all tasks
    have ended.

    ```
    with DisBatch(nodes="localhost:4") as run:
        task = run.submit("myprog 1")
        print(task.result().return_code)
    ```

    `nodes` as -s: "HOST:CORES,...", or a list of such texts; without it, disbatch chooses: the Slurm job that
    the program runs in, or all cores of this machine. `prefix` (-p): the prefix of the run's files. Every
    other useful option of disbatch is given by its long name: `cpus_per_task=2`, `fail_fast=True`,
    `resume_from="P_status.txt"`, `env_resource=["A", "B"]`; `options` are further arguments of its command
    line.

    `directory`: where disbatch is started and tasks run, instead of the working directory. `environment`:
    theirs, instead of ours. `stderr`: an open file for the messages of disbatch; without it, they are only in
    errors and in `summary`. `most`: the most tasks that may be submitted and not done; at this limit,
    `submit` waits. `patience`: seconds to wait for another driver if ours is killed and the run is taken
    over.

    Leaving the `with` block waits for all tasks, and raises RunEndedError if some could not be run. If an
    exception leaves it, the run is ended in good order, to be resumed later: running tasks are ended, waiting
    ones do not start.

    Safe for threads. A forked process must not use it.

    TypeError for unknown options. UsageError for options that disbatch refuses, and DisbatchError for other
    reasons why the run does not start: from `with`, or from the first method that is called.
    """

    def __init__(
        self,
        *,
        nodes: str | Sequence[str] | None = None,
        prefix: str | os.PathLike[str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        stderr: IO[Any] | int | None = None,
        most: int = MOST,
        patience: float = PATIENCE,
        options: Sequence[str] = (),
        **named: Any,
    ) -> None:
        words = [*option_words({"nodes": nodes, "prefix": prefix, **named}), *options]

        async def reach() -> Reached:
            where = None if directory is None else Path(directory)
            launched = await Launched.start(words, directory=where, environment=environment, stderr=stderr)
            try:
                run = find_run(await launched.ready())
                if stderr is None:
                    _log_page_address(run)
                return _reached(run, launched)
            except BaseException:
                launched.close()
                raise

        self._courier = Courier(reach, most=most, patience=patience)

    @classmethod
    def connect(
        cls,
        prefix: str | os.PathLike[str] | None = None,
        *,
        tasks: bool = True,
        most: int = MOST,
        patience: float = PATIENCE,
    ) -> DisBatch:
        """Connect to an active run that accepts tasks (--keep-open, or -S); or, without `tasks`, to any run,
        only for its key store. `prefix` is the prefix of its files; without it, the run is the one whose task
        the program is, or the only one in the working directory. Closing this waits for the tasks that were
        submitted through it or, after an exception, cancels them; the run goes on.

        UsageError if there is no such run, or it accepts no tasks; SilenceError if its driver is gone.
        """
        run = find_run(None if prefix is None else os.fspath(prefix))
        self = cls.__new__(cls)

        async def reach() -> Reached:
            return _reached(run, None)._replace(takes_tasks=tasks)

        self._courier = Courier(reach, most=most, patience=patience)
        self._courier.ready.result()
        return self

    # ---- properties ----

    @property
    def prefix(self) -> Path:
        """The prefix of the run's files."""
        return Path(self._ready())

    @property
    def status_file(self) -> Path:
        """The record of the run: see `read_status`."""
        return Path(status_file(self._ready()))

    @property
    def web_address(self) -> str | None:
        """The address of the run's web page (`web=True`), which is valid once; after each use there is
        another one. None if there is no page."""
        try:
            return Path(f"{self._ready()}_url.txt").read_text().strip() or None
        except OSError:
            return None

    @property
    def return_code(self) -> int | None:
        """The exit code of the `disbatch` that was started: 0 if all tasks were run. None before its end."""
        return self._courier.return_code

    @property
    def summary(self) -> str:
        """Its messages at the end. Empty before, and if `stderr` was given."""
        return self._courier.messages

    def _ready(self) -> str:
        self._check_process()
        return self._courier.ready.result()

    def _check_process(self) -> None:
        if self._courier.process != os.getpid():
            raise RuntimeError("this run belongs to the process that made it; here, DisBatch.connect(PREFIX)")

    def __repr__(self) -> str:
        ready = self._courier.ready
        known = ready.done() and ready.exception() is None
        prefix = ready.result() if known else "starting"
        return f"<DisBatch {prefix}: {counted(self._courier.tasks.room.tasks, 'task')} under way>"

    # ---- tasks ----

    def submit(self, command: str | bytes, *more: Never, **named: Never) -> Task:
        """Submit a command for `/bin/bash -c`; returns a future of its `TaskResult`, which can also be
        awaited. Waits while `most` tasks are not done.

        TypeError for anything but one text or bytes; ValueError for what cannot be a command: several lines,
        nothing, or a directive. RunEndedError if the run is over, RuntimeError if this is closed.
        """
        text = command_line(command, more, named)
        return self.hand_in(text, 1)[0]

    async def asubmit(self, command: str | bytes, *more: Never, **named: Never) -> TaskResult:
        """Submit a command and wait for its end, on an asyncio loop. Cancelling this cancels the task. Errors
        as of `submit`, and of `Task.result`."""
        text = command_line(command, more, named)
        self._check_process()
        await _ended(self._courier.ready)
        await self._courier.tasks.room.aenter(1, len(text))
        return await asyncio.wrap_future(self._hand_in(text, 1)[0])

    def map(self, template: str, *columns: Any, quote: bool = True, **named: Any) -> list[Task]:
        """Submit a command for each row of values: `run.map("myprog {x} {y}", x=[1, 2], y=[3, 4])` is `myprog
        1 3` and `myprog 2 4`. Iterables must be of equal length; text, bytes, paths and values that are not
        iterable are used for every row. `{}` stands for values without a name, `{x:03d}` formats one as
        `str.format` does, `{{` and `}}` are braces. Values are quoted for the shell unless `quote` is False.

        Everything is submitted before this returns; see `imap` for more tasks than fit into memory.
        ValueError if the values do not fit the template or each other, and errors as of `submit`.
        """
        return [self.submit(command) for command in Template(template, quote=quote).commands(columns, named)]

    def imap(
        self, template: str, *columns: Any, quote: bool = True, ahead: int = AHEAD, **named: Any
    ) -> Iterator[TaskResult]:
        """As `map`, but yields results, in order, and reads values as it proceeds: at most `ahead` tasks are
        submitted beyond the next result. So it accepts endless iterables, and tasks beyond the results that
        are requested do not run. Leaving the loop early cancels the submitted tasks."""
        if ahead < 1:
            raise ValueError(f"ahead: at least 1, not {ahead}")
        return self._results(Template(template, quote=quote).commands(columns, named), ahead)

    def _results(self, commands: Iterator[str], ahead: int) -> Iterator[TaskResult]:
        tasks: deque[Task] = deque()
        try:
            for command in commands:
                tasks.append(self.submit(command))
                if len(tasks) > ahead:
                    yield tasks[0].result()
                    tasks.popleft()
            while tasks:
                yield tasks[0].result()
                tasks.popleft()
        finally:
            for task in tasks:
                task.cancel()

    def repeat(self, count: int, command: str | bytes, *, start: int = 0, step: int = 1) -> list[Task]:
        """Submit the same command `count` times: DISBATCH_REPEAT_INDEX is `start`, `start + step`, ... Errors
        as of `submit`."""
        count, start, step = (
            whole_number("count", count),
            whole_number("start", start),
            whole_number("step", step),
        )
        if not 0 <= count <= MOST_REPEATS:
            raise ValueError(f"count: 0 to {MOST_REPEATS:,}, not {count}")
        if max(abs(start), abs(start + count * step)) > LARGEST:
            raise ValueError("the indexes do not fit in 63 bits")
        text = b"#DISBATCH REPEAT %d start %d step %d " % (count, start, step) + command_line(command)
        return self.hand_in(text, count)

    def barrier(self, *, check: bool = False) -> Task:
        """No task that is submitted later starts until all earlier ones have ended; returns a future that
        ends then. `check`: if one of them failed since the last barrier, the run ends there."""
        text = b"#DISBATCH BARRIER CHECK" if check else b"#DISBATCH BARRIER"
        return self.hand_in(text, 1)[0]

    def hand_in(self, line: bytes, ids: int) -> list[Task]:
        """Submit a line of a task file that becomes so many tasks and barriers; returns their futures. The
        line is not checked: if it is invalid, it fails, and others with it. Errors as of `submit`."""
        self._ready()
        room = self._courier.tasks.room
        # A callback of a task must not wait for other tasks.
        (room.force if threading.get_ident() == self._courier.thread else room.enter)(ids, len(line))
        return self._hand_in(line, ids)

    def _hand_in(self, text: bytes, tasks: int) -> list[Task]:
        shown = text.decode("utf-8", "surrogateescape")
        made = [Task(shown, self._courier) for _ in range(tasks)]
        try:
            self._courier.tasks.put(Line(text, tuple(made)))
        except BaseException:
            self._courier.tasks.room.leave(tasks, len(text))
            raise
        return made

    def output(self, task: Task | TaskResult | int, *, err: bool = False) -> bytes:
        """The complete standard output of a task, or its stderr (`err`), of a run that keeps output
        (`output="DIR"`); also while the task runs. `task`: a task, its result, or its id. UsageError if the
        output is not kept, or not there."""
        id = task if isinstance(task, int) else task.id
        if id is None:
            raise UsageError("this task has not been accepted by the driver yet")
        return read_output(self._ready(), id, err=err)

    # ---- key store ----

    def _wait_for(self, operation: Operation[Result]) -> Result:
        self._ready()
        self._forbid_in_callbacks()
        future = self._courier.carry_out(operation)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _await(self, operation: Operation[Result]) -> Result:
        self._check_process()
        await _ended(self._courier.ready)
        return await asyncio.wrap_future(self._courier.carry_out(operation))

    # ---- the end ----

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all tasks are done, at most so many seconds; True if they are."""
        self._ready()
        self._forbid_in_callbacks()
        try:
            self._courier.tasks.room.idle().result(timeout)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Wait for all tasks, and let the run end. May be called twice. Ctrl-C during the wait ends the run
        as an exception in a `with` block does. RunEndedError if some tasks could not be run."""
        if self._courier.process != os.getpid():
            return
        self._forbid_in_callbacks()
        try:
            self._courier.close().result()
        except BaseException as error:
            self._end_early(error)
            raise
        self._check()

    def _forbid_in_callbacks(self) -> None:
        if threading.get_ident() == self._courier.thread:
            raise RuntimeError("a callback of a task cannot wait: it would wait for ever")

    async def aclose(self) -> None:
        """As `close`, on an asyncio loop."""
        try:
            await _ended(self._courier.close())
        except BaseException as error:
            await self._aend_early(error)
            raise
        self._check()

    def _check(self) -> None:
        tasks = self._courier.tasks
        if tasks.unfinished:
            number = counted(tasks.unfinished, "task was", "tasks were")
            raise RunEndedError(f"{number} not run to the end: {tasks.first_failure}")

    def _end_early(self, error: BaseException) -> None:
        self._close_early().result()
        self._add_note(error)

    async def _aend_early(self, error: BaseException) -> None:
        await _ended(self._close_early())
        self._add_note(error)

    def _close_early(self) -> Future[None]:
        return self._courier.close(at_once=self._courier.tasks.room.tasks > 0)

    def _add_note(self, error: BaseException) -> None:
        tasks = self._courier.tasks
        if tasks.unfinished and not isinstance(error, RunEndedError):
            error.add_note(f"disbatch: {tasks.error or tasks.first_failure}")

    def __enter__(self) -> DisBatch:
        try:
            self._ready()
        except BaseException:
            self._courier.close(at_once=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self._courier.process == os.getpid():
            self._end_early(error)

    async def __aenter__(self) -> DisBatch:
        try:
            await _ended(self._courier.ready)
        except BaseException:
            self._courier.close(at_once=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.aclose()
        else:
            await self._aend_early(error)


def _log_page_address(run: Run) -> None:
    """Log the address of the page, as nobody sees the message of `disbatch`."""
    with suppress(OSError):
        log.warning("web page: %s", Path(f"{run.prefix}_url.txt").read_text().strip())


def _reached(run: Run, launched: Launched | None) -> Reached:
    return Reached(run.connect, os.path.abspath(run.prefix), hint_for_killed(run.prefix), launched)  # noqa: PTH100 - text


async def _ended(future: Future[Any]) -> None:
    """Wait for it; cancelling the wait does not cancel it."""
    await asyncio.shield(asyncio.wrap_future(future))
