"""Submit a program's tasks to the driver of its run, in batches, and end their futures with their results.

Theory of operation
-------------------
Submitted lines wait in a queue. A batch is everything that arrived while the previous batch was on its way.
The order is kept, so ids count in the order of submission. The driver names the first invalid line of a
batch: the tasks of that line fail, and the others are submitted again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections import deque
from concurrent.futures import InvalidStateError
from typing import NamedTuple

from disbatch.api.backpressure import Room
from disbatch.api.task import Task
from disbatch.client.follow import Follower
from disbatch.client.run_client import RunClient
from disbatch.model.errors import DisbatchError, RunEndedError, SilenceError, UsageError
from disbatch.model.idset import IdSet
from disbatch.model.result import result_of
from disbatch.model.statusline import Record
from disbatch.wire.client_protocol import MAX_SUBMITTED, MOST_LINES_SUBMITTED, Submit, Taken, Verb
from disbatch.wire.verbs import MOST_RANGES, Cancel

COALESCE = 0.002
"""Seconds for which a first task waits for others."""
PLACE = "handed in"
_WRONG = re.compile(rf"{PLACE}:([0-9]+): (.*)", re.S)
"""The driver's message about an invalid line; no other message looks like it."""
ANSWER_WITHIN = 10.0
"""Seconds that the driver has to answer a last request."""


class Line(NamedTuple):
    """A line of a task file, and the tasks that it becomes."""

    text: bytes
    tasks: tuple[Task, ...]


