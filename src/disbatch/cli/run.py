"""Puts a run together from its options, carries it out, and shows how it went."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from disbatch.cli.context import pool_of
from disbatch.cli.keystore import choose_store, without_passwords
from disbatch.cli.notices import Notices, choose_notices, mail_server
from disbatch.cli.output import choose_output, inherited_output, write_output_file
from disbatch.cli.resume import clear_abandoned, former_life, refuse_abandoned
from disbatch.cli.script import write_script
from disbatch.client.find import FEED_AGAIN
from disbatch.contexts.context import Context
from disbatch.contexts.discovery import Choice, restarted_by
from disbatch.contexts.spawn import Spawned, limit_children
from disbatch.contexts.walltime import grace_within
from disbatch.driver.assembly import assembled
from disbatch.driver.driver import Driver
from disbatch.driver.feed import Feed, Submitted
from disbatch.driver.settings import Observer, Settings, Takeover
from disbatch.keystore.address import URL
from disbatch.model.errors import (
    EXIT_COMPLETE,
    EXIT_INCOMPLETE,
    DisbatchError,
    ResumeError,
    TaskFileError,
    UsageError,
)
from disbatch.model.job import JOB_IDS
from disbatch.model.log import LogFormatter
from disbatch.model.task import Item
from disbatch.model.text import as_argument, counted, path_line, shell_command, shell_word, valid
from disbatch.model.version import VERSION
from disbatch.model.view import Summary
from disbatch.rundir.journal import Asked, JournalState, SourceKind
from disbatch.rundir.output_manifest import Before, Output, kept_before
from disbatch.rundir.paths import ClaimedFiles, Renamed, RunFiles, claim, known_elsewhere, working_directory
from disbatch.rundir.resume import Former
from disbatch.rundir.resume_by_command import ByCommand
from disbatch.rundir.runscript import RunCommand
from disbatch.rundir.takeover import SoFar
from disbatch.sources.file import FileSource
from disbatch.sources.opening import Expected, Opened, no_tasks, open_tasks
from disbatch.sources.submitted import SubmittedFile
from disbatch.watch.progress import choose_observer
from disbatch.watch.summary import render
from disbatch.watch.terminal import columns_of
from disbatch.wire.connect import ConnectFile
from disbatch.wire.descriptors import raise_limit
from disbatch.wire.engine_protocol import SECRET_VARIABLES

if TYPE_CHECKING:
    from disbatch.watch.web.launch import WebPage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Left:
    """What a driver that was killed left of its run: the connect file, what it `told`, and its files in our
    hands. `moved`: the user is in another directory than where the run was started, and we are now. The
    others: as of `Takeover`."""

    connect: ConnectFile
    told: JournalState
    claimed: ClaimedFiles
    moved: bool
    ended: frozenset[str] = frozenset()
    finish: bool = False
    readable: bool = True

    @property
    def asked(self) -> Asked:
        """What the first driver was asked."""
        return self.told.asked


ITEMS_A_TIME = 1024
GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL for tasks that are to end, unless --grace says otherwise."""
SHOWN_LINES = 10
"""Of those that are wrong."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MESSAGES = (signal.SIGUSR1, signal.SIGUSR2)
"""What a scheduler sends to a job's programs when the job asked for it (sbatch --signal, qsub -notify)."""


