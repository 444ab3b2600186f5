"""`disbatch --takeover PREFIX`: continue a run whose driver was killed, with its living engines; and
`dbutil finish`, which ends such a run.

Options and environment are those of the first driver, as recorded in PREFIX_run.json. Options given now
override them, and variables of the present login session replace the recorded ones: ssh needs the present
agent to log in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from disbatch.cli.context import pool_of
from disbatch.cli.keystore import without_passwords
from disbatch.cli.options import parse_run
from disbatch.cli.output import inherited_output
from disbatch.cli.resume import ended_engines, former_record, job_is_over, scheduler_of_run, verify
from disbatch.cli.run import Continued, Prepared, carry_out, open_inputs
from disbatch.cli.run_options import RunOptions, SourceOptions, TakeoverOptions
from disbatch.contexts.context import Choice
from disbatch.contexts.machine import this_machine
from disbatch.driver.settings import Takeover
from disbatch.model.errors import UsageError
from disbatch.model.text import counted
from disbatch.rundir.journal import Asked, Gone, JournalState, TakenOver
from disbatch.rundir.journal_file import read
from disbatch.rundir.output_manifest import kept_before
from disbatch.rundir.paths import ClaimedFiles, Renamed, RunFiles, known_elsewhere
from disbatch.rundir.resume_hint import FEED_AGAIN, ResumeHint, finish_command
from disbatch.rundir.runscript import CONNECT, named_prefix
from disbatch.rundir.takeover import SoFar, claim_again, seize
from disbatch.watch.progress import choose_observer
from disbatch.wire.connect import ConnectFile, is_here, listens_here
from disbatch.wire.engine_protocol import PROTOCOL, SECRET_VARIABLES

SESSION = (
    "SSH_AUTH_SOCK", "SSH_AGENT_PID", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "KRB5CCNAME", "TERM",
    "DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "COLUMNS", "LINES",
    *(name.decode() for name in SECRET_VARIABLES),
)  # fmt: skip
"""Variables of the session, and those that are kept in no file."""


def take_over(options: TakeoverOptions, arguments: list[str], choose: Callable[[RunOptions], Choice]) -> int:
    """Continue the run; the exit code. `choose` finds the nodes, as for a new run."""
    prefix = _prefix(options.prefix)
    files = RunFiles(prefix, prefix)
    _look_at(files, force=options.force)
    seized = _seize(files, force=options.force)
    asked = seized.told.asked
    now = _given_now(arguments)
    former = parse_run([*seized.arguments, *now])
    if former.source.is_program:
        raise UsageError(
            f"{prefix}: its tasks came from a program, and those that were waiting are lost with the driver; "
            f"`{finish_command(str(prefix))}` ends the running ones; then start the run anew with -r"
        )
    _check_tasks(former.source.taskfile, asked, prefix, feeds=options.feeds, force=options.force)
    choice = choose(former)
    seized.told.asked = msgspec.structs.replace(
        asked,
        arguments=[*asked.arguments, *map(os.fsencode, without_passwords(now))],
        orphan_patience=former.limits.orphan_patience,
    )
    return _go_on(seized, former, now, choice)


def finish(prefix: str) -> int:
    """End the run, whose driver was killed: its engines end their tasks, and results are recorded. The exit
    code: 3 if not all engines were heard."""
    files = RunFiles(_prefix(prefix), _prefix(prefix))
    _look_at(files, force=False, job_is_over=True)
    seized = _seize(files, force=False, job_is_over=True)
    told = seized.told
    former = parse_run(seized.arguments)
    readable = _can_read_tasks(former.source, told.asked, files.prefix)
    for here in [*told.engines.values(), *told.lost.values()]:
        told.learn(Gone(here.engine) if here.engine in seized.ended else here)
    options = _of_finish(former, readable=readable)
    return _go_on(seized, options, [], Choice([], []), finish=True, readable=readable)


def _of_finish(former: RunOptions, *, readable: bool) -> RunOptions:
    """The options of a run that is only taken over to be ended."""
    change = msgspec.structs.replace
    source = change(former.source, kvsserver=None, owned=False)
    if not readable:
        source = change(source, taskfile=None, taskserver=None, taskcommand=None)
    return change(
        former,
        source=source,
        resume=change(former.resume, resume_from=[]),
        notices=change(former.notices, web=None),
    )


@dataclass(frozen=True)
class _Seized:
    """A run whose files this process has locked. `arguments`: those of its first driver; `ended`: its engines
    that are known to have ended; `moved`: as in `Continued`."""

    files: RunFiles
    status: int
    connect: ConnectFile
    told: JournalState
    arguments: list[str]
    ended: frozenset[str]
    moved: bool


def _seize(files: RunFiles, *, force: bool, job_is_over: bool = False) -> _Seized:
    """Lock the run, and change to the directory and environment of its first driver. UsageError."""
    status = seize(replace(files, renamed=_renamed(read(files.run))))
    connect = _look_at(files, force=force, job_is_over=job_is_over)  # another driver may have come and gone
    told = read(files.run)
    ended = ended_engines(files, told, os.fstat(status).st_mtime, None)
    moved = _enter(told.asked)
    arguments = [os.fsdecode(argument) for argument in told.asked.arguments]
    return _Seized(files, status, connect, told, arguments, ended, moved)


def _go_on(
    seized: _Seized,
    options: RunOptions,
    now: list[str],
    choice: Choice,
    *,
    finish: bool = False,
    readable: bool = True,
) -> int:
    """Drive the run, with the options that were given `now`; the exit code. DisbatchError if the record of
    the former driver does not fit the tasks or the options."""
    told, asked, resume = seized.told, seized.told.asked, options.resume
    claimed = _claim(seized, own_log=options.record.logfile is None)
    observer = choose_observer(sys.stderr)
    inputs = open_inputs(options, [*seized.arguments, *now], observer.say, claimed.files.url)
    opened = inputs.opened
    former = former_record(resume, resume.resume_from, opened, observer.say)
    pool = pool_of(options.context, choice)
    before = kept_before(resume.resume_from, by_command=resume.by_command)
    output = inherited_output(options.output, os.fsdecode(asked.directory), claimed.files)
    so_far = SoFar.read(claimed.files.status, opened.name, forced=resume.force)
    for warning in verify(so_far, opened):
        observer.say(warning)
    if opened.summary is None and options.source.taskfile is not None:
        observer.say(
            f"{opened.name}: the same tasks are expected again, from the first on "
            f"({counted(so_far.count, 'of them is done', 'of them are done')})"
        )
    if options.source.owned:
        observer.say(
            "a program submitted tasks to this run; if it has ended, use `dbutil close` to accept no more"
        )
    takeover = Takeover(seized.connect, told, so_far.asides, seized.ended, finish, readable)
    prepared = Prepared(
        inputs=inputs,
        pool=pool,
        claimed=claimed,
        jobid=asked.jobid,
        directory=asked.directory,
        environment=dict(asked.environment),
        output=output,
        before=before,
        former=former,
        continued=Continued(takeover, so_far, seized.moved),
    )
    return carry_out(options, prepared, observer, None)


def _claim(seized: _Seized, *, own_log: bool) -> ClaimedFiles:
    """Its files, opened for this driver."""
    told, prefix = seized.told, seized.files.prefix
    told.learn(TakenOver(this_machine().hostname, os.getpid(), told.number + 1))
    known = known_elsewhere(prefix, os.fsdecode(told.asked.directory))
    files = RunFiles(prefix, Path(os.fsdecode(told.asked.log)), known, _renamed(told))
    return claim_again(files, seized.status, told, apart=not is_here(seized.connect), own_log=own_log)


def _can_read_tasks(source: SourceOptions, asked: Asked, prefix: Path) -> bool:
    """The tasks can be read again, unchanged."""
    if source.is_program:
        return False
    try:
        _check_tasks(source.taskfile, asked, prefix, feeds=False, force=False)
    except UsageError:
        return False
    return True


def _renamed(told: JournalState) -> Renamed:
    names = (told.elsewhere.status, told.elsewhere.submitted)
    return Renamed(*(Path(os.fsdecode(name)) if name else None for name in names))


def _prefix(text: str) -> Path:
    return Path.cwd() / named_prefix(text)


def _look_at(files: RunFiles, *, force: bool, job_is_over: bool = False) -> ConnectFile:
    """The connect file of the former driver. UsageError if the run is over or its driver lives, or, unless
    `job_is_over`, if its job has ended."""
    prefix = files.prefix
    if not os.path.lexists(files.connect):
        if os.path.lexists(files.status):
            raise UsageError(f"{prefix}: this run was ended (no {files.connect.name}); resume it with -r")
        raise UsageError(f"{prefix}: there is no such run: no file {prefix.name}{CONNECT}")
    connect = ConnectFile.read(files.connect)
    if not job_is_over:
        _refuse_ended_job(files)
    driver = f"its driver (pid {connect.pid} on {connect.host})"
    if is_here(connect):
        if listens_here(connect):
            raise UsageError(f"{prefix}: {driver} {_how_it_is(connect.pid)}")
    elif not force:
        raise UsageError(f"{prefix}: {driver} may be alive; if not, --force takes the run over from here")
    if connect.protocol != PROTOCOL:
        raise UsageError(f"{prefix}: the run speaks protocol {connect.protocol}, this version {PROTOCOL}")
    return connect


def _refuse_ended_job(files: RunFiles) -> None:
    """UsageError if the job of all engines has ended: nothing is left to be taken over."""
    told = read(files.run)
    if told.engines and job_is_over(told):
        moved = _enter(told.asked)
        arguments = [os.fsdecode(argument) for argument in told.asked.arguments]
        hint = ResumeHint(arguments, parse_run(arguments).source.taskfile, moved).command(files)
        scheduler = scheduler_of_run(told)
        job = f"{scheduler.name if scheduler else 'the'} job {told.asked.jobid}"
        over = f"{job} is over, and the run's engines with it"
        raise UsageError(f"{files.prefix}: {over}; resume with: {hint}")


def _how_it_is(pid: int) -> str:
    """The state of a driver that listens here."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        state = ""
    if state in ("T", "t"):
        return f"is there, but stopped: `kill -CONT {pid}` continues it; after `kill -9 {pid}` take it over"
    return "is there, and goes on with the run"


