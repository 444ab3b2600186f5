"""What an engine is told when it is started."""

from __future__ import annotations

import os

from disbatch.contexts.nodes import Node
from disbatch.driver.settings import Settings
from disbatch.model.way import Way
from disbatch.wire.keys import RunKeys
from disbatch.wire.messages import PROTOCOL, Bootstrap


def node_name(settings: Settings, node: Node, hostname: str) -> str:
    """How the run calls the node: as the user or Slurm does, but this machine by its own name."""
    return hostname if node.local and settings.allocation is None else node.name


def bootstrap_for(
    settings: Settings, node: Node, keys: RunKeys, *, name: str, engine: str, addresses: list[str]
) -> Bootstrap:
    """The Bootstrap of the engine `engine` on `node`, which the run calls `name`."""
    return Bootstrap(
        protocol=PROTOCOL,
        engine=engine,
        node=name,
        slots=node.slots,
        cores_per_task=node.cores_per_task,
        directory=settings.directory,
        log=os.fsencode(settings.claimed.files.engine_log(name)),
        addresses=addresses,
        server_key=keys.server_key,
        client_key=keys.client_key,
        client_secret=keys.client_secret,
        environment=settings.environment,
        way=node.way,
        gpu=settings.gpu,
        share=settings.share,
        bind=settings.bind,
        cores=node.cores if node.way is Way.STEP else None,
        run=os.fsencode(settings.claimed.files.prefix),
    )
