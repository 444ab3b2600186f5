"""A submitted task: a future whose result describes how the task ended."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, Protocol

from disbatch.model.result import TaskResult


class Submitter(Protocol):
    """Submits tasks: in the process with the pid `process`, on a thread of its own with the identifier
    `thread`."""

    process: int
    thread: int

    def cancel(self, task: Task) -> bool:
        """Keep the task from running, or end it; True unless it has ended already."""

    def runs(self, task: Task) -> bool:
        """True if the task is in a slot at this moment."""


class Task(Future[TaskResult]):
    """A `concurrent.futures.Future`: works with `wait`, `as_completed`, `add_done_callback` and
    `asyncio.wrap_future`, and can be awaited. `result()` is a `TaskResult` even if the task failed; it raises
    RunEndedError if the run ended before the task, CancelledError if the task was cancelled, DisbatchError if
    the driver did not accept it.

    `command` is the submitted line. `id` is the task's id in the run, None until the driver has accepted it.
    """

    def __init__(self, command: str, submitter: Submitter) -> None:
        super().__init__()
        self.command = command
        self.id: int | None = None
        self.asked_to_cancel = False
        self._submitter = submitter

    def cancel(self) -> bool:
        """Keep the task from running, or end it; True unless it has ended already. The future is cancelled at
        once. A task that ends at the same moment may be in the status file with its own result."""
        return self._submitter.cancel(self)

    def _cancel(self) -> bool:
        """Cancel the future."""
        return super().cancel()

    def running(self) -> bool:
        """True if the task is in a slot at this moment, which the driver is asked for."""
        if self.done():
            return False
        self._forbid_to_wait()
        return self._submitter.runs(self)

    def __await__(self) -> Generator[Any, None, TaskResult]:
        """The result of the task, on an asyncio loop. Cancelling that cancels the task."""
        return asyncio.wrap_future(self).__await__()

    def result(self, timeout: float | None = None) -> TaskResult:
        """The result of the task; TimeoutError if it does not end within so many seconds."""
        self._forbid_to_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception that `result` would raise; None if there is none."""
        self._forbid_to_wait()
        return super().exception(timeout)

    def _forbid_to_wait(self) -> None:
        if self.done():
            return
        if self._submitter.process != os.getpid():
            raise RuntimeError(
                "this task belongs to the process that submitted it; only that process can wait for it"
            )
        if threading.get_ident() == self._submitter.thread:
            raise RuntimeError("a callback of a task cannot wait for another one: it would wait for ever")

    def __repr__(self) -> str:
        what = "submitted" if self.id is None else f"task {self.id}"
        state = "pending"
        if self.cancelled():
            state = "cancelled"
        elif self.done():
            error = super().exception()
            state = (
                f"raised {type(error).__name__}" if error else f"return code {super().result().return_code}"
            )
        return f"<Task {what}, {state}: {self.command}>"