def run(
    options: argparse.Namespace,
    arguments: list[str],
    choice: Choice,
    early: Spawned | None,
    left: Left | None = None,
) -> int:
    """One run, or what is `left` of one whose driver was killed; returns the exit code. DisbatchError for
    what keeps it from starting."""
    observer = choose_observer(sys.stderr)
    opened = _opened(options)
    arguments = _without_passwords(arguments, observer.say)
    keystore, key_prefix = choose_store(options, os.environ)
    post = mail_server(options, os.environ)
    page = _web_page(options, observer.say, None if left is None else left.claimed.files)
    name = _task_name(options.taskfile)
    total = None if opened.summary is None else opened.summary.tasks
    if opened.summary is not None:
        for warning in opened.summary.warnings:
            observer.say(warning)
    _check_open(options, opened)
    jobid = _jobid() if left is None else left.asked.jobid
    former = _former_life(options, opened, name, jobid, observer.say) if left is None else None
    if former is None:
        former = _former(options.resume_from, options, opened, observer.say)
    pool = pool_of(options, choice)
    so_far = takeover = None
    directory = os.fsencode(working_directory()) if left is None else left.asked.directory
    moved = left is not None and left.moved
    before = kept_before(options.resume_from, by_command=options.resume_by == "command")
    output = _output(options, os.fsdecode(directory), choice, left, before=before, jobid=jobid)
    if left is None and output is not None:
        _tell_of_place(options.output, output, os.fsdecode(directory), observer.say)
    if left is None:
        claimed = claim(options.prefix, name, jobid, options.logfile)
        for path in options.resume_from:
            clear_abandoned(path)
        environment = {**_environment(), b"DISBATCH_CONNECT": bytes(claimed.files.elsewhere.connect)}
    else:
        claimed, environment = left.claimed, dict(left.asked.environment)
        so_far = SoFar.read(claimed.files.status, opened.name, forced=options.force_resume)
        for warning in _verify(so_far, opened):
            observer.say(warning)
        if opened.summary is None and options.taskfile is not None:
            observer.say(
                f"{opened.name}: the same tasks are expected again, from the first on "
                f"({counted(so_far.count, 'of them is done', 'of them are done')})"
            )
        if options.owned:
            observer.say("a program handed tasks in; if it has ended, `dbutil close` says that no more come")
        left.told.counted = so_far.counting(left.told)
        takeover = Takeover(
            *(left.connect, left.told, so_far.asides, left.ended), finish=left.finish, readable=left.readable
        )
    log_handler = _start_log(claimed, options.loglevel, observer.say)
    submitted = _submitted(options, opened, claimed) if left is None or left.readable else None
    source_name = claimed.files.submitted.name if options.taskfile is None else opened.name
    log.info("disbatch %s, pid %d on %s: %s", VERSION, os.getpid(), os.uname().nodename, arguments)
    if options.label:
        log.info("label: %s", options.label)
    script = partial(_write_script, arguments, options.taskfile, os.fsdecode(directory), total)
    settings = Settings(
        source_name=source_name,
        task_name=name,
        jobid=jobid,
        claimed=claimed,
        pool=pool,
        cores_per_task=options.cores_per_task,
        directory=directory,
        environment=environment,
        fail_fast=options.fail_fast,
        exit_code=options.exit_code,
        status_header=options.status_header,
        listen=options.listen,
        on_network=options.startup_only or any(map(os.environ.get, JOB_IDS)),
        waits=_waits(options),
        heartbeat=options.heartbeat,
        patience=options.patience,
        orphan_patience=options.orphan_patience,
        max_losses=options.max_losses,
        grace=_grace(options.grace, pool.context, observer.say),
        moved=moved,
        resume_hint=partial(resume_hint, arguments, options.taskfile, moved=moved),
        resume_hint_with_submitted=partial(
            _resume_hint_with_submitted, arguments, options.taskfile, moved=moved
        ),
        script=script,
        makers=_makers(claimed, output, before) | {claimed.files.log: log_handler.begin_again},
        asked=_asked(options, arguments, opened, claimed, jobid, name, directory, environment),
        keystore=keystore,
        key_prefix=key_prefix,
        output=output,
        takeover=takeover,
    )
    feed = Feed(opened, former, so_far, submitted)
    notices = choose_notices(
        *(options, post),
        files=claimed.files,
        environment=environment,
        jobid=jobid,
        name=name,
        again=left is not None,
        say=observer.say,
    )
    return _perform(settings, feed, observer, notices, page, early, owned=options.owned and left is None)


def _web_page(
    options: argparse.Namespace, say: Callable[[str], None], left: RunFiles | None
) -> WebPage | None:
    """The page of -w, which listens already: nothing is run if it cannot."""
    if not options.web:
        return None
    from disbatch.watch.web.launch import WebPage

    page = WebPage(options.web_address or ("127.0.0.1", 0), say, options.orphan_patience)
    page.listen(None if left is None else left.url)
    return page


