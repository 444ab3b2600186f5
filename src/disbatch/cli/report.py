"""`dbutil report`: what status files tell, on the terminal, as JSON, or as a page."""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from disbatch.cli.verb_options import AddVerb
from disbatch.model.errors import EXIT_COMPLETE, DisbatchError, UsageError
from disbatch.model.text import printable_json, shell_word
from disbatch.rundir.runscript import named_prefix, prefix_of, read_run_command, status_file

if TYPE_CHECKING:
    from disbatch.watch.report.analysis import ResumeCommand
    from disbatch.watch.report.figures import Report

_SUBMITTED_END = "_tasks.txt"
# TASKS_JOBID_status.txt, where JOBID is Slurm's or a time and a pid, or what DISBATCH_SSH_JOBID says.
_NAME = re.compile(r"(.+?)_[0-9]+(?:_[0-9]+)?(?:-[0-9]+)?_status\.txt")


def add_report(add: AddVerb) -> None:
    """Declare the verb."""
    parser = add("report", help="report on status files: totals, durations, timeline, nodes, failures")
    parser.add_argument(
        "status",
        nargs="*",
        metavar="STATUS",
        help="status files of one run; of a resumed one all, oldest first",
    )
    parser.add_argument(
        "--html", metavar="FILE", help="write a page with pictures; replaces only a former report"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(
        perform=lambda given, say: report(_files(given.run, given.status), html=given.html, json=given.json)
    )


def report(files: list[str], *, html: str | None, json: bool) -> int:
    """Report on these status files; the exit code. UsageError if a file cannot be read, is not a status file,
    or would be overwritten."""
    from disbatch.watch.report.analysis import Analysis

    page = None if html is None else Path(html)
    if page is not None:
        _look_at(page)
    analysis = Analysis.of(files)
    try:
        figures = analysis.report(*_how_to_go_on(files))
        if page is not None:
            from disbatch.watch.report.page import render_page

            size = _write(page, render_page(analysis, figures))
            if not json:
                from disbatch.watch.report.wording import clean

                print(f"{clean(str(html), 1000)}: written, {size}")  # noqa: T201
    finally:
        analysis.close()
    if json:
        _print_json(figures)
    elif page is None:
        _print_text(figures)
    return EXIT_COMPLETE


def _files(prefix: str | None, named: list[str]) -> list[str]:
    """PREFIX_dbUtil.sh gives --run PREFIX: then the status file of that run, unless others are named."""
    if named:
        return named
    if prefix is None:
        raise UsageError("report: name the status file of a run; see dbutil report --help")
    return [status_file(named_prefix(prefix))]


def _how_to_go_on(files: list[str]) -> tuple[list[str], ResumeCommand | None]:
    """The task files, and the command with which the last run can go on, as it was started."""
    from disbatch.watch.report.analysis import ResumeCommand

    task_files, how = _task_files(files), read_run_command(files[-1])
    if how is None:
        return task_files, None
    handed_in = task_files[-1].endswith(_SUBMITTED_END)
    here = os.path.realpath(how.directory) == os.path.realpath(Path.cwd())
    there = "" if here else f"cd {shell_word(how.directory)} && "
    command = how.resume_with_submitted if handed_in else how.resume
    return task_files, ResumeCommand(there + command, None if handed_in else how.tasks)


def _task_files(files: list[str]) -> list[str]:
    """What the commands that resume name: the task file, if it lies where the name of the status file says,
    and what was handed in while the run went on."""
    path = Path(files[-1])
    handed_in = Path(prefix_of(files[-1]) + _SUBMITTED_END)
    handed = [str(handed_in)] if handed_in.is_file() and handed_in.stat().st_size else []
    found = _NAME.fullmatch(path.name)
    if found and found[1] == "STREAM" and handed:
        return handed
    if found and path.with_name(found[1]).is_file():
        return [str(path.with_name(found[1])), *handed]
    return ["TASKFILE", *handed]


# ---- what is printed ----


def _print_json(figures: Report) -> None:
    import msgspec

    text = printable_json(msgspec.json.format(msgspec.json.encode(figures), indent=1))
    sys.stdout.write(text.decode() + "\n")


def _print_text(figures: Report) -> None:
    from rich.console import Console

    from disbatch.watch.report.text import PLAIN, render

    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        for line in render(figures):
            console.print(line, soft_wrap=True)
    text = captured.get()
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(PLAIN).encode(encoding, "replace").decode(encoding)
    sys.stdout.write(text)


# ---- the page ----


def _look_at(page: Path) -> None:
    """Whatever is there and is no former report stays."""
    from disbatch.watch.report.page import MARK

    try:
        descriptor = os.open(page, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if page.is_symlink() or page.parent.is_dir():
            return
        raise UsageError(f"{page}: there is no directory {page.parent}") from None
    except OSError as error:
        raise UsageError(f"{page}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{page}: is a directory; name a file in it")
        if not stat.S_ISREG(status.st_mode) or (status.st_size and os.read(descriptor, len(MARK)) != MARK):
            raise UsageError(f"{page}: is there and is no report; it is not overwritten: name another file")
    finally:
        os.close(descriptor)


def _write(page: Path, text: bytes) -> str:
    """Put it there whole or not at all; how large it is."""
    target = Path(os.path.realpath(page))
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    except OSError as error:
        raise DisbatchError(f"{page}: cannot be written: {error.strerror}") from error
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - it is open
            file.write(text)
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
        _look_at(page)
        Path(name).replace(target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DisbatchError(f"{page}: cannot be written: {error.strerror}") from error
        raise
    return f"{len(text) / 1e6:.1f} MB" if len(text) >= 1e6 else f"{max(1, round(len(text) / 1e3))} kB"
