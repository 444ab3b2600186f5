"""Messages about nodes: one line for all nodes to which the same happened at about the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from disbatch.model.text import counted, short_list

DELAY = 0.5
"""Seconds that a line waits for other nodes."""
BY_SIGNAL = "ended by SIG"
"""Beginning of the reason of an engine that was ended by a signal; see `engine.engine`."""


class _What(NamedTuple):
    """What happened: the words for one node, and for several."""

    one: str
    several: str


class NodeMessages:
    """Collects what happens to nodes; `notify_user` gets the lines."""

    def __init__(self, loop: asyncio.AbstractEventLoop, notify_user: Callable[[str], None]) -> None:
        self._loop = loop
        self._notify_user = notify_user
        self._nodes: dict[_What, list[str]] = {}
        self._slots = 0
        """Of the nodes that joined."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, node: str, words: str, several: str = "") -> None:
        """This happened to the node; `several`: the words for more than one node, if they differ."""
        self._nodes.setdefault(_What(words, several or words), []).append(node)
        if self._timer is None:
            self._timer = self._loop.call_later(DELAY, self.flush)

    def joined(self, node: str, slots: int) -> None:
        """An engine on this node joined the run, with so many slots."""
        self._slots += slots
        self.add(node, "joined")

    def left(self, node: str, reason: str, *, scheduler: str) -> None:
        """The engine of this node left by itself. `scheduler`: the owner of the node, which most likely sent
        the signal; "": none."""
        if scheduler and reason.startswith(BY_SIGNAL):
            why = f"({reason.removeprefix('ended by ')}: cancelled, preempted, or out of time)"
            self.add(node, f"{scheduler} ended the engine {why}", f"{scheduler} ended the engines {why}")
        else:
            self.add(node, f"its engine left: {reason}", f"their engines left: {reason}")

    def notify(self, text: str) -> None:
        """Send another line, after those that are waiting."""
        self.flush()
        self._notify_user(text)

    def flush(self) -> None:
        """Send the lines that are waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        all_nodes, self._nodes = self._nodes, {}
        slots, self._slots = self._slots, 0
        for what, nodes in all_nodes.items():
            words = what.several if len(nodes) > 1 else what.one
            how = f" with {counted(slots, 'slot')}" if words == "joined" else ""
            self._notify_user(f"{short_list(sorted(nodes))}: {words}{how}")
