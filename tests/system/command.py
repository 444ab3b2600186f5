"""The installed command, run in a directory of the test's own, and what it leaves behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self, TypeVar

from changes import Changes

from deadline import DEADLINE
from disbatch.model.statusline import Mark, Record, is_header, parse_line

DISBATCH = str(Path(sys.executable).with_name("disbatch"))
DBUTIL = str(Path(sys.executable).with_name("dbutil"))

Found = TypeVar("Found")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would change a run, and `extra`."""
    ours = ("DISBATCH", "SLURM", "PBS", "LSB", "JOB_ID", "COLUMNS", "XDG_CONFIG_HOME", "LC_CTYPE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**clean, **(extra or {})}


def until(condition: Callable[[], Found | None], what: str, *directories: Path) -> Found:
    """Wait until `condition`, which is about files in `directories`, gives something true; that."""
    deadline = time.monotonic() + DEADLINE
    with Changes(*directories) as changes:
        while not (found := condition()):
            assert changes.wait(deadline), f"waited {DEADLINE:g} s for {what}"
    return found


def gone(find: Callable[[], list[int]], what: str) -> None:
    """Wait until `find` finds no process any more."""
    deadline = time.monotonic() + DEADLINE
    while pids := find():
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                left = max(0.0, deadline - time.monotonic())
                ended = select.select([descriptor], [], [], left)[0]
            finally:
                os.close(descriptor)
            assert ended, f"waited {DEADLINE:g} s for {what}"


def in_copy(
    main: Callable[[Sequence[str]], int],
    directory: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str, str]:
    """The exit code of `main`, called in a copy of this process, which is quick, and what it prints to stdout
    and stderr."""
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            code = 99
            try:
                os.chdir(directory)
                clean = environment(env)
                os.environ.clear()
                os.environ.update(clean)
                sys.stdout, sys.stderr = out, err
                code = main(arguments)
                err.flush()
            finally:
                out.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def call(
    argv: Sequence[str | bytes | Path], directory: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, without input, in an environment as of `environment`."""
    return subprocess.run(
        argv,
        cwd=directory,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def dbutil(directory: Path, *words: str | bytes, stdin: bytes = b"") -> tuple[int, bytes, str]:
    """Run dbutil to its end; its exit status, stdout, and stderr, which is a line at most."""
    done = subprocess.run(
        [DBUTIL, *words],
        cwd=directory,
        input=stdin,
        capture_output=True,
        env=environment(),
        timeout=DEADLINE,
        check=False,
    )
    err = done.stderr.decode(errors="replace")
    assert err.count("\n") <= 1 and "Traceback" not in err, err
    return done.returncode, done.stdout, err


def disbatch(
    directory: Path,
    *arguments: str | bytes | Path,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    timeout: float = DEADLINE,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [DISBATCH, *arguments],
        cwd=directory,
        stdin=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env=environment(env),
        timeout=timeout,
        check=False,
    )


class Running:
    """The command while it runs (through `wrapper`); killed, if need be, when the `with` block is left."""

    program = DISBATCH

    def __init__(
        self,
        directory: Path,
        *arguments: str | Path,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self._err = directory / f"stderr-{time.monotonic_ns()}"
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*wrapper, self.program, *arguments],
                cwd=directory,
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=err,
                env=environment(env),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Its engines would outlive it for long if it was killed at once."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGCONT):
            if self.process.poll() is None:
                self.process.send_signal(number)
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = DEADLINE) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(seconds)

    def until(self, condition: Callable[[], Found | None], what: str, *directories: Path) -> Found:
        """Wait until `condition`, which is about files in the run's directory or in `directories`, gives
        something true; fail at once if the command ends before."""
        deadline = time.monotonic() + DEADLINE
        pidfd = os.pidfd_open(self.process.pid)
        try:
            with Changes(self.directory, *directories, also=(pidfd,)) as changes:
                while True:
                    alive = self.process.poll() is None
                    if found := condition():
                        return found
                    assert alive, f"ended with {self.process.returncode} before {what}: {self.err}"
                    assert changes.wait(deadline), f"no {what}; so far: {self.err}"
        finally:
            os.close(pidfd)

    def until_said(self, words: str) -> None:
        """Wait until it wrote `words` to stderr."""
        self.until(lambda: words in self.err, f"{words!r} on stderr")


def status_file(directory: Path, pattern: str = "*_status.txt") -> Path:
    """The one status file there."""
    (path,) = directory.glob(pattern)
    return path


def records(path: Path) -> list[Record]:
    """The lines of a status file, each of which must be one."""
    data = path.read_bytes()
    assert not data or data.endswith(b"\n"), "the last line is torn"
    lines = [line for line in data.split(b"\n")[:-1] if not is_header(line)]
    parsed = [parse_line(line) for line in lines]
    assert None not in parsed, path.read_text(errors="replace")
    return [record for record in parsed if record is not None]


def tasks(path: Path) -> dict[int, Record]:
    """The lines that count, by id, none of them twice."""
    counted = [record for record in records(path) if record.mark in (Mark.TASK, Mark.SKIPPED)]
    by_id = {record.id: record for record in counted}
    assert len(by_id) == len(counted), "a task was recorded twice"
    return by_id


def processes(text: str) -> list[int]:
    """Living processes whose command line or environment holds `text`."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            held = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            continue
        if os.fsencode(text) in held and alive:
            found.append(int(folder.name))
    return found


def kill(pid: int) -> None:
    """SIGKILL to a process, unless it has just ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def write(path: Path, lines: Iterable[str]) -> Path:
    """A task file of these lines."""
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
