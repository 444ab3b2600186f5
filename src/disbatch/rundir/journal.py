"""The records of a run's journal, and the state that they add up to.

From it, a driver that takes the run over learns which engines there are, what users ordered, and everything
else that only its predecessors knew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, Self, get_args

import msgspec

from disbatch.contexts.nodes import Node
from disbatch.model.idset import IdSet
from disbatch.wire.client_protocol import Attach

Ranges = list[tuple[int, int]]
"""First and last id of each."""


SourceKind = Literal["", "file", "stream", "program", "submitted"]


class Asked(msgspec.Struct, frozen=True, tag="asked"):
    """The command line of the first driver: `arguments` in `directory`. `size` (bytes) and `changed`
    (nanoseconds since the epoch) tell whether the task file is unchanged; None: the tasks came as a stream.
    `environment` is that of the tasks. `orphan_patience` in seconds. `source`: where the tasks come from; ""
    if a former version wrote it."""

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
    source: SourceKind = ""


class Here(msgspec.Struct, frozen=True, tag="here"):
    """An engine was launched on `node`, or joined: then with its `pid`, and `started` distinguishes it from a
    later process with that id. `host` and its `boot` are known if it joined, or is on the driver's own host.
    `context`: the attached context that launched it; `node` is not known then. `tunnel`: where on its host
    its tunnel ends, if it has one."""

    engine: str
    name: str
    rank: int
    slots: int
    node: Node | None
    host: str = ""
    pid: int = 0
    context: str = ""
    tunnel: str = ""
    boot: str = ""
    started: int = 0


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """An engine left; or it was given up (`lost`), on its node or while launching, and may still come."""

    engine: str
    lost: bool = False


class Unwanted(msgspec.Struct, frozen=True, tag="unwanted"):
    """A user requested that this engine leave, or not join; `stop`: at once, ending its tasks."""

    engine: str
    stop: bool


class Avoided(msgspec.Struct, frozen=True, tag="avoided"):
    """Users requested that engines on these nodes leave: a takeover starts none there."""

    nodes: list[str]


class AttachedContext(msgspec.Struct, frozen=True, tag="attached"):
    """A context was attached, under this name, by this request (here without its nodes)."""

    name: str
    asked: Attach


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """Results of these tasks count for the limit of that context. Only a former version writes this: engines
    report what they have completed."""

    context: str
    ranges: Ranges


class TakenOver(msgspec.Struct, frozen=True, tag="taken over"):
    """The following lines are written by another driver, the one with this number; the first was 0."""

    host: str
    pid: int
    number: int


class RenamedFiles(msgspec.Struct, frozen=True, tag="elsewhere"):
    """The present names of the status file and of the file of submitted tasks, since another file took their
    usual ones; empty: the usual name."""

    status: bytes = b""
    submitted: bytes = b""


class _Order(msgspec.Struct, frozen=True):
    """A user's order about the whole run, which a driver that takes the run over applies again."""

    @classmethod
    def merged(cls, orders: list[Self]) -> list[Self]:
        """The fewest orders with the same effect as these, in order: of most kinds, the last one."""
        return orders[-1:]


class Cancelled(_Order, frozen=True, tag="cancelled"):
    """A user cancelled these tasks."""

    ranges: Ranges

    @classmethod
    def merged(cls, orders: list[Self]) -> list[Self]:
        return [cls(list(IdSet(chain.from_iterable(order.ranges for order in orders))))]


class Paused(_Order, frozen=True, tag="paused"):
    """A user paused the run or, if not `on`, resumed it."""

    on: bool

    @classmethod
    def merged(cls, orders: list[Self]) -> list[Self]:
        return orders[-1:] if orders[-1].on else []


class Closed(_Order, frozen=True, tag="closed"):
    """No more tasks may be submitted."""


RunOrder = Cancelled | Paused | Closed

JournalLine = (
    Asked | Here | Gone | Unwanted | Avoided | AttachedContext | Counted | TakenOver | RenamedFiles | RunOrder
)


