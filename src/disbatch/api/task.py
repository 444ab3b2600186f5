"""A task that was handed in: a future whose result tells how it ended."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from disbatch.model.result import TaskResult

if TYPE_CHECKING:
    from disbatch.api.courier import Courier


class Task(Future[TaskResult]):
    """A `concurrent.futures.Future`: works with `wait`, `as_completed`, `add_done_callback` and
    `asyncio.wrap_future`. `result()` is a `TaskResult` also if the task failed; it raises RunEndedError if
    the run ended before the task, CancelledError if it was cancelled, DisbatchError if the driver did not
    take it. `running()` is always False: which tasks run at the moment only the driver knows.

    `command` is the line that was handed in. `id` is the task's number in the run, None until the driver has
    taken it.
    """

    def __init__(self, command: str, courier: Courier) -> None:
        super().__init__()
        self.command = command
        self.id: int | None = None
        self.asked_to_cancel = False
        self._courier = courier

    def cancel(self) -> bool:
        """Never run it, or end it; True unless it has ended already. The future is cancelled at once. A task
        that ends at this very moment may stand in the status file with its own result."""
        return self._courier.cancel(self)

    def _cancel(self) -> bool:
        """Cancel the future."""
        return super().cancel()

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
        if self._courier.process != os.getpid():
            raise RuntimeError(
                "this task belongs to the process that handed it in; only that can wait for it"
            )
        if threading.get_ident() == self._courier.thread:
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
