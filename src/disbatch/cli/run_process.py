"""The process of a run: its log, signals, owner, PREFIX_dbUtil.sh, and what is shown and kept at the end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from disbatch.cli.notices import Notices
from disbatch.contexts.local import own_argv
from disbatch.contexts.spawn import Spawned, limit_children
from disbatch.driver.assembly import assembled
from disbatch.driver.driver import Driver
from disbatch.driver.feed import Feed
from disbatch.driver.settings import Observer, Settings
from disbatch.model.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, DisbatchError, UsageError
from disbatch.model.log import LogFormatter
from disbatch.model.text import path_line, shell_word
from disbatch.model.view import Summary
from disbatch.rundir.paths import ClaimedFiles, Renamed, RunFiles
from disbatch.rundir.runscript import MARK, RunCommand, read_script
from disbatch.watch.summary import render
from disbatch.watch.terminal import columns_of
from disbatch.wire.descriptors import raise_limit

if TYPE_CHECKING:
    from disbatch.watch.web.launch import WebPage

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MESSAGES = (signal.SIGUSR1, signal.SIGUSR2)
"""What a scheduler sends to a job's programs when the job asked for it (sbatch --signal, qsub -notify)."""
SCRIPT = """\
#!/bin/sh
# dbutil for one run: what its files begin with stands behind --run
{mark}{asked}
exec {dbutil} --run {prefix} "$@"
"""


class RunProcess(msgspec.Struct, frozen=True):
    """Carries out one run. `early`: the local engine, if it was started already; `owned`: the program that
    started us submits tasks until standard input ends."""

    settings: Settings
    feed: Feed
    observer: Observer
    notices: Notices
    page: WebPage | None
    early: Spawned | None
    owned: bool

    def run(self) -> int:
        """The exit code. DisbatchError if the run cannot start, or the driver fails."""
        settings, claimed = self.settings, self.settings.claimed
        limit_children(raise_limit())
        try:
            if claimed.new:
                settings.script(claimed.files)
                if settings.output is not None:
                    settings.makers[claimed.files.output]()
            return asyncio.run(self._carry_out())
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

    async def _carry_out(self) -> int:
        """The run and the notices of its end; the exit code."""
        settings, page = self.settings, self.page
        elsewhere = False
        try:
            listeners = self.notices.listeners
            with assembled(settings, self.feed, self.observer, self.early, listeners) as driver:
                try:
                    code, summary = await self._drive(driver)
                except UsageError:
                    raise
                except Exception:
                    await self.notices.see_off(driver.failed_summary(), EXIT_INCOMPLETE)
                    raise
            elsewhere = summary.elsewhere or summary.goes_on
            code, summary = _conclude(code, summary, settings)
        finally:
            if page is not None:
                await page.close(elsewhere=elsewhere)
        if not elsewhere:
            await self.notices.see_off(summary, code)
        finish = settings.takeover is not None and settings.takeover.finish
        if finish and code == EXIT_INCOMPLETE and not (summary.goes_on or summary.unwritten):
            return EXIT_COMPLETE  # `dbutil finish` did what it was asked to do
        return code

    async def _drive(self, driver: Driver) -> tuple[int, Summary]:
        loop = asyncio.get_running_loop()
        for number in MESSAGES:
            if signal.getsignal(number) is signal.SIG_DFL:
                loop.add_signal_handler(number, driver.ignore_signal, number)
        for number in SIGNALS:
            # nohup and some batch systems ignore a signal on purpose; that stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, driver.interrupt, number)
        if self.owned:
            _watch_owner(loop, driver.take_no_more)

        def ready() -> None:
            if self.page is not None:
                self.page.start(self.settings.claimed.files)
            if self.owned:
                _tell_owner(self.settings.claimed.files.prefix)

        return await driver.run(ready)


def _conclude(code: int, summary: Summary, settings: Settings) -> tuple[int, Summary]:
    """Print the summary. Returns exit code and summary, adapted if status lines could not be written."""
    if summary.unwritten:
        files = settings.claimed.files
        files = replace(files, renamed=Renamed(status=Path(summary.status_file)))
        resume = _rescue(summary.unwritten, files, settings.resume_hint(files))
        summary = msgspec.structs.replace(summary, resume=resume)
        code = code or EXIT_INCOMPLETE
    log.info("%s (exit %d)", render(summary), code)
    print(render(summary, columns_of(sys.stderr)), file=sys.stderr)  # noqa: T201
    return code, summary


def _tell_owner(prefix: Path) -> None:
    """The run accepts tasks: print its prefix for the program that owns it."""
    with contextlib.suppress(OSError):
        os.write(1, os.fsencode(path_line(str(prefix))) + b"\n")


def _watch_owner(loop: asyncio.AbstractEventLoop, gone: Callable[[], None]) -> None:
    """The program that owns the run keeps our standard input open as long as it may submit tasks."""

    def readable() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            gone()

    try:
        loop.add_reader(0, readable)
    except OSError:  # a file, or /dev/null
        loop.call_soon(gone)


def _rescue(unwritten: bytes, files: RunFiles, resume: str) -> str:
    """The disk is still full: write the lines to the temporary directory. Returns the command that resumes
    with them."""
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


def write_script(files: RunFiles, asked: RunCommand) -> None:
    """Create PREFIX_dbUtil.sh, or replace it if it is this run's. UsageError if that fails."""
    path = files.script
    text = SCRIPT.format(
        mark=MARK,
        asked=json.dumps(msgspec.to_builtins(asked)),  # in ASCII, whatever bytes the names hold
        dbutil=shlex.join(own_argv("dbutil")),
        prefix=shlex.quote(str(files.elsewhere.prefix)),
    )
    new = path.with_name(f"{path.name}.new")
    again = read_script(str(files.prefix)) is not None
    try:
        if again:
            new.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(new if again else path, flags, 0o777)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        if again:
            new.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be created: {error.strerror}") from error


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes the log. If it cannot be written (full disk), the user is told once, and the run continues."""

    def __init__(self, stream: TextIO, path: Path, say: Callable[[str], None]) -> None:
        super().__init__(stream)
        self._path = path
        self._say: Callable[[str], None] | None = say

    def begin_again(self) -> None:
        """The file was removed: continue in a new one. OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        former = self.setStream(_log_stream(os.open(self._path, flags, 0o666)))
        if former is not None:
            former.close()

    def handleError(self, record: logging.LogRecord) -> None:
        say, self._say = self._say, None
        error = sys.exc_info()[1]
        if say is not None:
            reason = (error.strerror if isinstance(error, OSError) else None) or repr(error)
            say(f"{self._path}: the log cannot be written ({reason}); continuing without it")


def _log_stream(descriptor: int) -> TextIO:
    # Written through: lines that a full disk refused must not stay in a buffer until the interpreter exits.
    raw = os.fdopen(descriptor, "wb", buffering=0)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)


def start_log(claimed: ClaimedFiles, level: str, say: Callable[[str], None]) -> LogHandler:
    """Log to the file of the run; `say` gets a line if that fails."""
    handler = LogHandler(_log_stream(claimed.log_descriptor), claimed.files.log, say)
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    return handler
