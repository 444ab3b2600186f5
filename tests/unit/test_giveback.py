"""When spare engines are let go."""

from __future__ import annotations

from disbatch.driver.giveback import GiveBack


def test_when_one_was_spare_for_long_enough_all_go() -> None:
    give_back = GiveBack(5.0, lambda engine: engine != "kept")
    assert give_back.due(["kept"], 5.0) == []
    assert give_back.due(["a", "kept"], 10.0) == []
    assert give_back.due(["a", "b", "kept"], 14.0) == []
    assert give_back.due(["a", "b", "kept"], 15.0) == ["a", "b"]
    assert give_back.due(["c", "kept"], 16.0) == ["c"]
    assert give_back.due(["kept"], 17.0) == []


def test_one_that_found_work_meanwhile_waits_anew() -> None:
    give_back = GiveBack(5.0, lambda engine: True)
    assert give_back.due(["a"], 10.0) == []
    assert give_back.due([], 12.0) == []
    assert give_back.due(["a"], 15.0) == []
    assert give_back.due(["a"], 20.0) == ["a"]


def test_at_once() -> None:
    assert GiveBack(0.0, lambda engine: True).due(["a", "b"], 10.0) == ["a", "b"]
