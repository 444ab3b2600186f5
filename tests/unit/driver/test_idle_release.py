"""When spare engines are let go."""

from __future__ import annotations

from disbatch.driver.engine_state import Joined, Launching, Lost
from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.idle_release import IdleRelease, IdleReleases


def test_when_one_was_spare_for_long_enough_all_go() -> None:
    give_back = IdleRelease(5.0, lambda engine: engine != "kept")
    assert give_back.due(["kept"], 5.0) == []
    assert give_back.due(["a", "kept"], 10.0) == []
    assert give_back.due(["a", "b", "kept"], 14.0) == []
    assert give_back.due(["a", "b", "kept"], 15.0) == ["a", "b"]
    assert give_back.due(["c", "kept"], 16.0) == ["c"]
    assert give_back.due(["kept"], 17.0) == []


def test_one_that_found_work_meanwhile_waits_anew() -> None:
    give_back = IdleRelease(5.0, lambda engine: True)
    assert give_back.due(["a"], 10.0) == []
    assert give_back.due([], 12.0) == []
    assert give_back.due(["a"], 15.0) == []
    assert give_back.due(["a"], 20.0) == ["a"]


def test_at_once() -> None:
    assert IdleRelease(0.0, lambda engine: True).due(["a", "b"], 10.0) == ["a", "b"]


def test_the_kept_one_goes_with_the_last() -> None:
    give_back = IdleRelease(5.0, lambda engine: engine != "kept", lambda spare: {"a", "kept"} <= set(spare))
    assert give_back.due(["kept"], 10.0) == []
    assert give_back.due(["a", "kept"], 20.0) == []
    assert give_back.due(["a"], 22.0) == []
    assert give_back.due(["a", "kept"], 24.0) == []
    assert give_back.due(["a", "kept"], 25.0) == ["a", "kept"]


def entries(**contexts: str) -> dict[str, EngineEntry]:
    """Engines, each on a node of its name, that have joined."""
    return {
        engine: EngineEntry(engine, engine, 0, 1, context=context, state=Joined(since=1.0))
        for engine, context in contexts.items()
    }


def test_contexts_are_apart() -> None:
    """Nothing is kept of one that was attached when all of it is spare; the driver's own node is."""
    known = entries(own="", other="", a="c1", batch="c1", b="c2", late="c2")
    of = {"c1": ["a", "batch", "gone"], "c2": ["b", "late"]}
    give_backs = IdleReleases(known, of.__getitem__)
    assert not give_backs
    give_backs.add("", 5.0, frozenset({"own"}))
    give_backs.add("c1", 0.0, frozenset({"batch"}))
    give_backs.add("c2", None, frozenset())
    assert give_backs
    assert give_backs.due(["own", "other", "batch", "b"], 10.0) == []
    assert give_backs.due(["own", "other", "batch", "b"], 15.0) == ["other"]
    assert give_backs.due(["own", "a", "batch", "b"], 16.0) == ["a", "batch"]
    known["a"].state = Lost(before=True)
    assert give_backs.due(["own", "batch"], 17.0) == ["batch"]
    known["a"].state = Launching()
    assert give_backs.due(["own", "batch"], 18.0) == []