def _opened(options: argparse.Namespace) -> Opened | Expected:
    """What the tasks come from."""
    if options.taskfile is not None:
        try:
            return open_tasks(options.taskfile)
        except TaskFileError as error:
            if not error.more:
                raise
            raise UsageError(f"{error} ({_wrong_lines(error.more)}; `dbutil check` shows why)") from error
    if options.taskserver is not None or options.taskcommand is not None:
        return Expected(options.taskcommand)
    return no_tasks()


def _wrong_lines(errors: Sequence[TaskFileError]) -> str:
    shown = ", ".join(str(error.line) for error in errors[:SHOWN_LINES])
    if len(errors) == 1:
        return f"line {shown} is wrong, too"
    more = f" and {len(errors) - SHOWN_LINES:,} more" if len(errors) > SHOWN_LINES else ""
    return f"lines {shown}{more} are wrong, too"


def _without_passwords(arguments: list[str], say: Callable[[str], None]) -> list[str]:
    shown = without_passwords(arguments)
    if shown != arguments:
        say(f"a password on a command line can be seen by everybody on this machine; put it into {URL}")
    return shown


def _check_open(options: argparse.Namespace, opened: Opened | Expected) -> None:
    """What is handed in has its numbers behind those of the task file."""
    if options.keep_open and options.taskfile is not None and opened.summary is None:
        raise UsageError(f"--keep-open: {opened.name} is a stream; name a regular file, or none")


def _submitted(
    options: argparse.Namespace, opened: Opened | Expected, claimed: ClaimedFiles
) -> Submitted | None:
    """Where tasks go that are handed in, if they may be."""
    if isinstance(opened, Expected):
        return None
    kept_open = options.keep_open or options.taskfile is None
    if not kept_open and not options.startup_only:
        return None
    if opened.summary is None and options.taskfile is not None:
        return None
    ids = None if opened.summary is None else opened.summary.ids
    try:
        file = SubmittedFile(claimed.files.submitted, ids, again=not claimed.new)
    except UsageError:
        claimed.withdraw()
        raise
    return Submitted(file, kept_open)


def _perform(  # noqa: PLR0917 - the parts of a run, and one caller
    settings: Settings,
    feed: Feed,
    observer: Observer,
    notices: Notices,
    page: WebPage | None,
    early: Spawned | None,
    *,
    owned: bool,
) -> int:
    """Carry it out; the exit code."""
    claimed = settings.claimed
    limit_children(raise_limit())
    try:
        if claimed.new:
            settings.script(claimed.files)
            if settings.output is not None:
                settings.makers[claimed.files.output]()
        return asyncio.run(_carry_out(settings, feed, observer, notices, page, early, owned=owned))
    except UsageError:
        log.exception("the run could not start")
        claimed.withdraw()
        raise
    except Exception as error:
        log.exception("the driver failed")
        raise DisbatchError(
            f"internal error: {error!r}; the log has the details: {claimed.files.log}; "
            f"resume with: {settings.resume_hint(claimed.files)}"
        ) from error


def _conclude(code: int, summary: Summary, settings: Settings) -> tuple[int, Summary]:
    """Show how the run went; the exit code and the summary, which mind lines that could not be written."""
    if summary.unwritten:
        files = settings.claimed.files
        files = replace(files, renamed=Renamed(status=Path(summary.status_file)))
        resume = _rescue(summary.unwritten, files, settings.resume_hint(files))
        summary = msgspec.structs.replace(summary, resume=resume)
        code = code or EXIT_INCOMPLETE
    log.info("%s (exit %d)", render(summary), code)
    print(render(summary, columns_of(sys.stderr)), file=sys.stderr)  # noqa: T201
    return code, summary


def _output(
    options: argparse.Namespace,
    directory: str,
    choice: Choice,
    left: Left | None,
    *,
    before: Before,
    jobid: str,
) -> Output | None:
    if left is not None:
        return inherited_output(options, directory, left.claimed.files)
    goes_on = bool(options.resume_from or restarted_by(os.environ))
    here = any(node.local for node in choice.nodes)
    return choose_output(options, directory, goes_on=goes_on, here=here, before=before, jobid=jobid)


