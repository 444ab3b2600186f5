"""-r: what former runs completed, and whether their engines still run tasks; jobs that were requeued.

The engines of a killed driver go on for a while, so that another driver may take the run over. Until they
have ended, -r is refused.

A job whose node died, or that was preempted or requeued, keeps its number and runs its script from the
beginning (in Slurm unless a site or the user says otherwise). Then the same command finds the status files of
its former life under the names that it would take itself.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from disbatch.cli.run_options import ResumeOptions
from disbatch.contexts.context import Ending, Gone, Scheduler
from disbatch.contexts.discovery import scheduler_of
from disbatch.contexts.machine import this_machine
from disbatch.driver.addresses import remove_folder
from disbatch.driver.file_watch import LIFE_SIGN_INTERVAL
from disbatch.engine import keeper
from disbatch.engine.outbox import LOG_END
from disbatch.engine.process_tree import boot_id, look, send
from disbatch.engine.remains import command_line, find_engine, find_remains, forget, is_halted
from disbatch.model.errors import ResumeError, UsageError
from disbatch.model.task import Item, Way
from disbatch.model.text import short_list
from disbatch.rundir.journal import Here, JournalState
from disbatch.rundir.journal_file import read
from disbatch.rundir.kvsinfo import KvsInfo, kvsinfo_path
from disbatch.rundir.lock import hold, is_held_at
from disbatch.rundir.paths import RunFiles, remove, status_files
from disbatch.rundir.resume import Former, of_nodes
from disbatch.rundir.resume_by_command import ByCommand
from disbatch.rundir.resume_hint import finish_command, takeover_command
from disbatch.rundir.runscript import STATUS, prefix_of
from disbatch.rundir.takeover import SoFar
from disbatch.sources.file import FileSource
from disbatch.sources.opening import Expected, Opened
from disbatch.wire.connect import ConnectFile, is_here
from disbatch.wire.ownfile import is_foreign, open_own, owner_of, read_own
from disbatch.wire.renamed_files import is_gone

log = logging.getLogger(__name__)

ITEMS_A_TIME = 1024
LAST_WORD = b" INFO gone\n"
"""The last line of an engine's log."""
LAST_WORD_WITHIN = 100
_FIRST_WORD = re.compile(rb"^[-0-9:, ]+ INFO engine (\S+) on ", re.MULTILINE)
MOST_OF_LOG = 1 << 20
MOST_ENGINES = 64
MARGIN = 15.0
"""Seconds for engines to end their tasks, and for differences of clocks."""
KEEPER_PATIENCE = keeper.GRACE + 2.0
"""Seconds in which a keeper ends what a killed engine has left."""


def refuse_abandoned(status: str, say: Callable[[str], None]) -> None:
    """ResumeError if tasks of the run that wrote this status file may still be running. Processes of this
    host are looked for; of others the clock tells when they must have ended. Waits for a keeper that is
    ending tasks, and says so."""
    if not status.endswith(STATUS):
        return
    path = Path(status)
    files = RunFiles(Path(prefix_of(status)), path)
    if is_gone(files.run):
        # It was ended in order, and so were its tasks; or somebody has removed the file.
        _refuse_remains(status, _engines_by_log(path))
        return
    killed = not is_gone(files.connect)
    owner = owner_of(path)
    try:
        changed = path.stat().st_mtime
    except OSError:
        return  # whoever reads the status file says what is wrong with it
    told = None if is_held_at(path) else _read_run_file(files.run, owner)  # a lock is reported later
    if told is None or job_is_over(told):
        return
    engines = [here for here in told.lost.values() if here.pid]
    engines += told.engines.values() if killed else ()
    for each in filter(_ends_what_is_left, engines):
        _wait_for_keeper(each, say)
    there = [each for each in engines if not has_ended(each, files, owner)]
    seen = [each for each in there if _is_seen(each)]
    left = time_left(changed, told)
    if seen or (there and left > 0):
        raise ResumeError(_refusal(status, seen or there, killed, left) + _halted(seen))
    _refuse_remains(status, [*told.engines, *told.lost])


def _read_run_file(path: Path, owner: int | None) -> JournalState | None:
    """The state in the run file; None if it has just been removed. ResumeError if it cannot be read."""
    try:
        return read(path, trusted=owner)
    except UsageError as error:
        if is_gone(path):
            return None
        raise ResumeError(
            f"{error}; without it nobody knows whether tasks of that run still run: make it readable, or, if "
            "none of them does, add --force-resume"
        ) from error


