"""What a run under test left that tells what became of each task: its files, and what was done to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from disbatch.model.statusline import Mark, Record, parse_line
from disbatch.rundir.journal import AttachedContext, Gone, Here, JournalLine

_SAID = re.compile(
    r"([SEAZ]) (?P<task>[0-9]+) (?P<engine>\S+) (?P<node>\S+) (?P<pid>[0-9]+) (?P<at>[0-9]+[.,][0-9]+)"
)
_TIME = re.compile(r"([0-9-]{10} [0-9:]{8}),([0-9]{3}) \w+ +(.*)")
_LOST = re.compile(r"(\S+)(?: \([^()]*\))?: engine lost: ")
_UNHEARD = re.compile(r"(\S+(?:, \S+)*): not heard for ")
_JOINED = re.compile(r"(\S+): engine joined ")
_BEGUN = re.compile(r"engine (\S+) on \S+: ")
_lines = msgspec.json.Decoder(JournalLine)
_DRIVER = re.compile(r"disbatch \S+, pid [0-9]+ on ")
_ORDERED = re.compile(r"attempt [0-9]+ \(line ([0-9]+)\) ended by order")


class Place(NamedTuple):
    """A process, as its node and the status file name it."""

    node: str
    pid: int


@dataclass
class Attempt:
    """One start of a task, as it told itself. Times in seconds since the epoch, all of one clock."""

    task: int
    engine: str
    place: Place
    start: float
    end: float | None = None


class Command(NamedTuple):
    """One start of a PERENGINE command."""

    is_stop: bool
    engine: str
    at: float


@dataclass
class Engine:
    """An engine as the run file names it. `context`: of the one that started it; "": the driver's own.
    `process`: None if it never joined. `ever_gone`: the run file says once that it was given up, or left."""

    name: str
    node: str
    context: str = ""
    process: Place | None = None
    ever_gone: bool = False
    killed: float | None = None
    """When the test killed it."""


@dataclass
class Life:
    """A run from `disbatch` to its end, with all drivers that it had; -r begins another one.

    `lost` and `joined`: when its log said so, by node. `drivers`: when they began.
    `limits`: -C, by context. `ordered`: when engines ended a task by order, by (node, line of the task).
    `orphaned`: when engines gave their driver up, by node.
    """

    began: float
    engines: dict[str, Engine] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    unrecorded: list[Record] = field(default_factory=list)
    lost: dict[str, list[float]] = field(default_factory=dict)
    joined: dict[str, list[float]] = field(default_factory=dict)
    drivers: list[float] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)
    ordered: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    orphaned: dict[str, list[float]] = field(default_factory=dict)

    def results(self) -> list[Record]:
        """Of tasks that ended, recorded or left for the next life."""
        own = [record for record in self.records if record.mark is Mark.TASK]
        known = {(record.id, record.node, record.pid) for record in own}
        late = [r for r in self.unrecorded if r.mark is Mark.TASK and (r.id, r.node, r.pid) not in known]
        return own + late


class Order(NamedTuple):
    """Of the user's, and answered: from `since` on (`until`: as long as that) these tasks shall not start;
    None: no task. Both times are in one life."""

    life: int
    since: float
    until: float
    tasks: range | None


@dataclass
class Evidence:
    """Of all lives of one plan. `first_line`: of the task file, that has an id. `killed`: tasks whose shell
    the test killed; `cancelled`: ids that the user may have cancelled."""

    ids: int
    barriers: list[int]
    first_line: int
    lives: list[Life] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    killed: set[Place] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    orders: list[Order] = field(default_factory=list)

    def life_of(self, engine: str) -> Life:
        """The life in which that engine was."""
        return next(life for life in self.lives if engine in life.engines)


def read_said(text: str) -> tuple[list[Attempt], list[Command], list[str]]:
    """What tasks and commands said, and lines that are none of theirs."""
    attempts: dict[tuple[str, int, Place], Attempt] = {}
    commands, odd = [], []
    for line in text.splitlines():
        found = _SAID.fullmatch(line)
        if found is None:
            odd.append(line)
            continue
        task, place = int(found["task"]), Place(found["node"], int(found["pid"]))
        key, at = (found["engine"], task, place), float(found["at"].replace(",", "."))
        if found[1] in "AZ":
            commands.append(Command(found[1] == "Z", found["engine"], at))
        elif found[1] == "S":
            attempts[key] = Attempt(task, found["engine"], place, at)
        elif key in attempts:
            attempts[key].end = at
        else:
            odd.append(line)
    return list(attempts.values()), commands, odd


def read_records(path: Path) -> list[Record]:
    """The lines of a status file; ValueError if one of them is none. A torn last one does not count."""
    lines = path.read_bytes().split(b"\n")[:-1]
    records = [record for record in map(parse_line, lines) if record is not None]
    if len(records) < len(lines):
        raise ValueError(f"{path}: not all lines are those of a status file")
    return records


def read_life(
    directory: Path, prefix: str, run_files: Iterable[Path], own_limit: int | None, began: float
) -> Life:
    """All that there is of the life of which the files begin with `prefix`."""
    life = Life(began, records=read_records(directory / f"{prefix}_status.txt"))
    for path in directory.glob(f"{prefix}_*_unrecorded.txt"):
        life.unrecorded += read_records(path)
    if own_limit is not None:
        life.limits[""] = own_limit
    for path in run_files:
        _read_run_file(life, path)
    _read_log(life, _timed(directory / f"{prefix}_driver.txt"))
    for path in directory.glob(f"{prefix}_*_engine.txt"):
        node = path.name.removeprefix(f"{prefix}_").removesuffix("_engine.txt")
        for at, words in _timed(path):
            if found := _ORDERED.match(words):
                life.ordered.setdefault((node, int(found[1])), []).append(at)
            elif found := _BEGUN.match(words):
                # The run file is written anew by who takes the run over, without those that had left.
                life.engines.setdefault(found[1], Engine(found[1], node, "", None, True))
            elif words.startswith("going: no message from the driver"):
                life.orphaned.setdefault(node, []).append(at)
    return life


def _read_run_file(life: Life, path: Path) -> None:
    for data in filter(None, path.read_bytes().split(b"\n")):
        line = _lines.decode(data)
        if isinstance(line, Here):
            known = life.engines.get(line.engine)
            gone = known is not None and known.ever_gone
            place = Place(line.host, line.pid) if line.pid else None
            life.engines[line.engine] = Engine(line.engine, line.name, line.context, place, gone)
        elif isinstance(line, Gone):
            life.engines[line.engine].ever_gone = True
        elif isinstance(line, AttachedContext) and line.asked.limit is not None:
            life.limits[line.name] = line.asked.limit


def _timed(path: Path) -> Iterable[tuple[float, str]]:
    """The lines of a log with their times."""
    for line in path.read_text(errors="replace").splitlines():
        if found := _TIME.match(line):
            yield datetime.fromisoformat(found[1]).timestamp() + int(found[2]) / 1000, found[3]


def _read_log(life: Life, lines: Iterable[tuple[float, str]]) -> None:
    for at, words in lines:
        if _DRIVER.match(words):
            life.drivers.append(at)
        elif found := _JOINED.match(words):
            life.joined.setdefault(found[1], []).append(at)
        elif found := _LOST.match(words) or _UNHEARD.match(words):
            for node in found[1].split(", "):
                life.lost.setdefault(node, []).append(at)
