"""The first task that fits, found by the index and by looking at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disbatch.model.task import CORE, NO_DEMAND, Demand, Task
from disbatch.plan.capacity import Capacity
from disbatch.plan.classes import Ready

NAMES = ("gpus", "licences", "memory")
DEMANDS = st.builds(
    lambda cores, amounts, priority: Demand(
        cores,
        tuple((name, amount) for name, amount in zip(NAMES, amounts, strict=True) if amount),
        priority=priority,
    ),
    st.none() | st.integers(0, 3).map(lambda cores: cores * CORE),
    st.tuples(*[st.integers(0, 3)] * 3),
    st.integers(0, 1),
)


def _capacity(slots: int, amounts: tuple[int, ...], taken: list[Demand]) -> Capacity:
    capacity = Capacity(slots, resources=dict(zip(NAMES, amounts, strict=True)))
    for demand in taken:  # maybe more than fits, as by an engine that comes back
        capacity.take(demand)
    return capacity


CAPACITIES = st.builds(
    _capacity, st.integers(1, 3), st.tuples(*[st.integers(0, 3)] * 3), st.lists(DEMANDS, max_size=2)
)


def test_classes_come_and_go() -> None:
    ready, capacity = Ready(), Capacity(1)
    assert ready.first_fitting(capacity, queue=False) is None
    for id in (5, 6):
        ready.append(Task(id, 1, -1, b":", Demand(id * CORE)))
    ready.append(Task(7, 1, -1, b":"))
    assert ready.first_fitting(capacity, queue=False) == NO_DEMAND
    ready.put_back(Task(3, 1, -1, b":", Demand(CORE)))
    assert ready.first_fitting(capacity, queue=False) == Demand(CORE)
    ready.remove(Task(3, 1, -1, b":", Demand(CORE)))
    assert ready.first_fitting(capacity, queue=False) == NO_DEMAND
    ready.clear()
    assert ready.first_fitting(capacity, queue=False) is None and not ready.new


@given(st.lists(st.tuples(st.booleans(), DEMANDS), max_size=40), st.lists(CAPACITIES, min_size=1))
def test_the_index_finds_what_looking_at_all_finds(
    steps: list[tuple[bool, Demand]], capacities: list[Capacity]
) -> None:
    ready = Ready()
    for id, (takes, demand) in enumerate(steps):
        if takes and demand in ready.classes:
            ready.remove(ready.classes[demand][0])
        elif id % 3:
            ready.append(Task(id, id + 1, -1, b":", demand))
        else:
            ready.put_back(Task(-id, id + 1, -1, b":", demand))
        for capacity in capacities:
            fitting = [each for each in ready.classes if capacity.fits(each)]
            first = min(fitting, key=lambda each: (-each.priority, ready.classes[each][0].id), default=None)
            assert ready.first_fitting(capacity, queue=False) == first
            assert (ready.first_fitting(capacity, queue=True) is None) is not any(
                map(capacity.holds, ready.classes)
            )
