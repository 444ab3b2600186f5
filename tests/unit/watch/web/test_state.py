"""watch/web/state.py: a browser is told what is new to it, all of it, and nothing twice."""

from __future__ import annotations

from typing import Any

import msgspec

from disbatch.model.view import LogRow
from disbatch.watch.web import state
from disbatch.watch.web.state import Picture
from views import course, engine, failure, view


def names(news: dict[str, Any]) -> list[str]:
    return [row[0] for row in news["engines"]]


def test_nothing_is_known_at_first() -> None:
    picture = Picture()
    assert picture.news(0) == {"version": 0, "over": False, "silence": ""}
    changed = picture.changed
    picture.fall_silent("the driver is not heard")
    assert changed.is_set() and not picture.changed.is_set()
    assert picture.news(0)["silence"] == "the driver is not heard"


def test_all_of_it_then_what_has_changed() -> None:
    picture = Picture()
    picture.take(view([engine(0), engine(1)], failures=[failure(1)], log=[]), over=False)
    first = picture.news(0)
    assert first["all"] and names(first) == ["e0", "e1"] and len(first["failures"]) == 1
    assert first["run"]["done"] == 9_001 and first["run"]["barrier"] is None
    picture.take(view([engine(0), engine(1, running=3)], 2, failures=[failure(2)]), over=False)
    second = picture.news(first["version"])
    assert not second["all"] and names(second) == ["e1"]
    assert [row[0] for row in second["failures"]] == [2]
    assert len(second["course"]) == 1
    # whoever missed the second view hears of both changes
    picture.take(view([engine(0, running=1), engine(1, running=3)], 3, failures=[]), over=False)
    assert names(picture.news(first["version"])) == ["e0", "e1"]
    assert names(picture.news(second["version"])) == ["e0"]
    assert picture.news(second["version"])["failures"] == []
    assert msgspec.json.encode(picture.news(0))


def test_what_nobody_would_see_is_not_told() -> None:
    picture = Picture()
    picture.take(view([engine(0)]), over=False)
    version = picture.version
    row = msgspec.structs.replace(engine(0), heard=2.0, load=15.5201, rate=2.0001)
    picture.take(view([row], 2), over=False)
    assert names(picture.news(version)) == []


def test_another_driver_numbers_anew() -> None:
    picture = Picture()
    picture.take(view([engine(0), engine(1)], failures=[failure(1), failure(2)], log=[]), over=False)
    version = picture.version
    log = [LogRow(1, 0.0, "went on with the run")]
    picture.take(view([engine(1)], 1, driver=1, failures=[failure(1)], log=log), over=False)
    news = picture.news(version)
    assert [row[0] for row in news["failures"]] == [3] and [row[2] for row in news["log"]] == [log[0].text]
    assert [row[0] for row in picture.news(0)["engines"]] == ["e1"]


def test_a_long_course_is_thinned() -> None:
    picture = Picture()
    picture.take(view([engine(0)], course=course(900.0, 16, 1.0) * 1), over=False)
    for number in range(2, 3 * state.MOST_POINTS):
        picture.take(view([engine(0)], number), over=False)
    times = [point[0] for point in picture.news(0)["course"]]
    assert len(times) <= state.MOST_POINTS and times == sorted(times)


def test_the_end() -> None:
    picture = Picture()
    picture.take(view([engine(0)]), over=False)
    picture.end("no driver is heard")
    news = picture.news(1)
    assert news["over"] and news["run"]["mode"] == "over" and news["run"]["notice"] == "no driver is heard"
