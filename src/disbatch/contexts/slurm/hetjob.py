"""The facts about a Slurm job, and the components of a heterogeneous job. Pure.

Slurm describes a component by the usual variables with the suffix _HET_GROUP_N (_PACK_GROUP_N before version
20.02), and scontrol prints a line for each. Steps are started in the job of the first component, which
SLURM_JOB_ID names; --het-group of srun selects the component.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from disbatch.contexts.nodes import whole

SIZE_VARIABLES = ("SLURM_HET_SIZE", "SLURM_PACK_SIZE")
"""The number of components. An srun that finds neither variable ignores the components."""
NODE_LISTS = ("SLURM_JOB_NODELIST", "SLURM_NODELIST")
MOST_COMPONENTS = 128
"""Slurm's own limit."""
_SUFFIXES = ("_HET_GROUP_", "_PACK_GROUP_")


@dataclass(frozen=True)
class JobFacts:
    """What Slurm says of a job; facts that are not known are None, empty or 0.

    `nodes`: present nodes. `cpus`, `gpus`: of each node. `gpus_per_node`: GPUs were requested per node only,
    so that each step gets them without asking. `batch_host`: the node of the batch script, "" if there is
    none. `tasks`, `cpus_per_task`: as requested. `end`: end of its time, seconds since the epoch.
    `kill_wait`: seconds from SIGTERM to SIGKILL. `version`: of srun. `preempted`: another job gets its nodes;
    `requeue`: it may then be started again later, if `partition` or `qos` say so. `gone`: why the job cannot
    be used, to follow "SLURM_JOB_ID is 7, but". `ending`: Slurm is ending the rest of it. `problem`: why
    something is not known, one line. `components`: of a heterogeneous job, by number; the first is this job
    itself, and `end` is the earliest end of all.
    """

    nodes: list[str] | None = None
    batch_host: str | None = None
    end: float | None = None
    gpus: Mapping[str, int] = field(default_factory=dict)
    cpus: Mapping[str, int] = field(default_factory=dict)
    gpus_per_node: bool = False
    tasks: int | None = None
    cpus_per_task: int | None = None
    kill_wait: float | None = None
    version: tuple[int, int] | None = None
    preempted: bool = False
    requeue: bool = False
    partition: str = ""
    qos: str = ""
    gone: str = ""
    problem: str = ""
    ending: bool = False
    components: Mapping[int, JobFacts] = field(default_factory=dict)


@dataclass(frozen=True)
class Component:
    """A component: its variables, named as those of a job, and its facts. `group`: its number for srun; None
    in a job without components."""

    group: int | None
    environ: Mapping[str, str]
    facts: JobFacts

    @property
    def problem(self) -> str:
        """Why its nodes cannot be used, a line for the user; "" if they can, or if it is the first one."""
        where = f"component {self.group} of the heterogeneous job"
        if not self.group:
            return ""
        if self.facts.gone:
            return f"{where} is not used: {self.facts.gone}"
        known = self.facts.nodes or any(self.environ.get(name) for name in NODE_LISTS)
        return "" if known else f"{where} is not used: nothing says which nodes it has"


def components(environ: Mapping[str, str], facts: JobFacts) -> list[Component]:
    """The components of the job; the job itself, if it is not heterogeneous."""
    sizes = [whole(environ.get(name, ""), MOST_COMPONENTS) or 1 for name in SIZE_VARIABLES]
    size = max(*sizes, max(facts.components, default=0) + 1)
    if size == 1:
        return [Component(None, environ, facts)]
    unknown = dataclasses.replace(facts, nodes=None, cpus={}, gpus={}, tasks=None, cpus_per_task=None)
    return [
        Component(group, _variables(environ, group), facts.components.get(group, unknown))
        for group in range(size)
    ]


def _variables(environ: Mapping[str, str], group: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for suffix in reversed(_SUFFIXES):
        end = f"{suffix}{group}"
        found |= {name.removesuffix(end): value for name, value in environ.items() if name.endswith(end)}
    return found if found or group else dict(environ)
