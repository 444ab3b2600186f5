"""Accept tasks that are submitted while the run goes on, and tell clients how they ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from disbatch.driver.result_feed import ResultFeed
from disbatch.model.errors import UsageError
from disbatch.rundir.journal import Closed
from disbatch.sources.submitted import Batch, Taking
from disbatch.wire.client_protocol import MAX_SUBMITTED, Answer, Close, Collect, Request, Submit, Taken

NO_MORE = "the run takes no more tasks: the last one has come"
CLOSED = "the run takes no more tasks: it was closed"


class Submissions:
    """`request` answers a request, or returns None: the answer comes later. `why_not`: why this run takes no
    tasks, if it does not; `ending()` is true when it comes to its end anyway."""

    def __init__(
        self, *, journal: Callable[[Closed], object], ending: Callable[[], bool], why_not: str
    ) -> None:
        self._journal = journal
        self._ending = ending
        self._why_not = why_not
        self._closed = False
        self._source: Taking | None = None
        self._result_feed: ResultFeed | None = None
        self._performers: dict[type, Callable[[Request, Any], Answer | None]] = {
            Submit: self._submit,
            Collect: self._collect,
            Close: self._close,
        }

    def begin(self, source: Taking, result_feed: ResultFeed) -> None:
        """Tasks go there, and this one knows how they end."""
        self._source = source
        self._result_feed = result_feed

    def request(self, request: Request) -> Answer | None:
        """Do it."""
        return self._performers[type(request.verb)](request, request.verb)

    def close_soon(self) -> None:
        """Nothing more will be handed in."""
        self._closed = True
        if self._source is not None:
            self._journal(Closed())
            self._source.close_soon()

    def _submit(self, request: Request, verb: Submit) -> Answer:
        source, result_feed = self._source, self._result_feed
        if source is None or result_feed is None:
            return Answer(request.id, False, [self._why_not])
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

    def _problem(self, source: Taking, verb: Submit) -> str:
        if self._ending():
            return "the run is ending already"
        if source.closed:
            return CLOSED if self._closed else NO_MORE
        if sum(map(len, verb.lines)) > MAX_SUBMITTED:
            return f"more than {MAX_SUBMITTED >> 20} MiB of commands at once"
        return ""

    def _close(self, request: Request, verb: Close) -> Answer:
        if self._source is None:
            return Answer(request.id, False, [self._why_not])
        if self._source.closed:
            return Answer(request.id, True, ["the run takes no more tasks already"])
        self.close_soon()
        return Answer(request.id, True, ["no more tasks are taken; the run ends when all are done"])

    def _collect(self, request: Request, verb: Collect) -> Answer | None:
        if self._result_feed is None:
            return Answer(request.id, False, [self._why_not])
        return self._result_feed.collect(request, verb)


def _taken(request: Request, batch: Batch, at: int) -> Answer:
    taken = Taken(batch.first, batch.counts, at)
    first, last = batch.first, batch.first + taken.ids - 1
    words = "taken; no task is in it" if last < first else f"tasks {first}-{last}"
    return Answer(request.id, True, [f"task {first}" if first == last else words], taken)
