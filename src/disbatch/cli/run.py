"""A prepared run: what a new run and a takeover have in common, and the settings that both become."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from disbatch.cli.keystore import choose_store, without_passwords
from disbatch.cli.notices import choose_notices, mail_server
from disbatch.cli.output import write_output_file
from disbatch.cli.run_options import LimitOptions, RunOptions, SourceOptions
from disbatch.cli.run_process import RunProcess, start_log, write_script
from disbatch.contexts.context import Context
from disbatch.contexts.pool import Pool
from disbatch.contexts.spawn import Spawned
from disbatch.contexts.walltime import grace_within
from disbatch.driver.feed import Feed, Submitted
from disbatch.driver.settings import Observer, Settings, Takeover
from disbatch.keystore.address import URL, Address
from disbatch.model.errors import TaskFileError, UsageError
from disbatch.model.job import JOB_IDS
from disbatch.model.text import short_list, valid
from disbatch.model.version import VERSION
from disbatch.rundir.journal import Asked, SourceKind
from disbatch.rundir.output_manifest import Before, Output
from disbatch.rundir.paths import ClaimedFiles, RunFiles, known_elsewhere
from disbatch.rundir.resume import Former
from disbatch.rundir.resume_by_command import ByCommand
from disbatch.rundir.resume_hint import ResumeHint
from disbatch.rundir.runscript import RunCommand
from disbatch.rundir.takeover import SoFar
from disbatch.sources.opening import Expected, Opened, no_tasks, open_tasks
from disbatch.sources.submitted import SubmittedFile

if TYPE_CHECKING:
    from disbatch.watch.mail import MailServer
    from disbatch.watch.web.launch import WebPage

log = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL for tasks that are to end, unless --grace says otherwise."""
SHOWN_LINES = 10
"""Of those that are wrong."""


class Inputs(msgspec.Struct, frozen=True):
    """What a run needs from outside, checked before any of its files is made. `arguments`: the command line
    without passwords; `opened`: the tasks; `task_name`: what the run's files are named after; `keystore`: the
    server, None for the driver's own store; `post`: the mail server, if mail is asked for; `page`: the web
    page, which listens already."""

    arguments: list[str]
    opened: Opened | Expected
    task_name: str
    keystore: Address | None
    key_prefix: str
    post: MailServer | None
    page: WebPage | None


class Continued(msgspec.Struct, frozen=True):
    """The run that is taken over: its engines and journal, its record, and whether the user is in another
    directory than it was started in."""

    takeover: Takeover
    so_far: SoFar
    moved: bool


class Prepared(msgspec.Struct, frozen=True):
    """A run that can begin: its files are ours. `before`: where former runs kept output; `former`: the tasks
    that they completed; `continued`: what a takeover goes on with, None for a new run."""

    inputs: Inputs
    pool: Pool
    claimed: ClaimedFiles
    jobid: str
    directory: bytes
    environment: dict[bytes, bytes]
    output: Output | None
    before: Before
    former: Former | ByCommand | None
    continued: Continued | None = None


def open_inputs(
    options: RunOptions, arguments: list[str], say: Callable[[str], None], url: Path | None = None
) -> Inputs:
    """Open what the run needs. `url`: the file that holds the address of the page of the run that is taken
    over. UsageError."""
    source = options.source
    opened = _opened(source)
    arguments = _without_passwords(arguments, say)
    keystore, key_prefix = choose_store(source, os.environ)
    post = mail_server(options.notices.mail, os.environ)
    page = _web_page(options, say, url)
    for warning in () if opened.summary is None else opened.summary.warnings:
        say(warning)
    if source.keep_open and source.taskfile is not None and opened.summary is None:
        # Submitted tasks have higher numbers than those of the task file.
        raise UsageError(f"--keep-open: {opened.name} is a stream; name a regular file, or none")
    return Inputs(arguments, opened, _task_name(source.taskfile), keystore, key_prefix, post, page)


