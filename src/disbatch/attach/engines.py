"""The engines that an attached context sends to a run: which of them are there, and what the user and the
owner of their nodes are told of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from disbatch.contexts.context import Retirement
from disbatch.contexts.node_messages import NodeMessages
from disbatch.contexts.nodes import Node
from disbatch.contexts.pool import Pool
from disbatch.wire.client_protocol import Fate


@dataclass
class Sent:
    """An engine that we start. `staying`: it may be there, or come. `joined`: it was there. `in_use`: its
    node was not given back since. `return_code`: of its process, once that has ended."""

    engine: str
    node: Node
    name: str
    staying: bool = True
    joined: bool = False
    in_use: bool = False
    lost: bool = False
    return_code: int = 0


class Party:
    """Those of `pool`; `engines` has them by their names. `messages` gets what the user is told."""

    def __init__(self, pool: Pool, hostname: str, messages: NodeMessages) -> None:
        token = secrets.token_hex(8)
        names = {f"a{n}-{token}": node for n, node in enumerate(pool.nodes)}
        self.engines = {e: Sent(e, node, pool.name_of(node, hostname)) for e, node in names.items()}
        self.retirement: Retirement | None = None
        """What happens to nodes that are no longer needed."""
        self.failures = 0
        """How many could not be started, or died."""
        self.ended_by_others = False
        """One of them left that nobody had told to."""
        self._messages = messages

    @property
    def is_staying(self) -> bool:
        """One may be there, or come."""
        return any(sent.staying for sent in self.engines.values())

    @property
    def came(self) -> bool:
        """One was there."""
        return any(sent.joined for sent in self.engines.values())

    @property
    def lost(self) -> set[str]:
        """Those that the driver does not hear."""
        return {sent.engine for sent in self.engines.values() if sent.lost}

    def became(self, sent: Sent, fate: Fate) -> None:
        """The driver says what became of it."""
        if fate is Fate.JOINED:
            self._join(sent)
        elif fate is not Fate.LOST:
            if sent.staying:
                self._messages.add(sent.name, "left" if sent.joined else "need not join any more")
            self.ended_by_others |= sent.joined and fate is Fate.LEFT
            self.left(sent, spare=fate is Fate.SPARE)
        elif sent.staying:
            sent.lost = True
            self._messages.notify(f"{sent.name}: the driver does not hear its engine any more")

    def _join(self, sent: Sent) -> None:
        if not sent.joined:
            self._messages.joined(sent.name, sent.node.slots)
        elif sent.lost:
            self._messages.notify(f"{sent.name}: the driver hears its engine again")
        sent.staying = sent.joined = True
        sent.lost = False
        if not sent.in_use and self.retirement is not None:
            sent.in_use = True
            self.retirement.joined(sent.name)

    def failed(self, sent: Sent, words: str) -> None:
        """It cannot be started."""
        self.failures += 1
        self._messages.notify(words)
        self.left(sent, spare=False)

    def exited(self, sent: Sent, return_code: int, words: str) -> bool:
        """The process that we started for it has ended. True if that says more than the driver has said."""
        sent.return_code = return_code
        if not sent.staying:
            return False
        if return_code or not sent.joined:
            self.failures += 1
            self._messages.notify(f"{sent.name}: {'its engine is gone: ' if sent.joined else ''}{words}")
        else:
            self._messages.add(sent.name, "left")
        self.left(sent, spare=False)
        return True

    def left(self, sent: Sent, *, spare: bool) -> None:
        """It is not there any more; `spare`: as it had found nothing more to do."""
        sent.staying = False
        if sent.in_use and self.retirement is not None:
            sent.in_use = False
            self.retirement.retire(sent.name, sent.return_code, spare=spare)

    async def go(self, *, at_once: bool) -> None:
        """Nobody is waited for any more; their nodes are given back, unless this is to be over `at_once`."""
        self._messages.flush()
        if self.retirement is not None and at_once:
            self.retirement.abandon()
        for sent in self.engines.values():
            self.left(sent, spare=False)
        if self.retirement is not None:
            await self.retirement.finish()
