"""One and many, as people are told."""

from __future__ import annotations

import pytest

from disbatch.model.text import counted, short_list, with_label


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 tasks"),
        (1, "1 task"),
        (1.0, "1 task"),
        (0.5, "0.5 tasks"),
        (2, "2 tasks"),
        (12345, "12,345 tasks"),
    ],
)
def test_one_and_many(number: float, words: str) -> None:
    assert counted(number, "task") == words


def test_what_has_a_plural_of_its_own() -> None:
    assert [counted(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]


def test_a_label_tells_nodes_of_one_name_apart() -> None:
    assert [with_label("vm", label) for label in ("", "day")] == ["vm", "vm (day)"]


def test_a_short_list_names_each_once() -> None:
    assert short_list(["a", "b", "a"]) == "a, b"
    assert short_list(["a", "b", "c"], most=2) == "a, b and 1 more"
