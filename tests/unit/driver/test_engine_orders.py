"""Assignments become messages of bounded size, nothing lost and in order."""

from __future__ import annotations

import pytest

from disbatch.driver.engine_orders import BYTES_A_MESSAGE, ORDERS_A_MESSAGE, start_per_engine, starts
from disbatch.model.task import PerEngine, Phase, Task
from disbatch.plan.events import Assign, AssignPerEngine
from disbatch.wire.engine_protocol import Order, StartPerEngine


@pytest.mark.parametrize(
    ("count", "length", "sizes"),
    [
        (1, 1, [1]),
        (ORDERS_A_MESSAGE, 1, [ORDERS_A_MESSAGE]),
        (ORDERS_A_MESSAGE + 1, 1, [ORDERS_A_MESSAGE, 1]),
        (5, BYTES_A_MESSAGE // 2 + 1, [2, 2, 1]),
    ],
)
def test_messages_are_filled_in_order(count: int, length: int, sizes: list[int]) -> None:
    tasks = [Task(number, number + 1, -1, b"x" * length) for number in range(count)]
    messages = list(starts(Assign("e", [(task.id + 100, task) for task in tasks])))
    assert [len(message.orders) for message in messages] == sizes
    orders = [order for message in messages for order in message.orders]
    assert [order.attempt for order in orders] == list(range(100, 100 + count))
    assert orders[0] == Order(100, 0, 1, -1, b"x" * length)


def test_per_engine_command() -> None:
    action = AssignPerEngine("e", 7, PerEngine(1, 2, Phase.STOP, b"down"))
    assert start_per_engine(action) == StartPerEngine(Phase.STOP, Order(7, 1, 2, -1, b"down"))
