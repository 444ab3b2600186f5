"""A thread with an event loop of its own that submits tasks to the driver of a run and delivers their
results.

Theory of operation
-------------------
Submitted tasks wait in a queue, and go to the driver in batches: a batch is everything that came while the
last one was on its way. Order is kept, so ids count in the order of submission. Results come from a
`Follower`, which outlives drivers.

The thread is a daemon, so that it ends with the interpreter; but before that the courier is closed
(`atexit`), which waits until every submitted task has ended.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import NamedTuple

import zmq

from disbatch.api.backpressure import Room
from disbatch.api.keyvalue import Operation, PendingOperations, Result
from disbatch.api.launched import Launched
from disbatch.api.task import Task
from disbatch.client.follow import Follower
from disbatch.client.keyvalue import KeyValueClient
from disbatch.client.run_client import RunClient, line_opener
from disbatch.model.errors import DisbatchError, RunEndedError, SilenceError, UsageError
from disbatch.model.idset import IdSet
from disbatch.model.result import result_of
from disbatch.model.statusline import Record
from disbatch.wire.client_protocol import (
    MAX_SUBMITTED,
    MOST_LINES_SUBMITTED,
    Seen,
    Submit,
    Taken,
    Verb,
    Wants,
    Watch,
)
from disbatch.wire.connect import ConnectFile
from disbatch.wire.verbs import MOST_RANGES, Cancel, Close, Finish

log = logging.getLogger("disbatch")

COALESCE = 0.002
"""Seconds for which a first task waits for company."""
PLACE = "handed in"
_WRONG = re.compile(rf"{PLACE}:([0-9]+): (.*)", re.S)
"""What the driver says of a line that is wrong, and of none else."""
ANSWER_WITHIN = 10.0
"""Seconds that the driver has to say whether a task runs."""
LAST_WORDS = 10.0
"""Seconds that a driver has to hear that we go."""


class Line(NamedTuple):
    """A line of a task file, and what becomes of it."""

    text: bytes
    tasks: tuple[Task, ...]


class Reached(NamedTuple):
    """The driver of a run: `prefix` is what its files begin with, `advice` what to do if it is dead."""

    connect: ConnectFile
    prefix: str
    advice: str
    launched: Launched | None = None
    takes_tasks: bool = True


class Courier:
    """`reach` finds the driver, or starts one; `ready` is then what the files of the run begin with, or why
    there is none. `patience`: seconds to wait for another driver if that is killed. All but what begins with
    an underscore is safe for threads."""

    def __init__(self, reach: Callable[[], Awaitable[Reached]], *, most: int, patience: float) -> None:
        self._reach = reach
        self._patience = patience
        self.process = os.getpid()
        self.thread = 0
        self.room = Room(most)
        self.ready: Future[str] = Future()
        self.closed: Future[None] = Future()
        self.return_code: int | None = None
        self.said = ""
        """The closing words of the `disbatch` that we started."""
        self.unfinished = 0
        """Tasks that did not end, and were not cancelled."""
        self.first_failure = ""
        """Why the first of them did not."""
        self.error: DisbatchError | None = None
        """Why nothing is taken any more."""
        self._lock = threading.Lock()
        self._unsent: deque[Line] = deque()
        self._cancelled: deque[Task] = deque()
        self._closing = False
        self._loop = asyncio.SelectorEventLoop()
        self._stirred = asyncio.Event()
        self._sent = asyncio.Event()
        self._cancels = asyncio.Event()
        self._close_asked = asyncio.Event()
        self._now = asyncio.Event()
        self._cancelling = asyncio.Lock()
        self._sending = False
        self._awake = False
        """It was said, since the queue was last looked at, that there is something in it."""
        self._tasks: dict[int, Task] = {}
        self._store_operations = PendingOperations(self._loop)
        self._client: RunClient | None = None
        _open.add(self)
        threading.Thread(target=self._run, name="disbatch", daemon=True).start()

    # ---- for everybody ----

    def put(self, line: Line) -> None:
        """Hand this in, for which there is room. RuntimeError after `close`, RunEndedError if the run is
        over."""
        with self._lock:
            self._check()
            self._unsent.append(line)
            asleep, self._awake = not self._awake, True
        if asleep:
            self._stir(self._stirred)

    def cancel(self, task: Task) -> bool:
        """As `Task.cancel`."""
        with self._lock:
            if task.asked_to_cancel:
                return task.cancelled()
            task.asked_to_cancel = True
        if not task._cancel():
            return False
        task.set_running_or_notify_cancel()
        self.room.leave(1)
        self._cancelled.append(task)
        self._stir(self._cancels)
        return True

    def runs(self, task: Task) -> bool:
        """Whether the task is in a slot now; False also if nobody can say."""
        with self._lock:
            if self._client is None or task.id is None or task.done():
                return False
            asked = asyncio.run_coroutine_threadsafe(self._ask_whether_it_runs(task.id), self._loop)
        try:
            return asked.result(2 * ANSWER_WITHIN)
        except (DisbatchError, TimeoutError, CancelledError):
            return False

    async def _ask_whether_it_runs(self, id: int) -> bool:
        assert self._client is not None
        answer = await self._client.ask(Watch(Wants(engines=0), ids=[(id, id)]), ANSWER_WITHIN)
        return isinstance(answer.value, Seen) and id in answer.value.running

    def carry_out(self, operation: Operation[Result]) -> Future[Result]:
        """Carry this out with the key store of the run, which is `ready`. RuntimeError after `close`,
        RunEndedError if the run is over."""
        with self._lock:
            self._check()
            return self._store_operations.begin(operation)

    def _check(self) -> None:
        if self._closing:
            raise RuntimeError("this run is closed")
        if self.error is not None:
            raise type(self.error)(str(self.error))

    def close(self, *, at_once: bool = False) -> Future[None]:
        """Take nothing more, and go when everything has ended; or `at_once`: end a run that we started, to be
        resumed, or cancel what we handed in to another. The future ends when that is done."""
        with self._lock:
            self._closing = True
        self._stir(self._close_asked)
        if at_once:
            self._stir(self._now)
        return self.closed

    def _stir(self, event: asyncio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(event.set)

    # ---- the thread ----

    def _run(self) -> None:
        self.thread = threading.get_ident()
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        finally:
            _open.discard(self)
            self._end(RunEndedError("this run is closed"))
            self.closed.set_result(None)

    async def _main(self) -> None:
        try:
            reached = await self._reach_or_give_up()
        except Exception as error:
            self.ready.set_exception(error)
            return
        with zmq.Context() as context:
            try:
                client, follower = await self._follow(context, reached)
            except Exception as error:
                if reached.launched is not None:
                    reached.launched.close()
                self.ready.set_exception(error)
                return
            self._client = client
            self._store_operations.store = KeyValueClient(client.ask, notify_user=log.warning)
            self.ready.set_result(reached.prefix)
            await self._serve(client, follower, reached.launched)

    async def _follow(
        self, context: zmq.Context[zmq.Socket[bytes]], reached: Reached
    ) -> tuple[RunClient, Follower]:
        client = RunClient(
            *(line_opener(context), reached.connect, reached.prefix),
            notify_user=log.warning,
            advice=reached.advice,
            patience=self._patience,
            by="the Python program",
        )
        try:
            follower = Follower(client)
            if reached.launched is None and reached.takes_tasks:
                await follower.submit(Submit([]))  # would it take any?
        except BaseException:
            client.close()
            raise
        return client, follower

    async def _reach_or_give_up(self) -> Reached:
        reaching = asyncio.ensure_future(self._reach())
        now = self._loop.create_task(self._now.wait())
        await asyncio.wait((reaching, now), return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if reaching.done():
            return reaching.result()
        reaching.cancel()
        raise RunEndedError("this run was closed before it had begun")

    async def _serve(self, client: RunClient, follower: Follower, launched: Launched | None) -> None:
        parts = [self._give(follower), self._tell(follower), self._end_cancelled(client)]
        if launched is not None:
            parts.append(self._watch(follower, launched))
        tasks = [self._loop.create_task(self._guarded(part)) for part in parts]
        try:
            await self._close_asked.wait()
            await self._finish(client, launched)
        finally:
            with self._lock:
                self._client = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._store_operations.end()
            client.close()
            if launched is not None:
                launched.close()

    async def _guarded(self, part: Awaitable[None]) -> None:
        """Nobody waits for ever because a part of us ended."""
        try:
            await part
        except DisbatchError as error:
            self._end(error if isinstance(error, RunEndedError) else RunEndedError(str(error)))
        except Exception as error:
            log.exception("disbatch: internal error")
            self._end(RunEndedError(f"internal error: {error!r}"))

    # ---- tasks go in ----

    async def _give(self, follower: Follower) -> None:
        while True:
            await self._stirred.wait()
            await asyncio.sleep(COALESCE)
            self._stirred.clear()
            with self._lock:
                self._awake = False
            while batch := self._batch():
                self._sending = True
                await self._submit(follower, batch)
                self._sending = False
            self._sent.set()

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
                self._end(RunEndedError(str(error)))
                self._fail(batch, RunEndedError(str(error)))
                return
            except DisbatchError as error:
                wrong = _WRONG.fullmatch(str(error))
                at = slice(None) if wrong is None else slice(int(wrong[1]) - 1, int(wrong[1]))
                self._fail(batch[at], error if wrong is None else UsageError(wrong[2]))
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

    def _fail(self, batch: list[Line], error: DisbatchError) -> None:
        for line in batch:
            for task in line.tasks:
                self._fail_task(task, error)

    # ---- results come out ----

    async def _tell(self, follower: Follower) -> None:
        while True:
            told = await follower.collect()
            for _, record in told.ended:
                self._ended(record)
            if told.over:
                raise RunEndedError(f"the run ended: {told.words}" if told.words else "the run ended")

    def _ended(self, record: Record) -> None:
        task = self._tasks.pop(record.id, None)
        if task is None:
            return
        command = None if record.command else os.fsencode(task.command)
        with contextlib.suppress(InvalidStateError):  # cancelled
            task.set_result(result_of(record, command))
            self.room.leave(1)

    def _fail_task(self, task: Task, error: DisbatchError) -> None:
        with contextlib.suppress(InvalidStateError):
            task.set_exception(error)
            self.unfinished += 1
            self.first_failure = self.first_failure or str(error)
            self.room.leave(1)

    def _end(self, error: DisbatchError) -> None:
        """Nothing more goes in, or comes out."""
        with self._lock:
            self.error = self.error or error
            unsent = list(self._unsent)
            self._unsent.clear()
        self.room.shut()
        self._fail(unsent, self.error)
        waiting, self._tasks = self._tasks, {}
        for task in waiting.values():
            self._fail_task(task, self.error)
        self._sent.set()

    async def _end_cancelled(self, client: RunClient) -> None:
        while True:
            await self._cancels.wait()
            self._cancels.clear()
            async with self._cancelling:
                for verb in self._orders_to_cancel():
                    await client.ask(verb)

    def _orders_to_cancel(self) -> list[Cancel]:
        """For those of the cancelled tasks that the driver has."""
        ids = IdSet()
        while self._cancelled:
            id = self._cancelled.popleft().id
            if id is not None:
                ids.add(id, id)
        ranges = list(ids)
        return [Cancel(ranges[at : at + MOST_RANGES]) for at in range(0, len(ranges), MOST_RANGES)]

    # ---- the end ----

    async def _watch(self, follower: Follower, launched: Launched) -> None:
        """The `disbatch` that we started may end by itself, while nobody waits for a task."""
        self.return_code = await asyncio.shield(launched.ended)
        self.said = launched.said
        if self.return_code >= 0 and not follower.pending and not self._sending:
            raise RunEndedError(launched.conclusion)

    async def _finish(self, client: RunClient, launched: Launched | None) -> None:
        gently = self._loop.create_task(self._finish_gently(client, launched))
        now = self._loop.create_task(self._now.wait())
        await asyncio.wait((gently, now), return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if gently.done():
            gently.result()
            return
        gently.cancel()
        await self._finish_now(client, launched)

    async def _finish_gently(self, client: RunClient, launched: Launched | None) -> None:
        """When everything has ended."""
        if self.error is None:
            self._sent.clear()
            self._stirred.set()
            await self._sent.wait()
        if launched is not None:
            launched.take_no_more()
        await asyncio.wrap_future(self.room.idle())
        async with self._cancelling:
            for verb in self._orders_to_cancel():
                await self._ask(client, verb)
        if launched is None:
            return
        if not launched.ended.done():
            await self._store_operations.end()
            client.close()  # its driver waits a moment for whoever is still there
        elif self.error is None and launched.ended.result() < 0:
            await self._ask(client, Close())  # it was killed, and another one may have its run
        await self._see_off(launched)

    async def _finish_now(self, client: RunClient, launched: Launched | None) -> None:
        with self._lock:
            unsent = list(self._unsent)
            self._unsent.clear()
        if launched is None:
            self._fail(unsent, RunEndedError("this run was closed before the task was handed in"))
            for task in list(self._tasks.values()):
                self.cancel(task)
            for verb in self._orders_to_cancel():
                await self._ask(client, verb)
            return
        if self.error is None:
            await self._ask(client, Finish())
        launched.take_no_more()
        await self._see_off(launched)
        self._fail(unsent, self.error or RunEndedError(launched.conclusion))
        await asyncio.wrap_future(self.room.idle())

    async def _see_off(self, launched: Launched) -> None:
        self.return_code = await asyncio.shield(launched.ended)
        self.said = launched.said

    async def _ask(self, client: RunClient, verb: Verb) -> None:
        with contextlib.suppress(DisbatchError):
            await client.ask(verb, LAST_WORDS)


_open: set[Courier] = set()
"""Those that are not closed."""


def _close_all() -> None:
    """The interpreter ends: what was handed in does not end with it."""
    for courier in list(_open):
        if courier.process != os.getpid():
            continue
        try:
            courier.close().result()
        except KeyboardInterrupt:
            courier.close(at_once=True).result()


atexit.register(_close_all)
