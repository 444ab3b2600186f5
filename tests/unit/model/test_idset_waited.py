"""Tasks that somebody waits for: as ranges, however many they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disbatch.model.idset import Waited
from disbatch.model.taskfile import LARGEST


def test_a_hundred_million_are_one_range() -> None:
    waited = Waited()
    waited.add(10, 10 + 10**8 - 1)
    assert (waited.left, waited.next) == (10**8, 10 + 10**8)
    assert waited.end(10) and not waited.end(9) and not waited.end(10 + 10**8)
    assert waited.left == 10**8 - 1
    assert waited.ranges(1000) == [(10, 10 + 10**8 - 1)]


def test_neighbours_become_one() -> None:
    waited = Waited()
    for id in range(1000):
        waited.add(id, id)
    assert waited.ranges(1000) == [(0, 999)]


def test_none_is_nothing() -> None:
    waited = Waited()
    waited.add(5, 4)
    assert not waited.left and waited.ranges(10) == []


def test_those_to_come() -> None:
    waited = Waited()
    waited.add(3, 4)
    assert waited.ranges(10, and_later=True) == [(3, 4), (5, LARGEST)]


def test_too_many_ranges_are_joined() -> None:
    waited = Waited()
    for id in range(0, 2000, 2):
        waited.add(id, id)
    found = waited.ranges(10)
    assert len(found) == 10 and found[0] == (0, 198) and found[-1][1] == 1998


def test_what_has_ended_is_forgotten() -> None:
    waited = Waited()
    for id in range(0, 200_000, 2):
        waited.add(id, id)
        waited.end(id)
    assert len(waited._firsts) <= 2


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=30),
    st.randoms(use_true_random=False),
    st.integers(1, 8),
)
def test_against_a_set(steps: list[tuple[int, int]], random: object, most: int) -> None:
    """Of each step: how many ids of others come before, and how many of ours."""
    waited, expected, next_id = Waited(), set[int](), 0
    for gap, count in steps:
        first = next_id + gap
        next_id = first + count
        waited.add(first, next_id - 1)
        expected |= set(range(first, next_id))
        for id in range(next_id + 3):
            if random.random() < 0.3 and id in expected:  # type: ignore[attr-defined]
                assert waited.end(id)
                expected.discard(id)
        assert waited.left == len(expected)
        found = waited.ranges(most)
        assert len(found) <= most
        assert all(any(first <= id <= last for first, last in found) for id in expected)
        assert found == sorted(found)
