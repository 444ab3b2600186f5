"""The names of a run's files, and the claim that reserves them for this run.

With the default prefix, in the working directory: TASKS_JOBID_status.txt, disBatch_JOBID_driver.txt,
TASKS_JOBID_NODE_engine.txt, TASKS_JOBID_connect.json, TASKS_JOBID_run.json, TASKS_JOBID_output.json,
TASKS_JOBID_tasks.txt, TASKS_JOBID_url.txt, TASKS_JOBID_dbUtil.sh. With -p PATH all begin with PATH.

Two runs may start in the same second with the same names, also on two hosts with a shared file system: the
names are tried with "", "-2", "-3", ... until the status file and the log could be *created*.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from disbatch.model.errors import UsageError
from disbatch.rundir.lock import hold

MOST_RUNS = 10_000
"""Names tried before giving up."""


class Renamed(NamedTuple):
    """New names of files that lost theirs during the run; None: the usual one."""

    status: Path | None = None
    submitted: Path | None = None


NOT_RENAMED = Renamed()


@dataclass(frozen=True)
class RunFiles:
    """The paths of a run's files. `prefix` begins every name but the log's.

    `prefix` contains no symbolic link of the working directory, so it stays valid if such a link changes.
    `known`: the same with the user's name of that directory; on other hosts that may be the only valid one.
    `renamed`: the names of the status file and of the submitted tasks since another file took their usual
    ones.
    """

    prefix: Path
    log: Path
    known: Path | None = None
    renamed: Renamed = NOT_RENAMED

    @property
    def elsewhere(self) -> RunFiles:
        """The same paths for other hosts, and for commands that may run there."""
        return RunFiles(self.known or self.prefix, self.log)

    def named(self, ending: str) -> Path:
        """The file PREFIX_ENDING."""
        return self.prefix.with_name(f"{self.prefix.name}_{ending}")

    @property
    def status(self) -> Path:
        """The record."""
        return self.renamed.status or self.named("status.txt")

    @property
    def connect(self) -> Path:
        """Addresses and keys, 0600, removed at the end."""
        return self.named("connect.json")

    @property
    def run(self) -> Path:
        """The journal: what a takeover needs, 0600, removed at the end."""
        return self.named("run.json")

    @property
    def output(self) -> Path:
        """The manifest of kept output."""
        return self.named("output.json")

    @property
    def submitted(self) -> Path:
        """Submitted tasks, as a task file."""
        return self.renamed.submitted or self.named("tasks.txt")

    @property
    def url(self) -> Path:
        """A valid address of the web page, 0600, removed at the end."""
        return self.named("url.txt")

    @property
    def script(self) -> Path:
        """`dbutil` bound to this run."""
        return self.named("dbUtil.sh")

    def engine_log(self, node: str) -> Path:
        """The log of the engine on that node."""
        return self.named(f"{node.replace('/', '_')}_engine.txt")


@dataclass(frozen=True)
class ClaimedFiles:
    """A run's files after the claim: the status file and the log are open, new, and this run's alone; or,
    after a takeover, not `new`: the status file has `recorded` bytes."""

    files: RunFiles
    status_descriptor: int
    log_descriptor: int
    own_log: bool = True
    new: bool = True
    recorded: int = 0

    def withdraw(self) -> None:
        """Nothing was run: remove what this run created, except for a log that was named with -l."""
        if not self.new:
            return
        self.files.script.unlink(missing_ok=True)
        self.files.output.unlink(missing_ok=True)
        self.files.status.unlink(missing_ok=True)
        if self.own_log:
            self.files.log.unlink(missing_ok=True)


def identity(status: os.stat_result) -> tuple[int, int]:
    """Identifies a file, whatever its name."""
    return status.st_dev, status.st_ino


def claim(prefix: str | None, task_name: str, jobid: str, log: str | None) -> ClaimedFiles:
    """Create the status file and the log under the first free names.

    `prefix` is -p (a directory, or ending in a slash: the usual names in it), `log` is -l (appended to if it
    exists). UsageError if the files cannot be created.
    """
    base = _base(prefix, task_name, jobid)
    plain = prefix is None or base.name == f"{task_name}_{jobid}"
    for number in range(1, MOST_RUNS):
        suffix = "" if number == 1 else f"-{number}"
        stem = base.with_name(base.name + suffix)
        if log is not None:
            log_path = Path(log)
        elif plain:
            log_path = base.with_name(f"disBatch_{jobid}{suffix}_driver.txt")
        else:
            log_path = stem.with_name(f"{stem.name}_driver.txt")
        known = known_elsewhere(stem, working_directory())
        claimed = _try_claim(RunFiles(stem, log_path, known), keep_log=log is not None)
        if claimed is not None:
            return claimed
    raise UsageError(f"{base}: {MOST_RUNS} runs have files with this prefix; name another with -p")


def working_directory() -> str:
    """The working directory by the user's name, through the links in $PWD, as other hosts may need it."""
    physical = Path.cwd()
    logical = os.environ.get("PWD", "")
    try:
        if logical.startswith("/") and physical.samefile(logical):
            return logical
    except OSError:
        pass
    return str(physical)


