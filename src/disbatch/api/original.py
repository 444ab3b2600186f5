"""`DisBatcher`: what programs written for disBatch 3.0 use. New ones have `DisBatch`."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from disbatch.api.guest import Guest
from disbatch.api.run import DisBatch
from disbatch.model.directives import BarrierLine, DirectiveError, Repeat, is_directive, parse_directive
from disbatch.model.errors import UsageError
from disbatch.model.outcome import Reason
from disbatch.model.result import TaskResult
from disbatch.wire.requests import MAX_SUBMITTED

MARKS = {"task": " ", "skipped": "S", "barrier": "B", "perengine": "P", "superseded": "Z"}
REASONS = {reason.words: reason.value for reason in Reason}


class DisBatcher:
    """A run that lines of a task file are submitted to; their tasks have the ids 0, 1, 2, ...

    `args` are words of the command line of disbatch.

    `kvsserver`: a run that was started with --taskserver, instead of one of our own. It is the name of its
    kvsinfo.txt, or the address of a server where keys begin as DISBATCH_KVS_PREFIX says; `tasksname` is then
    the name of the source. UsageError if the words are wrong, or there is no such run.
    """

    def __init__(
        self, tasksname: str = "DisBatcher", args: Sequence[str] = (), kvsserver: str | None = None
    ) -> None:
        self.tasksname = tasksname
        self._run: DisBatch | None = None
        self._guest: Guest | None = None
        if kvsserver is None:
            self._run = DisBatch(options=list(args))
            self._run.prefix  # noqa: B018 - wrong options are told of at once
        elif args:
            raise UsageError("args: the run of a kvsserver has been started, and has its options")
        else:
            from disbatch.api.served import open_values

            self._guest = Guest(open_values(kvsserver), tasksname)
        self._changed = threading.Condition()
        self._ended: dict[int, dict[str, Any]] = {}
        """Reports that nobody has asked for, in the order in which they came."""
        self._known: dict[int, dict[str, Any]] = {}
        """Those that somebody has."""
        self._error: BaseException | None = None
        """Why there will be no others."""

    def submit(self, c: str) -> None:
        """Hand a line in: a command or a directive. ValueError for one that cannot be, RunEndedError if the
        run is over."""
        line = c.encode("utf-8", "surrogateescape").removesuffix(b"\n").removesuffix(b"\r")
        if b"\n" in line or b"\0" in line or len(line) > MAX_SUBMITTED:
            raise ValueError(f"not a line of a task file: {c!r:.80}")
        ids = _ids(line)
        if self._guest is not None:
            self._guest.submit(line)
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
        """Wait until all these have ended; their reports, by id. May be asked again. RunEndedError if the run
        ends before."""
        wanted = list(taskIds)
        with self._changed:
            for id in wanted:
                while not (id in self._known or id in self._ended):
                    self._wait_for_another()
                if id in self._ended:
                    self._known[id] = self._ended.pop(id)
            return {id: self._known[id] for id in wanted}

    def wait_one_task(self) -> dict[str, Any]:
        """The report of the next task that ends, and that was not told of yet. RunEndedError if the run ends
        before."""
        with self._changed:
            while not self._ended:
                self._wait_for_another()
            id = next(iter(self._ended))
            report = self._known[id] = self._ended.pop(id)
            return report

    def _wait_for_another(self) -> None:
        """A report; with the lock."""
        if self._guest is not None:
            report = self._guest.next_report()
            self._ended[report["TaskId"]] = report
        elif self._error is not None:
            raise self._error
        else:
            self._changed.wait()

    def done(self) -> None:
        """No more lines: wait until all tasks have ended, and the run with them. With a `kvsserver` it waits
        for nothing, and reports can still be asked for."""
        if self._guest is not None:
            self._guest.done()
        if self._run is not None:
            self._run.close()


def _ids(line: bytes) -> int:
    """How many tasks and barriers a line becomes. ValueError for a wrong directive."""
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
    """With the names of the original."""
    r = result
    flags = f"{' ' if r.ok else 'R'}{'O' if r.out_bytes else ' '}{'E' if r.err_bytes else ' '}{MARKS[r.kind]}"
    flags += REASONS[r.reason]
    return {
        "Flags": flags,
        "TaskId": r.id,
        "TaskStreamIndex": r.line,
        "TaskRepIndex": r.repeat,
        "Host": r.node,
        "PID": r.pid,
        "ReturnCode": r.return_code,
        "Elapsed": r.elapsed,
        "Start": r.start,
        "End": r.finish,
        "OutBytes": r.out_bytes,
        "OutData": r.out.decode("utf-8", "backslashreplace"),
        "ErrBytes": r.err_bytes,
        "ErrData": r.err.decode("utf-8", "backslashreplace"),
        "TaskCmd": r.command,
    }