def carry_out(options: RunOptions, prepared: Prepared, observer: Observer, early: Spawned | None) -> int:
    """Begin the run, and stay until it has ended; the exit code. `early`: the local engine, if it was started
    already. DisbatchError if the run cannot start."""
    inputs, claimed, continued = prepared.inputs, prepared.claimed, prepared.continued
    log_handler = start_log(claimed, options.record.loglevel, observer.say)
    submitted = None
    if continued is None or continued.takeover.readable:
        submitted = _submitted(options, inputs.opened, claimed)
    log.info("disbatch %s, pid %d on %s: %s", VERSION, os.getpid(), os.uname().nodename, inputs.arguments)
    if options.context.label:
        log.info("label: %s", options.context.label)
    settings = settings_of(options, prepared, log_handler.begin_again, observer.say)
    notices = choose_notices(
        *(options.notices, inputs.post),
        files=claimed.files,
        environment=prepared.environment,
        jobid=prepared.jobid,
        name=inputs.task_name,
        again=continued is not None,
        say=observer.say,
    )
    so_far = None if continued is None else continued.so_far
    return RunProcess(
        settings=settings,
        feed=Feed(inputs.opened, prepared.former, so_far, submitted),
        observer=observer,
        notices=notices,
        page=inputs.page,
        early=early,
        owned=options.source.owned and continued is None,
    ).run()


def settings_of(
    options: RunOptions,
    prepared: Prepared,
    reopen_log: Callable[[], object],
    say: Callable[[str], None],
) -> Settings:
    """The settings of the driver. `reopen_log` creates the log again if it was removed."""
    source, limits, pool = options.source, options.limits, options.pool
    inputs, claimed, continued = prepared.inputs, prepared.claimed, prepared.continued
    moved = continued is not None and continued.moved
    hint = ResumeHint(inputs.arguments, source.taskfile, moved)
    return Settings(
        source_name=claimed.files.submitted.name if source.taskfile is None else inputs.opened.name,
        task_name=inputs.task_name,
        jobid=prepared.jobid,
        claimed=claimed,
        pool=prepared.pool,
        cores_per_task=options.context.cores_per_task,
        directory=prepared.directory,
        environment=prepared.environment,
        fail_fast=limits.fail_fast,
        exit_code=limits.exit_code,
        status_header=options.record.status_header,
        listen=pool.listen,
        on_network=pool.startup_only or any(map(os.environ.get, JOB_IDS)),
        waits=pool.waits,
        heartbeat=limits.heartbeat,
        patience=limits.patience,
        orphan_patience=limits.orphan_patience,
        max_losses=limits.max_losses,
        grace=_grace(limits.grace, prepared.pool.context, say),
        moved=moved,
        resume_hint=hint.command,
        resume_hint_with_submitted=hint.with_submitted,
        script=partial(_write_script, hint._replace(moved=False), prepared),
        makers=_makers(prepared) | {claimed.files.log: reopen_log},
        asked=_asked(source, limits, prepared),
        keystore=inputs.keystore,
        key_prefix=inputs.key_prefix,
        output=prepared.output,
        takeover=None if continued is None else continued.takeover,
    )


def _web_page(options: RunOptions, say: Callable[[str], None], url: Path | None) -> WebPage | None:
    """The page of -w, which listens already: nothing is run if it cannot."""
    if options.notices.web is None:
        return None
    from disbatch.watch.web.launch import WebPage

    page = WebPage(options.notices.web, say, options.limits.orphan_patience)
    page.listen(url)
    return page


def _opened(source: SourceOptions) -> Opened | Expected:
    """The source of the tasks."""
    if source.taskfile is not None:
        try:
            return open_tasks(source.taskfile)
        except TaskFileError as error:
            if not error.more:
                raise
            raise UsageError(f"{error} ({_wrong_lines(error.more)}; `dbutil check` shows why)") from error
    return Expected(source.taskcommand) if source.is_program else no_tasks()


