"""client/run_client.py: one answer for each request, whoever the driver is; what is said of a silent one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from clock_loop import run
from connect_files import connect_file
from driver_line import DriverLine

from disbatch.client.run_client import HEARD_AGAIN, LISTEN, OverError, RunClient
from disbatch.model.errors import SilenceError, UsageError
from disbatch.wire.client_protocol import Answer
from disbatch.wire.connect import ConnectFile
from disbatch.wire.verbs import Pause

PATIENCE = 100.0


class Scene:
    """A run on another host, whose driver cannot be seen to be dead, and a client of it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "P_connect.json"
        self.connect = msgspec.structs.replace(connect_file("tcp://far:1"), host="far", pid=7)
        self.connect.write(self.file)
        self.lines: list[DriverLine] = []
        self.said: list[str] = []
        self.unreachable = False
        self.client = RunClient(
            *(self.open, self.connect, str(directory / "P")),
            notify_user=self.said.append,
            advice="take it over",
            patience=PATIENCE,
        )
        self.time = asyncio.get_running_loop().time

    def open(self, connect: ConnectFile, lost: Callable[[], None]) -> DriverLine:
        if self.unreachable:
            raise UsageError("cannot be asked from here")
        self.lines.append(DriverLine(connect, lost))
        return self.lines[-1]

    def ask(self, patience: float | None = None) -> asyncio.Task[Answer]:
        return asyncio.create_task(self.client.ask(Pause(), patience))


def play(directory: Path, history: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        scene = Scene(directory)
        await history(scene)
        scene.client.close()
        assert scene.lines[-1].closed

    run(main())


def test_silence_is_told_once_and_so_is_its_end(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        asked = scene.ask()
        await asyncio.sleep(LISTEN - 1)
        assert scene.said == [] and scene.client.silence is None
        await asyncio.sleep(2 * LISTEN)
        silent = "the driver (pid 7) on far is not heard"
        assert scene.said == [f"{silent}; waiting for it, or for one that takes the run over; take it over"]
        assert scene.client.silence is not None and scene.client.silence.words == silent
        scene.lines[0].answer()
        assert (await asked).ok and scene.said[1:] == [HEARD_AGAIN] and scene.client.silence is None
        await asyncio.sleep(10 * PATIENCE)
        asked = scene.ask()
        await asyncio.sleep(LISTEN - 1)
        scene.lines[0].answer()
        assert (await asked).ok and len(scene.said) == 2, "nobody was asked in between"

    play(tmp_path, history)


def test_a_driver_that_answers_others_is_not_silent(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        scene.lines[0].lost()
        first = scene.ask()
        for _ in range(20):
            other = scene.ask()
            await asyncio.sleep(LISTEN / 2)
            (*_, last) = scene.lines[0].asked
            scene.lines[0].answer(Answer(last, True, []))
            await other
        assert not first.done() and scene.said == []
        first.cancel()

    play(tmp_path, history)


def test_patience_counts_from_when_the_driver_fell_silent(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        both = scene.ask(), scene.ask()
        await asyncio.sleep(1)
        scene.lines[0].lost()
        for asked in both:
            with pytest.raises(SilenceError, match=r"far was not heard for 100 s; take it over"):
                await asked
        assert PATIENCE + 1 <= scene.time() <= PATIENCE + 1 + LISTEN

    play(tmp_path, history)


def test_a_question_of_little_patience(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        with pytest.raises(SilenceError, match="no answer within 5 s"):
            await scene.ask(5.0)
        assert scene.time() == 5.0 and scene.lines[0].asked == {}

    play(tmp_path, history)


def test_another_driver_elsewhere_is_asked_the_same(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        both = scene.ask(), scene.ask()
        await asyncio.sleep(0.01)
        asked = set(scene.lines[0].asked)
        msgspec.structs.replace(scene.connect, addresses=["tcp://other:1"]).replace(scene.file)
        scene.lines[0].lost()
        await asyncio.sleep(1)
        former, present = scene.lines
        assert former.closed and present.connect.addresses == ["tcp://other:1"]
        assert set(present.asked) == asked and len(asked) == 2 and former.asked == {}
        present.answer()
        assert [(await each).ok for each in both] == [True, True] and scene.said == []

    play(tmp_path, history)


def test_another_driver_that_cannot_be_asked_from_here(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        asked = scene.ask()
        await asyncio.sleep(0.01)
        msgspec.structs.replace(scene.connect, addresses=["ipc:///x"]).replace(scene.file)
        scene.unreachable = True
        scene.lines[0].lost()
        with pytest.raises(UsageError, match="cannot be asked from here"):
            await asked

    play(tmp_path, history)


def test_the_run_is_over(tmp_path: Path) -> None:
    async def history(scene: Scene) -> None:
        both = scene.ask(), scene.ask()
        await asyncio.sleep(0.01)
        scene.file.unlink()
        scene.lines[0].lost()
        for asked in (*both, scene.ask()):
            with pytest.raises(OverError, match="the run is over"):
                await asked
        assert scene.said == []

    play(tmp_path, history)


@pytest.mark.parametrize("lost_first", [False, True])
def test_an_answer_counts_although_the_run_is_over_by_now(tmp_path: Path, lost_first: bool) -> None:
    async def history(scene: Scene) -> None:
        asked = scene.ask()
        await asyncio.sleep(0.01)
        scene.file.unlink()
        if lost_first:
            scene.lines[0].lost()
        scene.lines[0].answer()
        scene.lines[0].lost()
        assert (await asked).ok

    play(tmp_path, history)
