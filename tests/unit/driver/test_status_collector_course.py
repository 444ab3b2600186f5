"""Points of a run's course and its pace."""

from __future__ import annotations

from itertools import pairwise

import pytest

from disbatch.driver.status_collector import MOST_POINTS, Course, Paces
from disbatch.model.view import CoursePoint


def point(seconds: float, done: int = 0) -> CoursePoint:
    return CoursePoint(seconds, done, 0, 1, 2)


def test_points_become_fewer_the_longer_it_lasts() -> None:
    course = Course()
    for tenth in range(20_000):
        course.add(point(tenth / 10, tenth))
    seconds = [p.seconds for p in course.points]
    assert MOST_POINTS / 2 <= len(seconds) <= MOST_POINTS
    assert seconds[0] == 0 and seconds[-1] > 1990
    steps = {round(b - a, 6) for a, b in pairwise(seconds)}
    assert steps == {4.0}


def test_pace_of_the_last_minute() -> None:
    course = Course()
    assert course.rate is None
    course.add(point(0.0))
    assert course.rate is None
    for second in range(1, 200):
        course.add(point(float(second), second if second < 100 else 100 + 3 * (second - 100)))
    assert course.rate == pytest.approx(3, rel=0.05)


def test_pace_of_a_run_that_was_looked_at_seldom() -> None:
    course = Course()
    for second in (0, 100, 200):
        course.add(point(float(second), 2 * second))
    assert course.rate == 2


def test_pace_of_a_run_in_which_nothing_ends() -> None:
    course = Course()
    for second in range(100):
        course.add(point(float(second), 7))
    assert course.rate is None


def test_paces_of_engines() -> None:
    paces = Paces()
    assert paces.rate("a", 10.0, 40, 0.0) == 4
    assert paces.rate("b", 10.0, 40, 10.0) == 0
    assert paces.rate("a", 10.5, 4000, 0.0) == 4, "too soon to say"
    for second in range(11, 400):
        rate = paces.rate("a", float(second), 40 + 2 * (second - 10), 0.0)
    assert rate == pytest.approx(2, rel=0.05)


def test_paces_of_an_engine_that_was_looked_at_from_its_beginning() -> None:
    paces = Paces()
    for second in range(31):
        rate = paces.rate("a", 100.0 + second, 2 * second, 100.0)
    assert rate == pytest.approx(2), "as the rate of the run says"
