"""Nodes and their slots, the host lists of `-s`, and how many nodes this process has descriptors for. Pure,
except for the limit on open files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from disbatch.contexts.hostlist import MAX_HOST, MAX_NODES, expand
from disbatch.model.errors import UsageError
from disbatch.model.task import Way
from disbatch.model.text import counted, in_short
from disbatch.wire import descriptors
from disbatch.wire.relay import most_connections

MAX_CORES = 100_000
"""Cores of one node; slots of one engine."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_EXAMPLE = "say how many cores"
_PIECES = re.compile(r"\[[^\[\]]*\]|[^,\[]+|[,\[]")
"""Of a list of hosts: brackets with what is in them, a comma between two hosts, or other text."""
_RANGES = re.compile(r"\[[0-9, -]+\]")


@dataclass(frozen=True)
class Node:
    """A computer: its `name` as the user gave it (without brackets), the cores that we may use, the number of
    tasks at once, how its engine is launched, and the cores meant for each task. `gpus`: the number that a
    step must ask its scheduler for; 0: none. `component`: of a heterogeneous job, the one that has the
    node."""

    name: str
    cores: int
    slots: int
    way: Way
    cores_per_task: float = 1.0
    gpus: int = 0
    component: int | None = None

    @property
    def local(self) -> bool:
        """It is this machine, and its engine a child of ours."""
        return self.way is Way.CHILD


@dataclass(frozen=True)
class Machine:
    """This machine: `hostname` as of uname, `cores` that we may use, and `full_name`, which looks up the
    domain name (called only where it matters, because it may ask a name server)."""

    hostname: str
    cores: int
    full_name: Callable[[], str]

    def is_called(self, host: str) -> bool:
        """True if `host` is a name of this machine, short or with its domain."""
        host = host.lower().rstrip(".")
        own = self.hostname.lower().rstrip(".")
        if host in _LOOPBACK or host in (own, own.split(".")[0]):
            return True
        if not host.startswith(own.split(".")[0] + "."):
            return False
        return "." not in own and host == self.full_name().lower().rstrip(".")


@dataclass(frozen=True)
class SlotRules:
    """How the user wants nodes to be divided: `cores_per_task` (-c), `tasks_per_node` (-t), `fill`
    (--fill)."""

    cores_per_task: float | None = None
    tasks_per_node: int | None = None
    fill: bool = False


NO_RULES = SlotRules()


def parse_node_list(texts: Iterable[str], option: str = "-s") -> dict[str, int]:
    """Cores of each host of lists like `host1:7,node[01-12]:8`, in order of first mention; a repeated host
    adds up, and the cores behind a range are those of each of its hosts.

    `user@host:3` and `[2001:db8::1]:3` are taken. Raises UsageError (one line) for anything else.
    """
    cores: dict[str, int] = {}
    for text in texts:
        if not text.strip():
            raise UsageError(f"{option}: an empty list of hosts; write HOST:CORES[,HOST:CORES...]")
        for item in _split_hosts(text):
            hosts, count = _parse_item(item.strip(), option)
            for host in hosts:
                cores[host] = cores.get(host, 0) + count
                if cores[host] > MAX_CORES:
                    raise UsageError(f"{option} {item.strip()}: more than {MAX_CORES} cores on one host")
            if len(cores) > MAX_NODES:
                raise UsageError(f"{option}: more than {MAX_NODES} hosts")
    return cores


def _split_hosts(text: str) -> list[str]:
    """Split at the commas between hosts, not at those in brackets."""
    hosts = [""]
    for piece in _PIECES.findall(text):
        if piece == ",":
            hosts.append("")
        else:
            hosts[-1] += piece
    return hosts


def _parse_item(item: str, option: str) -> tuple[list[str], int]:
    """The hosts that an item names, and the cores of each."""
    shown = in_short(item)
    if not item:
        raise UsageError(f"{option}: a host is missing between two commas")
    host, colon, count = item.rpartition(":")
    if item.endswith("]") or not colon:
        raise UsageError(f"{option} {shown}: {_EXAMPLE}, e.g. {shown}:4")
    user, at, address = host.rpartition("@")
    if address in ("", "[]") or (at and not user):
        raise UsageError(f"{option} {shown}: the host's name is missing before the colon")
    if host.startswith("-") or address.removeprefix("[").startswith("-"):
        raise UsageError(f"{option} {shown}: a host's name cannot start with '-'")
    names = _names(address, f"{option} {shown}", item)
    hosts = [user + at + name for name in names]
    for name, full in zip(names, hosts, strict=True):
        if len(full) > MAX_HOST or not _is_plain(user, "._-+") or not _is_plain(name, "._-+:%"):
            raise UsageError(f"{option} {shown}: not a host's name")
    return hosts, _parse_count(count, shown, host, option)


