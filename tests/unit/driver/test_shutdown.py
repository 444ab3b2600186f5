"""driver/shutdown.py: what a run came to."""

from __future__ import annotations

import pytest

from disbatch.driver.engine_table import Tally
from disbatch.driver.shutdown import Result
from disbatch.model.errors import SourceError, TaskFileError
from disbatch.plan.events import Conclusion

WRONG_LINE = TaskFileError("Tasks", 3, "no such directive")
GONE = SourceError("task command: ended without its done token")


def result(**given: object) -> Result:
    usual = {
        "conclusion": Conclusion.COMPLETE,
        "over": True,
        "incomplete": "",
        "signal": 0,
        "broken": None,
        "tally": Tally(done=3),
        "mind_failures": False,
    }
    return Result(**{**usual, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "code", "complete"),
    [
        ({}, 0, True),
        ({"tally": Tally(done=3, failed=1)}, 0, True),
        ({"tally": Tally(done=3, failed=1), "mind_failures": True}, 1, True),
        ({"tally": Tally(skipped=3, skipped_failed=1), "mind_failures": True}, 1, True),
        ({"tally": Tally(done=3, lost=1)}, 3, False),
        ({"incomplete": "no engine is left", "over": False}, 3, False),
        ({"conclusion": Conclusion.FAILED_FAST}, 1, False),
        ({"conclusion": Conclusion.CHECK_FAILED}, 1, False),
        ({"conclusion": Conclusion.SOURCE_BROKEN, "broken": WRONG_LINE}, 2, False),
        ({"conclusion": Conclusion.SOURCE_BROKEN, "broken": GONE}, 3, False),
        ({"conclusion": Conclusion.INTERRUPTED, "signal": 2}, 130, False),
        ({"conclusion": Conclusion.INTERRUPTED, "signal": 15, "tally": Tally(lost=1)}, 143, False),
        # the signal came when all was done
        ({"signal": 15}, 0, True),
        # engines did not answer after the signal
        ({"signal": 2, "over": False}, 130, False),
    ],
)
def test_exit_code(given: dict[str, object], code: int, complete: bool) -> None:
    assert (result(**given).exit_code, result(**given).complete) == (code, complete)


def test_words() -> None:
    assert result().words == "complete"
    assert result(incomplete="no engine is left").words == "no engine is left"
    assert "its done token" in result(conclusion=Conclusion.SOURCE_BROKEN, broken=GONE).words
    assert {result(conclusion=each).words for each in Conclusion} - {"complete"}
