"""The capacity of an engine for tasks, and how much of it is free."""

from __future__ import annotations

from collections.abc import Mapping

from disbatch.model.task import CORE, Demand

_NONE: Mapping[str, int] = {}


class Capacity:
    """The resources of an engine, and how much of them is free. `slot`: the cores of one slot, which a task
    takes if it does not say how many it needs. `resources`: amounts by name, as in `Demand.resources`.

    Free amounts are negative if the engine has more attempts than fit, e.g. after it was lost for a while."""

    __slots__ = ("cores", "free", "free_resources", "resources", "slot")

    def __init__(self, slots: int, *, slot: int = CORE, resources: Mapping[str, int] | None = None) -> None:
        self.slot = slot
        self.cores = self.free = slots * slot
        self.resources = self.free_resources = _NONE if resources is None else resources

    @property
    def slots(self) -> int:
        """The number of tasks that fit if they do not say how many cores they need."""
        return self.cores // self.slot

    def fits(self, demand: Demand) -> bool:
        """True if there is room for such a task now."""
        cores = demand.cores
        if self.free < (self.slot if cores is None else cores):
            return False
        free = self.free_resources
        return not demand.resources or all(free.get(name, 0) >= amount for name, amount in demand.resources)

    def take(self, demand: Demand) -> None:
        """Allot what such a task needs, whether it fits or not."""
        cores = demand.cores
        self.free -= self.slot if cores is None else cores
        if demand.resources:
            self._change_free(demand, -1)

    def give(self, demand: Demand) -> None:
        """Free what such a task needs."""
        cores = demand.cores
        self.free += self.slot if cores is None else cores
        if demand.resources:
            self._change_free(demand, 1)

    def _change_free(self, demand: Demand, sign: int) -> None:
        free = self.free_resources
        changed = {name: free.get(name, 0) + sign * amount for name, amount in demand.resources}
        self.free_resources = {**free, **changed}

    def holds(self, demand: Demand) -> bool:
        """True if there is room for such a task when nothing else runs."""
        cores = demand.cores
        if self.cores < (self.slot if cores is None else cores):
            return False
        return all(self.resources.get(name, 0) >= amount for name, amount in demand.resources)

    def times(self, demand: Demand) -> int:
        """The number of such tasks for which there is room now."""
        cores = self.slot if demand.cores is None else demand.cores
        free = self.free_resources
        most = [free.get(name, 0) // amount for name, amount in demand.resources]
        return max(0, min([self.free // max(1, cores), *most]))

    def unused(self) -> Capacity:
        """The same capacity, with everything free."""
        return Capacity(self.slots, slot=self.slot, resources=self.resources)

    def clear(self) -> None:
        """Free everything."""
        self.free = self.cores
        self.free_resources = self.resources
