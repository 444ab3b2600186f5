"""Who follows how a run stands: drivers that tell, fall silent, are replaced, refuse; the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import zmq
from connect_files import KEYS, connect_file
from monitor_run import VIEW
from report_lines import line, write

from deadline import DEADLINE
from disbatch.model.errors import SilenceError, UsageError
from disbatch.model.view import FailureRow, LogRow
from disbatch.rundir.lock import hold
from disbatch.watch.run_state import Standing
from disbatch.watch.status_client import Spectator
from disbatch.wire.client_protocol import Answer, Request, Seen, Wants, Watch
from disbatch.wire.connect import RunKeys
from disbatch.wire.driver_socket import Hub
from disbatch.wire.verbs import Pause

WANTS = Wants(running=5, failures=3, log=5, course=True)


class Driver:
    """The `number`-th driver of a run, listening at `address`; `tell` answers whoever waits."""

    def __init__(self, address: str, number: int = 0) -> None:
        self.number = number
        self._context = context = zmq.Context()
        self._closed = False
        self._seen: set[str] = set()
        self.asked: asyncio.Queue[Request] = asyncio.Queue()
        self.hub = Hub(
            *(asyncio.get_running_loop(), context, KEYS),
            hello=lambda peer, message: None,
            receive=lambda peer, number, message: None,
            bad=lambda text: None,
            request=self._request,
        )
        self.address = self.hub.bind(address)

    def _request(self, request: Request) -> Answer | None:
        if not isinstance(request.verb, Watch):
            return Answer(request.id, True, [type(request.verb).__name__])
        # What was asked when a connection broke may come twice.
        if request.id not in self._seen:
            self._seen.add(request.id)
            self.asked.put_nowait(request)
        return None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.hub.close()
            self._context.destroy(linger=0)

    async def tell(self, number: int, over: bool = False, **changes: object) -> Watch:
        """Answer the next question with this; the question."""
        request = await self.asked.get()
        assert isinstance(request.verb, Watch)
        lists = {"failures": [], "log": [], "course": []}
        view = msgspec.structs.replace(VIEW, number=number, driver=self.number, **{**lists, **changes})
        self.hub.answer(request, Answer(request.id, True, [], Seen(view, over)))
        return request.verb


class Scene:
    """A spectator of the run `P`, and its first driver."""

    def __init__(
        self, directory: Path, context: zmq.Context[zmq.Socket[bytes]], address: str, listen: float
    ) -> None:
        self.directory = directory
        self.context = context
        self.connect_file = directory / "P_connect.json"
        write(directory / "P_status.txt", line(0), line(1, code=1))
        self.driver = Driver(address)
        connect = connect_file(self.driver.address)
        connect.write(self.connect_file)
        self.spectator = Spectator(context, f"{directory}/P", connect, WANTS, resume="so", listen=listen)

    async def next(self) -> Standing:
        return await self.spectator.next()

    def close(self) -> None:
        self.spectator.close()
        self.driver.close()


def play(
    directory: Path,
    history: Callable[[Scene], Awaitable[None]],
    address: str = "",
    listen: float = DEADLINE,
) -> None:
    async def main() -> None:
        with zmq.Context() as context:
            scene = Scene(directory, context, address or f"ipc://{directory}/hub", listen)
            try:
                await history(scene)
            finally:
                scene.close()

    asyncio.run(asyncio.wait_for(main(), 2 * DEADLINE))


def failure(number: int) -> FailureRow:
    return FailureRow(number, number, number, "n", 1, 1.0, 0.0, "", "false")


def test_each_answer_holds_what_is_new(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        telling = asyncio.create_task(
            scene.driver.tell(4, failures=[failure(1), failure(2)], log=[LogRow(1, 0.0, "one")])
        )
        assert (await scene.next()).view.number == 4
        first = await telling
        assert (first.known, first.wants) == (0, WANTS)
        telling = asyncio.create_task(
            scene.driver.tell(
                5, failures=[failure(3), failure(4)], log=[LogRow(2, 0.0, "two")], seconds=315.0
            )
        )
        now = (await scene.next()).view
        second = await telling
        assert (second.known, second.wants.failures_known, second.wants.log_known) == (4, 2, 1)
        assert first.wants.course and not second.wants.course
        assert [row.number for row in now.failures] == [2, 3, 4]
        assert [row.text for row in now.log] == ["one", "two"]
        assert [point.seconds for point in now.course] == [312.0, 315.0]
        assert await scene.spectator.ask(Pause(), 5.0) == ["Pause"]

    play(tmp_path, history)


@pytest.mark.parametrize("address", ["", "tcp://127.0.0.1:*"])
def test_a_driver_that_is_silent_is_told_of_once(tmp_path: Path, address: str) -> None:
    async def history(scene: Scene) -> None:
        status = os.open(scene.directory / "P_status.txt", os.O_RDWR | os.O_CLOEXEC)
        hold(status)
        telling = asyncio.create_task(scene.driver.tell(4))
        await scene.next()
        await telling
        silent = await scene.next()
        assert (silent.state, silent.is_heard, silent.view.number) == ("silent", False, 4)
        assert "is not heard" in silent.words
        coming = asyncio.create_task(scene.next())
        await asyncio.wait([coming], timeout=0.5)
        assert not coming.done()
        await scene.driver.tell(5)
        assert (await coming).state == "running"
        os.close(status)

    play(tmp_path, history, address, listen=0.3)


def test_another_driver_at_the_same_place(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        telling = asyncio.create_task(
            scene.driver.tell(9, failures=[failure(7)], log=[LogRow(5, 0.0, "one")])
        )
        await scene.next()
        await telling
        scene.driver.close()
        dead = await scene.next()
        assert (dead.state, dead.view.number) == ("dead", 9) and dead.words.endswith("is dead; so")
        scene.driver = Driver(scene.driver.address, number=1)
        later = VIEW.started + 400
        telling = asyncio.create_task(scene.driver.tell(1, failures=[failure(1)], started=later, seconds=2.0))
        now = (await scene.next()).view
        await telling
        assert ([row.number for row in now.failures], [row.text for row in now.log]) == ([1], ["one"])
        assert now.course[-1].seconds == 402.0
        telling = asyncio.create_task(scene.driver.tell(2, log=[LogRow(1, 0.0, "two")], started=later))
        now = (await scene.next()).view
        asked = await telling
        assert (asked.driver, asked.known, asked.wants.log_known) == (1, 1, 0)
        assert [row.text for row in now.log] == ["one", "two"]

    play(tmp_path, history)


def test_another_driver_elsewhere(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        telling = asyncio.create_task(scene.driver.tell(4))
        await scene.next()
        await telling
        scene.driver.close()
        scene.driver = Driver(f"ipc://{scene.directory}/elsewhere", number=1)
        connect_file(scene.driver.address).replace(scene.connect_file)
        telling = asyncio.create_task(scene.driver.tell(1))
        standing = await scene.next()
        while standing.state == "dead":
            standing = await scene.next()
        await telling
        assert standing.view.driver == 1

    play(tmp_path, history)


def test_a_driver_that_is_dead_from_the_beginning(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        address = scene.driver.address
        scene.driver.close()
        Path(address.removeprefix("ipc://")).unlink(missing_ok=True)
        dead = await scene.next()
        assert (dead.state, dead.told_by, dead.view.done) == ("dead", "status file", 2)
        scene.driver = Driver(address, number=1)
        telling = asyncio.create_task(scene.driver.tell(1))
        assert (await scene.next()).state == "running"
        await telling

    play(tmp_path, history)


def test_the_end(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        telling = asyncio.create_task(scene.driver.tell(4, over=True, mode="over", notice="complete"))
        over = await scene.next()
        await telling
        assert (over.state, over.words, over.told_by) == ("over", "complete", "driver")
        assert (await scene.next()).told_by == "status file"

    play(tmp_path, history)


def test_an_end_that_nobody_told(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        scene.connect_file.unlink()
        scene.driver.close()
        over = await scene.next()
        assert (over.state, over.told_by, over.view.failed) == ("over", "status file", 1)

    play(tmp_path, history)


def test_a_driver_that_does_not_know_what_watching_is(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        coming = asyncio.create_task(scene.next())
        request = await scene.driver.asked.get()
        scene.driver.hub.answer(request, Answer(request.id, False, ["use the dbutil of that version"]))
        with pytest.raises(UsageError, match="use the dbutil of that version"):
            await coming

    play(tmp_path, history)


def test_keys_of_another_run(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        other = RunKeys.generate()
        keys = msgspec.structs.replace(KEYS, client_key=other.client_key, client_secret=other.client_secret)
        connect = connect_file(scene.driver.address, keys=keys)
        connect.replace(scene.connect_file)
        spectator = Spectator(scene.context, f"{scene.directory}/P", connect, WANTS, listen=0.3)
        try:
            assert (await spectator.next()).state == "silent"
            with pytest.raises(SilenceError):
                await spectator.ask(Pause(), 0.2)
        finally:
            spectator.close()

    play(tmp_path, history)