def _refusal(status: str, there: list[Here], killed: bool, left: float) -> str:
    names = short_list(sorted({each.name for each in there}))
    still = f"may still run tasks for {left:.0f} s" if left > 0 else "still run"
    can = "-r can after that time" if left > 0 else "-r can when they have ended"
    can += ", --force-resume at once"
    if not killed:
        return f"{status}: {names} could not be reached when that run ended, and {still}: {can}"
    prefix = prefix_of(status)
    return (
        f"{status}: the driver of that run was killed, and its engines {still}: "
        f"`{takeover_command(prefix)}` goes on with it; `{finish_command(prefix)}` ends it, and -r "
        f"works at once; {can}"
    )


def _halted(seen: list[Here]) -> str:
    """Advice for stopped engines and keepers on this host, which neither answer nor end."""
    processes = [pid for each in seen for pid in (each.pid, find_engine(each.pid)) if pid]
    halted = " ".join(str(pid) for pid in processes if is_halted(pid))
    return f"; they are stopped, so continue them first: `kill -CONT {halted}`" if halted else ""


def clear_abandoned(status: str) -> None:
    """Remove the files that the killed driver of the run with this status file left, if none of its engines
    runs tasks: nobody needs them after this run has resumed from it. Files of other users are kept."""
    path = Path(status)
    files = RunFiles(Path(prefix_of(status)), path)
    try:
        refuse_abandoned(status, lambda _: None)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (ResumeError, OSError):
        return
    try:
        if not status.endswith(STATUS) or not hold(descriptor) or owner_of(path) != os.geteuid():
            return
        with contextlib.suppress(UsageError):
            told = read(files.run)
            forget([*told.engines, *told.lost])
            connect = ConnectFile.read(files.connect)
            info = KvsInfo(kvsinfo_path(files, told.asked.task_name, told.asked.jobid))
            if Path(info.told("connect") or "").name == files.connect.name:
                remove(info.path, log.warning)
            if is_here(connect):
                remove_folder(connect.addresses)
        for left in (files.connect, files.run):
            remove(left, log.warning)
        if not is_foreign(files.url) and not is_held_at(files.url):  # a page that lives ends, and removes it
            remove(files.url, log.warning)
    finally:
        os.close(descriptor)


def _engines_by_log(status: Path) -> list[str]:
    """The engines of the run that did not exit in order, according to their logs."""
    engines: list[str] = []
    owner = owner_of(status)
    for path in of_nodes(status, LOG_END):
        with contextlib.suppress(OSError):
            text = read_own(path, MOST_OF_LOG, trusted=owner)
            if not text.endswith(LAST_WORD):
                engines += [name.decode(errors="replace") for name in _FIRST_WORD.findall(text)]
    return engines[-MOST_ENGINES:]


def _refuse_remains(status: str, engines: list[str]) -> None:
    """ResumeError if tasks of these engines run on this host, with or without their engines."""
    remains = find_remains(engines)
    if remains:
        numbers = " ".join(
            f"-{pid}" if (it := look(pid)) and it.session == pid else str(pid) for pid in remains
        )
        raise ResumeError(
            f"{status}: tasks of that run still run on this host, though its driver was killed; end them "
            f"(`kill -- {numbers}`), or wait for their end, and resume then; --force-resume does at once"
        )


def _ends_what_is_left(engine: Here) -> bool:
    """The engine was killed on this host, and its keeper is ending its tasks."""
    return _is_seen(engine) and b"keeper" in command_line(engine.pid) and find_engine(engine.pid) is None


def _wait_for_keeper(engine: Here, say: Callable[[str], None]) -> None:
    """Wait until the keeper has ended the tasks; continue it if it was stopped."""
    try:
        pidfd = os.pidfd_open(engine.pid)
    except (OSError, AttributeError):
        return
    try:
        say(f"waiting for the tasks of a killed engine of that run on {engine.name} to end")
        send(pidfd, signal.SIGCONT)
        select.select([pidfd], [], [], KEEPER_PATIENCE)
    finally:
        os.close(pidfd)


def time_left(changed: float, told: JournalState) -> float:
    """Seconds for which engines may still run tasks if no driver takes over; `changed`: when the status file
    was written last."""
    return changed + LIFE_SIGN_INTERVAL + told.asked.orphan_patience + MARGIN - time.time()


def scheduler_of_run(told: JournalState) -> Scheduler | None:
    """The scheduler of the job that the run was in."""
    environ = told.asked.environment
    return scheduler_of({os.fsdecode(name): os.fsdecode(value) for name, value in environ})


