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
    """What hands tasks in: in the process with the pid `process`, on a thread of its own with the identifier
    `thread`."""

    process: int
    thread: int

    def cancel(self, task: Task) -> bool:
        """Never run it, or end it; True unless it has ended already."""

    def runs(self, task: Task) -> bool:
        """It is in a slot at this moment."""


class Task(Future[TaskResult]):
    """A `concurrent.futures.Future`: works with `wait`, `as_completed`, `add_done_callback` and
    `asyncio.wrap_future`, and can be awaited. `result()` is a `TaskResult` also if the task failed; it raises
    RunEndedError if the run ended before the task, CancelledError if it was cancelled, DisbatchError if the
    driver did not take it.

    `command` is the line that was handed in. `id` is the task's number in the run, None until the driver has
    taken it.
    """

    def __init__(self, command: str, submitter: Submitter) -> None:
        super().__init__()
        self.command = command
        self.id: int | None = None
        self.asked_to_cancel = False
        self._submitter = submitter

    def cancel(self) -> bool:
        """Never run it, or end it; True unless it has ended already. The future is cancelled at once. A task
        that ends at this very moment may stand in the status file with its own result."""
        return self._submitter.cancel(self)

    def _cancel(self) -> bool:
        """Cancel the future."""
        return super().cancel()

    def running(self) -> bool:
        """It is in a slot at this moment, as the driver says, who is asked."""
        if self.done():
            return False
        self._forbid_to_wait()
        return self._submitter.runs(self)

    def __await__(self) -> Generator[Any, None, TaskResult]:
        """How the task ended, on an asyncio loop. Cancelling that cancels the task."""
        return asyncio.wrap_future(self).__await__()

    def result(self, timeout: float | None = None) -> TaskResult:
        """How the task ended, within so many seconds: else TimeoutError."""
        self._forbid_to_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `result` would raise; None if it would not."""
        self._forbid_to_wait()
        return super().exception(timeout)

    def _forbid_to_wait(self) -> None:
        if self.done():
            return
        if self._submitter.process != os.getpid():
            raise RuntimeError(
                "this task belongs to the process that handed it in; only that can wait for it"
            )
        if threading.get_ident() == self._submitter.thread:
            raise RuntimeError("a callback of a task cannot wait for another one: it would wait for ever")

    def __repr__(self) -> str:
        what = "handed in" if self.id is None else f"task {self.id}"
        state = "pending"
        if self.cancelled():
            state = "cancelled"
        elif self.done():
            error = super().exception()
            state = (
                f"raised {type(error).__name__}" if error else f"return code {super().result().return_code}"
            )
        return f"<Task {what}, {state}: {self.command}>"
