"""Programs are told how their tasks ended: when it is in the status file, and from where they are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from submission_world import WorldDriver, line_of

from disbatch.driver import result_feed
from disbatch.model.statusline import Mark, format_line
from disbatch.model.task import Outcome, Task
from disbatch.rundir import statusfile
from disbatch.wire.client_protocol import Answer, Collect, Request, Results, Submit, Taken, Verb
from disbatch.wire.client_socket import request_for

EVERYTHING = [(0, (1 << 63) - 1)]


class Asker:
    """Asks the driver, and gets the answers that come later."""

    def __init__(self, driver: WorldDriver) -> None:
        self.driver = driver
        self.later: dict[str, Answer] = {}
        driver.answers = self._answer

    def _answer(self, request: Request, answer: Answer) -> None:
        self.later[request.id] = answer

    def ask(self, verb: Verb) -> tuple[Request, Answer | None]:
        request = request_for(verb)
        return request, self.driver.request(request)

    def submit(self, *lines: bytes) -> Taken:
        _, answer = self.ask(Submit(list(lines)))
        assert answer is not None and isinstance(answer.value, Taken)
        self.driver.read()
        return answer.value

    def waits(self, ranges: list[tuple[int, int]], after: int = 0) -> Request:
        request, answer = self.ask(Collect(ranges, after))
        assert answer is None
        return request

    def told(self, request: Request) -> Results | None:
        answer = self.later.get(request.id)
        if answer is None:
            return None
        assert isinstance(answer.value, Results)
        return answer.value

    async def collect(self, ranges: list[tuple[int, int]], after: int = 0) -> Results:
        request, answer = self.ask(Collect(ranges, after))
        while answer is None:
            await asyncio.sleep(0)
            answer = self.later.get(request.id)
        assert isinstance(answer.value, Results)
        return answer.value


History = Callable[[Asker], Awaitable[None]]


def ids(results: Results | None) -> list[int]:
    assert results is not None
    return [int(line.split(b"\t")[1]) for line in results.lines]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[History], None]:
    """Plays a history."""

    async def main(history: History) -> None:
        driver = WorldDriver(tmp_path, nothing_new=0.01 if "nothing_new" in history.__name__ else 10.0)
        try:
            await history(Asker(driver))
        finally:
            driver.close()

    return lambda history: asyncio.run(main(history))


def test_not_before_it_is_in_the_file(play: Callable[[History], None]) -> None:
    async def history(asker: Asker) -> None:
        asker.submit(b"a", b"b")
        request = asker.waits([(0, 1)])
        asker.driver.run()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asker.told(request) is None
        await asker.driver.commit()
        assert ids(asker.told(request)) == [0]

    play(history)


def test_only_those_asked_for(play: Callable[[History], None]) -> None:
    async def history(asker: Asker) -> None:
        asker.submit(*[b"a"] * 10)
        some, others = asker.waits([(2, 3), (7, 7)]), asker.waits([(20, 30)])
        while asker.driver.waiting:
            asker.driver.run()
        await asker.driver.commit()
        assert ids(asker.told(some)) == [2, 3, 7]
        assert asker.told(others) is None

    play(history)


def test_who_asks_later_is_told_what_is_behind_it(play: Callable[[History], None]) -> None:
    async def history(asker: Asker) -> None:
        asker.submit(*[b"a"] * 4)
        asker.driver.run()
        await asker.driver.commit()
        first = await asker.collect([(0, 3)])
        for _ in range(2):
            asker.driver.run()
        await asker.driver.commit()
        second = await asker.collect([(0, 3)], first.upto)
        assert (ids(first), ids(second)) == ([0], [1, 2])
        assert ids(await asker.collect([(0, 3)])) == [0, 1, 2], "an answer that was lost"
        asker.waits([(0, 3)], second.upto)

    play(history)


def test_what_does_not_count_is_not_told(play: Callable[[History], None]) -> None:
    async def history(asker: Asker) -> None:
        asker.submit(b"a")
        driver = asker.driver
        task = driver.waiting[0]
        assert isinstance(task, Task)
        for mark in (Mark.SUPERSEDED, Mark.PER_ENGINE):
            driver.add(line_of(task, 1, mark))
        driver.run(code=3)
        await driver.commit()
        for results in (await asker.collect([(0, 0)]), await from_file(asker)):
            (line,) = results.lines
            assert line.startswith(b"RO  \t0\t")

    async def from_file(asker: Asker) -> Results:
        lines, upto = statusfile.look_through(
            asker.driver.status, 0, asker.driver.size, result_feed.IdSet(EVERYTHING)
        )
        return Results(lines, upto)

    play(history)


def test_nothing_new(play: Callable[[History], None]) -> None:
    async def nothing_new(asker: Asker) -> None:
        asker.submit(b"a", b"b")
        asker.driver.run()
        await asker.driver.commit()
        results = await asker.collect([(1, 1)])
        assert results == Results([], asker.driver.size)
        assert not asker.driver.telling._waiting

    play(nothing_new)


def test_who_was_away_is_told_from_the_file(play: Callable[[History], None]) -> None:
    async def history(asker: Asker) -> None:
        asker.submit(b"#DISBATCH REPEAT 40000 a" + b"x" * 50)
        while asker.driver.waiting or asker.driver.source.take(0):
            asker.driver.run()
            asker.driver.read()
        await asker.driver.commit()
        assert asker.driver.size > result_feed.BYTES_KEPT, "else all of it is kept"
        found, after, answers = [], 0, 0
        while after < asker.driver.size:
            results = await asker.collect([(5, 30_000), (39_999, 39_999)], after)
            assert sum(map(len, results.lines)) < statusfile.BYTES_A_TIME + 300
            found += ids(results)
            after = results.upto
            answers += 1
        assert found == [*range(5, 30_001), 39_999]
        assert answers > 5

    play(history)


def test_as_much_as_fits_in_an_answer(play: Callable[[History], None]) -> None:
    async def history(asker: Asker) -> None:
        asker.submit(b"#DISBATCH REPEAT 8000 " + b"x" * 200)
        request = asker.waits(EVERYTHING)
        while asker.driver.waiting:
            asker.driver.run()
        await asker.driver.commit()
        results = asker.told(request)
        assert results is not None
        found = ids(results)
        assert 0 < len(found) < 8000
        while results.upto < asker.driver.size:
            results = await asker.collect(EVERYTHING, results.upto)
            found += ids(results)
        assert found == list(range(8000))

    play(history)


def test_a_very_long_line_is_told_without_its_command(play: Callable[[History], None]) -> None:
    async def history(asker: Asker) -> None:
        asker.submit(b"x" * 900_000)
        asker.driver.run()
        await asker.driver.commit()
        results = await asker.collect(EVERYTHING)
        (line,) = results.lines
        record = statusfile.parse_told(line)
        assert record is not None and (record.id, record.command, record.out) == (0, b"", b"'out'")
        wanted = result_feed.IdSet(EVERYTHING)
        assert statusfile.look_through(asker.driver.status, 0, asker.driver.size, wanted) == (
            [line],
            results.upto,
        )

    play(history)


def test_the_end(play: Callable[[History], None]) -> None:
    async def history(asker: Asker) -> None:
        asker.submit(b"a", b"b")
        request = asker.waits(EVERYTHING)
        asker.driver.run()
        await asker.driver.commit()
        await asker.driver.telling.close("interrupted")
        results = asker.told(request)
        assert results is not None and ids(results) == [0] and not results.over
        after = await asker.collect(EVERYTHING, results.upto)
        assert after == Results([], asker.driver.size, True, "interrupted")
        late = await asker.collect(EVERYTHING)
        assert ids(late) == [0] and late.over

    play(history)


def test_who_knows_more_than_there_is(play: Callable[[History], None]) -> None:
    """The computer crashed, and what was not on the disk is gone: its task has run again."""

    async def history(asker: Asker) -> None:
        asker.submit(b"a")
        request = asker.waits([(0, 0)], 10**9)
        asker.driver.run()
        await asker.driver.commit()
        assert ids(asker.told(request)) == [0]

    play(history)


def test_a_run_that_takes_no_tasks() -> None:
    from disbatch.driver.submissions import Submissions

    submissions = Submissions(ending=lambda: False, why_not="start it with --keep-open")
    verbs: list[Submit | Collect] = [Submit([b"a"]), Collect([(0, 0)], 0)]
    for verb in verbs:
        answer = submissions.request(request_for(verb), verb)
        assert answer is not None and (answer.ok, answer.lines) == (False, ["start it with --keep-open"])


def test_the_same_request_is_taken_once_by_two_drivers(tmp_path: Path) -> None:
    """The first one was killed between writing the lines down and telling."""

    async def history() -> None:
        request = request_for(Submit([b"a", b"b"]))
        first = WorldDriver(tmp_path)
        statusfile = first.request(request)
        first.close()
        second = WorldDriver(tmp_path, again=True)
        again = second.request(request)
        assert statusfile is not None and again is not None
        assert isinstance(statusfile.value, Taken) and isinstance(again.value, Taken)
        assert (statusfile.value.first, statusfile.value.counts) == (again.value.first, again.value.counts)
        assert len(second.waiting) == 2 and not second.source.take(1)
        second.close()

    asyncio.run(history())


def test_look_through_lines_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status"
    outcome = Outcome(0, 0, 1, 0, 0.1, 1.0, 1.1, 0, b"", 0, b"")
    sizes = [10, statusfile.BLOCK - 100, 3 * statusfile.BLOCK, 5, statusfile.BLOCK]
    lines = [format_line(n, 1, -1, b"x" * size, "n", outcome) for n, size in enumerate(sizes)]
    path.write_bytes(b"not a line\n" + b"".join(lines))
    status = os.open(path, os.O_RDONLY)
    found, after, size = [], 0, path.stat().st_size
    while after < size:
        some, upto = statusfile.look_through(status, after, size, result_feed.IdSet(EVERYTHING))
        assert upto > after
        found += [int(line.split(b"\t")[1]) for line in some]
        after = upto
    os.close(status)
    assert found == [0, 1, 2, 3, 4]
