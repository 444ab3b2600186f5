"""Kinds of failures: counted exactly while there are few, in bounded memory whatever comes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from disbatch.model.failure import MOST_KINDS, Kinds, masked
from disbatch.model.view import EndedTask


def task(id: int, code: int = 1, line: str = "", *, node: str = "n", reason: str = "") -> EndedTask:
    return EndedTask(id, id + 1, node, code, 1.0, b"c", b"", "", reason, line)


def test_tasks_that_differ_in_numbers_alone_are_of_one_kind() -> None:
    kinds = Kinds()
    for id in range(10):
        kinds.add(task(id, line=f"no run {id}", node=f"n{id % 3}"))
    kinds.add(task(10, code=2, line="no run 1"))
    kinds.add(task(11, reason="cancelled", line="no run 1"))
    first, *others = kinds.most_frequent(9)
    assert (first.count, first.id, first.nodes, first.last_line) == (10, 0, 3, "no run 0")
    assert not first.various
    assert [(kind.return_code, kind.reason, kind.count) for kind in others] == [
        (2, "", 1),
        (1, "cancelled", 1),
    ]
    assert kinds.count == 3
    assert kinds.most_frequent(1) == [first]


def word(number: int) -> str:
    return "".join("abcdefghij"[int(digit)] for digit in str(number)) + "!"


def test_a_kind_that_comes_often_is_counted_though_thousands_came_once() -> None:
    kinds = Kinds()
    for id in range(3000):
        kinds.add(task(id, line=word(id)))
    for id in range(3000, 3500):
        kinds.add(task(id, line="often"))
    first, second, *_ = kinds.most_frequent(60)
    assert (first.various, first.count, second.last_line, second.count) == (True, 2951, "often", 500)
    assert kinds.count == MOST_KINDS + 1


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 200)), max_size=300))
def test_every_failure_is_counted_once(told: list[tuple[int, int]]) -> None:
    kinds = Kinds()
    truth: Counter[tuple[int, str]] = Counter()
    for id, (code, line) in enumerate(told):
        kinds.add(task(id, code, word(line)))
        truth[code, masked(word(line))] += 1
    found = kinds.most_frequent(1000)
    assert sum(kind.count for kind in found) == len(told)
    assert kinds.count == len(found) <= MOST_KINDS + 3
    assert all(kind.count <= truth[kind.return_code, kind.last_line] for kind in found if not kind.various)
    if len(truth) <= MOST_KINDS:
        assert {(kind.return_code, kind.last_line): kind.count for kind in found} == truth
