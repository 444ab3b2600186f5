"""driver/settings.py: how long a driver waits for engines."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from disbatch.contexts.hosts import Hosts
from disbatch.contexts.machine import this_machine
from disbatch.contexts.pool import Pool
from disbatch.driver.settings import Settings
from disbatch.engine import keeper
from disbatch.rundir.journal import Asked, Here, JournalState
from disbatch.rundir.paths import claim
from disbatch.wire.sockets import RECONNECT_MOST

HERE = this_machine().hostname


@pytest.mark.parametrize(
    ("patience", "host", "waits"),
    [
        (15.0, HERE, 15.0),
        (15.0, "afar", 15.0),
        (0.5, HERE, 2 * RECONNECT_MOST),
        (0.5, "afar", max(keeper.OVER, 2 * RECONNECT_MOST)),
    ],
)
def test_engines_of_a_former_driver_have_time_to_connect(
    tmp_path: Path, patience: float, host: str, waits: float
) -> None:
    settings = Settings(
        source_name="T",
        task_name="T",
        jobid="7",
        claimed=claim(str(tmp_path / "run"), "T", "7", None),
        pool=Pool(context=Hosts()),
        directory=b"/",
        environment={},
        patience=patience,
    )
    told = JournalState(cast(Asked, None))
    told.engines["e"] = Here("e", "n", 0, 1, None, host, 7)
    assert settings.patience_with(told) == waits
