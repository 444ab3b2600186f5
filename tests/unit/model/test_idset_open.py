"""Tasks that somebody waits for: as ranges, however many they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disbatch.model.idset import OpenIds
from disbatch.model.taskfile import LARGEST


def test_a_hundred_million_are_one_range() -> None:
    open_ids = OpenIds()
    open_ids.add(10, 10 + 10**8 - 1)
    assert (open_ids.left, open_ids.next) == (10**8, 10 + 10**8)
    assert open_ids.end(10) and not open_ids.end(9) and not open_ids.end(10 + 10**8)
    assert open_ids.left == 10**8 - 1
    assert open_ids.ranges(1000) == [(10, 10 + 10**8 - 1)]


def test_neighbours_become_one() -> None:
    open_ids = OpenIds()
    for id in range(1000):
        open_ids.add(id, id)
    assert open_ids.ranges(1000) == [(0, 999)]


def test_none_is_nothing() -> None:
    open_ids = OpenIds()
    open_ids.add(5, 4)
    assert not open_ids.left and open_ids.ranges(10) == []


def test_those_to_come() -> None:
    open_ids = OpenIds()
    open_ids.add(3, 4)
    assert open_ids.ranges(10, and_later=True) == [(3, 4), (5, LARGEST)]


def test_too_many_ranges_are_joined() -> None:
    open_ids = OpenIds()
    for id in range(0, 2000, 2):
        open_ids.add(id, id)
    found = open_ids.ranges(10)
    assert len(found) == 10 and found[0] == (0, 198) and found[-1][1] == 1998


def test_what_has_ended_is_forgotten() -> None:
    open_ids = OpenIds()
    for id in range(0, 200_000, 2):
        open_ids.add(id, id)
        open_ids.end(id)
    assert len(open_ids._firsts) <= 2


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=30),
    st.randoms(use_true_random=False),
    st.integers(1, 8),
)
def test_against_a_set(steps: list[tuple[int, int]], random: object, most: int) -> None:
    """Of each step: how many ids of others come before, and how many of ours."""
    open_ids, expected, next_id = OpenIds(), set[int](), 0
    for gap, count in steps:
        first = next_id + gap
        next_id = first + count
        open_ids.add(first, next_id - 1)
        expected |= set(range(first, next_id))
        for id in range(next_id + 3):
            if random.random() < 0.3 and id in expected:  # type: ignore[attr-defined]
                assert open_ids.end(id)
                expected.discard(id)
        assert open_ids.left == len(expected)
        found = open_ids.ranges(most)
        assert len(found) <= most
        assert all(any(first <= id <= last for first, last in found) for id in expected)
        assert found == sorted(found)
