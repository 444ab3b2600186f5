"""Every error that a user can meet, and the exit code that each one ends the command with.

An error is one line for the user: what is wrong, where, what to do. It is raised where it is found and
printed once, by the command line; a traceback goes to the log only.

    DisbatchError       3   the run could not be completed
      UsageError        2   options, names and paths that cannot work
        TaskFileError   2   an invalid line of a task file
        ResumeError     2   a former status file that does not fit the tasks
      SilenceError      3   the driver of a run does not answer
      StoreError        3   the key store cannot be used
      SourceError       3   the program that gives the tasks went away
      RunEndedError     3   a run ended before a task that a program submitted
      TaskFailedError   1   a task failed, and the program asked for an error (`model/result.py`)
      ProtocolError     -   bytes from a socket that are not a message of ours; dropped and logged
      LaunchError       -   no engine could be started on a node; the run continues with the others
"""

from __future__ import annotations

from disbatch.model.text import printable

EXIT_COMPLETE = 0
"""The run is complete, even if tasks failed."""
EXIT_FAILED = 1
"""A task failed, and -e, -f or BARRIER CHECK asked for this exit code."""
EXIT_USAGE = 2
"""Bad usage or bad input."""
EXIT_INCOMPLETE = 3
"""The run could not be completed: no engine could start, or all were lost."""
SIGNAL_EXIT = 128
"""Plus the number of the signal that ended the run: 130 for SIGINT, 143 for SIGTERM."""
EXIT_SIGINT = 130


class DisbatchError(Exception):
    """An error that is reported to the user as one line; `exit_code` is the exit code of the command."""

    exit_code = EXIT_INCOMPLETE

    def __str__(self) -> str:
        """The line; Python shows it on a terminal if a program does not catch the error."""
        return printable(super().__str__())


class UsageError(DisbatchError):
    """Options, names or paths that cannot work; nothing was run."""

    exit_code = EXIT_USAGE


class TaskFileError(UsageError):
    """A line of a task file is invalid. `source` is the file's name, `line` counts from 1. `more`: later
    lines that are known to be invalid, too; `warnings`: lines that may be invalid as well, to show to the
    user."""

    more: tuple[TaskFileError, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(self, source: str, line: int, problem: str) -> None:
        super().__init__(f"{source}:{line}: {problem}")
        self.source = source
        self.line = line
        self.problem = problem


class ResumeError(UsageError):
    """A status file given with -r does not belong to these tasks, or cannot be read."""


class SilenceError(DisbatchError):
    """The driver of a run that should be alive does not answer, or is gone."""


class StoreError(DisbatchError):
    """The key store cannot be reached, is full, or holds foreign data under one of our keys."""


class SourceError(DisbatchError):
    """A program that gives the tasks went away before it ended its list."""


class RunEndedError(DisbatchError):
    """The run ended, or its driver is gone, before the task had ended."""


class ProtocolError(DisbatchError):
    """Bytes from a socket that are not a valid message."""


class LaunchError(DisbatchError):
    """An engine could not be started on a node."""

    def __init__(self, node: str, problem: str) -> None:
        super().__init__(f"{node}: {problem}")
        self.node = node
        self.problem = problem
