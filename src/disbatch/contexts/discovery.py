"""Choose the nodes of a run: from `-s`, DISBATCH_SSH_NODELIST, a Slurm job, what a job of another scheduler
has of this machine, or all of it. Pure, but for `ask` and `read`, which are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disbatch.contexts.nodes import Machine, Node, left_out, no_room, parse_node_list, slots
from disbatch.model.task import Way

if TYPE_CHECKING:
    from disbatch.contexts.slurm.hetjob import JobFacts
    from disbatch.contexts.slurm.job import Allocation


@dataclass(frozen=True)
class Choice:
    """The nodes of a run; `warnings` for the user (a line each), e.g. of nodes that were left out; and the
    scheduler's job that the nodes are of, if they are."""

    nodes: list[Node]
    warnings: list[str]
    allocation: Allocation | None = None


def choose_nodes(
    lists: Iterable[str],
    environ: Mapping[str, str],
    machine: Machine,
    *,
    cores_per_task: float | None = None,
    tasks_per_node: int | None = None,
    fill: bool = False,
    ask: Callable[[str], JobFacts],
    read: Callable[[str], str],
) -> Choice:
    """The nodes of a run. UsageError if there are none, or nobody can say which.

    `lists` are the values of `-s`; without any, DISBATCH_SSH_NODELIST; without that, the Slurm job that
    `environ` tells of, and `ask(job)` says more about; without that, this machine, within the share of
    another scheduler's job, whose files `read(path)` gives. `cores_per_task` (-c) is 1 unless given, or what
    a Slurm job asked for.
    """
    texts, option = list(lists), "-s"
    if not texts and environ.get("DISBATCH_SSH_NODELIST"):
        texts, option = [environ["DISBATCH_SSH_NODELIST"]], "DISBATCH_SSH_NODELIST"
    if not texts and (environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID")):
        from disbatch.contexts.slurm.job import allocation, job_of

        facts = ask(job_of(environ) or "")
        allocated, warnings = allocation(
            environ,
            machine.hostname,
            facts,
            cores_per_task=cores_per_task,
            tasks_per_node=tasks_per_node,
            fill=fill,
        )
        return Choice(allocated.nodes, warnings, allocated)
    each = 1.0 if cores_per_task is None else cores_per_task
    if texts:
        return _of_hosts(parse_node_list(texts, option), machine, each, tasks_per_node)
    from disbatch.contexts.batch import share_of_job

    share = share_of_job(environ, machine, read)
    cores = machine.cores if share is None else share.cores or 1
    choice = _of_hosts({"localhost": cores}, machine, each, tasks_per_node)
    return choice if share is None else Choice(choice.nodes, [share.words(), *choice.warnings])


def _of_hosts(
    hosts: Mapping[str, int], machine: Machine, cores_per_task: float, tasks_per_node: int | None
) -> Choice:
    nodes: list[Node] = []
    warnings: list[str] = []
    for name, cores in hosts.items():
        room = slots(cores, cores_per_task, tasks_per_node)
        if room:
            way = Way.CHILD if machine.is_called(name) else Way.SSH
            nodes.append(Node(name, cores, room, way, cores_per_task))
        else:
            warnings.append(left_out(name, cores, f"-c {cores_per_task:g}"))
    if not nodes:
        raise no_room(warnings)
    return Choice(nodes, warnings)