def _tell_of_place(asked: str, output: Output, directory: str, say: Callable[[str], None]) -> None:
    """If output goes elsewhere than to the directory that was asked for."""
    place = os.fsdecode(output.directory)
    if place != str(Path(directory) / asked):
        say(
            f"--output {asked}: tasks had other numbers there; their output now goes to "
            f"{os.path.join(asked, os.path.basename(place))}"  # noqa: PTH118, PTH119 - as it was given
        )


async def _carry_out(  # noqa: PLR0917 - as above
    settings: Settings,
    feed: Feed,
    observer: Observer,
    notices: Notices,
    page: WebPage | None,
    early: Spawned | None,
    *,
    owned: bool,
) -> int:
    """The run and the notices of its end; the exit code."""
    elsewhere = False
    try:
        with assembled(settings, feed, observer, early, notices.listeners) as driver:
            try:
                code, summary = await _drive(driver, settings, page, owned=owned)
            except UsageError:
                raise
            except Exception:
                await notices.see_off(driver.failed_summary(), EXIT_INCOMPLETE)
                raise
        elsewhere = summary.elsewhere or summary.goes_on
        code, summary = _conclude(code, summary, settings)
    finally:
        if page is not None:
            await page.close(elsewhere=elsewhere)
    if not elsewhere:
        await notices.see_off(summary, code)
    finish = settings.takeover is not None and settings.takeover.finish
    if finish and code == EXIT_INCOMPLETE and not (summary.goes_on or summary.unwritten):
        return EXIT_COMPLETE  # of the command that was to end it
    return code


async def _drive(
    driver: Driver, settings: Settings, page: WebPage | None, *, owned: bool
) -> tuple[int, Summary]:
    loop = asyncio.get_running_loop()
    for number in MESSAGES:
        if signal.getsignal(number) is signal.SIG_DFL:
            loop.add_signal_handler(number, driver.ignore_signal, number)
    for number in SIGNALS:
        # nohup and some batch systems ignore a signal on purpose; that stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, driver.interrupt, number)
    if owned:
        _watch_owner(loop, driver.take_no_more)

    def ready() -> None:
        if page is not None:
            page.start(settings.claimed.files)
        if owned:
            _tell_owner(settings.claimed.files.prefix)

    return await driver.run(ready)


def _tell_owner(prefix: Path) -> None:
    """Tasks can be handed in: say to which run."""
    with contextlib.suppress(OSError):
        os.write(1, os.fsencode(path_line(str(prefix))) + b"\n")


def _watch_owner(loop: asyncio.AbstractEventLoop, gone: Callable[[], None]) -> None:
    """Whoever started us holds the other end of standard input as long as it may hand in tasks."""

    def readable() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            gone()

    try:
        loop.add_reader(0, readable)
    except OSError:  # a file, or /dev/null
        loop.call_soon(gone)


def _asked(  # noqa: PLR0917 - a line of facts about the run, and one caller
    options: argparse.Namespace,
    arguments: list[str],
    opened: Opened | Expected,
    claimed: ClaimedFiles,
    jobid: str,
    name: str,
    directory: bytes,
    environment: dict[bytes, bytes],
) -> Asked:
    """What a driver is told that takes this run over. What has no name that a later command could open is a
    stream to it, even if it is a file."""
    nameless = _is_nameless(options.taskfile)
    size = changed = None
    if isinstance(opened, Opened) and opened.summary is not None and not nameless:
        status = os.fstat(opened.descriptor)
        size, changed = status.st_size, status.st_mtime_ns
    source: SourceKind = "stream" if size is None else "file"
    if options.taskserver is not None or options.taskcommand is not None:
        source = "program"
    elif options.taskfile is None:
        source = "submitted"
    return Asked(
        version=VERSION,
        arguments=[os.fsencode("-" if nameless and a == options.taskfile else a) for a in arguments],
        directory=directory,
        jobid=jobid,
        task_name=valid(name),
        log=bytes(known_elsewhere(claimed.files.log, os.fsdecode(directory))),
        size=size,
        changed=changed,
        orphan_patience=options.orphan_patience,
        environment=list(environment.items()),
        source=source,
    )


def _is_nameless(taskfile: str | None) -> bool:
    return taskfile is None or taskfile == "-" or taskfile.startswith(("/dev/", "/proc/"))


