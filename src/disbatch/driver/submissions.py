"""Accept tasks that are submitted during the run, and report their results to clients."""

from __future__ import annotations

from collections.abc import Callable

from disbatch.driver.result_feed import ResultFeed
from disbatch.model.errors import UsageError
from disbatch.sources.submitted import Batch, TaskIntake
from disbatch.wire.client_protocol import MAX_SUBMITTED, Answer, Collect, Request, Submit, Taken

NO_MORE = "the run takes no more tasks: the last one has come"
CLOSED = "the run takes no more tasks: it was closed"


class Submissions:
    """`request` answers a request, or returns None: the answer comes later. `ending()`: the run is ending
    anyway. `why_not`: why this run accepts no tasks, if it accepts none."""

    def __init__(self, *, ending: Callable[[], bool], why_not: str) -> None:
        self._ending = ending
        self.why_not = why_not
        self.was_closed = False
        """`close` was called, perhaps before the run began."""
        self._source: TaskIntake | None = None
        self._result_feed: ResultFeed | None = None

    def begin(self, source: TaskIntake, result_feed: ResultFeed) -> None:
        """The run accepts tasks: `source` gets them, and `result_feed` reports their results."""
        self._source = source
        self._result_feed = result_feed

    def request(self, request: Request, verb: Submit | Collect) -> Answer | None:
        """Carry the request out."""
        if self._source is None or self._result_feed is None:
            return Answer(request.id, False, [self.why_not])
        if isinstance(verb, Collect):
            return self._result_feed.collect(request, verb)
        return self._submit(request, verb, self._source, self._result_feed)

    @property
    def has_source(self) -> bool:
        """The run accepts tasks, or did."""
        return self._source is not None

    @property
    def is_closed(self) -> bool:
        """The run accepts no more tasks."""
        return self._source is None or self._source.closed

    def close(self) -> None:
        """Accept no more tasks."""
        self.was_closed = True
        if self._source is not None:
            self._source.close_soon()

    def _submit(self, request: Request, verb: Submit, source: TaskIntake, result_feed: ResultFeed) -> Answer:
        former = source.former.get(request.id)
        if former is not None:
            return _taken(request, former, 0)
        problem = self._problem(source, verb)
        if problem:
            return Answer(request.id, False, [problem])
        try:
            batch = source.add(verb.lines, request.id, verb.source, verb.number)
        except UsageError as error:
            return Answer(request.id, False, [str(error)])
        return _taken(request, batch, result_feed.told)

    def _problem(self, source: TaskIntake, verb: Submit) -> str:
        if self._ending():
            return "the run is ending already"
        if source.closed:
            return CLOSED if self.was_closed else NO_MORE
        if sum(map(len, verb.lines)) > MAX_SUBMITTED:
            return f"more than {MAX_SUBMITTED >> 20} MiB of commands at once"
        return ""


def _taken(request: Request, batch: Batch, at: int) -> Answer:
    taken = Taken(batch.first, batch.counts, at)
    first, last = batch.first, batch.first + taken.ids - 1
    words = "taken; no task is in it" if last < first else f"tasks {first}-{last}"
    return Answer(request.id, True, [f"task {first}" if first == last else words], taken)
