"""Points of a run's course, and rates."""

from __future__ import annotations

from itertools import pairwise

import pytest

from disbatch.driver.status_collector import MOST_POINTS, Course, EngineRates
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


def test_rate_of_the_last_minute() -> None:
    course = Course()
    assert course.rate is None
    course.add(point(0.0))
    assert course.rate is None
    for second in range(1, 200):
        course.add(point(float(second), second if second < 100 else 100 + 3 * (second - 100)))
    assert course.rate == pytest.approx(3, rel=0.05)


def test_rate_of_a_run_that_was_looked_at_seldom() -> None:
    course = Course()
    for second in (0, 100, 200):
        course.add(point(float(second), 2 * second))
    assert course.rate == 2


def test_rate_of_a_run_in_which_nothing_ends() -> None:
    course = Course()
    for second in range(100):
        course.add(point(float(second), 7))
    assert course.rate is None


def test_what_a_former_driver_recorded_does_not_count_for_the_rate() -> None:
    course = Course()
    course.add(point(0.0))
    for second in range(1, 60):
        course.add(point(float(second), 500 + second), inherited=500)
    assert course.rate == pytest.approx(1)


def test_rates_of_engines() -> None:
    rates = EngineRates()
    assert rates.rate("a", 10.0, 40, 0.0) == 4
    assert rates.rate("b", 10.0, 40, 10.0) == 0
    assert rates.rate("a", 10.5, 4000, 0.0) == 4, "too soon to say"
    for second in range(11, 400):
        rate = rates.rate("a", float(second), 40 + 2 * (second - 10), 0.0)
    assert rate == pytest.approx(2, rel=0.05)


def test_rates_of_an_engine_that_was_looked_at_from_its_beginning() -> None:
    rates = EngineRates()
    for second in range(31):
        rate = rates.rate("a", 100.0 + second, 2 * second, 100.0)
    assert rate == pytest.approx(2), "as the rate of the run says"
