"""Which kinds of failures a run has, counted as they come, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from disbatch.model.failure import masked
from disbatch.model.snapshot import FailureKind, TaskView
from disbatch.model.text import valid

MOST_KINDS = 50
"""Kinds with a last line of their own; beyond these, one for each return code and reason."""
SHOWN = 400
"""Bytes of a command."""

_Key = tuple[int, str, str]


class _Kind:
    __slots__ = ("count", "first", "nodes")

    def __init__(self, first: TaskView) -> None:
        self.count = 0
        self.first = first
        self.nodes: set[str] = set()


class Kinds:
    """Of the tasks that were added. Where there are too many kinds, one that came once gives its place to a
    new one, and counts among the various ones."""

    def __init__(self) -> None:
        self._kinds: dict[_Key, _Kind] = {}
        self._once: OrderedDict[_Key, None] = OrderedDict()
        """Those that came once, the oldest first."""
        self._various: dict[tuple[int, str], _Kind] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._kinds) + len(self._various)

    def add(self, task: TaskView, count: int = 1, nodes: Iterable[str] = ()) -> None:
        """So many tasks failed as this one did, the first of them, there and on these nodes."""
        key = task.return_code, task.reason, masked(task.last_line)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kind_for(key, task)
        if kind.count or count > 1:
            self._once.pop(key, None)
        kind.count += count
        kind.nodes.add(task.place)
        if nodes:
            kind.nodes.update(nodes)

    def add_various(self, task: TaskView, count: int) -> None:
        """So many tasks failed with the return code and reason of this one; what they said is not known."""
        kind = self._various.setdefault((task.return_code, task.reason), _Kind(task))
        kind.count += count
        kind.nodes.add(task.place)

    def _kind_for(self, key: _Key, task: TaskView) -> _Kind:
        if len(self._kinds) >= MOST_KINDS:
            if not self._once:
                return self._various.setdefault(key[:2], _Kind(task))
            once, _ = self._once.popitem(last=False)
            gone = self._kinds.pop(once)
            various = self._various.setdefault(once[:2], _Kind(gone.first))
            various.count += 1
            various.nodes |= gone.nodes
        self._once[key] = None
        kind = self._kinds[key] = _Kind(task)
        return kind

    def most_frequent(self, most: int) -> list[FailureKind]:
        """The most frequent ones, at most so many."""
        found = [_shown(kind, various=False) for kind in self._kinds.values()]
        found += [_shown(kind, various=True) for kind in self._various.values()]
        return sorted(found, key=lambda kind: (-kind.count, kind.id))[:most]


def _shown(kind: _Kind, *, various: bool) -> FailureKind:
    first = kind.first
    return FailureKind(
        count=kind.count,
        return_code=first.return_code,
        reason=first.reason,
        last_line=first.last_line,
        id=first.id,
        line=first.line,
        node=valid(first.place),
        nodes=len(kind.nodes),
        command=first.command[:SHOWN].decode("utf-8", "backslashreplace"),
        various=various,
    )