def written_out(text: str, option: str) -> list[str]:
    """The hosts of a list with ranges but without cores, named as by `parse_node_list`. UsageError."""
    hosts = []
    for item in map(str.strip, _split_hosts(text)):
        user, at, address = item.rpartition("@")
        hosts += [user + at + name for name in _names(address, f"{option} {in_short(item)}", item)]
    return hosts


def _names(address: str, where: str, item: str) -> list[str]:
    """The names that `address` stands for: those of a range, or one, without the brackets of IPv6."""
    if _RANGES.search(address):
        return expand(address, where)
    if address.startswith("[") and address.endswith("]"):
        return [address[1:-1]]
    if ":" in address:
        raise UsageError(f"{where}: write an IPv6 address in brackets, with cores: [{in_short(item)}]:4")
    return [address]


def _is_plain(name: str, besides: str) -> bool:
    # Strict, because ssh may put the name into a shell command (ProxyCommand %h).
    return all(letter.isalnum() or letter in besides for letter in name)


def _parse_count(count: str, shown: str, host: str, option: str) -> int:
    if not count.strip():
        raise UsageError(f"{option} {shown}: {_EXAMPLE}, e.g. {host}:4")
    digits = count.strip().removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        count = in_short(count)
        raise UsageError(f"{option} {shown}: the number of cores must be a whole number, not '{count}'")
    if len(digits) > 9 or int(digits) > MAX_CORES:
        raise UsageError(f"{option} {shown}: more than {MAX_CORES} cores on one host")
    if count.strip().startswith("-") or int(digits) == 0:
        raise UsageError(f"{option} {shown}: a host needs at least 1 core")
    return int(digits)


def whole(text: str, most: int = 10**9) -> int | None:
    """A number from 1 to `most`, else None."""
    number = int(text) if re.fullmatch("[0-9]{1,9}", text.strip()) else 0
    return number if 0 < number <= most else None


def slots(cores: int, cores_per_task: float, tasks_per_node: int | None = None) -> int:
    """Tasks at once on a node: cores / `cores_per_task` (`-c`, may be fractional), and at most
    `tasks_per_node` (`-t`). 0 if the node is too small for one. UsageError for a `-c` that makes no sense."""
    if not (cores_per_task > 0 and math.isfinite(cores_per_task)):
        raise UsageError(f"-c {cores_per_task:g}: cores per task must be more than 0")
    if tasks_per_node is not None and tasks_per_node < 1:
        raise UsageError(f"-t {tasks_per_node}: tasks per node must be at least 1")
    room = cores / cores_per_task + 1e-9
    if tasks_per_node is not None and tasks_per_node < room:
        room = tasks_per_node
    if room > MAX_CORES:
        raise UsageError(f"-c {cores_per_task:g}: that makes more than {MAX_CORES} tasks at once on one node")
    return math.floor(room)


def left_out(name: str, cores: int, need: str) -> str:
    """A warning: the node has fewer `cores` than one task needs; `need`: the option that asks for more."""
    return f"{name}: left out: it has {counted(cores, 'core')}, and {need} asks for more"


def no_room(warnings: list[str]) -> UsageError:
    """All nodes were left out, for these reasons."""
    return UsageError(f"no node has room for a task: {'; '.join(warnings[:3])}")


A_CHILD = 3
"""Descriptors of a process that lives as long as its engine: two pipes and a pidfd."""
AT_ONCE = 64
"""Descriptors of simultaneous launches that leave nothing open."""
OF_ENGINES = 0.75
"""The share of the relay's connections that engines may take."""


def need(node: Node, *, tunnel: bool, connected: bool) -> int:
    """Descriptors for an engine on `node`; `connected`: including its connection."""
    child = node.way is not Way.SSH or tunnel
    return A_CHILD * child + connected


def room_for_connections(expected: int, others: int) -> int:
    """How many more engines may connect to this driver: so many are `expected`, and `others` are connected or
    expected."""
    own = descriptors.limit() - descriptors.in_use() - descriptors.reserve() - expected
    return max(0, min(own, int(most_connections() * OF_ENGINES) - others))


def affordable(nodes: list[Node], *, tunnel: bool, connected: bool) -> tuple[list[Node], str]:
    """As many of the nodes as there are descriptors for, and a line for the user if these are not all.
    `connected`: their engines connect to this process. UsageError if there is room for none."""
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
