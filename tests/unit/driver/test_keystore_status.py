"""The value of `DisBatch status`, which programs read."""

from __future__ import annotations

import json

import pytest

from disbatch.driver.keystore import status_value
from disbatch.model.view import former_engine
from views import engine, view


def test_names_and_their_order() -> None:
    counts = {"seconds": 2.5, "total": None, "done": 9, "failed": 3, "skipped": 2, "running": 8, "slots": 8}
    more = {"notice": "paused", "skipped_failed": 1, "inherited": 4, "cancelled": 1}
    run = view([engine(1, 8), former_engine("gone", -1, 5, 0)], **counts, **more)
    assert status_value("running", run) == (
        b'{"jobid":"4711","state":"running","seconds":2.5,"total":null,"done":9,"failed":3,"skipped":2,'
        b'"running":8,"slots":8,"engines":[{"node":"node001","rank":1,"slots":8,"running":8,"waiting":0,'
        b'"done":121,"failed":0,"state":"active"}],"notice":"paused","skipped_failed":1,"inherited":4,'
        b'"cancelled":1}'
    )


@pytest.mark.parametrize(
    ("state", "word"),
    [
        *((state, state) for state in ("launching", "starting", "active", "leaving", "lost")),
        *(("draining", "draining"), ("left", "gone"), ("failed", "gone")),
    ],
)
def test_states_of_engines(state: str, word: str) -> None:
    (row,) = json.loads(status_value("running", view([engine(1, 8, state=state)])))["engines"]
    assert row["state"] == word
