"""Follow the state of a run, whichever driver it has, to its end and beyond.

Theory of operation
-------------------
The driver is asked repeatedly for the state of the run, with the number of the last known view; it answers
when the state has changed. If it is not heard there are three cases. The connect file is gone: the run is
over, and the status file tells the rest. The connect file is another one: a new driver took the run over
elsewhere, and is asked. It is the same: the driver is dead, busy or out of reach; this is reported once, and
the client keeps listening, as a new driver may take the run over at the same place.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import msgspec
import zmq

from disbatch.driver.status_collector import Course
from disbatch.model.errors import SilenceError, UsageError
from disbatch.model.view import CoursePoint, FailureRow, LogRow, View
from disbatch.rundir.driver_alive import is_dead
from disbatch.rundir.runscript import status_file
from disbatch.watch.run_state import DEAD, DRIVER, OVER, SILENT, STATUS_FILE, Standing, of_driver, view_of
from disbatch.wire.client_protocol import Answer, Seen, Verb, Wants, Watch
from disbatch.wire.client_socket import Caller
from disbatch.wire.connect import ConnectFile, sockets, ways
from disbatch.wire.ownfile import owner_of
from disbatch.wire.renamed_files import is_gone

LISTEN = 15.0
"""Seconds without any answer, after which the driver is silent: it answers every 10."""


class Spectator:
    """Follows the run whose files begin with `prefix`, on the running loop; to be closed. `connect`: what its
    connect file says; None: the run is over. `wants` says how much is to be told."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        prefix: str,
        connect: ConnectFile | None,
        wants: Wants,
        *,
        resume: str = "",
        listen: float = LISTEN,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._prefix = prefix
        self._connect = connect
        self._wants = wants
        self._resume = resume
        self._listen = listen
        self._caller: Caller | None = None
        self._question: asyncio.Task[Answer] | None = None
        self._stirred = asyncio.Event()
        self._memory = _Memory(wants)
        self._silent = False

    def close(self) -> None:
        """Follow no more."""
        if self._question is not None:
            self._question.cancel()
        if self._caller is not None:
            self._caller.close()

    async def ask(self, verb: Verb, patience: float) -> list[str]:
        """Have the driver do something; what it did, a line each. UsageError if it does not do it,
        SilenceError if it does not answer."""
        if self._caller is None:
            raise SilenceError("the driver cannot be asked now")
        answer = await self._caller.call(verb, patience)
        if not answer.ok:
            raise UsageError(" ".join(answer.lines))
        return answer.lines

    # ---- how it stands ----

    async def next(self) -> Standing:
        """How the run stands, as soon as that is something new. The last one has the state `over`. UsageError
        if the driver cannot tell. May be cancelled."""
        while True:
            if self._connect is None:
                return await self._standing(OVER, self._memory.notice)
            answer = await self._listen_to()
            if answer is not None:
                return self._heard(answer)
            silence = self._look_at_file()
            if silence is not None:
                return await self._standing(*silence)

    def _heard(self, answer: Answer) -> Standing:
        self._silent = False
        if not answer.ok or not isinstance(answer.value, Seen):
            raise UsageError(" ".join(answer.lines))
        view = self._memory.add(answer.value.view)
        if answer.value.over:
            self._connect = None
        return of_driver(self._prefix, view)

    async def _listen_to(self) -> Answer | None:
        """What the driver answers; None if it is not heard for a while, or the connection broke."""
        if self._caller is None:
            self._caller = self._open()
        if self._question is None:
            watch = Watch(self._memory.wants(), self._memory.number, self._memory.driver)
            self._question = self._loop.create_task(self._caller.call(watch, None))
            self._question.add_done_callback(lambda _: self._stirred.set())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._listen):
                await self._stirred.wait()
        self._stirred.clear()
        if not self._question.done():
            return None
        answer, self._question = self._question.result(), None
        return answer

    def _open(self) -> Caller:
        """A line to the driver, or to where another one will listen that takes the run over."""
        assert self._connect is not None
        try:
            addresses = ways(self._connect)
        except SilenceError:
            addresses = sockets(self._connect)
        return Caller(self._loop, self._context, self._connect, self._stirred.set, addresses)

    # ---- when it is not heard ----

    def _look_at_file(self) -> tuple[str, str] | None:
        """The state and the words for it, if the driver is silent since now; None: listen on."""
        assert self._connect is not None
        path = Path(f"{self._prefix}_connect.json")
        if is_gone(path):
            self._connect = None
            return None
        with suppress(UsageError):
            found = ConnectFile.read(path, trusted=owner_of(f"{self._prefix}_status.txt"))
            if found.addresses != self._connect.addresses or found.keys != self._connect.keys:
                self._reopen(found)
                return None
            self._connect = found
        dead = is_dead(self._prefix, self._connect)
        if self._silent or (not dead and self._memory.age() < self._listen):
            return None
        self._silent = True
        return DEAD if dead else SILENT, self._silence(dead)

    def _reopen(self, found: ConnectFile) -> None:
        self.close()
        self._caller = self._question = None
        self._connect = found

    def _silence(self, dead: bool) -> str:
        assert self._connect is not None
        driver = f"the driver (pid {self._connect.pid} on {self._connect.host})"
        if dead:
            return f"{driver} is dead; {self._resume}" if self._resume else f"{driver} is dead"
        return f"{driver} is not heard"

    # ---- what the status file tells ----

    async def _standing(self, state: str, words: str) -> Standing:
        """A thread reads the file, which may be long."""
        view = self._memory.view
        if view is None or state == OVER:
            name, status = Path(self._prefix).name, status_file(self._prefix)
            told = await asyncio.to_thread(view_of, status, name=name, failures=self._wants.failures)
            return Standing(self._prefix, state, words, STATUS_FILE, told)
        return Standing(self._prefix, state, words, DRIVER, view)


