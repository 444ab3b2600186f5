"""Made-up computers: their topology, and how the kernel describes it."""

from __future__ import annotations

from pathlib import Path

from disbatch.engine.cpu_topology import Core, Topology


def made(packages: int, domains: int, cores: int, threads: int) -> Topology:
    """A computer with so many packages, NUMA domains in each, cores in each, hyperthreads in each. CPUs are
    numbered as Linux mostly does: first one thread of every core, then the others."""
    total = packages * domains * cores
    return Topology(
        [
            Core(core // cores, core // (domains * cores), tuple(core + total * t for t in range(threads)))
            for core in range(total)
        ]
    )


LAPTOP = made(1, 1, 4, 2)
TWO_SOCKETS = made(2, 2, 4, 1)
EPYC = made(1, 8, 8, 2)
HYBRID = Topology(
    [Core(0, 0, (2 * core, 2 * core + 1)) for core in range(4)] + [Core(0, 0, (cpu,)) for cpu in range(8, 12)]
)


def describe(system: Path, topology: Topology, *, numa: bool = True) -> None:
    """Write it as the kernel does."""
    domains: dict[int, list[int]] = {}
    for core in topology.cores:
        for cpu in core.cpus:
            folder = system / f"cpu/cpu{cpu}/topology"
            folder.mkdir(parents=True)
            (folder / "physical_package_id").write_text(f"{core.package}\n")
            (folder / "core_id").write_text(f"{core.cpus[0]}\n")
            (folder / "thread_siblings_list").write_text(",".join(map(str, core.cpus)) + "\n")
            domains.setdefault(core.domain, []).append(cpu)
    for domain, cpus in domains.items() if numa else ():
        (system / f"node/node{domain}").mkdir(parents=True)
        (system / f"node/node{domain}/cpulist").write_text(",".join(map(str, cpus)) + "\n")
