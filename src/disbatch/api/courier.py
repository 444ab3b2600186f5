"""A thread with an event loop of its own that connects a program with the driver of its run.

Theory of operation
-------------------
The thread is a daemon, so that it ends with the interpreter; but before that the courier is closed
(`atexit`), which waits until every submitted task has ended.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple, TypeVar

import zmq

from disbatch.api.keyvalue import Operation, PendingOperations, Result
from disbatch.api.launched import Launched
from disbatch.api.submissions import ANSWER_WITHIN, Submissions, ask_briefly
from disbatch.api.task import Task
from disbatch.client.follow import Follower
from disbatch.client.keyvalue import KeyValueClient
from disbatch.client.run_client import RunClient, line_opener
from disbatch.model.errors import DisbatchError, RunEndedError
from disbatch.wire.client_protocol import Seen, Submit, Wants, Watch
from disbatch.wire.connect import ConnectFile
from disbatch.wire.verbs import Close, Finish

log = logging.getLogger("disbatch")
_Done = TypeVar("_Done")


class Reached(NamedTuple):
    """The driver of a run: `prefix` is the prefix of its files, `advice` what to do if it is dead."""

    connect: ConnectFile
    prefix: str
    advice: str
    launched: Launched | None = None
    takes_tasks: bool = True


class _AtOnceError(Exception):
    """The program does not wait any longer."""


class Courier:
    """`reach` finds the driver, or starts one; then `ready` is the prefix of the run's files, or the error.
    `most`: as in `Submissions`; `patience`: seconds to wait for another driver if this one is killed. Public
    methods are safe for threads."""

    def __init__(self, reach: Callable[[], Awaitable[Reached]], *, most: int, patience: float) -> None:
        self._reach = reach
        self._patience = patience
        self.process = os.getpid()
        self.thread = 0
        self.ready: Future[str] = Future()
        self.closed: Future[None] = Future()
        self.return_code: int | None = None
        self.messages = ""
        """The last messages of the `disbatch` that was started."""
        self._loop = asyncio.SelectorEventLoop()
        self.tasks = Submissions(self._loop, most)
        self._close_asked = asyncio.Event()
        self._now = asyncio.Event()
        self._store_operations = PendingOperations(self._loop)
        self._client: RunClient | None = None
        _open.add(self)
        threading.Thread(target=self._run, name="disbatch", daemon=True).start()

    # ---- from any thread ----

    def cancel(self, task: Task) -> bool:
        """See `Task.cancel`."""
        return self.tasks.cancel(task)

    def runs(self, task: Task) -> bool:
        """True if the task is in a slot now; False also if that cannot be found out."""
        with self.tasks.lock:
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
        with self.tasks.lock:
            self.tasks.check()
            return self._store_operations.begin(operation)

    def close(self, *, at_once: bool = False) -> Future[None]:
        """Accept nothing more, and end when all tasks have ended. `at_once`: end a run that was started here,
        to be resumed, or cancel the tasks that were submitted to another run. The future ends when that is
        done."""
        with self.tasks.lock:
            self.tasks.closing = True
        self.tasks.set_event(self._close_asked)
        if at_once:
            self.tasks.set_event(self._now)
        return self.closed

    # ---- the thread ----

    def _run(self) -> None:
        self.thread = threading.get_ident()
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        finally:
            _open.discard(self)
            self.tasks.end(RunEndedError("this run is closed"))
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

    async def _reach_or_give_up(self) -> Reached:
        try:
            return await self._unless_at_once(self._reach())
        except _AtOnceError:
            raise RunEndedError("this run was closed before it had begun") from None

    async def _unless_at_once(self, work: Awaitable[_Done]) -> _Done:
        """Do this. _AtOnceError as soon as the program does not wait any longer."""
        working = asyncio.ensure_future(work)
        now = self._loop.create_task(self._now.wait())
        await asyncio.wait((working, now), return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if working.done():
            return working.result()
        working.cancel()
        raise _AtOnceError

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
                await follower.submit(Submit([]))  # an error if the run accepts no tasks
        except BaseException:
            client.close()
            raise
        return client, follower

    async def _serve(self, client: RunClient, follower: Follower, launched: Launched | None) -> None:
        tasks = self.tasks
        parts = [tasks.send(follower), tasks.deliver(follower), tasks.send_cancels(client)]
        if launched is not None:
            parts.append(self._watch(follower, launched))
        running = [self._loop.create_task(self._guarded(part)) for part in parts]
        try:
            await self._close_asked.wait()
            await self._finish(client, launched)
        finally:
            with tasks.lock:
                self._client = None
            for part in running:
                part.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self._store_operations.end()
            client.close()
            if launched is not None:
                launched.close()

    async def _guarded(self, part: Coroutine[Any, Any, None]) -> None:
        """An error of one part ends all tasks, so that no program waits forever."""
        try:
            await part
        except DisbatchError as error:
            self.tasks.end(error if isinstance(error, RunEndedError) else RunEndedError(str(error)))
        except Exception as error:
            log.exception("disbatch: internal error")
            self.tasks.end(RunEndedError(f"internal error: {error!r}"))

    async def _watch(self, follower: Follower, launched: Launched) -> None:
        """The `disbatch` that was started may end by itself while no task is awaited."""
        await self._wait_for(launched)
        if launched.ended.result() >= 0 and not follower.pending and not self.tasks.is_sending:
            raise RunEndedError(launched.conclusion)

    # ---- the end ----

    async def _finish(self, client: RunClient, launched: Launched | None) -> None:
        try:
            await self._unless_at_once(self._finish_gently(client, launched))
        except _AtOnceError:
            await self._finish_now(client, launched)

    async def _finish_gently(self, client: RunClient, launched: Launched | None) -> None:
        """When all tasks have ended."""
        tasks = self.tasks
        await tasks.flush()
        if launched is not None:
            launched.take_no_more()
        await asyncio.wrap_future(tasks.room.idle())
        async with tasks.cancelling:
            await tasks.send_last_cancels(client)
        if launched is None:
            return
        if not launched.ended.done():
            await self._store_operations.end()
            client.close()  # the driver waits a moment for clients that are still connected
        elif tasks.error is None and launched.ended.result() < 0:
            await ask_briefly(
                client, Close()
            )  # it was killed, and another driver may have taken its run over
        await self._wait_for(launched)

    async def _finish_now(self, client: RunClient, launched: Launched | None) -> None:
        tasks = self.tasks
        unsent = tasks.withdraw()
        if launched is None:
            tasks.fail(unsent, RunEndedError("this run was closed before the task was submitted"))
            tasks.cancel_all()
            await tasks.send_last_cancels(client)
            return
        if tasks.error is None:
            await ask_briefly(client, Finish())
        launched.take_no_more()
        await self._wait_for(launched)
        tasks.fail(unsent, tasks.error or RunEndedError(launched.conclusion))
        await asyncio.wrap_future(tasks.room.idle())

    async def _wait_for(self, launched: Launched) -> None:
        self.return_code = await asyncio.shield(launched.ended)
        self.messages = launched.messages


_open: set[Courier] = set()
"""Those that are not closed."""


def _close_all() -> None:
    """Wait for submitted tasks when the interpreter exits."""
    for courier in list(_open):
        if courier.process != os.getpid():
            continue
        try:
            courier.close().result()
        except KeyboardInterrupt:
            courier.close(at_once=True).result()


atexit.register(_close_all)