def known_elsewhere(path: Path, directory: str) -> Path:
    """`path` with the name `directory` of the working directory, if it begins there."""
    path = path.absolute()
    here = Path.cwd()
    return Path(directory) / path.relative_to(here) if path.is_relative_to(here) else path


def status_files(prefix: str | None, task_name: str, jobid: str) -> list[Path]:
    """The status files of runs with this prefix, name and job id, oldest first."""
    base = _base(prefix, task_name, jobid)
    # Another run of the job, of other tasks, may have taken a number between two of these.
    pattern = re.compile(re.escape(base.name) + r"(?:-([0-9]{1,5}))?_status\.txt")
    try:
        names = [path.name for path in base.parent.iterdir()]
    except OSError:
        return []
    found = [(int(match[1] or 1), match[0]) for match in map(pattern.fullmatch, names) if match]
    return [base.with_name(name) for _, name in sorted(found)]


def _base(prefix: str | None, task_name: str, jobid: str) -> Path:
    usual = f"{task_name}_{jobid}"
    if prefix is None:
        return Path.cwd() / usual
    path = Path(prefix)
    if prefix.endswith("/") or _is_directory(path):
        path = path / usual
    if not _is_directory(path.parent):
        if os.path.lexists(path.parent):
            raise UsageError(f"-p {prefix}: {path.parent} is not a directory")
        raise UsageError(f"-p {prefix}: there is no directory {path.parent}; make it first")
    return Path.cwd() / path


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be created: {error.strerror}; choose another place with -p"
        ) from error


def _try_claim(files: RunFiles, *, keep_log: bool) -> ClaimedFiles | None:
    others = (files.connect, files.script, files.run, files.output, files.submitted)
    if any(os.path.lexists(path) for path in others):
        return None
    status = _create(files.status)
    if status is None:
        return None
    hold(status)
    try:
        if keep_log:
            # Without O_NONBLOCK, opening a named pipe without a reader would block.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
            named = _open(files.log, flags, "-l")
            os.set_blocking(named, True)
            return ClaimedFiles(files, status, named, own_log=False)
        log = _create(files.log)
    except UsageError:
        _withdraw(files.status, status)
        raise
    if log is None:
        _withdraw(files.status, status)
        return None
    return ClaimedFiles(files, status, log)


def _withdraw(path: Path, descriptor: int) -> None:
    os.close(descriptor)
    path.unlink()  # created by this process a moment ago, and empty


def _create(path: Path) -> int | None:
    try:
        return _open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    except FileExistsError:
        return None


def remove(path: Path, say: Callable[[str], None]) -> None:
    """Remove a file at the end of the run. A failure is reported in one line."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        say(f"{path}: cannot be removed: {error.strerror}")


def _open(path: Path, flags: int, option: str = "-p") -> int:
    try:
        return os.open(path, flags, 0o666)
    except FileExistsError:
        raise
    except OSError as error:
        reason = f"cannot be created: {error.strerror}; choose another place with {option}"
        raise UsageError(f"{path}: {reason}") from error
