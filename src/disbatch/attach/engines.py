"""The engines that an attached context has launched: their states, and what user and retirement are told."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from disbatch.contexts.context import Retirement
from disbatch.contexts.node_messages import NodeMessages
from disbatch.contexts.nodes import Node
from disbatch.contexts.pool import Pool
from disbatch.wire.client_protocol import Fate


@dataclass
class LaunchedEngine:
    """An engine that we launch. `staying`: it may still join or run. `joined`: it has joined the run.
    `in_use`: its node was not retired since. `return_code`: of its process, once that has ended."""

    id: str
    node: Node
    name: str
    staying: bool = True
    joined: bool = False
    in_use: bool = False
    lost: bool = False
    return_code: int = 0


class LaunchedEngines:
    """The engines of `pool`; `engines` has them by id. `messages` gets what the user is told."""

    def __init__(self, pool: Pool, hostname: str, messages: NodeMessages) -> None:
        token = secrets.token_hex(8)
        self.engines: dict[str, LaunchedEngine] = {}
        for n, node in enumerate(pool.nodes):
            id = f"a{n}-{token}"
            self.engines[id] = LaunchedEngine(id, node, pool.context.name_of(node, hostname))
        self.retirement: Retirement | None = None
        """Retires nodes that are no longer needed."""
        self.failures = 0
        """Engines that could not be started, or died."""
        self.ended_by_others = False
        """One of them left that neither user nor driver had told to."""
        self._messages = messages

    @property
    def is_staying(self) -> bool:
        """An engine may still join or run."""
        return any(engine.staying for engine in self.engines.values())

    @property
    def came(self) -> bool:
        """An engine has joined."""
        return any(engine.joined for engine in self.engines.values())

    @property
    def lost(self) -> set[str]:
        """The engines that the driver does not hear."""
        return {engine.id for engine in self.engines.values() if engine.lost}

    def became(self, engine: LaunchedEngine, fate: Fate) -> None:
        """The driver reports this of the engine."""
        if fate is Fate.JOINED:
            self._join(engine)
        elif fate is not Fate.LOST:
            if engine.staying:
                self._messages.add(engine.name, "left" if engine.joined else "no longer needs to join")
            self.ended_by_others |= engine.joined and fate is Fate.LEFT
            self.left(engine, spare=fate is Fate.SPARE)
        elif engine.staying:
            engine.lost = True
            self._messages.notify(f"{engine.name}: the driver no longer hears its engine")

    def _join(self, engine: LaunchedEngine) -> None:
        if not engine.joined:
            self._messages.joined(engine.name, engine.node.slots)
        elif engine.lost:
            self._messages.notify(f"{engine.name}: the driver hears its engine again")
        engine.staying = engine.joined = True
        engine.lost = False
        if not engine.in_use and self.retirement is not None:
            engine.in_use = True
            self.retirement.joined(engine.name)

    def failed(self, engine: LaunchedEngine, words: str) -> None:
        """The engine cannot be started."""
        self.failures += 1
        self._messages.notify(words)
        self.left(engine, spare=False)

    def exited(self, engine: LaunchedEngine, return_code: int, words: str) -> bool:
        """Its process has ended. True if the driver does not know yet that the engine is gone."""
        engine.return_code = return_code
        if not engine.staying:
            return False
        if return_code or not engine.joined:
            self.failures += 1
            self._messages.notify(f"{engine.name}: {'its engine is gone: ' if engine.joined else ''}{words}")
        else:
            self._messages.add(engine.name, "left")
        self.left(engine, spare=False)
        return True

    def left(self, engine: LaunchedEngine, *, spare: bool) -> None:
        """The engine is gone; `spare`: because there was no more work."""
        engine.staying = False
        if engine.in_use and self.retirement is not None:
            engine.in_use = False
            self.retirement.retire(engine.name, engine.return_code, spare=spare)

    async def go(self, *, at_once: bool) -> None:
        """Wait for no engine any more, and retire their nodes, or, `at_once`, abandon that."""
        self._messages.flush()
        if self.retirement is not None and at_once:
            self.retirement.abandon()
        for engine in self.engines.values():
            self.left(engine, spare=False)
        if self.retirement is not None:
            await self.retirement.finish()
