"""`DisBatcher`, for programs written for disBatch 3.0; new programs use `DisBatch`.

It covers both uses of the original: a program that gives tasks, through its key store, to a run that was
started with --taskserver, and a program that uses the key store of a run, in its driver or in a server.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import threading
from collections.abc import Awaitable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict

from disbatch.api.keyvalue import Operation, Result, Values
from disbatch.api.run import DisBatch
from disbatch.keystore.address import PREFIX, URL, Address, parse_address
from disbatch.keystore.redis import ExternalStore
from disbatch.keystore.redis_server import Server
from disbatch.model.errors import DisbatchError, UsageError
from disbatch.model.result import KINDS, Report, TaskResult
from disbatch.model.task import Reason
from disbatch.model.taskfile import BarrierLine, DirectiveError, Repeat, is_directive, parse_directive
from disbatch.model.text import parse_path_line
from disbatch.rundir.kvsinfo import MAX_SIZE
from disbatch.sources.keystore import DONE_TASK, RESULT_KEY, SOURCE_NAME, TASK_KEY
from disbatch.wire.client_protocol import MAX_SUBMITTED

log = logging.getLogger("disbatch")

LAST_WORDS = 10.0
"""Seconds that the end of the program waits until values that nobody took are back in the store."""


def open_values(where: str) -> Values:
    """`where` is the name of a run's kvsinfo.txt, or the address of a server; then DISBATCH_KVS_PREFIX is the
    prefix of the keys there. UsageError if there is no such store."""
    if not Path(where).is_file():
        prefix = os.environ.get(PREFIX, "")
        if not prefix:
            raise UsageError(f"kvsserver {_shown(where)}: which run? name its kvsinfo.txt, or set {PREFIX}")
        return ServerValues(parse_address(where, "kvsserver"), prefix)
    address, told = _read(where)
    if "connect" in told:
        try:
            return DisBatch.connect(parse_path_line(told["connect"]), tasks=False)
        except ValueError as error:
            raise UsageError(f"{where}: is not a file that a run wrote: {error}") from error
    return ServerValues(_with_password(parse_address(address, where)), told.get("prefix", ""))


def _shown(where: str) -> str:
    return "of that name" if "@" in where else where


def _read(path: str) -> tuple[str, dict[str, str]]:
    try:
        with Path(path).open("rb") as file:
            first, *rest = file.read(MAX_SIZE).decode("utf-8", "surrogateescape").splitlines() or [""]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    return first, {word: named for word, _, named in (line.partition(" ") for line in rest)}


def _with_password(address: Address) -> Address:
    """The file holds no password; the environment may hold that of the same server."""
    url = os.environ.get(URL, "")
    if not url:
        return address
    known = parse_address(url, URL)
    return known if str(known) == str(address) else address


class ServerValues(Values):
    """The key store in a server, under keys that begin with `prefix`; a thread serves it until the program
    ends."""

    def __init__(self, address: Address, prefix: str) -> None:
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="disbatch store", daemon=True)
        self._thread.start()
        try:
            self._store = self._do(self._open(address, prefix.encode("utf-8", "surrogateescape")))
        except BaseException:
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise
        atexit.register(self._close)

    async def _open(self, address: Address, prefix: bytes) -> ExternalStore:
        again = f"key store {address}: is there again"
        server = Server(address, trouble=log.warning, recovered=lambda: log.warning(again))
        await server.open()
        return ExternalStore(server, prefix)

    def _do(self, work: Awaitable[Result]) -> Result:
        async def waited() -> Result:
            return await work

        future = asyncio.run_coroutine_threadsafe(waited(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _wait_for(self, operation: Operation[Result]) -> Result:
        return self._do(operation(self._store))

    async def _await(self, operation: Operation[Result]) -> Result:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(operation(self._store), self._loop))

    def _close(self) -> None:
        with suppress(DisbatchError, TimeoutError):
            self._do(asyncio.wait_for(self._store.close(), LAST_WORDS))
        self._loop.call_soon_threadsafe(self._loop.stop)


class TaskSourceClient:
    """A task source called `name`; docs/keystore.md describes what it puts and gets."""

    def __init__(self, values: Values, name: str) -> None:
        self._values = values
        self._done = f"{name} done!".encode("utf-8", "surrogateescape")
        self._results = f"{name} result"
        self._tasks = f"{name} task"
        self._closed = False
        values.put(SOURCE_NAME, name)
        values.put(DONE_TASK, self._done)
        values.put(RESULT_KEY, self._results)
        values.put(TASK_KEY, self._tasks)

    def submit(self, line: bytes) -> None:
        """Submit a line. RuntimeError after `done`, ValueError for the line that means `done`."""
        if self._closed:
            raise RuntimeError("this run is closed")
        if line == self._done:
            raise ValueError(f"{line!r} says that there are no more tasks: call done()")
        self._values.put(self._tasks, line)

    def next_report(self) -> dict[str, Any]:
        """Wait for the report of the next task that ends."""
        id = self._values.get(f"{self._results} done tasks")
        text = self._values.get(b"%b %b" % (self._results.encode("utf-8", "surrogateescape"), id))
        try:
            report = json.loads(text)
            return {"TaskId": int(id), **report}
        except (ValueError, TypeError):
            raise DisbatchError(f"the report of task {id!r:.40} makes no sense: {text!r:.80}") from None

    def done(self) -> None:
        """Announce that there are no more lines."""
        if not self._closed:
            self._values.put(self._tasks, self._done)
            self._closed = True


MARKS = {kind: mark.value for mark, kind in KINDS.items()}
REASONS = {reason.words: reason.value for reason in Reason}


class DisBatcher:
    """A run to which lines of a task file are submitted; their tasks have the ids 0, 1, 2, ...

    `args` are arguments of the command line of disbatch.

    `kvsserver`: use a run that was started with --taskserver, instead of starting one. It is the name of that
    run's kvsinfo.txt, or the address of a server where keys have the prefix DISBATCH_KVS_PREFIX; `tasksname`
    is then the name of the source. UsageError if the arguments are wrong, or there is no such run.
    """

    def __init__(
        self, tasksname: str = "DisBatcher", args: Sequence[str] = (), kvsserver: str | None = None
    ) -> None:
        self.tasksname = tasksname
        self._run: DisBatch | None = None
        self._source: TaskSourceClient | None = None
        if kvsserver is None:
            self._run = DisBatch(options=list(args))
            self._run.prefix  # noqa: B018 - wrong options are an error at once
        elif args:
            raise UsageError("args: the run of a kvsserver has been started, and has its options")
        else:
            self._source = TaskSourceClient(open_values(kvsserver), tasksname)
        self._changed = threading.Condition()
        self._ended: dict[int, dict[str, Any]] = {}
        """Reports that were not returned yet, in the order in which they came."""
        self._known: dict[int, dict[str, Any]] = {}
        """Reports that were returned."""
        self._error: BaseException | None = None
        """Why no more reports will come."""

    def submit(self, c: str) -> None:
        """Submit a line: a command or a directive. ValueError if it is invalid, RunEndedError if the run is
        over."""
        line = c.encode("utf-8", "surrogateescape").removesuffix(b"\n").removesuffix(b"\r")
        if b"\n" in line or b"\0" in line or len(line) > MAX_SUBMITTED:
            raise ValueError(f"not a line of a task file: {c!r:.80}")
        ids = _ids(line)
        if self._source is not None:
            self._source.submit(line)
        for task in () if self._run is None else self._run.hand_in(line, ids):
            task.add_done_callback(self._has_ended)

    def _has_ended(self, task: Future[TaskResult]) -> None:
        with self._changed:
            error = task.exception()
            if error is None:
                result = task.result()
                self._ended[result.id] = _report(result)
            else:
                self._error = error
            self._changed.notify_all()

    def syncTasks(self, taskIds: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Wait until all these tasks have ended; returns their reports, by id. May be called again for the
        same tasks. RunEndedError if the run ends before."""
        wanted = list(taskIds)
        with self._changed:
            for id in wanted:
                while not (id in self._known or id in self._ended):
                    self._wait_for_another()
                if id in self._ended:
                    self._known[id] = self._ended.pop(id)
            return {id: self._known[id] for id in wanted}

    def wait_one_task(self) -> dict[str, Any]:
        """Wait for the next report that was not returned yet. RunEndedError if the run ends before."""
        with self._changed:
            while not self._ended:
                self._wait_for_another()
            id = next(iter(self._ended))
            report = self._known[id] = self._ended.pop(id)
            return report

    def _wait_for_another(self) -> None:
        """Wait for a report. The caller holds the lock."""
        if self._source is not None:
            report = self._source.next_report()
            self._ended[report["TaskId"]] = report
        elif self._error is not None:
            raise self._error
        else:
            self._changed.wait()

    def done(self) -> None:
        """There are no more lines: wait until all tasks and the run have ended. With a `kvsserver`, do not
        wait; reports can still be fetched."""
        if self._source is not None:
            self._source.done()
        if self._run is not None:
            self._run.close()


def _ids(line: bytes) -> int:
    """The number of tasks and barriers that a line becomes. ValueError for an invalid directive."""
    if is_directive(line):
        try:
            directive = parse_directive(line)
        except DirectiveError as error:
            raise ValueError(str(error)) from None
        if isinstance(directive, Repeat):
            return directive.count
        return int(isinstance(directive, BarrierLine))
    return int(line.lstrip()[:1] not in (b"", b"#"))


def _report(result: TaskResult) -> dict[str, Any]:
    """The result with the names of the original."""
    r = result
    flags = f"{' ' if r.ok else 'R'}{'O' if r.out_bytes else ' '}{'E' if r.err_bytes else ' '}{MARKS[r.kind]}"
    fields = {name: value for name, value in asdict(r).items() if name not in ("kind", "reason")}
    out, err = (data.decode("utf-8", "backslashreplace") for data in (r.out, r.err))
    report = Report(flags + REASONS[r.reason], **{**fields, "out": out, "err": err})
    found: dict[str, Any] = msgspec.to_builtins(report)
    return found
