"""Orders for engines: the Bootstrap, and the plan's assignments as messages of bounded size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from disbatch.contexts.nodes import Node
from disbatch.contexts.pool import Pool
from disbatch.model.task import NO_REPEAT, Way
from disbatch.plan.events import Assign, AssignPerEngine
from disbatch.rundir.output_manifest import Output
from disbatch.rundir.paths import RunFiles
from disbatch.wire.connect import RunKeys
from disbatch.wire.engine_protocol import PROTOCOL, Bootstrap, Order, Start, StartPerEngine


@dataclass(frozen=True)
class BootstrapFactory:
    """What all engines of a pool are told: the tasks' `directory` and `environment`, the run's `files` and
    its `keys`; `by_driver` and `orphan_patience` as in `Bootstrap`; `output`: what is kept of what tasks
    print."""

    pool: Pool
    directory: bytes
    environment: dict[bytes, bytes]
    files: RunFiles
    keys: RunKeys
    orphan_patience: float
    by_driver: bool = True
    output: Output | None = None

    def bootstrap(self, node: Node, *, name: str, engine: str, addresses: list[str]) -> Bootstrap:
        """The Bootstrap of the engine `engine` on `node`, which the run calls `name`."""
        pool, output = self.pool, self.output
        return Bootstrap(
            protocol=PROTOCOL,
            engine=engine,
            node=name,
            slots=node.slots,
            cores_per_task=node.cores_per_task,
            directory=self.directory,
            log=os.fsencode(self.files.elsewhere.engine_log(name)),
            addresses=addresses,
            server_key=self.keys.server_key,
            client_key=self.keys.client_key,
            client_secret=self.keys.client_secret,
            environment=self.environment,
            way=node.way,
            gpu=pool.gpu,
            share=pool.share,
            bind=pool.bind,
            cores=node.cores if pool.context.scheduler else None,
            run=os.fsencode(self.files.prefix),
            by_driver=self.by_driver,
            orphan_patience=self.orphan_patience,
            output=output.directory if output else b"",
            output_pack=output.packed if output else False,
            output_limit=output.limit if output else 0,
            step=pool.context.variables if node.way is Way.STEP else None,
        )


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
