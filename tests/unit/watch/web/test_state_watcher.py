"""watch/web/state.py: asks on with what it knows, over drivers, to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from disbatch.client.follow import OverError
from disbatch.model.errors import SilenceError
from disbatch.model.view import RunView
from disbatch.watch.web.state import Picture, Watcher
from disbatch.wire.client_protocol import Answer, Seen, Verb, Watch
from disbatch.wire.verbs import Pause
from views import engine, failure, view


class Driver:
    """Answers with these views, then with this error."""

    def __init__(self, views: Iterable[RunView | Answer], error: Exception) -> None:
        self.views = list(views)
        self.error = error
        self.asked: list[Verb] = []

    async def ask(self, verb: Verb) -> Answer:
        self.asked.append(verb)
        if not self.views:
            raise self.error
        first = self.views.pop(0)
        return (
            first if isinstance(first, Answer) else Answer("x", True, [], Seen(first, first.mode == "over"))
        )


def watched(*views: RunView | Answer, error: Exception | None = None) -> tuple[Driver, Picture]:
    driver, picture = Driver(views, error or OverError("the run is over")), Picture()
    asyncio.run(Watcher(driver, picture).watch())
    return driver, picture


def test_it_asks_for_what_is_new() -> None:
    driver, picture = watched(
        view([engine(0)], 5, failures=[failure(1), failure(2)]),
        view([engine(0)], 7, failures=[]),
        view([engine(0)], 9, failures=[failure(3)], mode="over"),
    )
    questions = [verb for verb in driver.asked if isinstance(verb, Watch)]
    assert [(q.known, q.wants.failures_known, q.wants.course) for q in questions] == [
        (0, 0, True),
        (5, 2, False),
        (7, 2, False),
    ]
    assert picture.over and len(picture.failures) == 3


def test_another_driver_is_asked_for_everything() -> None:
    driver, picture = watched(
        view([engine(0)], 5, failures=[failure(1), failure(2)]),
        view([engine(0)], 3, driver=1, failures=[]),
        view([engine(0)], 4, driver=1, failures=[failure(1)]),
    )
    last = driver.asked[-2]
    assert isinstance(last, Watch) and last.wants.failures_known == 0
    assert (last.known, last.driver) == (3, 1)
    assert [row.number for _, row in picture.failures] == [1, 2, 3]
    assert picture.over and picture.view is not None and picture.view.notice == "the run is over"


def test_no_driver_is_heard_any_more() -> None:
    _, picture = watched(view([engine(0)]), error=SilenceError("the driver is dead"))
    assert picture.over and picture.news(0)["run"]["notice"] == "the driver is dead"


def test_a_driver_that_refuses() -> None:
    _, picture = watched(Answer("x", False, ["no"]))
    assert picture.over


def test_orders() -> None:
    async def ordered() -> None:
        watcher = Watcher(Driver([Answer("x", True, ["paused"])], SilenceError("it is silent")), Picture())
        assert await watcher.order(Pause()) == (True, ["paused"])
        assert await watcher.order(Pause()) == (False, ["it is silent"])

    asyncio.run(ordered())