def _enter(asked: Asked) -> bool:
    """Change to the directory and environment of the first driver; True if we were in another directory."""
    directory = os.fsdecode(asked.directory)
    before = Path.cwd()
    try:
        os.chdir(directory)
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}; the run was started there") from error
    now = {name: os.environ[name] for name in SESSION if name in os.environ}
    os.environb.clear()
    os.environb.update(dict(asked.environment))
    for name in SESSION:
        os.environ.pop(name, None)
    os.environ.update(now)
    return Path.cwd() != before


def _given_now(arguments: list[str]) -> list[str]:
    """The other options of this command."""
    rest, words = [], iter(arguments)
    for word in words:
        if word == "--takeover":
            next(words, None)
        elif word not in ("-", "--force") and not word.startswith("--takeover="):
            rest.append(word)
    return rest


def _check_tasks(taskfile: str | None, asked: Asked, prefix: Path, *, feeds: bool, force: bool) -> None:
    """UsageError if the tasks cannot be read again. `feeds`: standard input has them once more."""
    if taskfile is None:
        if feeds:
            raise UsageError("--takeover: all tasks of the run were submitted; name no task file")
        return
    if asked.size is None:
        if not feeds:
            raise UsageError(
                f"{prefix}: its tasks came as a stream: give all of them again, from the first on: "
                f"{FEED_AGAIN}disbatch --takeover PREFIX -"
            )
        return
    if feeds:
        raise UsageError(f"--takeover: the tasks are those of {taskfile}, as before; name no task file")
    try:
        status = Path(taskfile).stat()
    except OSError as error:
        raise UsageError(f"{taskfile}: {error.strerror}; the tasks of the run were there") from error
    if (status.st_size, status.st_mtime_ns) != (asked.size, asked.changed) and not force:
        raise UsageError(
            f"{taskfile}: has changed since the run began; --force takes it if it has the same tasks"
        )
