"""driver/startup.py: how many tasks contexts may complete."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from disbatch.driver.startup import task_limits


def settings(limit: int | None, told: Any = None) -> Any:
    takeover = None if told is None else SimpleNamespace(told=told)
    return SimpleNamespace(pool=SimpleNamespace(task_limit=limit), takeover=takeover)


def test_limits_of_a_new_run() -> None:
    assert task_limits(settings(None)) == {}
    assert task_limits(settings(5)) == {"": 5}


def test_a_former_driver_has_used_some_of_it() -> None:
    attached = {"c1": SimpleNamespace(limit=4), "c2": SimpleNamespace(limit=None)}
    counted = {"": SimpleNamespace(count=3), "c1": SimpleNamespace(count=6), "c2": SimpleNamespace(count=1)}
    told = SimpleNamespace(attached=attached, counted=counted)
    assert task_limits(settings(5, told)) == {"": 2, "c1": 0}
