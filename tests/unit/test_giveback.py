"""When spare engines are let go."""

from __future__ import annotations

from disbatch.driver.giveback import GiveBack


def test_an_engine_goes_when_it_was_spare_for_long_enough() -> None:
    give_back = GiveBack(5.0, lambda engine: engine != "kept")
    assert give_back.due(["a", "kept"], 10.0) == []
    assert give_back.due(["a", "b", "kept"], 14.0) == []
    assert give_back.due(["a", "b", "kept"], 15.0) == ["a"]
    assert give_back.due(["b", "kept"], 20.0) == ["b"]


def test_one_that_found_work_meanwhile_waits_anew() -> None:
    give_back = GiveBack(5.0, lambda engine: True)
    assert give_back.due(["a"], 10.0) == []
    assert give_back.due([], 12.0) == []
    assert give_back.due(["a"], 15.0) == []
    assert give_back.due(["a"], 20.0) == ["a"]


def test_at_once() -> None:
    assert GiveBack(0.0, lambda engine: True).due(["a", "b"], 10.0) == ["a", "b"]
