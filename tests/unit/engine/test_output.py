"""From the pipes to the files: limits, memory that does not grow, results that wait for what is written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from deadline import DEADLINE
from disbatch.engine import output as module
from disbatch.engine.capture import Capture
from disbatch.engine.output import KeptCapture, Output
from disbatch.engine.output_writer import Done
from disbatch.engine.slots import Job
from disbatch.model.output import head_and_tail
from disbatch.model.pack import Piece
from disbatch.model.task import Ending, Outcome, Phase
from disbatch.wire.engine_protocol import Order


class Paper:
    """Files that keep what they get in memory; a write waits while `open_` is not set."""

    def __init__(self, clears: bool = False) -> None:
        self.clears = clears
        self.open_ = threading.Event()
        self.open_.set()
        self.entered = threading.Event()
        self.work: list[Piece | Done] = []
        self.closed = False
        self.fails: Exception | None = None

    def write(self, work: list[Piece | Done]) -> None:
        self.entered.set()
        assert self.open_.wait(DEADLINE)
        if self.fails is not None:
            raise self.fails
        self.work += work

    def sync(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def stream(self, attempt: int, stream: int = 0) -> list[tuple[int, bytes]]:
        return [
            (w.position, w.data)
            for w in self.work
            if isinstance(w, Piece) and w.attempt == attempt and w.stream == stream
        ]

    def ends(self) -> list[tuple[int, bool]]:
        return [(w.attempt, w.own) for w in self.work if isinstance(w, Done)]


class Engine:
    """What is around an Output."""

    def __init__(self, paper: Paper, limit: int = 1 << 20, stall: float = DEADLINE) -> None:
        self.loop = asyncio.get_running_loop()
        self.paper = paper
        self.given: list[int] = []
        self.said: list[str] = []
        self.errors: list[Exception] = []
        self.changed = asyncio.Event()
        self.waiting = 0
        self.rooms = 0
        self.output = Output(
            self.loop,
            paper,
            limit=limit,
            give=self._give,
            now=lambda: 5.0,
            supply=lambda: self.waiting,
            trouble=self._say,
            broken=self.errors.append,
            stall=stall,
        )
        self.output.room = self._room

    def _give(self, job: Job, outcome: Outcome) -> None:
        self.given.append(outcome.attempt)
        self.changed.set()

    def _say(self, text: str) -> None:
        self.said.append(text)
        self.changed.set()

    def _room(self) -> None:
        self.rooms += 1
        self.changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def start(self, attempt: int) -> tuple[KeptCapture, KeptCapture]:
        out, err = self.output.captures(Order(attempt, attempt + 100, 1, -1, b""), None)
        assert isinstance(out, KeptCapture) and isinstance(err, KeptCapture)
        return out, err

    def end(
        self, attempt: int, captures: tuple[Capture, Capture] | None = None, ending: Ending = Ending.OWN
    ) -> None:
        out, err = (capture.count for capture in captures) if captures else (0, 0)
        outcome = Outcome(attempt, 0, 9, 0, 1.0, 2.0, 3.0, out, b"", err, b"", ending)
        self.output.add(Job(Order(attempt, attempt + 100, 1, -1, b""), None), outcome)


def history(play: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(play(), DEADLINE * 2)

    asyncio.run(run())


def test_a_result_waits_until_its_output_is_written() -> None:
    async def play() -> None:
        paper = Paper()
        paper.open_.clear()
        engine = Engine(paper)
        captures = engine.start(1)
        captures[0].feed(b"one ")
        captures[0].feed(b"two")
        captures[1].feed(b"err")
        engine.end(1, captures)
        await asyncio.to_thread(paper.entered.wait, DEADLINE)
        assert engine.given == [] and not engine.output.empty
        assert [job.order.attempt for job in engine.output.jobs()] == [1]
        paper.open_.set()
        await engine.until(lambda: engine.given)
        assert engine.output.empty and engine.output.jobs() == []
        assert paper.stream(1) == [(0, b"one two")] and paper.stream(1, 1) == [(0, b"err")]
        assert paper.ends() == [(1, True)]
        await engine.output.close()
        assert paper.closed

    history(play)


@pytest.mark.parametrize("clears", [False, True])
def test_a_silent_task_waits_only_where_former_files_may_have_to_go(clears: bool) -> None:
    async def play() -> None:
        engine = Engine(Paper(clears))
        engine.start(1)
        engine.end(1)
        assert engine.given == ([] if clears else [1])
        engine.start(2)
        engine.end(2, ending=Ending.ORDERED)
        assert 2 in engine.given, "what was ended by order clears nothing"
        engine.end(3, ending=Ending.UNSTARTED)
        assert 3 in engine.given
        await engine.until(lambda: 1 in engine.given)
        assert engine.paper.ends() == ([(1, True)] if clears else [])
        await engine.output.close()

    history(play)


def test_per_engine_commands_are_not_kept() -> None:
    async def play() -> None:
        engine = Engine(Paper())
        out, _ = engine.output.captures(Order(1, 0, 1, -1, b""), Phase.START)
        out.feed(b"x" * 100)
        engine.end(1, (out, out))
        assert engine.given == [1] and engine.paper.work == []

    history(play)


LIMIT = 100_000


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, LIMIT + 20_000, 10 * LIMIT])
@pytest.mark.parametrize("block", [1000, 65536, 4 * LIMIT])
def test_the_limit_keeps_the_beginning_and_the_end(size: int, block: int) -> None:
    data = bytes(n * 7 % 251 for n in range(size))
    head, tail = head_and_tail(LIMIT)
    assert head + tail == LIMIT

    async def play() -> None:
        engine = Engine(Paper(), LIMIT)
        captures = engine.start(1)
        for at in range(0, size, block):
            captures[0].feed(data[at : at + block])
        assert captures[0].count == size
        assert captures[0].snippet() == data[:40] + b"..." + data[-40:]
        engine.end(1, captures)
        await engine.until(lambda: engine.given)
        pieces = engine.paper.stream(1)
        kept = b"".join(part for _, part in pieces)
        assert all(data[at : at + len(part)] == part for at, part in pieces)
        assert len(kept) == min(size, LIMIT)
        assert kept == (data if size <= LIMIT else data[:head] + data[-tail:])
        await engine.output.close()

    history(play)


def test_a_pipe_rests_while_much_is_not_written() -> None:
    async def play() -> None:
        paper = Paper()
        paper.open_.clear()
        engine = Engine(paper, 1 << 30)
        (loud, _), (quiet, _) = engine.start(1), engine.start(2)
        count = 0
        while not loud.full:
            loud.feed(bytes(65536))
            count += 1
        assert count <= module.PENDING // 65536 + 1
        quiet.feed(b"x")
        assert not quiet.full, "one task's flood does not stop the others"
        assert not engine.output.full
        paper.open_.set()
        await engine.until(lambda: engine.rooms)
        assert not loud.full
        await engine.output.close()
        assert sum(len(data) for _, data in paper.stream(1)) == count * 65536
        assert paper.stream(2) == [(0, b"x")]

    history(play)


def test_no_task_starts_while_too_much_is_not_written() -> None:
    async def play() -> None:
        paper = Paper()
        paper.open_.clear()
        engine = Engine(paper, 1 << 30)
        attempt = 0
        while not engine.output.full:
            attempt += 1
            captures = engine.start(attempt)
            captures[0].feed(bytes(65536))
            engine.end(attempt, captures)
        assert attempt == module.MOST_PENDING // 65536 + 1
        quiet, _ = engine.start(0)
        assert quiet.full
        paper.open_.set()
        await engine.until(lambda: engine.rooms)
        assert not engine.output.full and not quiet.full
        await engine.until(lambda: len(engine.given) == attempt)
        await engine.output.close()

    history(play)


def test_what_a_running_task_printed_is_written_within_a_second() -> None:
    async def play() -> None:
        engine = Engine(Paper())
        captures = engine.start(1)
        captures[0].feed(b"so far")
        await asyncio.to_thread(engine.paper.entered.wait, DEADLINE)
        captures[0].feed(b", and more")
        engine.end(1, captures)
        await engine.until(lambda: engine.given)
        assert engine.paper.stream(1) == [(0, b"so far"), (6, b", and more")]
        await engine.output.close()

    history(play)


def test_results_do_not_wait_for_a_file_system_that_does_not_answer() -> None:
    async def play() -> None:
        paper = Paper()
        paper.open_.clear()
        engine = Engine(paper, 1 << 30, stall=0.05)
        captures = engine.start(1)
        captures[0].feed(b"x")
        engine.end(1, captures)
        await engine.until(lambda: engine.given == [1])
        assert engine.said == ["output could not be written for 0.05 s: results no longer wait for it"]
        loud, _ = later = engine.start(2)
        for _ in range(2 * module.MOST_PENDING // 65536):
            loud.feed(bytes(65536))
        assert not loud.full and not engine.output.full
        assert engine.output._pending <= module.MOST_PENDING + 65536, "what comes beyond that is left out"
        engine.end(2, later)
        assert engine.given == [1, 2]
        paper.open_.set()
        await engine.until(lambda: "output is written again" in engine.said)
        captures = engine.start(3)
        captures[0].feed(b"again")
        engine.end(3, captures)
        assert engine.given == [1, 2], "they wait again"
        await engine.until(lambda: engine.given == [1, 2, 3])
        await engine.output.close()
        assert paper.stream(3) == [(0, b"again")]
        assert [attempt for attempt, _ in paper.ends()] == [1, 2, 3]

    history(play)


def test_closing_waits_as_long_as_something_gets_on_and_no_longer() -> None:
    async def play() -> None:
        paper = Paper()
        paper.open_.clear()
        engine = Engine(paper)
        captures = engine.start(1)
        captures[0].feed(b"x")
        engine.end(1, captures)
        await engine.output.close(patience=0.05)
        assert engine.given == [1] and engine.said == ["not all output could be written"]
        paper.open_.set()

    history(play)


def test_an_error_in_the_program_is_told_and_holds_no_result_back() -> None:
    async def play() -> None:
        paper = Paper()
        paper.fails = ValueError("a mistake of ours")
        engine = Engine(paper)
        captures = engine.start(1)
        captures[0].feed(b"x")
        engine.end(1, captures)
        await engine.until(lambda: engine.given == [1])
        assert engine.errors == [paper.fails]
        await engine.output.close()
        assert paper.closed

    history(play)


def test_release_lets_all_go_at_once() -> None:
    async def play() -> None:
        paper = Paper()
        paper.open_.clear()
        engine = Engine(paper)
        for attempt in (1, 2):
            captures = engine.start(attempt)
            captures[0].feed(b"x")
            engine.end(attempt, captures)
            await asyncio.sleep(0)
        engine.output.release()
        assert engine.given == [1, 2] and engine.output.empty
        paper.open_.set()
        await engine.output.close()
        assert engine.given == [1, 2], "once"

    history(play)
