"""What happens to tasks that are cancelled, one line for each, or for consecutive ones with the same fate."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from disbatch.driver.engine_table import EngineEntry
from disbatch.model.idset import IdSet
from disbatch.plan.plan import Place, Plan

WAITS = "will not run"
DONE = "done already"


class _Span(NamedTuple):
    """Consecutive ids, and what happens to their tasks; `engine`: the one that runs the task."""

    first: int
    last: int
    what: str
    engine: str = ""


def report_cancelled(plan: Plan, entries: Mapping[str, EngineEntry], wanted: IdSet) -> Iterator[str]:
    """The lines. To be called before the plan cancels the tasks."""
    for first, last, what, engine in _merged(_spans(plan, wanted)):
        if engine:
            yield f"task {first}: {what} on {entries[engine].shown}"
        elif first == last:
            yield f"task {first}: {what if what == WAITS else f'is {what}'}"
        else:
            yield f"tasks {first}-{last}: {what if what == WAITS else f'are {what}'}"


def _merged(spans: Iterator[_Span]) -> Iterator[_Span]:
    """As few spans as possible, with one for each task that runs."""
    former = None
    for span in spans:
        if former is None:
            former = span
        elif (
            former.what == span.what and former.last + 1 == span.first and not (former.engine or span.engine)
        ):
            former = former._replace(last=span.last)
        else:
            yield former
            former = span
    if former is not None:
        yield former


def _spans(plan: Plan, wanted: IdSet) -> Iterator[_Span]:
    found = plan.find(wanted)
    ids = sorted(found)
    for first, last in wanted:
        at = first
        for id in ids[bisect_left(ids, first) : bisect_right(ids, last)]:
            yield from _not_found(plan, at, id - 1)
            yield _placed(plan, id, found[id])
            at = id + 1
        yield from _not_found(plan, at, last)


def _not_found(plan: Plan, first: int, last: int) -> Iterator[_Span]:
    """Ids that the plan does not have: their tasks are done, or not read yet."""
    read_to = plan.read_to
    if first <= min(last, read_to - 1):
        yield _Span(first, min(last, read_to - 1), DONE)
    if max(first, read_to) <= last:
        yield _Span(max(first, read_to), last, WAITS)


def _placed(plan: Plan, id: int, place: Place) -> _Span:
    if place.barrier:
        return _Span(id, id, "a barrier, which stays")
    if not place.engine:
        return _Span(id, id, WAITS)
    already = id in plan.cancelled
    return _Span(id, id, "is being ended already" if already else "is being ended", place.engine)
