"""driver/ending.py: what a run came to."""

from __future__ import annotations

import pytest

from disbatch.driver.ending import (
    DriverFailed,
    Ending,
    FinishedEarly,
    Interrupted,
    NoEngines,
    Result,
    TakenOver,
    TimeUp,
    find,
    is_ordered,
)
from disbatch.driver.tally import Tally
from disbatch.model.errors import SourceError, TaskFileError
from disbatch.plan.events import Conclusion

WRONG_LINE = TaskFileError("Tasks", 3, "no such directive")
GONE = SourceError("task command: ended without its done token")


def result(**given: object) -> Result:
    usual = {
        "conclusion": Conclusion.COMPLETE,
        "over": True,
        "ending": None,
        "damaged": False,
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
        ({"ending": NoEngines("no engine is left"), "over": False}, 3, False),
        ({"conclusion": Conclusion.FAILED_FAST}, 1, False),
        ({"conclusion": Conclusion.CHECK_FAILED}, 1, False),
        ({"conclusion": Conclusion.SOURCE_BROKEN, "broken": WRONG_LINE}, 2, False),
        ({"conclusion": Conclusion.SOURCE_BROKEN, "broken": GONE}, 3, False),
        ({"conclusion": Conclusion.INTERRUPTED, "ending": Interrupted(2)}, 130, False),
        (
            {"conclusion": Conclusion.INTERRUPTED, "ending": Interrupted(15), "tally": Tally(lost=1)},
            143,
            False,
        ),
        # the signal came when all was done
        ({"ending": Interrupted(15)}, 0, True),
        ({"damaged": True}, 3, False),
        ({"ending": TakenOver()}, 3, False),
        ({"ending": DriverFailed(), "over": False}, 3, False),
        # a signal decides the exit code whatever comes after it, or came before
        ({"ending": TakenOver(after=Interrupted(15)), "over": False}, 143, False),
        ({"ending": TimeUp("time is up", after=Interrupted(2)), "over": False}, 130, False),
        ({"ending": Interrupted(2, after=FinishedEarly("dbutil finish")), "over": False}, 130, False),
        # engines did not answer after the signal
        ({"ending": Interrupted(2), "over": False}, 130, False),
    ],
)
def test_exit_code(given: dict[str, object], code: int, complete: bool) -> None:
    assert (result(**given).exit_code, result(**given).complete) == (code, complete)


def test_words() -> None:
    assert result().words == "complete"
    assert result(ending=NoEngines("no engine is left")).words == "no engine is left"
    assert "its done token" in result(conclusion=Conclusion.SOURCE_BROKEN, broken=GONE).words
    assert {result(conclusion=each).words for each in Conclusion} - {"complete"}
    assert result(damaged=True).words == "a part of the record was written over"


@pytest.mark.parametrize(
    ("ending", "words", "notice"),
    [
        (Interrupted(2), "", "ending the running tasks"),
        (Interrupted(2, at_once=True, after=Interrupted(2)), "", "ending everything at once"),
        (FinishedEarly("dbutil finish"), "ended by dbutil finish", "ending the running tasks"),
        (
            Interrupted(2, after=FinishedEarly("dbutil finish")),
            "ended by dbutil finish",
            "ending the running tasks",
        ),
        (TimeUp("time is up", after=Interrupted(15)), "time is up", "ending the running tasks"),
        (TakenOver(after=NoEngines("no engine is left")), "taken over by another driver", ""),
        (DriverFailed(), "the driver failed", ""),
    ],
)
def test_words_and_notice(ending: Ending, words: str, notice: str) -> None:
    assert (ending.words, ending.notice) == (words, notice)


def test_the_newest_of_a_variant_is_found() -> None:
    first = Interrupted(2)
    second = Interrupted(2, at_once=True, after=TakenOver(after=first))
    assert find(second, Interrupted) is second
    assert find(second, TakenOver) == TakenOver(after=first)
    assert find(second, NoEngines) is None and find(None, Interrupted) is None


def test_what_a_user_orders() -> None:
    assert is_ordered(Interrupted(2)) and is_ordered(TakenOver(after=FinishedEarly("dbutil finish")))
    assert not is_ordered(None) and not is_ordered(NoEngines("no engine is left"))
