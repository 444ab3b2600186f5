"""PREFIX_output.json: where a run keeps what its tasks print. It stays after the run, for `dbutil cat`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from disbatch.model.errors import UsageError
from disbatch.rundir.runscript import prefix_of, status_file
from disbatch.wire.ownfile import owner_of, read_own
from disbatch.wire.renamed_files import is_gone

LARGEST = 1 << 20
MOST_FORMER = 1000


@dataclass(frozen=True)
class Output:
    """How output is kept: in `directory` (absolute), in packs or in separate files, `limit` bytes of each
    stream."""

    directory: bytes
    packed: bool
    limit: int


class Renumbered(msgspec.Struct, frozen=True):
    """A run whose tasks had other ids: `status` is its status file, which tells them; `directories` are where
    it kept output under them. All absolute."""

    status: str
    directories: Annotated[list[str], msgspec.Meta(max_length=MOST_FORMER)]


class Before(NamedTuple):
    """The output of the runs that a run was resumed from: `directories` where tasks have their present ids,
    the run's own first; `renumbered`: the others."""

    directories: list[str]
    renumbered: list[Renumbered]

    def has_renumbered(self, directory: str) -> bool:
        """True if tasks have other ids in that directory."""
        real = os.path.realpath(directory)
        return any(os.path.realpath(each) == real for run in self.renumbered for each in run.directories)


class OutputFile(msgspec.Struct, frozen=True):
    """`directory` is absolute, as the run's engines know it; `run` the prefix of the run's files, as its
    packs name it; `former` the directories of the runs that it was resumed from, and `renumbered` those of
    them whose tasks had other ids (--resume-by command). `limit` in bytes."""

    directory: str
    packed: bool
    limit: Annotated[int, msgspec.Meta(ge=0)]
    run: str
    former: Annotated[list[str], msgspec.Meta(max_length=MOST_FORMER)] = []
    renumbered: Annotated[list[Renumbered], msgspec.Meta(max_length=MOST_FORMER)] = []

    @classmethod
    def of(cls, output: Output, prefix: Path, before: Before) -> OutputFile:
        """The manifest of the run with that prefix."""
        run = os.fsencode(prefix).decode(errors="backslashreplace")
        own = os.fsdecode(output.directory)
        former = [each for each in before.directories if each != own]
        return cls(own, output.packed, output.limit, run, former, before.renumbered)

    @property
    def output(self) -> Output:
        """The same as in the run's settings."""
        return Output(os.fsencode(self.directory), self.packed, self.limit)


def write(path: Path, told: OutputFile) -> None:
    """Create the file. UsageError if it cannot be created."""
    # The json of the standard library, since the name of a directory may not be valid Unicode: it is escaped,
    # and read back.
    text = json.dumps(msgspec.to_builtins(told), indent=1) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be created: {error.strerror}") from error


def read(path: Path, *, trusted: int | None = None) -> OutputFile:
    """Read the file, which must belong to our user or to `trusted`. UsageError if it cannot be read, or is
    not a manifest."""
    try:
        data = read_own(path, LARGEST + 1, trusted=trusted)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        if len(data) > LARGEST:
            raise ValueError("too long")
        return msgspec.convert(json.loads(data), OutputFile)
    except (ValueError, RecursionError) as error:  # DecodeError and ValidationError are ValueErrors
        raise UsageError(f"{path}: is not a file that a run wrote: {error}") from error


def kept_output(prefix: str) -> OutputFile | None:
    """The manifest of the run whose files begin with `prefix`; None if there is none. UsageError as for
    `read`."""
    path = f"{prefix}_output.json"
    return None if is_gone(path) else read(Path(path), trusted=owner_of(f"{prefix}_status.txt"))


def manifest_of(prefix: str) -> OutputFile:
    """The same, for `dbutil cat`: UsageError also if the run keeps no output, or there is no such run."""
    kept = kept_output(prefix)
    if kept is not None:
        return kept
    if os.path.lexists(status_file(prefix)):
        raise UsageError(f"{prefix}: this run keeps no output: it was started without --output")
    raise UsageError(f"{prefix}: there is no such run: no file {prefix}_output.json")


def kept_before(status_files: list[str], *, by_command: bool) -> Before:
    """The output of the runs with these status files, and of those that they were resumed from; `by_command`:
    tasks have other ids now."""
    directories: dict[str, None] = {}
    renumbered: dict[str, Renumbered] = {}
    for name in status_files:
        path = Path(prefix_of(name) + "_output.json")
        if name.endswith("_status.txt") and os.path.lexists(path):
            try:
                told = read(path, trusted=owner_of(name))
            except UsageError:
                continue
            kept = [told.directory, *told.former]
            if by_command:
                status = os.path.abspath(name)  # noqa: PTH100 - text
                renumbered.setdefault(status, Renumbered(status, kept))
            else:
                directories |= dict.fromkeys(kept)
            for each in told.renumbered:
                renumbered.setdefault(each.status, each)
    return Before(list(directories)[:MOST_FORMER], list(renumbered.values())[:MOST_FORMER])