class Submissions:
    """The tasks of one program; at most `most` that have not ended. `put`, `cancel` and `check` are safe for
    threads; everything else runs on `loop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self.lock = threading.Lock()
        self.room = Room(most)
        self.closing = False
        self.error: DisbatchError | None = None
        """Why no more tasks are accepted."""
        self.unfinished = 0
        """Tasks that did not end and were not cancelled."""
        self.first_failure = ""
        """Why the first of them did not end."""
        self.is_sending = False
        self._loop = loop
        self._unsent: deque[Line] = deque()
        self._cancelled: deque[Task] = deque()
        self._tasks: dict[int, Task] = {}
        self._arrived = asyncio.Event()
        self._is_announced = False
        """`_arrived` was set since the queue was last read."""
        self._sent = asyncio.Event()
        self._cancels = asyncio.Event()
        self.cancelling = asyncio.Lock()
        """Held while a cancelled task is not with the driver yet."""

    # ---- from any thread ----

    def check(self) -> None:
        """RuntimeError if the run is closed, RunEndedError if it is over. The caller holds the lock."""
        if self.closing:
            raise RuntimeError("this run is closed")
        if self.error is not None:
            raise type(self.error)(str(self.error))

    def put(self, line: Line) -> None:
        """Submit a line that has entered `room`. Errors as of `check`."""
        with self.lock:
            self.check()
            self._unsent.append(line)
            announce, self._is_announced = not self._is_announced, True
        if announce:
            self.set_event(self._arrived)

    def cancel(self, task: Task) -> bool:
        """See `Task.cancel`."""
        with self.lock:
            if task.asked_to_cancel:
                return task.cancelled()
            task.asked_to_cancel = True
        if not task._cancel():
            return False
        task.set_running_or_notify_cancel()
        self.room.leave(1)
        self._cancelled.append(task)
        self.set_event(self._cancels)
        return True

    def set_event(self, event: asyncio.Event) -> None:
        """Set an event of the loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(event.set)

    # ---- to the driver ----

    async def send(self, follower: Follower) -> None:
        """Submit lines as they arrive."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(COALESCE)
            self._arrived.clear()
            with self.lock:
                self._is_announced = False
            while batch := self._batch():
                self.is_sending = True
                await self._submit(follower, batch)
                self.is_sending = False
            self._sent.set()

    async def flush(self) -> None:
        """Return when the queue is empty."""
        if self.error is None:
            self._sent.clear()
            self._arrived.set()
            await self._sent.wait()

    def _batch(self) -> list[Line]:
        batch: list[Line] = []
        size = 0
        while self._unsent and len(batch) < MOST_LINES_SUBMITTED:
            line = self._unsent[0]
            if batch and size + len(line.text) > MAX_SUBMITTED:
                break
            self._unsent.popleft()
            if line.tasks and all(task.cancelled() for task in line.tasks):
                self.room.leave(0, len(line.text))
                continue
            batch.append(line)
            size += len(line.text)
        return batch

    async def _submit(self, follower: Follower, batch: list[Line]) -> None:
        self.room.leave(0, sum(len(line.text) for line in batch))
        while batch:
            try:
                taken = await follower.submit(Submit([line.text for line in batch], PLACE))
            except SilenceError as error:
                self.end(RunEndedError(str(error)))
                self.fail(batch, RunEndedError(str(error)))
                return
            except DisbatchError as error:
                wrong = _WRONG.fullmatch(str(error))
                at = slice(None) if wrong is None else slice(int(wrong[1]) - 1, int(wrong[1]))
                self.fail(batch[at], error if wrong is None else UsageError(wrong[2]))
                del batch[at]
            else:
                self._number(batch, taken)
                return

    def _number(self, batch: list[Line], taken: Taken) -> None:
        id = taken.first
        for line in batch:
            for task in line.tasks:
                task.id = id
                self._tasks[id] = task
                id += 1
                if task.cancelled():
                    self._cancelled.append(task)
                    self._cancels.set()
        assert id == taken.first + taken.ids

    async def send_cancels(self, client: RunClient) -> None:
        """Have the driver cancel tasks that the program cancels."""
        while True:
            await self._cancels.wait()
            self._cancels.clear()
            async with self.cancelling:
                for verb in self._cancel_requests():
                    await client.ask(verb)

    async def send_last_cancels(self, client: RunClient) -> None:
        """The same, once, and without waiting long for an answer."""
        for verb in self._cancel_requests():
            await ask_briefly(client, verb)

    def _cancel_requests(self) -> list[Cancel]:
        """For cancelled tasks that the driver has accepted."""
        ids = IdSet()
        while self._cancelled:
            id = self._cancelled.popleft().id
            if id is not None:
                ids.add(id, id)
        ranges = list(ids)
        return [Cancel(ranges[at : at + MOST_RANGES]) for at in range(0, len(ranges), MOST_RANGES)]

    # ---- results ----

    async def deliver(self, follower: Follower) -> None:
        """End futures as results come. RunEndedError when the run is over."""
        while True:
            told = await follower.collect()
            for _, record in told.ended:
                self._deliver(record)
            if told.over:
                raise RunEndedError(f"the run ended: {told.words}" if told.words else "the run ended")

    def _deliver(self, record: Record) -> None:
        task = self._tasks.pop(record.id, None)
        if task is None:
            return
        command = None if record.command else os.fsencode(task.command)
        with contextlib.suppress(InvalidStateError):  # cancelled
            task.set_result(result_of(record, command))
            self.room.leave(1)

    def fail(self, lines: list[Line], error: DisbatchError) -> None:
        """End the tasks of these lines with an error."""
        for line in lines:
            for task in line.tasks:
                self._fail(task, error)

    def _fail(self, task: Task, error: DisbatchError) -> None:
        with contextlib.suppress(InvalidStateError):
            task.set_exception(error)
            self.unfinished += 1
            self.first_failure = self.first_failure or str(error)
            self.room.leave(1)

    # ---- the end ----

    def withdraw(self) -> list[Line]:
        """Empty the queue; returns the lines that were not sent."""
        with self.lock:
            unsent = list(self._unsent)
            self._unsent.clear()
        return unsent

    def cancel_all(self) -> None:
        """Cancel every task that the driver has accepted."""
        for task in list(self._tasks.values()):
            self.cancel(task)

    def end(self, error: DisbatchError) -> None:
        """The run is over: accept no more tasks, and end all others with an error."""
        with self.lock:
            self.error = self.error or error
        unsent = self.withdraw()
        self.room.shut()
        self.fail(unsent, self.error)
        waiting, self._tasks = self._tasks, {}
        for task in waiting.values():
            self._fail(task, self.error)
        self._sent.set()


async def ask_briefly(client: RunClient, verb: Verb) -> None:
    """A request whose answer does not matter."""
    with contextlib.suppress(DisbatchError):
        await client.ask(verb, ANSWER_WITHIN)
