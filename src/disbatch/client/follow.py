"""Submit tasks and follow them to their ends, for a waiting program, over takeovers.

Theory of operation
-------------------
The driver is asked repeatedly for lines of the status file after the known position (`Collect`). An answer is
complete for the ids in the request. While tasks are on their way to the driver (`Submit`), their ids are not
known yet, so the request includes all ids that are yet to come, and their results are kept until it is known
to which tasks they belong. When the run is over, the remaining results are in the status file.
"""

from __future__ import annotations

import asyncio
import os
from typing import NamedTuple

from disbatch.client.run_client import OverError, RunClient
from disbatch.model.errors import UsageError
from disbatch.model.idset import IdSet, OpenIds
from disbatch.model.statusline import Record
from disbatch.rundir.runscript import status_file
from disbatch.rundir.statusfile import look_through, parse_told
from disbatch.wire.client_protocol import Collect, Results, Submit, Taken
from disbatch.wire.ownfile import open_own, owner_of

MOST_RANGES = 1000


class Told(NamedTuple):
    """Tasks that have ended: their status lines, raw and parsed. `over`: the run is over, and there are no
    results of other tasks; `words`: how it ended, if known."""

    ended: list[tuple[bytes, Record]]
    over: bool
    words: str


class Follower:
    """Submits tasks to the run of `client`, which is closed elsewhere, and collects their results."""

    def __init__(self, client: RunClient) -> None:
        self._client = client
        self._owner = owner_of(f"{client.prefix}_connect.json")
        self._at = 0
        """Bytes of the status file that are known."""
        self._submitting = asyncio.Lock()
        self._request: asyncio.Task[Results] | None = None
        self._open = False
        """The present request, or the next one, includes ids that are not assigned yet."""
        self._early: dict[int, tuple[bytes, Record]] = {}
        """Results of ids that may become ours."""
        self._ours: list[tuple[bytes, Record]] = []
        """Those of them that are ours."""
        self._taken = asyncio.Event()
        self.waited = OpenIds()

    @property
    def pending(self) -> int:
        """The number of submitted tasks whose end was not returned yet."""
        return self.waited.left + len(self._ours)

    # ---- submit ----

    async def submit(self, verb: Submit, patience: float | None = None) -> Taken:
        """Submit these, after those of earlier calls. UsageError if the driver refuses them, SilenceError as
        from `RunClient.ask`."""
        async with self._submitting:
            if self._request is not None and not self._open:
                self._request.cancel()
            self._open = True
            try:
                answer = await self._client.ask(verb, patience)
                if not answer.ok or not isinstance(answer.value, Taken):
                    raise UsageError(" ".join(answer.lines))
                self._add(answer.value)
                return answer.value
            finally:
                self._early.clear()

    def _add(self, taken: Taken) -> None:
        if not self.waited.left and self._request is None:
            self._at = max(self._at, taken.at)
        self.waited.add(taken.first, taken.first + taken.ids - 1)
        self._ours += [self._early.pop(id) for id in list(self._early) if self.waited.end(id)]
        if self._ours and self._request is not None:
            self._request.cancel()
        self._taken.set()

    # ---- collect ----

    async def collect(self) -> Told:
        """Wait for the next submitted tasks that end. SilenceError as from `RunClient.ask`, UsageError if the
        driver refuses."""
        while not self.waited.left and not self._ours:
            self._taken.clear()
            await self._taken.wait()
        if self._ours:
            ours, self._ours = self._ours, []
            return Told(ours, False, "")
        try:
            results = await self._next_results()
        except OverError:
            results = self._rest()
        if results is None:
            return Told([], False, "")
        self._at = results.upto
        records = [(line, parse_told(line)) for line in results.lines]
        ended = [pair for line, record in records if (pair := self._end(line, record)) is not None]
        return Told(ended, results.over, results.words)

    def _end(self, line: bytes, record: Record | None) -> tuple[bytes, Record] | None:
        if record is None:
            return None
        if self.waited.end(record.id):
            return line, record
        if self._submitting.locked() and record.id >= self.waited.next:
            self._early[record.id] = (line, record)
        return None

    async def _next_results(self) -> Results | None:
        """None if the request was cancelled."""
        self._open = self._submitting.locked()
        request = asyncio.create_task(self._collect())
        self._request = request
        try:
            await asyncio.wait([request])
            return None if request.cancelled() else request.result()
        finally:
            request.cancel()
            self._request = None

    async def _collect(self) -> Results:
        answer = await self._client.ask(Collect(self._ranges(), self._at))
        if not isinstance(answer.value, Results):
            raise UsageError(" ".join(answer.lines))
        return answer.value

    def _ranges(self) -> list[tuple[int, int]]:
        return self.waited.ranges(MOST_RANGES, and_later=self._open)

    def _rest(self) -> Results:
        """The results in the status file of a run that is over."""
        path = status_file(self._client.prefix)
        try:
            status = open_own(path, os.O_RDONLY, trusted=self._owner)
            try:
                size = os.fstat(status).st_size
                lines, upto = look_through(status, self._at, size, IdSet(self._ranges()))
            finally:
                os.close(status)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        return Results(lines, upto, upto >= size)
