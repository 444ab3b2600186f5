"""What this driver notes for one that may have to take the run over: the run file, once there is one."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from disbatch.driver.roster import Member
from disbatch.driver.runfile import RunFile
from disbatch.driver.settings import Settings
from disbatch.driver.told import Counted, Line
from disbatch.plan.events import Action, RecordTask, Verdict
from disbatch.plan.ids import IdSet


class Notes:
    """`add` notes a line; `begin` comes before."""

    def __init__(self) -> None:
        self._file: RunFile | None = None

    def begin(self, settings: Settings) -> None:
        """Begin the file, or go on with that of a former driver. UsageError."""
        path = settings.claimed.files.run
        if settings.takeover is not None:
            self._file = RunFile.go_on(path, settings.takeover.told)
        elif settings.asked is not None:
            self._file = RunFile.create(path, settings.asked)

    def add(self, line: Line) -> bool:
        """False if it is forgotten when the driver is killed, as the file cannot be written."""
        return self._file is None or self._file.add(line)

    def count(
        self, actions: Sequence[Action], members: Mapping[str, Member], limited: Container[str]
    ) -> None:
        """Which results that are about to be recorded count for the limit of a context. What is noted and
        then not recorded does not count; but what was recorded and not noted would be done once too often."""
        ids: dict[str, IdSet] = {}
        for action in actions:
            if type(action) is RecordTask and action.verdict is Verdict.COUNTS:
                context = members[action.engine].context
                if context in limited:
                    ids.setdefault(context, IdSet()).add(action.task.id, action.task.id)
        for context, some in ids.items():
            self.add(Counted(context, list(some)))

    def is_taken_over(self) -> bool:
        """Another driver has the run. Any thread may ask. OSError if that cannot be said now."""
        return self._file is not None and self._file.is_taken_over()

    @property
    def are_gone(self) -> bool:
        """There is nothing where they were. Any thread may ask."""
        return self._file is not None and self._file.is_gone

    def write_again(self) -> bool:
        """If the file is not there, or could not be written. True if it was not there. OSError."""
        return self._file is not None and self._file.write_again()

    def close(self) -> None:
        """The run is over."""
        if self._file is not None:
            self._file.close()
            self._file = None