@dataclass
class JournalState:
    """What the lines of a journal add up to.

    `engines` had joined, or were being launched, at the end; `lost` were given up. `unwanted`: those of both
    that are to leave; True: at once. `avoid`: nodes on which a user requested that an engine of the driver's
    own context leave. `attached`: the attached contexts. `counted`: the tasks that a former version counted
    for a context's limit. `orders`: users' orders about the whole run, by kind.
    """

    asked: Asked
    engines: dict[str, Here] = field(default_factory=dict)
    lost: dict[str, Here] = field(default_factory=dict)
    unwanted: dict[str, bool] = field(default_factory=dict)
    avoid: set[str] = field(default_factory=set)
    attached: dict[str, Attach] = field(default_factory=dict)
    counted: dict[str, IdSet] = field(default_factory=dict)
    orders: dict[type[RunOrder], list[Any]] = field(default_factory=dict)
    driver: TakenOver | None = None
    """The latest takeover."""
    elsewhere: RenamedFiles = RenamedFiles()  # noqa: RUF009 - frozen

    @property
    def number(self) -> int:
        """The number of the run's latest driver; the first is 0."""
        return 0 if self.driver is None else self.driver.number

    def learn(self, line: JournalLine) -> None:
        """Apply the next line."""
        if isinstance(line, _Order):
            self.orders.setdefault(type(line), []).append(line)
            return
        learn = _LEARNERS.get(type(line))
        if learn is not None:
            learn(self, line)

    def _here(self, line: Here) -> None:
        self.lost.pop(line.engine, None)
        self.engines[line.engine] = line

    def _gone(self, line: Gone) -> None:
        here = self.engines.pop(line.engine, None) or self.lost.pop(line.engine, None)
        if line.lost and here is not None:
            self.lost[line.engine] = here
        else:
            self.unwanted.pop(line.engine, None)

    def _unwanted(self, line: Unwanted) -> None:
        here = self.engines.get(line.engine) or self.lost.get(line.engine)
        if here is None:
            return
        self.unwanted[line.engine] = line.stop or self.unwanted.get(line.engine, False)
        if here.node is not None:
            self.avoid.add(here.node.name)

    def _avoided(self, line: Avoided) -> None:
        self.avoid.update(line.nodes)

    def _attached_context(self, line: AttachedContext) -> None:
        self.attached[line.name] = line.asked

    def _taken_over(self, line: TakenOver) -> None:
        self.driver = line

    def _renamed_files(self, line: RenamedFiles) -> None:
        self.elsewhere = line

    def _counted(self, line: Counted) -> None:
        ids = self.counted.setdefault(line.context, IdSet())
        for first, last in line.ranges:
            ids.add(first, last)

    def run_orders(self) -> list[RunOrder]:
        """The fewest orders about the whole run with the same effect."""
        kinds: list[Any] = [kind for kind in get_args(RunOrder) if self.orders.get(kind)]
        for kind in kinds:
            self.orders[kind] = kind.merged(self.orders[kind])
        return [order for kind in kinds for order in self.orders[kind]]

    def lines(self) -> Iterator[JournalLine]:
        """The fewest lines with the same state."""
        yield self.asked
        yield from (*self.lost.values(), *self.engines.values())
        for name, stop in self.unwanted.items():
            yield Unwanted(name, stop)
        for name in self.lost:
            yield Gone(name, lost=True)
        if self.avoid:
            yield Avoided(sorted(self.avoid))
        yield from (AttachedContext(name, asked) for name, asked in self.attached.items())
        yield from (Counted(context, list(ids)) for context, ids in self.counted.items() if ids)
        yield from self.run_orders()
        if self.elsewhere != RenamedFiles():
            yield self.elsewhere
        if self.driver is not None:
            yield self.driver


_LEARNERS: dict[type, Callable[[JournalState, Any], None]] = {
    Here: JournalState._here,
    Gone: JournalState._gone,
    Unwanted: JournalState._unwanted,
    Avoided: JournalState._avoided,
    AttachedContext: JournalState._attached_context,
    Counted: JournalState._counted,
    TakenOver: JournalState._taken_over,
    RenamedFiles: JournalState._renamed_files,
}
