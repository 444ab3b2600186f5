"""Who follows the state of a run: drivers that answer, fall silent, are replaced, refuse; the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from clock_loop import run
from connect_files import connect_file
from driver_line import DriverLine
from monitor_run import VIEW
from report_lines import line, write

from disbatch.client.run_client import LISTEN
from disbatch.model.errors import SilenceError, UsageError
from disbatch.model.view import FailureRow, LogRow
from disbatch.rundir.lock import hold
from disbatch.watch.run_state import Standing
from disbatch.watch.status_client import StatusClient
from disbatch.wire.client_protocol import Answer, Request, Seen, Wants, Watch
from disbatch.wire.connect import ConnectFile
from disbatch.wire.verbs import Pause

WANTS = Wants(running=5, failures=3, log=5, course=True)


class Scene:
    """A client of the run `P`, whose driver ends without a trace when the test loses its line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "P_connect.json"
        write(directory / "P_status.txt", line(0), line(1, code=1))
        self.connect = connect_file(f"ipc://{directory}/hub")
        self.connect.write(self.file)
        self.lines: list[DriverLine] = []
        self.driver = 0
        self.client = StatusClient(self.open, f"{directory}/P", self.connect, WANTS, resume="so")

    def open(self, connect: ConnectFile, lost: Callable[[], None]) -> DriverLine:
        self.lines.append(DriverLine(connect, lost))
        return self.lines[-1]

    def next(self) -> asyncio.Task[Standing]:
        return asyncio.create_task(self.client.next())

    async def asked(self) -> Request:
        """The request that waits for an answer, once the client has nothing else to do."""
        await asyncio.sleep(0.001)
        (request,) = self.lines[-1].asked.values()
        return request

    async def tell(self, number: int, over: bool = False, **changes: object) -> tuple[Standing, Watch]:
        """The driver answers with this view: what is reported then, and what was asked."""
        coming = self.next()
        request = await self.asked()
        lists = {"failures": [], "log": [], "course": []}
        view = msgspec.structs.replace(VIEW, number=number, driver=self.driver, **{**lists, **changes})
        self.lines[-1].answer(Answer(request.id, True, [], Seen(view, over)))
        assert isinstance(request.verb, Watch)
        return await coming, request.verb

    async def lose(self) -> Standing:
        """The connection breaks while the client waits."""
        coming = self.next()
        await self.asked()
        self.lines[-1].lost()
        return await coming


def play(directory: Path, history: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        scene = Scene(directory)
        await history(scene)
        scene.client.close()
        assert all(each.closed for each in scene.lines)

    run(main())


def failure(number: int) -> FailureRow:
    return FailureRow(number, number, number, "n", 1, 1.0, 0.0, "", "false")


def test_each_answer_holds_what_is_new(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        now, asked = await scene.tell(4, failures=[failure(1), failure(2)], log=[LogRow(1, 0.0, "one")])
        assert now.view.number == 4 and (asked.known, asked.wants) == (0, WANTS)
        new = {"failures": [failure(3), failure(4)], "log": [LogRow(2, 0.0, "two")], "seconds": 315.0}
        now, asked = await scene.tell(5, **new)
        assert (asked.known, asked.wants.failures_known, asked.wants.log_known) == (4, 2, 1)
        assert not asked.wants.course
        assert [row.number for row in now.view.failures] == [2, 3, 4]
        assert [row.text for row in now.view.log] == ["one", "two"]
        assert [point.seconds for point in now.view.course] == [312.0, 315.0]

    play(tmp_path, history)


def test_what_else_the_driver_is_asked_to_do(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        with pytest.raises(SilenceError, match="cannot be asked now"):
            await scene.client.ask(Pause(), 5.0)
        await scene.tell(4)
        asking = asyncio.create_task(scene.client.ask(Pause(), 5.0))
        request = await scene.asked()
        assert request.verb == Pause()
        scene.lines[0].answer(Answer(request.id, True, ["paused"]))
        assert await asking == ["paused"]
        with pytest.raises(SilenceError, match="no answer within 5 s"):
            await scene.client.ask(Pause(), 5.0)

    play(tmp_path, history)


def test_a_driver_that_is_silent_is_told_of_once(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        status = os.open(scene.directory / "P_status.txt", os.O_RDWR | os.O_CLOEXEC)
        hold(status)
        await scene.tell(4)
        silent = await scene.next()
        assert (silent.state, silent.is_heard, silent.view.number) == ("silent", False, 4)
        assert "is not heard" in silent.words
        coming = scene.next()
        await asyncio.sleep(10 * LISTEN)
        assert not coming.done()
        coming.cancel()
        now, _ = await scene.tell(5)
        assert now.state == "running"
        assert (await scene.next()).state == "silent", "again"
        os.close(status)

    play(tmp_path, history)


def test_another_driver_at_the_same_place(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        await scene.tell(9, failures=[failure(7)], log=[LogRow(5, 0.0, "one")])
        dead = await scene.lose()
        assert (dead.state, dead.view.number) == ("dead", 9) and dead.words.endswith("is dead; so")
        scene.driver, later = 1, VIEW.started + 400
        now, _ = await scene.tell(1, failures=[failure(1)], started=later, seconds=2.0)
        assert [row.number for row in now.view.failures] == [1]
        assert [row.text for row in now.view.log] == ["one"]
        assert now.view.course[-1].seconds == 402.0
        now, asked = await scene.tell(2, log=[LogRow(1, 0.0, "two")], started=later)
        assert (asked.driver, asked.known, asked.wants.log_known) == (1, 1, 0)
        assert [row.text for row in now.view.log] == ["one", "two"]

    play(tmp_path, history)


def test_another_driver_elsewhere(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        await scene.tell(4)
        assert (await scene.lose()).state == "dead"
        connect_file(f"ipc://{scene.directory}/elsewhere").replace(scene.file)
        scene.driver = 1
        scene.lines[0].lost()
        now, _ = await scene.tell(1)
        assert len(scene.lines) == 2 and scene.lines[0].closed and now.view.driver == 1

    play(tmp_path, history)


def test_a_driver_that_is_dead_from_the_beginning(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        dead = await scene.lose()
        assert (dead.state, dead.told_by, dead.view.done) == ("dead", "status file", 2)
        now, _ = await scene.tell(1)
        assert now.state == "running"

    play(tmp_path, history)


def test_the_end(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        over, _ = await scene.tell(4, over=True, mode="over", notice="complete")
        assert (over.state, over.words, over.told_by) == ("over", "complete", "driver")
        last = await scene.next()
        assert (last.words, last.told_by) == ("complete", "status file")

    play(tmp_path, history)


def test_an_end_that_nobody_told(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        scene.file.unlink()
        over = await scene.lose()
        assert (over.state, over.told_by, over.view.failed) == ("over", "status file", 1)

    play(tmp_path, history)


def test_a_driver_that_does_not_know_what_watching_is(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        coming = scene.next()
        request = await scene.asked()
        scene.lines[0].answer(Answer(request.id, False, ["use the dbutil of that version"]))
        with pytest.raises(UsageError, match="use the dbutil of that version"):
            await coming

    play(tmp_path, history)