class _Memory:
    """What was told so far: each answer holds only what is new of failures, log and course."""

    def __init__(self, wants: Wants) -> None:
        self._wants = wants
        self._failures: deque[FailureRow] = deque(maxlen=wants.failures)
        self._log: deque[LogRow] = deque(maxlen=wants.log)
        self._log_known = 0
        self._course = Course()
        self._began: float | None = None
        """When the first driver did, of those that told us something."""
        self._heard = time.monotonic()
        self.view: View | None = None

    @property
    def number(self) -> int:
        """Of the last view; 0: none."""
        return 0 if self.view is None else self.view.number

    @property
    def driver(self) -> int:
        """Of the last view."""
        return 0 if self.view is None else self.view.driver

    @property
    def notice(self) -> str:
        """Of the last view, if that was the end."""
        return self.view.notice if self.view is not None and self.view.mode == OVER else ""

    def age(self) -> float:
        """Seconds since the last view, or the beginning."""
        return time.monotonic() - self._heard

    def wants(self) -> Wants:
        """What to ask for next."""
        return msgspec.structs.replace(
            self._wants,
            failures_known=self._failures[-1].number if self._failures else 0,
            log_known=self._log_known,
            course=self._wants.course and self.view is None,
        )

    def add(self, view: View) -> View:
        """This is told now; all that is known."""
        if self.view is not None and view.driver != self.view.driver:
            self._failures.clear()  # the new driver has read them from the status file, and tells them all
        self._failures.extend(view.failures)
        self._log.extend(view.log)
        if view.log:
            self._log_known = view.log[-1].number
        elif self.view is None or view.driver != self.view.driver:
            self._log_known = 0
        self._heard = time.monotonic()
        self._add_points(view)
        lists = {"failures": list(self._failures), "log": list(self._log), "course": self._course.points}
        self.view = msgspec.structs.replace(view, **lists)
        return self.view

    def _add_points(self, view: View) -> None:
        """Seconds count from when the first driver began."""
        if self._began is None:
            self._began = view.started
        later = max(0.0, view.started - self._began)
        now = CoursePoint(view.seconds, view.done, view.failed, view.running, view.slots)
        for point in (*view.course, now):
            self._course.add(msgspec.structs.replace(point, seconds=point.seconds + later))
