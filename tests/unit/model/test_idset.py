"""Sets of task ids kept as ranges."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from disbatch.model.idset import IdSet

ranges = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda r: (r[0], r[0] + r[1])), max_size=9
)


@given(ranges)
def test_holds_what_was_put_in(given_ranges: list[tuple[int, int]]) -> None:
    ids, expected = IdSet(), set[int]()
    for first, last in given_ranges:
        ids.add(first, last)
        expected.update(range(first, last + 1))
    assert {id for id in range(-1, 60) if id in ids} == expected
    assert bool(ids) == bool(expected)
    kept = list(ids)
    assert kept == list(IdSet(given_ranges))
    assert all(left[1] + 1 < right[0] for left, right in pairwise(kept))


def test_a_range_of_any_size_is_one() -> None:
    ids = IdSet([(5, 10**15), (0, 3)])
    ids.add(4, 4)
    assert list(ids) == [(0, 10**15)]
