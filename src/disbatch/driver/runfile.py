"""PREFIX_run.json: what another driver needs to know to take the run over, should this one be killed.

A line for what was asked, then one whenever an engine is started, comes or goes, or another driver takes
over; appended, so that ten thousand engines cost ten thousand lines, and a torn last one does no harm. The
file holds the environment of the tasks, hence mode 0600. It goes with the run, as the connect file does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from disbatch.contexts.nodes import Node
from disbatch.model.errors import UsageError
from disbatch.wire.requests import Attach

log = logging.getLogger(__name__)


class Asked(msgspec.Struct, frozen=True, tag="asked"):
    """What the first driver was asked: `arguments` in `directory`. `size` (bytes) and `changed` (nanoseconds
    since the epoch) tell whether the task file is the same; None: the tasks came as a stream. `environment`
    is that of the tasks. `orphan_patience` in seconds."""

    version: str
    arguments: list[bytes]
    directory: bytes
    jobid: str
    task_name: str
    log: bytes
    size: int | None
    changed: int | None
    orphan_patience: float
    environment: list[tuple[bytes, bytes]]


class Here(msgspec.Struct, frozen=True, tag="here"):
    """An engine was started on `node`, or came: then with its `host` and `pid`. `context`: the one that was
    attached and started it; `node` is not known then."""

    engine: str
    name: str
    rank: int
    slots: int
    node: Node | None
    host: str = ""
    pid: int = 0
    context: str = ""


class Joint(msgspec.Struct, frozen=True, tag="attached"):
    """A context was attached, under this name, as it asked to be (its nodes aside)."""

    name: str
    asked: Attach


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """An engine left, or was given up."""

    engine: str


class TakenOver(msgspec.Struct, frozen=True, tag="taken over"):
    """From here on another driver writes."""

    host: str
    pid: int


Line = Asked | Here | Gone | TakenOver | Joint
_lines = msgspec.json.Decoder(Line)


@dataclass
class Told:
    """What the file says: `attached` are the contexts that were, `engines` those that were there, or on their
    way, at the end; `takeovers` how often the run was taken over."""

    asked: Asked
    engines: dict[str, Here] = field(default_factory=dict)
    attached: dict[str, Attach] = field(default_factory=dict)
    takeovers: int = 0


class RunFile:
    """The file while the run goes on. What cannot be written goes to the log: the run needs it only if its
    driver is killed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._failed = False

    @classmethod
    def create(cls, path: Path, asked: Asked) -> RunFile:
        """Begin the file. UsageError if it cannot be created."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            file = cls(os.open(path, flags, 0o600))
        except OSError as error:
            raise UsageError(f"{path}: cannot be created: {error.strerror}") from error
        file.add([asked])
        return file

    @classmethod
    def go_on(cls, path: Path, taken_over: TakenOver) -> RunFile:
        """Go on with the file of a former driver. UsageError if it cannot be written."""
        try:
            file = cls(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
            os.write(file._descriptor, b"\n")  # ends a torn line
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
        file.add([taken_over])
        return file

    def add(self, lines: Iterable[Line]) -> None:
        """Append these."""
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        try:
            os.write(self._descriptor, data)
        except OSError as error:
            if not self._failed:
                log.warning("the run file cannot be written: %s", error)
            self._failed = True

    def close(self) -> None:
        os.close(self._descriptor)


def read(path: Path) -> Told:
    """What the file says. UsageError if it cannot be read, or is none."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    told: Told | None = None
    for line in filter(None, lines):
        try:
            read = _lines.decode(line)
        except msgspec.DecodeError:
            continue  # torn
        if isinstance(read, Asked):
            told = Told(read)
        elif told is None:
            break
        elif isinstance(read, Here):
            told.engines[read.engine] = read
        elif isinstance(read, Gone):
            told.engines.pop(read.engine, None)
        elif isinstance(read, Joint):
            told.attached[read.name] = read.asked
        else:
            told.takeovers += 1
    if told is None:
        raise UsageError(f"{path}: does not say what was asked: the run cannot be taken over")
    return told
