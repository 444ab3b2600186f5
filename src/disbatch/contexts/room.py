"""How many nodes a process can start and keep engines on, with the files that it may have open."""

from __future__ import annotations

from disbatch.contexts.nodes import Node
from disbatch.model.errors import UsageError
from disbatch.model.way import Way
from disbatch.wire import descriptors
from disbatch.wire.relay import most_connections

A_CHILD = 3
"""Descriptors of a process that stays as long as its engine: two pipes, and one for its end."""
AT_ONCE = 64
"""Descriptors of launches that go on at the same time and leave nothing open."""
OF_ENGINES = 0.75
"""The share of the connections through the relay that engines may take."""


def need(node: Node, *, tunnel: bool, connected: bool) -> int:
    """Descriptors that an engine on `node` takes; `connected`: those of its connection, too."""
    child = node.way is not Way.SSH or tunnel
    return A_CHILD * child + connected


def room_for_connections(expected: int, others: int) -> int:
    """How many more engines may connect to this driver, where so many are `expected`, and `others` are there
    or expected."""
    own = descriptors.limit() - descriptors.in_use() - descriptors.reserve() - expected
    return max(0, min(own, int(most_connections() * OF_ENGINES) - others))


def affordable(nodes: list[Node], *, tunnel: bool, connected: bool) -> tuple[list[Node], str]:
    """As many of the nodes as there is room for, and a line for the user if these are not all. `connected`:
    their engines connect to this process. UsageError if there is room for none."""
    needs = [need(node, tunnel=tunnel, connected=connected) for node in nodes]
    limit = descriptors.limit()
    room = limit - descriptors.in_use() - descriptors.reserve()
    ways = int(most_connections() * OF_ENGINES) if connected else len(nodes)
    if any(node.way is Way.SSH for node in nodes) and sum(needs) + AT_ONCE > room:
        room -= min(AT_ONCE, room // 2)
    most = 0
    for node, each in zip(nodes, needs, strict=True):
        room -= each
        ways -= node.way is Way.STEP or (node.way is Way.SSH and not tunnel)
        if min(room, ways) < 0:
            break
        most += 1
    if most == len(nodes):
        return nodes, ""
    cause = f"only {limit:,} files may be open (ulimit -Hn)"
    if not most:
        raise UsageError(f"{cause}, too few to start an engine: raise that limit")
    left = len(nodes) - most
    those = "1 node is" if left == 1 else f"{left:,} nodes are"
    return nodes[:most], f"{cause}: {those} not used, from {nodes[most].name} on; raise that limit"