def _task_name(taskfile: str | None) -> str:
    """What the files of the run are called after."""
    if taskfile is None or _is_nameless(taskfile):
        return "STREAM"
    return Path(taskfile).name


def _former(
    paths: list[str],
    options: argparse.Namespace,
    opened: Opened | Expected,
    say: Callable[[str], None],
    *,
    ended: bool = False,
) -> Former | ByCommand | None:
    """What these status files say of the tasks; warnings are said. ResumeError if they do not fit, or, unless
    these runs are known to have `ended`, if engines of theirs may still run tasks."""
    if not paths:
        return None
    if not (ended or options.force_resume):
        for path in paths:
            refuse_abandoned(path, say)
    former: Former | ByCommand
    if options.resume_by == "command":
        former = ByCommand.read(paths, source=opened.name, retry=options.retry)
    else:
        former = Former.read(paths, source=opened.name, retry=options.retry, force=options.force_resume)
    try:
        for warning in _verify(former, opened):
            say(warning)
    except BaseException:
        former.close()
        raise
    return former


def _former_life(
    options: argparse.Namespace, opened: Opened | Expected, name: str, jobid: str, say: Callable[[str], None]
) -> Former | ByCommand | None:
    """What was done before a scheduler started our job again, if it was; None if that is not known."""
    scheduler = restarted_by(os.environ)
    if not scheduler:
        return None
    paths = former_life(options.prefix, name, jobid, options.resume_from)
    if not paths:
        return None
    files = ", ".join(paths)
    if opened.summary is None:
        again = " ".join(f"-r {path}" for path in paths)
        before = f"what it did before is in {files} ({again} goes on from there)"
        say(f"{scheduler} started this job again; {before}")
        return None
    try:
        former = _former([*options.resume_from, *paths], options, opened, say, ended=True)
    except ResumeError as error:
        say(
            f"{scheduler} started this job again, but its former record does not fit: {error}; beginning anew"
        )
        return None
    say(f"{scheduler} started this job again: going on from {files}")
    return former


def _verify(former: Former | ByCommand | SoFar, opened: Opened | Expected) -> list[str]:
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


def _waits(options: argparse.Namespace) -> float | None:
    """How long a run without engines waits for some; None: for ever."""
    if options.wait_for_engines is None:
        return None if options.startup_only else 0.0
    return float(options.wait_for_engines)


def _grace(option: float | None, context: Context, say: Callable[[str], None]) -> float:
    """The grace asked for, or the usual one, which must not outlast a scheduler's patience after its
    SIGTERM."""
    wait = context.kill_wait
    if option is None:
        return grace_within(wait, GRACE)
    if grace_within(wait, option) < option:
        limit = f"{context.scheduler} kills {wait:g} s after its SIGTERM"
        say(f"--grace {option:g}: {limit}; tasks may have no more than that")
    return option


def _jobid() -> str:
    for variable in JOB_IDS:
        value = os.environ.get(variable)
        if value:
            return re.sub(r"[^A-Za-z0-9_.+-]", "_", value)[:100]
    return f"{time.strftime('%y%m%d%H%M%S')}_{os.getpid()}"


def _environment() -> dict[bytes, bytes]:
    """What the tasks shall find: the user's own, without secrets and without what Python added to it (in the
    C locale it sets LC_CTYPE)."""
    environment = {name: value for name, value in os.environb.items() if name not in SECRET_VARIABLES}
    try:
        at_start = Path("/proc/self/environ").read_bytes()
    except OSError:
        return environment
    if b"LC_CTYPE" in environment and not any(v.startswith(b"LC_CTYPE=") for v in at_start.split(b"\0")):
        del environment[b"LC_CTYPE"]
    return environment


