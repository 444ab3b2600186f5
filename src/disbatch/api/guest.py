"""A program that gives tasks, through its key store, to a run that somebody started with --taskserver."""

from __future__ import annotations

import json
from typing import Any

from disbatch.api.values import Values
from disbatch.model.errors import DisbatchError
from disbatch.sources.desk import DONE_TASK, RESULT_KEY, SOURCE_NAME, TASK_KEY


class Guest:
    """Signs in under `name`; see docs/keystore.md for what is put and got."""

    def __init__(self, values: Values, name: str) -> None:
        self._values = values
        self._done = f"{name} done!".encode("utf-8", "surrogateescape")
        self._results = f"{name} result"
        self._tasks = f"{name} task"
        self._closed = False
        values.put(SOURCE_NAME, name)
        values.put(DONE_TASK, self._done)
        values.put(RESULT_KEY, self._results)
        values.put(TASK_KEY, self._tasks)

    def submit(self, line: bytes) -> None:
        """Give a line. RuntimeError after `done`, ValueError for the line that would say that."""
        if self._closed:
            raise RuntimeError("this run is closed")
        if line == self._done:
            raise ValueError(f"{line!r} says that there are no more tasks: call done()")
        self._values.put(self._tasks, line)

    def next_report(self) -> dict[str, Any]:
        """Of the next task that has ended, when there is one."""
        id = self._values.get(f"{self._results} done tasks")
        text = self._values.get(b"%b %b" % (self._results.encode("utf-8", "surrogateescape"), id))
        try:
            report = json.loads(text)
            return {"TaskId": int(id), **report}
        except (ValueError, TypeError):
            raise DisbatchError(f"the report of task {id!r:.40} makes no sense: {text!r:.80}") from None

    def done(self) -> None:
        """Say that there are no more."""
        if not self._closed:
            self._values.put(self._tasks, self._done)
            self._closed = True
