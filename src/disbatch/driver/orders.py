"""The plan's assignments as messages to an engine, none of them too large."""

from __future__ import annotations

from collections.abc import Iterator

from disbatch.model.task import NO_REPEAT
from disbatch.plan.events import Assign, AssignPerEngine
from disbatch.wire.messages import Order, Start, StartPerEngine

ORDERS_A_MESSAGE = 256
BYTES_A_MESSAGE = 1 << 20


def starts(action: Assign) -> Iterator[Start]:
    """The tasks in their order, so many to a message."""
    orders: list[Order] = []
    size = 0
    for attempt, task in action.pairs:
        if len(orders) >= ORDERS_A_MESSAGE or size > BYTES_A_MESSAGE:
            yield Start(orders)
            orders, size = [], 0
        orders.append(Order(attempt, task.id, task.line, task.repeat, task.command))
        size += len(task.command)
    yield Start(orders)


def start_per_engine(action: AssignPerEngine) -> StartPerEngine:
    """A PERENGINE command."""
    command = action.command
    order = Order(action.attempt, command.id, command.line, NO_REPEAT, command.command)
    return StartPerEngine(command.phase, order)
