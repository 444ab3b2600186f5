"""Find the run that a command is about: by its prefix, or the only active one in the working directory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from disbatch.model.errors import SilenceError, UsageError
from disbatch.model.text import short_list
from disbatch.rundir.driver_alive import is_dead
from disbatch.rundir.resume_hint import hint_for_killed
from disbatch.rundir.runscript import CONNECT, STATUS, named_prefix, status_file
from disbatch.wire.connect import ConnectFile, is_here, listens_here, sockets
from disbatch.wire.ownfile import NotOwnError, owner_of
from disbatch.wire.renamed_files import is_gone

if TYPE_CHECKING:
    from disbatch.client.run_client import RunClient


@dataclass(frozen=True)
class Run:
    """A run with a connect file; `prefix` as the user may write it."""

    prefix: str
    connect: ConnectFile

    @property
    def is_gone(self) -> bool:
        """Its driver was killed. For a driver on another host, only that host knows."""
        return is_dead(self.prefix, self.connect)

    @property
    def is_starting(self) -> bool:
        """For a run that is not gone: another driver takes it over, and does not listen yet."""
        return is_here(self.connect) and bool(sockets(self.connect)) and not listens_here(self.connect)


def find_run(prefix: str | None) -> Run:
    """The run with that prefix, or the one of DISBATCH_CONNECT, or the only live one in the working
    directory. UsageError if there is no such run, or no only one; SilenceError if its driver is known to be
    dead."""
    run = find_any_run(prefix)
    if run.is_gone:
        raise SilenceError(f"{run.prefix}: {run.connect.driver} is dead; {hint_for_killed(run.prefix)}")
    return run


def find_any_run(prefix: str | None) -> Run:
    """The same, whether its driver lives or not. UsageError."""
    prefix = prefix or os.environ.get("DISBATCH_CONNECT") or None
    return _only_run() if prefix is None else _run(prefix)


@asynccontextmanager
async def client_of(run: Run, notify_user: Callable[[str], None]) -> AsyncIterator[RunClient]:
    """A client of the run, over takeovers, for the duration of the block."""
    import zmq

    from disbatch.client.run_client import RunClient, line_opener

    with zmq.Context() as context:
        opener = line_opener(context)
        advice = hint_for_killed(run.prefix)
        client = RunClient(opener, run.connect, run.prefix, notify_user=notify_user, advice=advice)
        try:
            yield client
        finally:
            client.close()


class Found(NamedTuple):
    """A run with a status file. `connect`: None if its driver cannot be asked; `words`: why not; "": the run
    is over."""

    prefix: str
    connect: ConnectFile | None
    words: str = ""


def look_up(prefix: str | None) -> Found:
    """The run as for `find_run`, whether it is live, dead or over. UsageError if there is no such run."""
    prefix = prefix or os.environ.get("DISBATCH_CONNECT") or None
    if prefix is None:
        run = _only_run()
        return Found(run.prefix, run.connect)
    prefix = named_prefix(prefix)
    if not is_gone(status_file(prefix)):
        if is_gone(f"{prefix}{CONNECT}"):
            return Found(prefix, None)
        try:
            return Found(prefix, _connect(prefix))
        except UsageError as error:
            return Found(prefix, None, f"the driver cannot be asked: {error}")
    run = _run(prefix)
    return Found(run.prefix, run.connect)


def _run(prefix: str) -> Run:
    prefix = named_prefix(prefix)
    path = Path(f"{prefix}{CONNECT}")
    if is_gone(path):
        if not is_gone(status_file(prefix)):
            raise UsageError(f"{prefix}: this run is over: there is no {path.name} any more")
        raise UsageError(f"{prefix}: there is no such run: no file {path}")
    return Run(prefix, _connect(prefix))


def _connect(prefix: str) -> ConnectFile:
    """The connect file of a run that the user named. UsageError. It must belong to the owner of the run: in a
    shared directory any user could create one."""
    return ConnectFile.read(Path(f"{prefix}{CONNECT}"), trusted=owner_of(f"{prefix}{STATUS}"))


def _only_run() -> Run:
    """The only run in the working directory; runs of other users are ignored."""
    runs, others = [], 0
    for name in files_here(CONNECT):
        try:
            runs.append(Run(named_prefix(name), ConnectFile.read(Path(name))))
        except UsageError as error:
            others += isinstance(error.__cause__, NotOwnError)
    live = [run for run in runs if not run.is_gone]
    if len(live) == 1:
        return live[0]
    if live:
        raise UsageError(f"several runs are live here, choose one with --run: {_list(live)}")
    if len(runs) == 1:
        return runs[0]
    if runs:
        raise UsageError(
            f"no run is live here; the drivers of these runs are dead, resume them: {_list(runs)}"
        )
    whose = " of yours" if others else ""
    raise UsageError(
        f"no run{whose} is live in this directory: name one with --run PREFIX, the prefix of its files"
    )


def _list(runs: list[Run]) -> str:
    return short_list([run.prefix for run in runs], 10)


def files_here(ending: str) -> list[str]:
    """The names of files in the working directory that end so. UsageError if it cannot be read."""
    try:
        return sorted(name for name in os.listdir() if name.endswith(ending))  # noqa: PTH208 - plain names
    except OSError as error:
        raise UsageError(f"the working directory: {error.strerror}; name a run with --run") from error
