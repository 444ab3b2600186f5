"""The run's key store: open and announce it, and publish results, barriers and the state of the run in it.

| key | value |
|---|---|
| `RESULT_KEY ID` | the report of a task, JSON; the task source chooses `RESULT_KEY` |
| `RESULT_KEY done tasks` | the id of each task that has a report |
| the key of a `BARRIER key` | the barrier's id |
| `DisBatch status` | the state of the run, JSON; replaced as it changes |

A report or an id is put when the line of the task or barrier is in the status file, so that no program learns
of a result whose task may run again. Values are put in order, and the run does not wait for that: if they
cannot be put, the run continues until too many wait; then it starts no task until there are fewer.

The driver's own key store ends with the driver. So when all tasks have ended, the driver waits until a
program that it did not start has fetched all reports; but not for a program that has requested nothing in
SILENT seconds, or fetched nothing in IDLE seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from disbatch.driver.holds import Holds, Reason
from disbatch.driver.settings import Settings
from disbatch.keystore.embedded import EmbeddedStore
from disbatch.keystore.service import KeyStoreService
from disbatch.keystore.store import KeyStore, Pair
from disbatch.model.errors import DisbatchError
from disbatch.model.result import Report, report_of
from disbatch.model.task import Barrier
from disbatch.model.text import counted, path_line
from disbatch.model.view import EngineRow, RunView
from disbatch.rundir.kvsinfo import KvsInfo, kvsinfo_path
from disbatch.sources.keystore import SignIn, SourceAccess
from disbatch.wire.client_protocol import Answer, Request, Wants

if TYPE_CHECKING:
    from disbatch.keystore.address import Address
    from disbatch.keystore.redis import PrefixLease

log = logging.getLogger(__name__)

STATUS_KEY = b"DisBatch status"
STATUS_INTERVAL = 2.0
"""Seconds between two checks whether the state has changed."""
RELEASE_WITHIN = 3.0
"""Seconds for what is put at the very end."""
BATCH = 256
"""Results that are put at once."""
FULL = 20_000
"""Results that may wait; with more of them, no task starts until there are fewer."""


class PutQueue:
    """Values that wait to be put into `store`, in order. `full(True)` is called when too many wait,
    `full(False)` when there are fewer again, `refused` when the store refuses some for good."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: KeyStore,
        *,
        full: Callable[[bool], None],
        refused: Callable[[DisbatchError], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._tell_full = full
        self._refused = refused
        self._waiting: deque[tuple[Pair, ...]] = deque()
        self._full = False
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, *pairs: Pair) -> None:
        """Put these together, after all others."""
        self._waiting.append(pairs)
        if self._task is None:
            self._task = self._loop.create_task(self._send())
        self._look()

    async def _send(self) -> None:
        # Values that are added in one turn of the loop go in one batch.
        await asyncio.sleep(0)
        while self._waiting:
            batch = list(islice(self._waiting, BATCH))
            try:
                await self._store.put([pair for pairs in batch for pair in pairs])
            except DisbatchError as error:
                self._refused(error)
            for _ in batch:
                self._waiting.popleft()
            self._look()
        self._task = None

    def _look(self) -> None:
        full = len(self._waiting) > (FULL // 2 if self._full else FULL)
        if full != self._full:
            self._full = full
            self._tell_full(full)

    async def close(self, patience: float) -> int:
        """Put what waits, within so many seconds; the number of results that could not be put."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=patience)
        if self._task is not None:
            self._task.cancel()
        return len(self._waiting)


SILENT = 60.0
IDLE = 600.0


class FetchWait:
    """Wait until programs have fetched all results: as long as `left()` is true. Call `requested` when a
    program requests something."""

    def __init__(self, left: Callable[[], bool], *, silent: float = SILENT, idle: float = IDLE) -> None:
        self._left = left
        self._silent = silent
        self._idle = idle
        self._ended = False
        self._event = asyncio.Event()

    def requested(self) -> None:
        """A program has requested something."""
        self._event.set()

    def end(self) -> None:
        """Stop waiting."""
        self._ended = True
        self._event.set()

    async def wait(self, held: Callable[[], int]) -> None:
        """Wait. `held()`: how much the store holds, which becomes less when a program fetches a result."""
        loop = asyncio.get_running_loop()
        before, since = held(), loop.time()
        while self._left() and not self._ended:
            if (now := held()) < before:
                before, since = now, loop.time()
            left = min(self._silent, since + self._idle - loop.time())
            self._event.clear()
            try:
                async with asyncio.timeout(left):
                    await self._event.wait()
            except TimeoutError:
                return


_COUNTS = ("seconds", "total", "done", "failed", "skipped", "running", "slots")
_MORE = ("notice", "skipped_failed", "inherited", "cancelled")
_OF_AN_ENGINE = ("node", "rank", "slots", "running", "waiting", "done", "failed")
_STATES = {"left": "gone", "failed": "gone"}
"""The states of engines that have another name in this value."""


def status_value(state: str, view: RunView) -> bytes:
    """The JSON value of `DisBatch status`, with the names in docs/keystore.md."""

    def of(row: EngineRow) -> dict[str, object]:
        return {name: getattr(row, name) for name in _OF_AN_ENGINE} | {
            "state": _STATES.get(row.state, row.state)
        }

    return msgspec.json.encode(
        {"jobid": view.jobid, "state": state}
        | {name: getattr(view, name) for name in _COUNTS}
        | {"engines": [of(row) for row in view.engines if row.engine]}
        | {name: getattr(view, name) for name in _MORE}
    )


class KeyStorePublisher:
    """`open` it before the source begins, `settle` and `close` it when the record is closed.

    `mark` calls back when all lines so far are in the status file; `view` returns the state of the run;
    `notify_user` gets a line for the user. `request` answers a program's request, at once or through
    `answer`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        holds: Holds,
        *,
        mark: Callable[[Callable[[], None]], None],
        view: Callable[[Wants], RunView],
        notify_user: Callable[[str], None],
        answer: Callable[[Request, Answer], None],
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._holds = holds
        self._mark = mark
        self._view = view
        self._notify_user = notify_user
        files = settings.claimed.files
        self.info = KvsInfo(kvsinfo_path(files, settings.task_name, settings.jobid))
        self._lease: PrefixLease | None = None
        self._away: Callable[[], bool] = lambda: False
        self._publishing: asyncio.Task[None] | None = None
        self._results: bytes | None = None
        """The source's key for results, with a blank after it; None if it wants none."""
        self._over = False
        self._store: KeyStore | None = None
        self._service = KeyStoreService(loop, answer)
        self._fetch_wait: FetchWait | None = None
        self.request = self._service.request

    # ---- opening it ----

    async def reach(self) -> None:
        """Connect to the server, if the store is one. UsageError if that is not possible."""
        if self._settings.keystore is not None:
            self._lease = await self._open_server(self._settings.keystore)

    def open(self, address: str) -> SourceAccess:
        """Open the store and write the file that tells where it is; `address` is the driver's. UsageError if
        that file cannot be written."""
        s = self._settings
        connect = s.claimed.files.connect
        environment = {b"DISBATCH_CONNECT": bytes(connect), b"DISBATCH_JOBID": s.jobid.encode()}
        again = s.takeover is not None
        store: KeyStore
        if s.keystore is None or self._lease is None:
            store = embedded = EmbeddedStore(
                trouble=self._notify_user, recovered=lambda: self._notify_user("the key store has room again")
            )
            embedded.supply(STATUS_KEY, self._status)
            self.info.write([address, f"connect {path_line(str(connect))}"], again=again)
            where = f"the run's own, see {self.info.path}"
        else:
            lease = self._lease
            self.info.write([str(s.keystore), f"prefix {lease.prefix}"], again=again)
            where = f"{s.keystore}, its keys begin with {lease.prefix}"
            environment[b"DISBATCH_KVS_URL"] = s.keystore.url.encode()
            environment[b"DISBATCH_KVS_PREFIX"] = lease.prefix.encode()
            store = lease.store
            self._publishing = self._loop.create_task(self._publish(lease))
        self._queue = PutQueue(self._loop, store, full=self._full, refused=self._refused)
        self._store = store
        self._service.open(store, secrets.token_hex(8) if s.keystore is None else "")
        return SourceAccess(
            store, where, {**s.environment, **environment}, self._signed_in, self._notify_user
        )

    async def _open_server(self, address: Address) -> PrefixLease:
        from disbatch.keystore.redis import find_prefix
        from disbatch.keystore.redis_server import Server

        s = self._settings
        server = Server(
            address,
            trouble=self._notify_user,
            recovered=lambda: self._notify_user(f"key store {address}: is there again"),
        )
        await server.open()
        self._away = lambda: server.away
        former = self.info.told("prefix") if s.takeover is not None else None
        return await find_prefix(server, s.jobid, s.key_prefix, former)

    def _signed_in(self, source: SignIn) -> None:
        log.info("task source %r has signed in: tasks under %r", source.name, source.tasks)
        if source.results:
            self._results = source.results + b" "

    # ---- results and barriers ----

    def put_barrier(self, barrier: Barrier) -> None:
        """This barrier is complete: put its id under its key."""
        if barrier.key is not None:
            self._mark(partial(self._queue.add, (barrier.key, str(barrier.id).encode())))

    def ended(self, id: int, line: bytes) -> None:
        """A task or barrier has this status line: put the task's report."""
        report = None if self._results is None else report_of(line)
        if self._results is not None and report is not None:
            self._mark(partial(self._put_report, self._results, report))

    def _put_report(self, results: bytes, report: Report) -> None:
        id = str(report.id).encode()
        self._queue.add((results + id, report.json()), (results + b"done tasks", id))

    def _full(self, full: bool) -> None:
        if full:
            waiting = counted(len(self._queue), "result waits", "results wait") + " for the key store"
            words = f"{waiting}; no task starts until it takes some"
            self._notify_user(words)
            self._holds.add(Reason.STORE, words)
        else:
            self._holds.remove(Reason.STORE)

    def _refused(self, error: DisbatchError) -> None:
        self._notify_user(f"results are lost: {error}")

    # ---- the state of the run ----

    def _status(self) -> bytes:
        return self._status_of(self._view(Wants()))

    def _status_of(self, view: RunView) -> bytes:
        return status_value("over" if self._over else "running", view)

    async def _publish(self, lease: PrefixLease) -> None:
        from disbatch.keystore.redis import RENEW

        last, renewed = None, self._loop.time()
        while True:
            view = self._view(Wants())
            now = self._status_of(msgspec.structs.replace(view, seconds=0.0))
            try:
                if now != last:
                    await lease.store.replace(STATUS_KEY, self._status_of(view))
                    last = now
                if self._loop.time() >= renewed + RENEW:
                    renewed = self._loop.time()
                    await lease.renew()
            except DisbatchError as error:
                log.warning("the state of the run is not put: %s", error)
            await asyncio.sleep(STATUS_INTERVAL)

    # ---- the end ----

    async def settle(self, patience: float) -> None:
        """Everything is recorded: put the results that still wait."""
        self._over = True
        if self._store is not None:
            left = await self._queue.close(patience)
            if left:
                self._notify_user(f"{counted(left, 'result')} could not be put into the key store")

    async def wait_for_fetching(self) -> None:
        """Wait as long as a program may still fetch results from the driver's own store."""
        store, results = self._store, self._results
        if results is None or not isinstance(store, EmbeddedStore) or not self._unfetched():
            return
        self._fetch_wait = FetchWait(self._unfetched)
        self._service.requested = self._fetch_wait.requested
        most = f"at most {SILENT:g} s after the last request"
        self._notify_user(
            f"all tasks have ended; the key store stays until their results are fetched, {most}"
        )
        await self._fetch_wait.wait(lambda: store.held)
        if self._unfetched():
            self._notify_user("some results were not fetched from the key store; they are in the status file")

    def _unfetched(self) -> bool:
        """True if reports of tasks are in the store, or on their way to a program."""
        store, results = self._store, self._results
        if results is None or not isinstance(store, EmbeddedStore):
            return False
        return store.has(results, but=results + b"done tasks") or self._service.holds(results)

    def stop_waiting(self) -> None:
        """Stop waiting for results to be fetched."""
        if self._fetch_wait is not None:
            self._fetch_wait.end()

    async def close(self) -> None:
        """Close the store."""
        await self._service.close()
        if self._publishing is not None:
            self._publishing.cancel()
        if self._lease is not None and not self._away():
            with contextlib.suppress(DisbatchError, TimeoutError):
                await asyncio.wait_for(self._release(self._lease), RELEASE_WITHIN)
        self.info.remove(self._notify_user)
        if self._store is not None:
            await self._store.close()

    async def _release(self, lease: PrefixLease) -> None:
        await lease.store.replace(STATUS_KEY, self._status())
        await lease.release()
