"""Whoever hands tasks in learns of each end once, whatever becomes of connections and drivers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from submission_world import AtOnce, BreakingLine, WorldDriver, connect_file

from disbatch.client.follow import Follower, Told
from disbatch.client.run_client import RunClient
from disbatch.model.errors import SilenceError, UsageError
from disbatch.wire.client_protocol import Collect, Submit

TURNS = 30
"""Of the loop: enough for everything that follows from a step."""


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


class World:
    """A run at `directory`/P, its driver, one who follows it, and others who hand tasks in, too."""

    def __init__(self, directory: Path, patience: float = 600.0) -> None:
        self.directory = directory
        (directory / "P_connect.json").touch()
        self.driver = WorldDriver(directory)
        self.said: list[str] = []
        self.line = BreakingLine()
        self.client = RunClient(
            *(self.line.open, connect_file(), str(directory / "P")),
            notify_user=self.said.append,
            advice="take it over",
            patience=patience,
        )
        self.follower = Follower(self.client)
        self.line.mend(self.driver)
        self.told: Counter[int] = Counter()
        self.ours: set[int] = set()
        self.over: Told | None = None
        self.submitting: list[asyncio.Task[None]] = []
        self.collecting = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        while True:
            told = await self.follower.collect()
            self.told.update(record.id for _, record in told.ended)
            if told.over:
                self.over = told
                return

    async def _submit(self, *lines: bytes) -> None:
        taken = await self.follower.submit(Submit(list(lines)))
        if taken.ids < 1000:
            self.ours |= set(range(taken.first, taken.first + taken.ids))

    def submit(self, *lines: bytes) -> None:
        self.submitting.append(asyncio.create_task(self._submit(*lines)))

    def kill(self, torn: bytes = b"") -> None:
        """The driver is killed, perhaps while it writes."""
        self.line.cut()
        self.line.driver = None
        self.driver.close()
        with (self.directory / "P_tasks.txt").open("ab") as file:
            file.write(torn)

    def take_over(self) -> None:
        self.driver = WorldDriver(self.directory, again=True)
        self.line.mend(self.driver)

    async def finish(self) -> None:
        """All tasks end."""
        self.line.mend(self.driver)
        await turns()
        self.driver.read()
        while self.driver.waiting:
            self.driver.run()
        await self.driver.commit()
        await turns()
        self.driver.read()

    def close(self) -> None:
        self.collecting.cancel()
        for task in self.submitting:
            task.cancel()
        self.client.close()
        self.driver.close()


def play(directory: Path, history: Callable[[World], Awaitable[None]], patience: float = 600.0) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(AtOnce())
        world = World(directory, patience)
        try:
            await history(world)
        finally:
            world.close()

    asyncio.run(main())


def test_each_end_is_told(tmp_path: Path) -> None:
    async def history(world: World) -> None:
        world.submit(b"a", b"b")
        world.submit(b"#DISBATCH REPEAT 3 c", b"#DISBATCH PREFIX x")
        await world.finish()
        assert world.told == Counter(range(5))
        assert not world.follower.pending

    play(tmp_path, history)


def test_a_hundred_million_wait_in_one_range(tmp_path: Path) -> None:
    async def history(world: World) -> None:
        world.submit(b"#DISBATCH REPEAT 100000000 a")
        await turns()
        world.driver.waiting += world.driver.source.take(10)
        for _ in range(10):
            world.driver.run()
        await world.driver.commit()
        await turns()
        assert world.follower.pending == 10**8 - 10
        asked = [verb for verb in world.line.verbs if isinstance(verb, Collect)]
        assert asked[-1].ranges == [(0, 10**8 - 1)]
        world.driver.source.take = lambda most: []  # type: ignore[method-assign]

    play(tmp_path, history)


def test_a_refusal(tmp_path: Path) -> None:
    async def history(world: World) -> None:
        with pytest.raises(UsageError, match="stdin:7: REPEAT"):
            await world.follower.submit(Submit([b"#DISBATCH REPEAT x"], "stdin", 7))
        assert not world.follower.pending

    play(tmp_path, history)


def test_a_task_that_ends_before_we_know_that_it_is_ours(tmp_path: Path) -> None:
    """The answer to what was handed in is lost with its connection, and the driver is quick."""

    async def history(world: World) -> None:
        world.submit(b"slow")
        await turns()
        world.driver.read()
        world.line.deaf = True
        world.submit(b"quick")
        await turns()
        world.driver.read()
        world.driver.run(1)
        await world.driver.commit()
        await turns()
        assert not world.told
        world.line.mend(world.driver)
        await turns()
        assert world.told == Counter([1])
        await world.finish()
        assert world.told == Counter([0, 1])

    play(tmp_path, history)


def test_the_answer_that_another_driver_gives(tmp_path: Path) -> None:
    async def history(world: World) -> None:
        world.submit(b"a")
        await turns()
        world.kill(b"half\n")
        world.submit(b"b")
        await turns()
        assert not world.told
        world.take_over()
        await world.finish()
        assert world.told == Counter([0, 1])

    play(tmp_path, history)


def test_the_run_ended_while_we_looked_away(tmp_path: Path) -> None:
    """Its last answers were lost, and its connect file is gone: the status file tells."""

    async def history(world: World) -> None:
        world.submit(b"a", b"b", b"c")
        await turns()
        world.line.cut()
        world.driver.read()
        for code in (0, 3):
            world.driver.run(code=code)
        await world.driver.commit()
        (world.directory / "P_connect.json").unlink()
        world.line.cut()
        await turns()
        assert world.told == Counter([0, 1])
        assert world.over is not None and world.follower.pending == 1
        with pytest.raises(SilenceError, match="the run is over"):
            await world.follower.submit(Submit([b"d"]))

    play(tmp_path, history)


def test_the_run_ended_before_it_answered(tmp_path: Path) -> None:
    async def history(world: World) -> None:
        world.line.cut()
        world.submit(b"a")
        await turns()
        (world.directory / "P_connect.json").unlink()
        world.line.cut()
        await turns()
        with pytest.raises(SilenceError, match="the run is over"):
            await world.submitting[0]

    play(tmp_path, history)


def test_nobody_takes_it_over(tmp_path: Path) -> None:
    async def history(world: World) -> None:
        world.submit(b"a")
        await turns()
        world.kill()
        await turns()
        while not world.collecting.done():
            world.line.lost()
            await asyncio.sleep(0)
        with pytest.raises(SilenceError, match="take it over"):
            await world.collecting
        world.driver = WorldDriver(world.directory, again=True)

    play(tmp_path, history, patience=0.01)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 4)),
        st.tuples(st.just("others"), st.integers(1, 3)),
        st.tuples(st.just("run"), st.integers(0, 5)),
        st.tuples(st.just("commit"), st.just(0)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("deaf"), st.just(0)),
        st.tuples(st.just("mend"), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 12)),
        st.tuples(st.just("turn"), st.integers(1, 10)),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_each_end_is_told_once_in_any_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    async def history(world: World) -> None:
        number = 1000
        for what, much in steps:
            number += 1
            if what == "submit":
                world.submit(*[b"a"] * much)
            elif what == "others":
                world.driver.source.add([b"b"] * much, f"{number:032x}", "x", 1)
            elif what == "run" and (world.driver.read() or world.driver.waiting):
                world.driver.run(much)
            elif what == "commit":
                await world.driver.commit()
            elif what == "cut":
                world.line.cut()
            elif what == "deaf":
                world.line.deaf = True
            elif what == "mend":
                world.line.mend(world.driver)
            elif what == "kill":
                world.kill(b"torn\nlines\n"[:much])
                world.take_over()
            for _ in range(much if what == "turn" else 0):
                await asyncio.sleep(0)
        await world.finish()
        await world.finish()
        assert all(task.done() for task in world.submitting)
        for task in world.submitting:
            task.result()
        assert world.told == Counter(world.ours)
        assert not world.follower.pending

    with suppress(asyncio.CancelledError):
        play(tmp_path_factory.mktemp("world"), history)
