"""The commands that continue or end a run, as messages show them: resume, takeover, finish."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from disbatch.model.errors import UsageError
from disbatch.model.text import as_argument, shell_command, shell_word
from disbatch.rundir.runscript import status_file

if TYPE_CHECKING:
    from disbatch.rundir.paths import RunFiles

FEED_AGAIN = "cat SAME_TASKS | "
"""Precedes a command that reads the tasks of a stream again, from the first one on."""
_NAMELESS_STREAM = re.compile(r"-\Z|/dev/(fd/|stdin\Z)|/proc/")


class ResumeHint(NamedTuple):
    """The command that resumes a run with -r, from the `arguments` that started it. `moved`: the user is in
    another directory than the run, and we are in the run's."""

    arguments: list[str]
    taskfile: str | None
    moved: bool = False

    def command(self, files: RunFiles) -> str:
        """For a run whose tasks came from its task file."""
        feed, arguments = "", self.arguments
        if self.taskfile is not None and _NAMELESS_STREAM.match(self.taskfile):
            # Tasks from standard input or <(...) cannot be read again.
            arguments = self._from_stream(arguments)
            feed = FEED_AGAIN
        return self._cd + feed + shell_command(_resuming(arguments, _shown(files.status)))

    def with_submitted(self, files: RunFiles) -> str:
        """For a run that took tasks from `dbutil submit` or a program, too."""
        status, tasks = _shown(files.status), _shown(files.submitted)
        words = [word for word in self.arguments if word not in ("--keep-open", "--owned")]
        if self.taskfile is None:
            return self._cd + shell_command(_resuming([*words, tasks], status))
        both = shell_command(["cat", as_argument(self.taskfile), tasks])
        return f"{self._cd}{both} | {shell_command(_resuming(self._from_stream(words), status))}"

    def _from_stream(self, arguments: list[str]) -> list[str]:
        return ["-" if word == self.taskfile else word for word in arguments]

    @property
    def _cd(self) -> str:
        return f"cd {shell_word(str(Path.cwd()))} && " if self.moved else ""


def _resuming(arguments: list[str], status: str) -> list[str]:
    """The words of the command that resumes from this status file, with -R last."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [word for word in arguments[:end] if word not in ("-R", "--retry")]
    retry = ["-R"] if len(options) < end else []
    return ["disbatch", *options, *map(as_argument, arguments[end + 1 :]), "-r", status, *retry]


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return as_argument(relative) if not relative.startswith("..") else str(path)


def takeover_command(prefix: str) -> str:
    """The command that takes over the run of a killed driver."""
    return f"disbatch --takeover {_word(prefix)}"


def finish_command(prefix: str) -> str:
    """The command that ends the run of a killed driver."""
    return f"dbutil finish --run {_word(prefix)}"


def hint_for_killed(prefix: str) -> str:
    """How to continue the run of a killed driver, depending on where its tasks come from."""
    from disbatch.rundir.journal_file import read

    status = _word(status_file(prefix))
    resume = f"`disbatch TASKFILE -r {status}`"
    try:
        source = read(Path(f"{prefix}_run.json")).asked.source
    except UsageError:
        return f"{resume} goes on where it ended"
    finish = f"`{finish_command(prefix)}` ends it"
    if source == "program":
        return f"its tasks came from a program: {finish}; then start it anew with `-r {status}`"
    takeover = f"`{takeover_command(prefix)}`"
    if source == "stream":
        takeover = f"`{FEED_AGAIN}{takeover_command(prefix)} -`"
    return f"{takeover} goes on with it; or {finish}, then {resume} resumes it"


def _word(name: str) -> str:
    return shell_word(as_argument(name))