class _LogHandler(logging.StreamHandler[TextIO]):
    """Writes the log; one that cannot be written (a full disk) is told of once, and does not end the run."""

    def __init__(self, stream: TextIO, path: Path, say: Callable[[str], None]) -> None:
        super().__init__(stream)
        self._path = path
        self._say: Callable[[str], None] | None = say

    def begin_again(self) -> None:
        """Somebody removed the file: go on in a new one. OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        former = self.setStream(_log_stream(os.open(self._path, flags, 0o666)))
        if former is not None:
            former.close()

    def handleError(self, record: logging.LogRecord) -> None:
        say, self._say = self._say, None
        error = sys.exc_info()[1]
        if say is not None:
            reason = (error.strerror if isinstance(error, OSError) else None) or repr(error)
            say(f"{self._path}: the log cannot be written ({reason}); going on without")


def _log_stream(descriptor: int) -> TextIO:
    # Written through: what a full disk refused must not wait in a buffer for the interpreter's end.
    raw = os.fdopen(descriptor, "wb", buffering=0)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)


def _start_log(claimed: ClaimedFiles, level: str, say: Callable[[str], None]) -> _LogHandler:
    handler = _LogHandler(_log_stream(claimed.log_descriptor), claimed.files.log, say)
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    return handler


def _makers(claimed: ClaimedFiles, output: Output | None, before: Before) -> dict[Path, Callable[[], object]]:
    """What makes the files of the run that others need and that do not change."""
    files = claimed.files
    makers: dict[Path, Callable[[], object]] = {}
    if output is not None:
        makers[files.output] = partial(write_output_file, output, files, before)
    return makers


def _write_script(
    arguments: list[str], taskfile: str | None, directory: str, tasks: int | None, files: RunFiles
) -> None:
    """Tell how to go on, for who asks when the run has long been over. UsageError."""
    asked = RunCommand(
        directory=directory,
        status=str(files.status.absolute()),
        resume=resume_hint(arguments, taskfile, files, moved=False),
        resume_with_submitted=_resume_hint_with_submitted(arguments, taskfile, files, moved=False),
        tasks=tasks,
    )
    write_script(files, asked)


def resume_hint(arguments: list[str], taskfile: str | None, files: RunFiles, *, moved: bool) -> str:
    """The command that goes on when the run has ended; we are where it was started, the user may not be."""
    feed = ""
    if taskfile is not None and re.match(r"-\Z|/dev/(fd/|stdin\Z)|/proc/", taskfile):
        # What came through standard input or <(...) is gone.
        arguments = ["-" if word == taskfile else word for word in arguments]
        feed = FEED_AGAIN
    return _first_go_there(moved) + feed + shell_command(_resuming(arguments, _shown(files.status)))


def _resuming(arguments: list[str], status: str) -> list[str]:
    """The words of the command that goes on from this status file, -R last; more options may follow them."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [word for word in arguments[:end] if word not in ("-R", "--retry")]
    retry = ["-R"] if len(options) < end else []
    return ["disbatch", *options, *map(as_argument, arguments[end + 1 :]), "-r", status, *retry]


def _first_go_there(moved: bool) -> str:
    return f"cd {shell_word(str(Path.cwd()))} && " if moved else ""


def _resume_hint_with_submitted(
    arguments: list[str], taskfile: str | None, files: RunFiles, *, moved: bool
) -> str:
    """Where tasks were handed in, too."""
    there = _first_go_there(moved)
    status, tasks = _shown(files.status), _shown(files.submitted)
    words = [word for word in arguments if word not in ("--keep-open", "--owned")]
    if taskfile is None:
        return there + shell_command(_resuming([*words, tasks], status))
    again = ["-" if word == taskfile else word for word in words]
    both = shell_command(["cat", as_argument(taskfile), tasks])
    return f"{there}{both} | {shell_command(_resuming(again, status))}"


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return as_argument(relative) if not relative.startswith("..") else str(path)


def _rescue(unwritten: bytes, files: RunFiles, resume: str) -> str:
    """The disk stayed full: put the lines where there may be room; the command that resumes with them."""
    import tempfile

    path = ""
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"{files.prefix.name}_rest_", suffix="_status.txt")
        with os.fdopen(descriptor, "wb") as file:
            file.write(unwritten)
    except OSError as error:
        lines = unwritten.count(b"\n")
        log.error("%s: cannot take %d status lines either: %s", tempfile.gettempdir(), lines, error)
        if path:
            Path(path).unlink(missing_ok=True)
        return resume
    return f"{resume} -r {shell_word(path)}"