def job_is_over(told: JournalState) -> bool:
    """True if all engines were in a scheduler's job, which has ended or is ending."""
    engines = [*told.engines.values(), *told.lost.values()]
    ways = {each.node.way if each.node is not None else Way.SSH for each in engines}
    if Way.STEP not in ways or Way.SSH in ways:
        return False
    scheduler = scheduler_of_run(told)
    return scheduler is not None and isinstance(scheduler.job_state(told.asked.jobid), Ending | Gone)


def ended_engines(files: RunFiles, told: JournalState, changed: float, owner: int | None) -> frozenset[str]:
    """The engines of a killed driver that are known to have ended; `changed` as for `time_left`, `owner` as
    for `has_ended`."""
    engines = [*told.engines.values(), *told.lost.values()]
    if job_is_over(told):
        return frozenset(each.engine for each in engines)
    late = time_left(changed, told) <= 0
    return frozenset(
        each.engine
        for each in engines
        if has_ended(each, files, owner) or (late and not _is_seen(each)) or _ends_what_is_left(each)
    )


def has_ended(engine: Here, files: RunFiles, owner: int | None) -> bool:
    """True if that is known: its process was on this host and is gone, or its log says so, which belongs to
    us or to the `owner` of the run."""
    if _has_ended_here(engine):
        return True
    try:
        log_file = open_own(files.engine_log(engine.name), os.O_RDONLY, trusted=owner)
        with os.fdopen(log_file, "rb") as file:
            file.seek(-min(LAST_WORD_WITHIN, os.fstat(file.fileno()).st_size), os.SEEK_END)
            return file.read().endswith(LAST_WORD)
    except OSError:
        return False


def _is_seen(engine: Here) -> bool:
    """Its process is on this host, and no other process can have its number."""
    here = engine.host == this_machine().hostname
    return here and bool(engine.pid and engine.started) and not _has_ended_here(engine)


def _has_ended_here(engine: Here) -> bool:
    """Its process was on this host, and is gone or a zombie."""
    if engine.host != this_machine().hostname:
        return False
    boot = boot_id()
    if engine.boot and boot and engine.boot != boot:
        return True
    if not engine.pid:
        return False
    process = look(engine.pid)
    if process is not None:
        return not process.alive or engine.started not in (0, process.start)
    try:
        os.kill(engine.pid, 0)  # where /proc does not tell
    except OSError as error:
        return error.errno == errno.ESRCH
    return False


def former_life(prefix: str | None, task_name: str, jobid: str, named: list[str]) -> list[str]:
    """Our status files for tasks of this name in this job, except those `named` with -r and those that
    another run of the job is writing."""
    found = [path for path in status_files(prefix, task_name, jobid) if not is_foreign(path)]
    return [os.path.relpath(path) for path in found if not _is_named(path, named) and not is_held_at(path)]


def _is_named(path: Path, named: list[str]) -> bool:
    return any(Path(name).exists() and path.samefile(name) for name in named)


def former_record(
    options: ResumeOptions,
    paths: list[str],
    opened: Opened | Expected,
    say: Callable[[str], None],
    *,
    ended: bool = False,
) -> Former | ByCommand | None:
    """What these status files say of the tasks; `say` gets warnings. ResumeError if they do not fit, or if
    engines of these runs may still run tasks, unless the runs are known to have `ended`."""
    if not paths:
        return None
    if not (ended or options.force):
        for path in paths:
            refuse_abandoned(path, say)
    former: Former | ByCommand = (
        ByCommand.read(paths, source=opened.name, retry=options.retry)
        if options.by_command
        else Former.read(paths, source=opened.name, retry=options.retry, force=options.force)
    )
    try:
        for warning in verify(former, opened):
            say(warning)
    except BaseException:
        former.close()
        raise
    return former


def verify(former: Former | ByCommand | SoFar, opened: Opened | Expected) -> list[str]:
    """Compare a whole regular file with the former record before anything runs."""
    if isinstance(opened, Expected) or opened.summary is None:
        return []
    start = os.lseek(opened.descriptor, 0, os.SEEK_CUR)
    source = FileSource(opened.name, os.dup(opened.descriptor), opened.summary.checksums)
    try:
        return former.verify(_items(source), opened.summary.ids)
    finally:
        source.close()
        os.lseek(opened.descriptor, start, os.SEEK_SET)


def _items(source: FileSource) -> Iterator[Item]:
    while items := source.take(ITEMS_A_TIME):
        yield from items
