"""When those are told that watch a run: at once, when something changed, not too often, or in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from clock_loop import run
from plan_world import task
from status_scene import Scene

from disbatch.driver.status_feed import StatusFeed
from disbatch.model.view import RunView
from disbatch.plan.events import Read
from disbatch.wire.client_protocol import Answer, Request, Seen, Wants, Watch
from disbatch.wire.client_socket import request_for
from disbatch.wire.longpoll import NOTHING_NEW

WANTS = Wants(failures=10, log=10)


class Watcher:
    """Watches a run with one engine; `looks` counts how often it was looked at."""

    def __init__(self) -> None:
        self.scene = Scene(("a", 2))
        self.answers: dict[str, Answer] = {}
        self.came = asyncio.Event()
        self.looks = 0
        self.loop = asyncio.get_running_loop()
        self.watching = StatusFeed(self.loop, self.scene.collector, self.answer, 3)
        self._look = self.scene.collector.look
        self.scene.collector.look = self.look  # type: ignore[method-assign]

    def look(self) -> None:
        self.looks += 1
        self._look()

    def answer(self, request: Request, answer: Answer) -> None:
        self.answers[request.id] = answer
        self.came.set()

    def ask(self, verb: Watch) -> tuple[Request, Answer | None]:
        request = request_for(verb)
        return request, self.watching.request(request, verb)

    def first(self, wants: Wants = WANTS) -> RunView:
        _, answer = self.ask(Watch(wants))
        assert answer is not None
        return seen(answer).view

    def waits(self, known: int, driver: int = 3) -> Request:
        request, answer = self.ask(Watch(WANTS, known, driver))
        assert answer is None
        return request

    async def told(self, request: Request) -> Seen:
        while request.id not in self.answers:
            self.came.clear()
            await self.came.wait()
        return seen(self.answers[request.id])


def seen(answer: Answer) -> Seen:
    assert answer.ok and isinstance(answer.value, Seen)
    return answer.value


History = Callable[[Watcher], Awaitable[None]]


@pytest.fixture
def play() -> Callable[[History], None]:
    """Plays a history."""

    async def main(history: History) -> None:
        await history(Watcher())

    return lambda history: run(main(history))


def test_at_once_the_first_time_and_then_when_something_changed(play: Callable[[History], None]) -> None:
    async def history(watcher: Watcher) -> None:
        view = watcher.first()
        request = watcher.waits(view.number)
        await asyncio.sleep(NOTHING_NEW - 1)
        assert request.id not in watcher.answers
        watcher.scene.tally.done += 1
        watcher.watching.mark_changed()
        told = await watcher.told(request)
        assert told.view.done == 1 and told.view.number > view.number and not told.over

    play(history)


def test_what_changed_before_the_question(play: Callable[[History], None]) -> None:
    async def history(watcher: Watcher) -> None:
        view = watcher.first()
        watcher.watching.mark_changed()
        await watcher.told(watcher.waits(view.number))

    play(history)


def test_many_watchers_are_told_from_one_look(play: Callable[[History], None]) -> None:
    async def history(watcher: Watcher) -> None:
        number = watcher.first().number
        before = watcher.looks
        requests = [watcher.waits(number) for _ in range(50)]
        watcher.watching.mark_changed()
        watcher.watching.mark_changed()
        views = [(await watcher.told(request)).view.number for request in requests]
        assert len(set(views)) == 1 and watcher.looks == before + 1

    play(history)


def test_nobody_watches_and_nobody_looks(play: Callable[[History], None]) -> None:
    async def history(watcher: Watcher) -> None:
        for _ in range(100):
            watcher.watching.mark_changed()
        await asyncio.sleep(NOTHING_NEW * 2)
        assert watcher.looks == 0

    play(history)


def test_what_is_known_of_another_driver_counts_for_nothing(play: Callable[[History], None]) -> None:
    async def history(watcher: Watcher) -> None:
        watcher.scene.collector.log("one")
        _, answer = watcher.ask(Watch(Wants(log=5, log_known=7), 99, 2))
        assert answer is not None
        assert [row.text for row in seen(answer).view.log] == ["one"]

    play(history)


def test_nothing_new(play: Callable[[History], None]) -> None:
    async def history(watcher: Watcher) -> None:
        view = watcher.first()
        watcher.scene.clock += 5
        told = await watcher.told(watcher.waits(view.number))
        assert told.view.number == view.number and watcher.loop.time() == NOTHING_NEW

    play(history)


def test_the_end(play: Callable[[History], None]) -> None:
    async def history(watcher: Watcher) -> None:
        number = watcher.first().number
        request = watcher.waits(number)
        watcher.watching.close("complete")
        for told in ((await watcher.told(request)), seen_now(watcher, number)):
            assert told.over and (told.view.mode, told.view.notice) == ("over", "complete")

    play(history)


def seen_now(watcher: Watcher, known: int) -> Seen:
    _, answer = watcher.ask(Watch(WANTS, known, 3))
    assert answer is not None
    return seen(answer)


def test_which_tasks_run_is_told_as_of_now_however_fresh_the_view(
    play: Callable[[History], None],
) -> None:
    async def history(watcher: Watcher) -> None:
        watcher.first()
        watcher.scene.tell(Read([task(id) for id in range(4)]))
        _, answer = watcher.ask(Watch(WANTS, ids=[(0, 1), (3, 3)]))
        assert answer is not None and seen(answer).running == [0, 1]
        _, answer = watcher.ask(Watch(WANTS))
        assert answer is not None and seen(answer).running == []

    play(history)
