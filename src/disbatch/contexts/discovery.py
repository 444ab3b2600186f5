"""Choose the nodes of a run: from `-s`, DISBATCH_SSH_NODELIST, the job of a scheduler, the share of this
machine that a job of a scheduler without a context has, or all of it. Pure, except that schedulers are
asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from disbatch.contexts.context import Choice, Scheduler
from disbatch.contexts.nodes import Machine, Node, SlotRules, left_out, no_room, parse_node_list, slots
from disbatch.model.task import Way


@dataclass(frozen=True)
class Entry:
    """A scheduler. Its jobs have one of these variables; `load` imports it."""

    variables: tuple[str, ...]
    load: Callable[[], Scheduler]

    def has(self, environ: Mapping[str, str]) -> bool:
        """True if this is the environment of one of its jobs."""
        return any(environ.get(name) for name in self.variables)


def _slurm() -> Scheduler:
    from disbatch.contexts.slurm.context import Slurm

    return Slurm()


SCHEDULERS: tuple[Entry, ...] = (Entry(("SLURM_JOB_ID", "SLURM_JOBID"), _slurm),)
"""The schedulers that have a context; the first that recognises the environment counts."""


def scheduler_of(environ: Mapping[str, str], schedulers: Sequence[Entry] = SCHEDULERS) -> Scheduler | None:
    """The scheduler whose job has this environment; None if none, or if it has no context."""
    return next((entry.load() for entry in schedulers if entry.has(environ)), None)


def restarted_by(environ: Mapping[str, str]) -> str:
    """The name of the scheduler that has started this job before, under the same number; "" if none has."""
    scheduler = scheduler_of(environ)
    return scheduler.name if scheduler is not None and scheduler.is_restarted(environ) else ""


def named_hosts(lists: Iterable[str], environ: Mapping[str, str]) -> tuple[list[str], str]:
    """The lists of hosts that the user named, and where: with -s, or in DISBATCH_SSH_NODELIST."""
    texts, variable = list(lists), "DISBATCH_SSH_NODELIST"
    if not texts and environ.get(variable):
        return [environ[variable]], variable
    return texts, "-s"


def choose_nodes(
    lists: Iterable[str],
    environ: Mapping[str, str],
    machine: Machine,
    rules: SlotRules,
    *,
    read: Callable[[str], str],
    schedulers: Sequence[Entry] = SCHEDULERS,
) -> Choice:
    """The nodes of a run. UsageError if there are none, or if they cannot be found out.

    `lists`: the values of `-s`; without them DISBATCH_SSH_NODELIST; without that the job of one of the
    `schedulers`, found in `environ`; without that this machine, within the share that the job of another
    scheduler has; `read(path)` reads that scheduler's files. Default cores per task: 1, or what a job asked
    for.
    """
    texts, option = named_hosts(lists, environ)
    scheduler = None if texts else scheduler_of(environ, schedulers)
    if scheduler is not None:
        return scheduler.discover(environ, machine, rules)
    if texts:
        return _of_hosts(parse_node_list(texts, option), machine, rules)
    from disbatch.contexts.batch import share_of_job

    share = share_of_job(environ, machine, read)
    cores = machine.cores if share is None else share.cores or 1
    choice = _of_hosts({"localhost": cores}, machine, rules)
    return choice if share is None else Choice(choice.nodes, [share.words(), *choice.warnings])


def _of_hosts(hosts: Mapping[str, int], machine: Machine, rules: SlotRules) -> Choice:
    cores_per_task = 1.0 if rules.cores_per_task is None else rules.cores_per_task
    nodes: list[Node] = []
    warnings: list[str] = []
    for name, cores in hosts.items():
        room = slots(cores, cores_per_task, rules.tasks_per_node)
        if room:
            way = Way.CHILD if machine.is_called(name) else Way.SSH
            nodes.append(Node(name, cores, room, way, cores_per_task))
        else:
            warnings.append(left_out(name, cores, f"-c {cores_per_task:g}"))
    if not nodes:
        raise no_room(warnings)
    return Choice(nodes, warnings)
