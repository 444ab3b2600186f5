"""The file that tells where a run's key store is: disBatch_JOBID_kvsinfo.txt, or with -p PREFIX_kvsinfo.txt.

The first line is the address, without a password; each further line is a word and its value: `prefix TEXT`,
the beginning of every key in a shared server; or `connect FILE`, for `dbutil` and Python, if the store is in
the driver. Mode 0600; the file is removed at the end of the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from disbatch.model.errors import UsageError
from disbatch.rundir.paths import MOST_RUNS, RunFiles, remove
from disbatch.wire.ownfile import read_own

MAX_SIZE = 1 << 16


def kvsinfo_path(files: RunFiles, task_name: str, jobid: str) -> Path:
    """The name of the file: like the log's, if the run's files have their usual names."""
    name, usual = files.prefix.name, f"{task_name}_{jobid}"
    if name == usual or name.startswith(f"{usual}-"):
        return files.prefix.with_name(f"disBatch_{jobid}{name[len(usual) :]}_kvsinfo.txt")
    return files.named("kvsinfo.txt")


class KvsInfo:
    """The file at `path`, or with a number in its name if that is another run's file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = b""
        self._written: tuple[int, int] | None = None
        """Identifies our file among others of its name."""

    def write(self, lines: list[str], *, again: bool) -> None:
        """Create it; `again` replaces the one that a former driver left. UsageError."""
        self._text = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        stem = self.path.name.removesuffix("_kvsinfo.txt")
        for number in range(1, MOST_RUNS):
            if number > 1:
                self.path = self.path.with_name(f"{stem}-{number}_kvsinfo.txt")
            try:
                self._create(again=again)
            except FileExistsError:
                continue
            except OSError as error:
                raise UsageError(f"{self.path}: cannot be created: {error.strerror}") from error
            return
        raise UsageError(f"{self.path}: {MOST_RUNS} runs have files with this name; name another with -p")

    def write_again(self) -> None:
        """Write it again after it was removed. OSError."""
        self._create(again=False)

    def _create(self, *, again: bool) -> None:
        if again:
            self.path.unlink(missing_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._written = _identity(os.fstat(descriptor))
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(self._text)
            self._written = _identity(os.fstat(descriptor))

    def told(self, word: str) -> str | None:
        """The value of this word in the present file; None if there is none."""
        try:
            lines = read_own(self.path, MAX_SIZE).decode("utf-8", "surrogateescape").splitlines()
        except OSError:
            return None
        return next((line[len(word) + 1 :] for line in lines[1:] if line.startswith(f"{word} ")), None)

    def remove(self, say: Callable[[str], None]) -> None:
        """Remove the file at the end of the run, unless another driver, which has taken the run over, has
        written it. `say` gets a line for the user if the file has to stay."""
        with suppress(FileNotFoundError):
            if self._written is not None and self._written == _identity(self.path.lstat()):
                remove(self.path, say)


def _identity(file: os.stat_result) -> tuple[int, int]:
    return file.st_ino, file.st_mtime_ns
