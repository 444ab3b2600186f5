"""Run the user's own commands when a run ends (--on-finish), and at its first failure (--on-failure).

Each is run at most once, by the shell, on this machine, in the run's directory and environment, with
additional variables that describe the event (docs/mail.md lists them). After PATIENCE seconds it is killed
with all its processes. The first lines of its output are shown, and its exit status if that is not 0.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from disbatch.contexts.command import Run, run
from disbatch.contexts.launch_errors import lines
from disbatch.model.text import counted
from disbatch.model.view import EndedTask, RunView, Summary

PATIENCE = 300.0
"""Seconds."""
LINES_SHOWN = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Commands:
    """The user's commands; empty: none."""

    on_finish: str = ""
    on_failure: str = ""


@dataclass
class Hooks:
    """A `Listener` that runs the commands. `environment`: the run's own, and the variables that are known
    from the beginning; `again`: this driver took the run over; `notify_user` gets a line for the user.
    `status_file` returns the present path of the record."""

    commands: Commands
    environment: Mapping[str, str]
    notify_user: Callable[[str], None]
    again: bool = False
    run: Run = run
    status_file: Callable[[], str] = lambda: ""
    patience: float = PATIENCE
    _failure: asyncio.Task[None] | None = field(default=None, init=False)
    _failed: bool = field(default=False, init=False)

    def start(self, view: Callable[[], RunView]) -> None:
        """The run begins."""
        self._view = view

    def ended(self, id: int, line: bytes) -> None:
        """Nothing to do: only failures matter."""

    def failed(self, task: EndedTask) -> None:
        """A task failed."""
        if self._failed:
            return
        self._failed = True
        view = self._view()
        if not self.commands.on_failure or (self.again and view.failed - view.cancelled > 1):
            return  # a former driver of the run has run the command
        facts = {"EVENT": "failure", "STATUS_FILE": self.status_file(), **_counts(view), **_task(task)}
        self._failure = asyncio.get_running_loop().create_task(
            self._perform("--on-failure", self.commands.on_failure, facts)
        )

    async def close(self, summary: Summary, exit_code: int) -> None:
        """The run is over. Returns when every command has ended, or was ended."""
        facts = {**_counts(summary.view), **_end(summary, exit_code)}
        try:
            if self._failure is not None:
                await asyncio.wait([self._failure])
            elif exit_code and self.commands.on_failure and not self._failed:
                await self._perform("--on-failure", self.commands.on_failure, {"EVENT": "failure", **facts})
            if self.commands.on_finish:
                await self._perform("--on-finish", self.commands.on_finish, {"EVENT": "finish", **facts})
        finally:
            if self._failure is not None:
                self._failure.cancel()

    async def _perform(self, option: str, command: str, facts: Mapping[str, str]) -> None:
        found = {f"DISBATCH_{name}": value.replace("\0", "") for name, value in facts.items()}
        log.info("%s: running %s", option, command)
        answer = await self.run(["/bin/sh", "-c", command], {**self.environment, **found}, self.patience)
        said = lines(os.fsencode(answer.out))
        for line in said[:LINES_SHOWN]:
            self.notify_user(f"{option}: {line}")
        if len(said) > LINES_SHOWN:
            self.notify_user(f"{option}: ... and {counted(len(said) - LINES_SHOWN, 'line')} more")
        if answer.problem is not None:
            self.notify_user(f"{option}: {answer.problem}")


def _counts(view: RunView) -> dict[str, str]:
    return {
        "DONE": str(view.done),
        "SUCCEEDED": str(view.done - view.failed),
        "FAILED": str(view.failed),
        "CANCELLED": str(view.cancelled),
        "SKIPPED": str(view.skipped),
        "TOTAL": "" if view.total is None else str(view.total),
        "SECONDS": f"{view.seconds:.3f}",
    }


def _task(task: EndedTask) -> dict[str, str]:
    return {
        "FAILED_TASKID": str(task.id),
        "FAILED_LINE": str(task.line),
        "FAILED_NODE": task.node,
        "FAILED_RETURN_CODE": str(task.return_code),
        "FAILED_REASON": task.reason,
        "FAILED_COMMAND": os.fsdecode(task.command),
    }


def _end(summary: Summary, exit_code: int) -> dict[str, str]:
    used = summary.utilisation
    return {
        "EXIT_CODE": str(exit_code),
        "STATUS_FILE": summary.status_file,
        "CONCLUSION": summary.conclusion,
        "LOST": str(summary.view.lost),
        "NOT_RUN": str(summary.view.not_run),
        "UTILISATION": "" if used is None else f"{used:.4f}",
        "RESUME": summary.resume,
    }
