"""Ready tasks by class of equal demand, and the first task that fits where there is room."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from operator import gt

from disbatch.model.idset import IdSet
from disbatch.model.task import Demand, Task
from disbatch.plan.capacity import Capacity

Key = tuple[float, float]
"""The place of a class among the others: that of its first task, by priority (negative), then by id."""
NO_TASK: Key = (math.inf, math.inf)


class Ready:
    """The tasks that may be assigned: a queue for each class that has any."""

    __slots__ = ("_index", "_unindexed", "classes", "count", "new")

    def __init__(self) -> None:
        self.classes: dict[Demand, deque[Task]] = {}
        self.count = 0
        self.new: dict[Demand, None] = {}
        """Classes that had no ready task when tasks were last given out."""
        self._index: ClassIndex | None = None
        """None if there is only one class, or the index has to be built."""
        self._unindexed: list[Demand] = []

    def __iter__(self) -> Iterator[Task]:
        for tasks in self.classes.values():
            yield from tasks

    def class_of(self, demand: Demand) -> deque[Task]:
        """The queue of that class, to which a task is to be added."""
        tasks = self.classes.get(demand)
        if tasks is None:
            tasks = self.classes[demand] = deque()
            self.new[demand] = None
            if self._index is not None:
                self._unindexed.append(demand)
        return tasks

    def append(self, task: Task) -> None:
        """Add the task as the last one of its class."""
        self.class_of(task.demand).append(task)
        self.count += 1

    def put_back(self, task: Task) -> None:
        """Add the task as the first one of its class."""
        self.class_of(task.demand).appendleft(task)
        self.count += 1
        if self._index is not None:
            self._unindexed.append(task.demand)

    def take(self, demand: Demand, count: int) -> None:
        """So many tasks were removed from the queue of that class."""
        self.count -= count
        if not self.classes[demand]:
            del self.classes[demand]
            self.new.pop(demand, None)
            if len(self.classes) < 2:
                self._index = None
        if self._index is not None:
            self._unindexed.append(demand)

    def remove(self, task: Task) -> None:
        """Remove this task."""
        self.classes[task.demand].remove(task)
        self.take(task.demand, 1)

    def remove_all(self, ids: set[int] | IdSet) -> list[Task]:
        """Remove these tasks, and return them: looks at each ready task once."""
        removed = []
        tasks = list(self)
        self.clear()
        for task in tasks:
            if task.id in ids:
                removed.append(task)
            else:
                self.append(task)
        return removed

    def clear(self) -> None:
        """Remove all tasks."""
        for queue in self.classes.values():
            queue.clear()
        self.classes.clear()
        self.new.clear()
        self.count = 0
        self._index = None

    def first_fitting(self, capacity: Capacity, *, queue: bool) -> Demand | None:
        """The class of the first task for which there is room now or, in a `queue`, when nothing else runs
        there; None if no task fits."""
        if len(self.classes) == 1:
            (demand,) = self.classes
            return demand if (capacity.holds if queue else capacity.fits)(demand) else None
        index = self._index
        if index is None:
            index = self._index = ClassIndex()
            self._unindexed = list(self.classes)
        for demand in self._unindexed:
            tasks = self.classes.get(demand)
            index.set(demand, (-demand.priority, tasks[0].id) if tasks else NO_TASK)
        self._unindexed.clear()
        return index.find(capacity, total=queue)


class ClassIndex:
    """A binary tree whose leaves are classes. Each node has the first key below it, and the least amount of
    each resource that a class below it needs, so finding the first class that fits takes few looks."""

    __slots__ = ("_demands", "_free", "_keys", "_least", "_leaves", "_names", "_size")

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        """Where each resource is in a tuple of amounts; two come before these: cores, and slots."""
        self._leaves: dict[Demand, int] = {}
        self._make(8)

    def _make(self, size: int) -> None:
        self._size = size
        self._keys: list[Key] = [NO_TASK] * (2 * size)
        self._least: list[tuple[int, ...]] = [()] * (2 * size)
        self._demands: dict[int, Demand] = {}
        self._free = list(range(2 * size - 1, size - 1, -1))

    def set(self, demand: Demand, key: Key) -> None:
        """The first task of that class has this key; NO_TASK: it has none."""
        leaf = self._leaves.get(demand)
        if leaf is None:
            if key is NO_TASK:
                return
            if not self._free:
                self._double()
            leaf = self._leaves[demand] = self._free.pop()
            self._demands[leaf] = demand
            self._least[leaf] = self._amounts(demand)
        elif key is NO_TASK:
            del self._leaves[demand], self._demands[leaf]
            self._free.append(leaf)
        self._keys[leaf] = key
        self._update(leaf >> 1)

    def _double(self) -> None:
        known = [(demand, self._keys[leaf]) for demand, leaf in self._leaves.items()]
        self._leaves = {}
        self._make(2 * self._size)
        for demand, key in known:
            self.set(demand, key)

    def _amounts(self, demand: Demand) -> tuple[int, ...]:
        names = self._names
        for name, _ in demand.resources:
            names.setdefault(name, len(names))
        amounts = [0] * len(names)
        for name, amount in demand.resources:
            amounts[names[name]] = amount
        return (demand.cores or 0, int(demand.cores is None), *amounts)

    def _update(self, node: int) -> None:
        """A leaf below this node has changed."""
        keys, least = self._keys, self._least
        while node:
            left, right = 2 * node, 2 * node + 1
            keys[node] = min(keys[left], keys[right])
            if keys[left] is NO_TASK or keys[right] is NO_TASK:
                least[node] = least[right if keys[left] is NO_TASK else left]
            else:  # of different lengths: what one does not name, it does not need
                least[node] = tuple(map(min, least[left], least[right]))
            node >>= 1

    def find(self, capacity: Capacity, *, total: bool) -> Demand | None:
        """The first class that fits into what is free or, with `total`, into the whole capacity."""
        cores = capacity.cores if total else capacity.free
        amounts = capacity.resources if total else capacity.free_resources
        free = (cores, int(cores >= capacity.slot), *(max(0, amounts.get(name, 0)) for name in self._names))
        keys, least, best, found, nodes = self._keys, self._least, NO_TASK, 0, [1]
        while nodes:
            node = nodes.pop()
            if keys[node] >= best or any(map(gt, least[node], free)):
                continue
            if node >= self._size:
                best, found = keys[node], node
            else:
                left, right = 2 * node, 2 * node + 1
                nodes += (right, left) if keys[left] < keys[right] else (left, right)
        return self._demands.get(found)
