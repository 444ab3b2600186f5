"""Allot the node's CPUs to slots, from the kernel's description of its topology.

A CPU is what the kernel calls one (a hyperthread), a core is one CPU or several (siblings), and a domain is a
NUMA node, or a package where the kernel reports no NUMA.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

SYSTEM = Path("/sys/devices/system")
LONGEST_FILE = 1 << 16
MOST_CPUS = 1 << 16
"""A larger number is not a CPU: the file does not hold what it should."""


class Core(NamedTuple):
    """A physical core; sorting brings neighbours together. `cpus` in ascending order."""

    domain: int
    package: int
    cpus: tuple[int, ...]


class Topology(NamedTuple):
    """The cores of a node, in order of domain, package and number."""

    cores: list[Core]


def parse_cpus(text: str) -> list[int]:
    """The numbers in a list like `0-3,8,10-11`; anything that is not a number is ignored."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            continue
        # The kernel may write strides (`0-6:2`), but not in these lists of CPUs.
        numbers += range(int(first), min(int(last or first), MOST_CPUS) + 1)
    return numbers


def format_cpus(cpus: Iterable[int]) -> str:
    """A list like `0-3,8`, as the kernel writes it."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and runs[-1][-1] == cpu - 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def read_topology(system: Path = SYSTEM) -> Topology:
    """Read the topology below `system`. Missing parts count as one domain, and each CPU as a core."""
    domains = {
        cpu: _number(folder.name, "node")
        for folder in (system / "node").glob("node[0-9]*")
        for cpu in parse_cpus(_read(folder / "cpulist"))
    }
    cores: dict[tuple[int, ...], Core] = {}
    for folder in (system / "cpu").glob("cpu[0-9]*"):
        cpu = _number(folder.name, "cpu")
        package = _whole(_read(folder / "topology/physical_package_id"))
        siblings = set(parse_cpus(_read(folder / "topology/thread_siblings_list"))) | {cpu}
        cpus = tuple(sorted(siblings))
        cores[cpus] = Core(domains.get(cpu, 0) if domains else package, package, cpus)
    return Topology(sorted(cores.values()))


def _number(name: str, prefix: str) -> int:
    return _whole(name.removeprefix(prefix))


def _whole(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdecimal() else 0


def _read(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(LONGEST_FILE)
    except OSError:
        return ""


def whole_cores(topology: Topology, mask: set[int]) -> bool:
    """True if `mask` has all siblings of each of its CPUs."""
    return all(mask.issuperset(core.cpus) or mask.isdisjoint(core.cpus) for core in topology.cores)


def allot(
    topology: Topology, mask: set[int], slots: int, cores_per_task: float
) -> list[frozenset[int]] | None:
    """Divide all CPUs of `mask` among `slots`: the CPUs of each; None if there are fewer than slots *
    `cores_per_task`.

    No two slots share a CPU, unless there are fewer CPUs than slots (tasks of half a core). No slot has fewer
    than `cores_per_task`, rounded down. Within that, in this order of priority: slots stay within a domain;
    siblings stay together; all slots have the same number of CPUs, give or take one core or CPU.
    """
    if slots < 1 or len(mask) < slots * cores_per_task - 1e-9:
        return None
    domains = _domains(topology, mask)
    everything = [core for domain in domains for core in domain]
    if len(mask) < slots:
        return _overlapping(list(itertools.chain.from_iterable(everything)), slots)
    need = max(1, math.floor(cores_per_task + 1e-9))
    return _within_domains(domains, slots, need) or _divide(everything, slots, need)


def _domains(topology: Topology, mask: set[int]) -> list[list[tuple[int, ...]]]:
    """The CPUs of `mask` in each core, by domain; a CPU that the topology does not know is a core at the
    end."""
    domains: dict[int, list[tuple[int, ...]]] = {}
    unknown = set(mask)
    for core in topology.cores:
        if cpus := tuple(cpu for cpu in core.cpus if cpu in unknown):
            domains.setdefault(core.domain, []).append(cpus)
            unknown.difference_update(cpus)
    found = list(domains.values())
    if unknown:
        found.append([(cpu,) for cpu in sorted(unknown)])
    return found


def _overlapping(cpus: Sequence[int], slots: int) -> list[frozenset[int]]:
    """More slots than CPUs: slot r has the CPUs that the r-th part of the row overlaps."""
    count = len(cpus)
    return [frozenset(cpus[slot * count // slots : -(-(slot + 1) * count // slots)]) for slot in range(slots)]


def _within_domains(
    domains: list[list[tuple[int, ...]]], slots: int, need: int
) -> list[frozenset[int]] | None:
    """Give each domain slots of its own; None if a domain had no slot, or a slot too few CPUs."""
    sizes = [sum(map(len, domain)) for domain in domains]
    # The next slot goes where each of the domain's slots then has the most CPUs, preferably to an empty one.
    rooms = [(-float(size), 1, position) for position, size in enumerate(sizes)]
    heapq.heapify(rooms)
    counts = [0] * len(domains)
    for _ in range(slots):
        _, count, position = rooms[0]
        counts[position] = count
        heapq.heapreplace(rooms, (-sizes[position] / (count + 1), count + 1, position))
    if any(size < count * need or not count for size, count in zip(sizes, counts, strict=True)):
        return None
    parts = [_divide(domain, count, need) for domain, count in zip(domains, counts, strict=True)]
    return list(itertools.chain.from_iterable(parts))


def _divide(cores: list[tuple[int, ...]], slots: int, need: int) -> list[frozenset[int]]:
    """Cut the row of cores into equal parts; between siblings only if a slot had fewer than `need`
    otherwise."""
    row = list(itertools.chain.from_iterable(cores))
    ends = [0, *itertools.accumulate(map(len, cores))]
    cuts = [_nearest(ends, slot * len(row) / slots) for slot in range(slots + 1)]
    if any(end - start < need for start, end in itertools.pairwise(cuts)):
        cuts = [slot * len(row) // slots for slot in range(slots + 1)]
    return [frozenset(row[start:end]) for start, end in itertools.pairwise(cuts)]


def _nearest(ends: list[int], place: float) -> int:
    above = bisect.bisect_left(ends, place)
    return min(ends[max(0, above - 1) : above + 1], key=lambda end: abs(end - place))
