"""A driver that takes tasks and tells how they end, as far as its files go, and a line to it that breaks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from disbatch.driver.result_feed import ResultFeed
from disbatch.driver.submissions import Submissions
from disbatch.model.statusline import Mark, format_line
from disbatch.model.task import Item, Outcome, Task
from disbatch.sources.submitted import SubmittedFile, SubmittedSource
from disbatch.wire.client_protocol import REPEATABLE, Answer, Collect, Request, Submit, Verb
from disbatch.wire.connect import ConnectFile


class AtOnce(ThreadPoolExecutor):
    """For histories that are the same each time: what a thread is to do is done at once."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(call(*args, **named))
        return done


class WorldDriver:
    """The first driver of the run at `directory`/P, or (`again`) another one. `run` ends tasks; what ended
    is in the status file, and told, when `commit` is called."""

    def __init__(self, directory: Path, *, again: bool = False, nothing_new: float = 10.0) -> None:
        self.answers: Callable[[Request, Answer], None] = lambda request, answer: None
        self.status = os.open(directory / "P_status.txt", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.size = os.fstat(self.status).st_size
        self._lines: list[bytes] = []
        self._marks: list[Callable[[], None]] = []
        self.file = SubmittedFile(directory / "P_tasks.txt", None, again=again)
        self.source = SubmittedSource(None, self.file, lambda: None, kept_open=True)
        self.telling = ResultFeed(
            *(asyncio.get_running_loop(), self.status),
            answer=self._answer,
            size=lambda: self.size,
            safely=self._mark,
            nothing_new=nothing_new,
        )
        self.submissions = Submissions(ending=lambda: False, why_not="not open")
        self.submissions.begin(self.source, self.telling)
        self.waiting: list[Item] = []
        recorded = {int(line.split(b"\t")[1]) for line in (directory / "P_status.txt").open("rb")}
        while items := self.source.take(1000):
            self.waiting += [item for item in items if not isinstance(item, Task) or item.id not in recorded]

    def request(self, request: Request) -> Answer | None:
        """A client submits tasks, or asks for results."""
        assert isinstance(request.verb, Submit | Collect)
        return self.submissions.request(request, request.verb)

    def _answer(self, request: Request, answer: Answer) -> None:
        self.answers(request, answer)

    def _mark(self, mark: Callable[[], None]) -> None:
        self._marks.append(mark)

    def read(self) -> None:
        """Read what was handed in."""
        while items := self.source.take(1000):
            self.waiting += items

    def run(self, at: int = 0, code: int = 0, mark: Mark = Mark.TASK) -> int:
        """One of the tasks that wait ends; its id."""
        task = self.waiting.pop(at % len(self.waiting))
        assert isinstance(task, Task)
        self.add(line_of(task, code, mark), task.id)
        return task.id

    def add(self, line: bytes, id: int | None = None) -> None:
        """One more line of the status file, of which nobody is told without an id."""
        self._lines.append(line)
        self.size += len(line)
        if id is not None:
            self.telling.ended(id, line)

    async def commit(self) -> None:
        """Everything so far is in the file."""
        await asyncio.sleep(0)  # the marks come after the lines
        os.write(self.status, b"".join(self._lines))
        self._lines.clear()
        marks, self._marks = self._marks, []
        for mark in marks:
            mark()

    def close(self) -> None:
        self.telling.shut()
        self.source.close()
        os.close(self.status)


def line_of(task: Task, code: int = 0, mark: Mark = Mark.TASK) -> bytes:
    outcome = Outcome(0, 0, 77, code, 0.25, 10.0, 10.25, 3, b"out", 0, b"")
    return format_line(task.id, task.line, task.repeat, task.command, "node", outcome, mark)


class BreakingLine:
    """A line to whoever is `driver`; what was asked over it and is not answered is asked again after
    `mend`."""

    def __init__(self) -> None:
        self.driver: WorldDriver | None = None
        self.lost: Callable[[], None] = lambda: None
        self.asked: dict[str, tuple[Request, asyncio.Future[Answer]]] = {}
        self._kept: dict[str, Answer] = {}
        self._there: set[str] = set()
        """What the driver has not answered yet: asking it again changes nothing."""
        self._cut = False
        self.deaf = False
        """Answers do not arrive."""
        self.proven = ""
        self.verbs: list[Verb] = []

    def open(self, connect: ConnectFile, lost: Callable[[], None]) -> BreakingLine:
        self.lost = lost
        return self

    def mend(self, driver: WorldDriver) -> None:
        """This driver is there now. Another one does not know what the former one answered."""
        if driver is not self.driver:
            self._kept.clear()
            self._there.clear()
        self.driver = driver
        self._cut = self.deaf = False
        driver.answers = self._answer
        for request, _ in list(self.asked.values()):
            self._send(request)

    def cut(self) -> None:
        """Nothing gets through in either direction."""
        self._cut = self.deaf = True
        self.lost()

    async def call(self, request: Request) -> Answer:
        answered = asyncio.get_running_loop().create_future()
        self.asked[request.id] = (request, answered)
        self.verbs.append(request.verb)
        self._send(request)
        try:
            return await answered
        finally:
            self.asked.pop(request.id, None)

    def _send(self, request: Request) -> None:
        driver = self.driver
        if driver is None or self._cut or request.id in self._there:
            return
        answer = self._kept.get(request.id) or driver.request(request)
        if answer is not None:
            if not isinstance(request.verb, REPEATABLE):
                self._kept[request.id] = answer
            self._answer(request, answer)
        else:
            self._there.add(request.id)

    def _answer(self, request: Request, answer: Answer) -> None:
        self._there.discard(request.id)
        _, answered = self.asked.get(request.id, (request, None))
        if answered is not None and not answered.done() and not self.deaf:
            answered.set_result(answer)

    def silence(self, patience: float) -> str:
        return "silent"

    def close(self) -> None:
        self.asked.clear()


def connect_file() -> ConnectFile:
    return ConnectFile(3, "1", "elsewhere", 1, 0.0, [], "", "", "", "", "", "")