def _wrong_lines(errors: Sequence[TaskFileError]) -> str:
    shown = short_list([str(error.line) for error in errors], SHOWN_LINES)
    return f"line {shown} is wrong, too" if len(errors) == 1 else f"lines {shown} are wrong, too"


def _without_passwords(arguments: list[str], say: Callable[[str], None]) -> list[str]:
    shown = without_passwords(arguments)
    if shown != arguments:
        say(f"a password on a command line can be seen by everybody on this machine; put it into {URL}")
    return shown


def _is_nameless(taskfile: str | None) -> bool:
    return taskfile is None or taskfile == "-" or taskfile.startswith(("/dev/", "/proc/"))


def _task_name(taskfile: str | None) -> str:
    """The name that the files of the run get."""
    if taskfile is None or _is_nameless(taskfile):
        return "STREAM"
    return Path(taskfile).name


def _submitted(options: RunOptions, opened: Opened | Expected, claimed: ClaimedFiles) -> Submitted | None:
    """The file of submitted tasks, if the run accepts any."""
    if isinstance(opened, Expected):
        return None
    taskfile = options.source.taskfile
    kept_open = options.source.keep_open or taskfile is None
    if not kept_open and not options.pool.startup_only:
        return None
    if opened.summary is None and taskfile is not None:
        return None
    ids = None if opened.summary is None else opened.summary.ids
    try:
        file = SubmittedFile(claimed.files.submitted, ids, again=not claimed.new)
    except UsageError:
        claimed.withdraw()
        raise
    return Submitted(file, kept_open)


def _grace(option: float | None, context: Context, say: Callable[[str], None]) -> float:
    """The grace period of tasks: --grace, or the default, within the time that a scheduler leaves between its
    SIGTERM and SIGKILL."""
    wait = context.kill_wait
    if option is None:
        return grace_within(wait, GRACE)
    if grace_within(wait, option) < option:
        limit = f"{context.scheduler} kills {wait:g} s after its SIGTERM"
        say(f"--grace {option:g}: {limit}; tasks may have no more than that")
    return option


def _asked(source: SourceOptions, limits: LimitOptions, prepared: Prepared) -> Asked:
    """What another driver must know to take this run over. A task file that a later command cannot open by
    name counts as a stream."""
    inputs, directory = prepared.inputs, prepared.directory
    opened, taskfile = inputs.opened, source.taskfile
    nameless = _is_nameless(taskfile)
    size = changed = None
    if isinstance(opened, Opened) and opened.summary is not None and not nameless:
        status = os.fstat(opened.descriptor)
        size, changed = status.st_size, status.st_mtime_ns
    kind: SourceKind = "stream" if size is None else "file"
    if source.is_program:
        kind = "program"
    elif taskfile is None:
        kind = "submitted"
    return Asked(
        version=VERSION,
        arguments=[os.fsencode("-" if nameless and word == taskfile else word) for word in inputs.arguments],
        directory=directory,
        jobid=prepared.jobid,
        task_name=valid(inputs.task_name),
        log=bytes(known_elsewhere(prepared.claimed.files.log, os.fsdecode(directory))),
        size=size,
        changed=changed,
        orphan_patience=limits.orphan_patience,
        environment=list(prepared.environment.items()),
        source=kind,
    )


def _makers(prepared: Prepared) -> dict[Path, Callable[[], object]]:
    """Functions that write files of the run again that never change."""
    files, output = prepared.claimed.files, prepared.output
    if output is None:
        return {}
    return {files.output: partial(write_output_file, output, files, prepared.before)}


def _write_script(hint: ResumeHint, prepared: Prepared, files: RunFiles) -> None:
    """Write PREFIX_dbUtil.sh, which says how to resume the run, also long after its end. UsageError."""
    summary = prepared.inputs.opened.summary
    command = RunCommand(
        directory=os.fsdecode(prepared.directory),
        status=str(files.status.absolute()),
        resume=hint.command(files),
        resume_with_submitted=hint.with_submitted(files),
        tasks=None if summary is None else summary.tasks,
    )
    write_script(files, command)
