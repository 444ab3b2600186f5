"""A Slurm job as nodes and slots, from its environment and from scontrol. Pure.

Theory of operation
-------------------
The environment says what the job was given: which nodes (SLURM_JOB_NODELIST), and for each of them, in the
same order, how many cores (SLURM_JOB_CPUS_PER_NODE) and tasks (SLURM_TASKS_PER_NODE). What the job has now
may differ (it gave nodes back, or grew), so scontrol's list of nodes wins where it is known.

Some variables may describe something else. Inside a step (`srun --pty bash`), SLURM_TASKS_PER_NODE,
SLURM_NTASKS and SLURM_CPUS_PER_TASK are the step's; in a job submitted from within a step, SLURM_STEP_* and
SLURM_CPUS_PER_TASK may be those of the step it was submitted from. So we are in a step if SLURM_STEP_ID is
set and SLURM_TASKS_PER_NODE is the same as SLURM_STEP_TASKS_PER_NODE. There the job's tasks are dealt out
anew, as Slurm does: scontrol's NumTasks, one to each node in turn, within cores / CPUs per task; if that is
not known, a node's tasks are limited by its cores alone. And scontrol's CPUs/Task, which is 1 if the user did
not ask for any, wins over SLURM_CPUS_PER_TASK.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from disbatch.contexts.hostlist import MAX_NODES, expand
from disbatch.contexts.nodes import MAX_CORES, NO_RULES, Node, SlotRules, left_out, no_room, slots, whole
from disbatch.contexts.slurm.hetjob import NODE_LISTS, JobFacts, components
from disbatch.model.errors import UsageError
from disbatch.model.task import Way
from disbatch.model.text import in_short

RETIRE_COMMAND = 'scontrol update JobId="$SLURM_JOBID" NodeList="${DRIVER_NODE:+$DRIVER_NODE,}$ACTIVE"'
"""The command that gives a job's nodes back, unless -k names another."""
INSTEAD = "unset it, or name nodes with -s HOST:CORES[,HOST:CORES...]"
_OVER = re.compile(
    "PENDING|BOOT_FAIL|CANCELLED|COMPLETED|DEADLINE|FAILED|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED|REVOKED|TIMEOUT"
)
"""States of a job that has no nodes any more, or not yet."""
_JOB = re.compile(r"[0-9]{1,18}")
_COUNT = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")
_OWNER = re.compile(r" UserId=.*?\([0-9]+\) GroupId=.*?\([0-9]+\) ")
_MEMBER = re.compile(
    r"JobId=([0-9]{1,18}) (?:Het|Pack)JobId=([0-9]{1,18}) (?:Het|Pack)JobOffset=([0-9]{1,4}) "
)
_GROUP = re.compile(r" Nodes=(\S+) CPU_IDs=(\S*) Mem=\S* GRES(?:_IDX)?=(\S*)")
_IDS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


@dataclass(frozen=True)
class Allocation:
    """A Slurm job and what a run may use of it.

    `nodes`: those with room for a task. `own_node`: the one that this process runs on; "" if it is not in the
    job (salloc on a login node). `keep`: nodes that must not be given back. `end`, `kill_wait`, `version`: as
    in JobFacts. `heterogeneous`: it has several components.
    """

    job: str
    nodes: list[Node]
    own_node: str
    keep: frozenset[str]
    end: float | None
    kill_wait: float | None
    version: tuple[int, int] | None
    heterogeneous: bool = False


# ---- what scontrol and srun say ----


def parse_job(text: str, job: str) -> JobFacts:
    """The facts in the output of `scontrol show job -d -o JOB`: from the line of that job, and those of its
    components, if it is the first of several (for the last job of an array, there are other lines, too).
    Times may be local, or seconds since the epoch (SLURM_TIME_FORMAT=%s)."""
    lines = [line for line in text.splitlines() if line.startswith(f"JobId={job} ")]
    if not lines:
        return JobFacts(problem=f"scontrol says nothing of job {job}")
    facts = _parse_line(lines[0], job)
    members = [(member, line) for line in text.splitlines() if (member := _MEMBER.match(line))]
    parts = {int(member[3]): _parse_line(line, member[1]) for member, line in members if member[2] == job}
    if len(parts) < 2:
        return facts
    ends = [part.end for part in parts.values() if part.end is not None]
    problem = next(filter(None, (part.problem for part in (facts, *parts.values()))), "")
    return replace(facts, components=parts, end=min(ends, default=None), problem=problem)


def _parse_line(line: str, job: str) -> JobFacts:
    # The job's name, which precedes its owner, is free text: skip it.
    named = _OWNER.search(line)
    line = line[named.end() - 1 :] if named else line
    state = _value(line, "JobState")
    held = _value(line, "NodeList")
    cpus: dict[str, int] = {}
    gpus: dict[str, int] = {}
    try:
        nodes = [] if held == "(null)" else expand(held, "NodeList")
        for names, ids, gres in _GROUP.findall(line):
            group = expand(names, "Nodes")
            cpus.update(dict.fromkeys(group, _count_ids(ids)))
            gpus.update(dict.fromkeys(group, _count_gpus(gres)))
    except UsageError as error:
        return JobFacts(problem=f"scontrol's words on job {job} are not understood: {error}")
    asked = [per for per in ("Node", "Job", "Socket", "Task") if "gpu" in _value(line, f"TresPer{per}")]
    return JobFacts(
        nodes=nodes,
        batch_host=_value(line, "BatchHost") if _value(line, "BatchFlag") == "1" else "",
        end=_epoch(_value(line, "EndTime")),
        gpus=gpus,
        cpus=cpus,
        gpus_per_node=asked == ["Node"],
        tasks=whole(_value(line, "NumTasks")),
        cpus_per_task=whole(_value(line, "CPUs/Task")),
        preempted=_epoch(_value(line, "PreemptTime")) is not None,
        requeue=_value(line, "Requeue") == "1",
        partition=_value(line, "Partition"),
        qos=_value(line, "QOS").replace("(null)", ""),
        gone=f"Slurm says that this job is {state}" if _OVER.fullmatch(state) else "",
        ending=state == "COMPLETING",
    )


def _value(line: str, key: str) -> str:
    match = re.search(rf" {key}=(\S*)", line)
    return match[1] if match else ""


def _epoch(text: str) -> float | None:
    if re.fullmatch("[0-9]{1,12}", text):
        return float(text)
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):  # Unknown, N/A, a format of the site's
        return None


def _count_ids(text: str) -> int:
    """The number of ids in `0-3,8`; 0 for other text."""
    matches = [_IDS.fullmatch(item) for item in text.split(",")]
    return sum(max(0, int(m[2] or m[1]) - int(m[1]) + 1) if m else 0 for m in matches)


def _count_gpus(gres: str) -> int:
    """GPUs in `gpu:a100:2(IDX:0,2),gpu:1(IDX:3),nvme:1`; old ones write `gpu(IDX:0-1)`."""
    count = 0
    for name, inside in re.findall(r"([^,()]+)(?:\(([^()]*)\))?", gres):
        words = name.split(":")
        if words[0] == "gpu":
            _, _, ids = inside.partition(":")
            count += whole(words[-1]) or _count_ids(ids)
    return count


def parse_config(text: str) -> float | None:
    """KillWait, in seconds, in the output of `scontrol show config`."""
    match = re.search(r"^KillWait\s*=\s*([0-9]{1,9})\b", text, re.MULTILINE)
    return float(match[1]) if match else None


def parse_version(text: str) -> tuple[int, int] | None:
    """Of `slurm 23.11.4`, `slurm-wlm 22.05.8`: the first two numbers."""
    match = re.match(r"slurm\S* ([0-9]{1,4})\.([0-9]{1,4})\b", text)
    return (int(match[1]), int(match[2])) if match else None


# ---- what the environment says ----


def job_of(environ: Mapping[str, str]) -> str | None:
    """The job's number (SLURM_JOB_ID); None if there is no job. UsageError if it is not a number."""
    job = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID") or None
    if job is not None and not _JOB.fullmatch(job):
        raise UsageError(f"SLURM_JOB_ID is '{in_short(job)}', which is not a job number: {INSTEAD}")
    return job


def expand_counts(text: str, variable: str) -> list[int]:
    """[3, 3, 1] for `3(x2),1`. UsageError (one line, which names `variable`) for anything else."""
    counts: list[int] = []
    for item in text.split(","):
        match = _COUNT.fullmatch(item.strip())
        number, times = (int(match[1]), int(match[2] or 1)) if match else (0, 0)
        if not (0 < number <= MAX_CORES and 0 < times <= MAX_NODES - len(counts)):
            raise UsageError(f"{variable} is '{in_short(text)}'; that should be numbers like 4(x2),3")
        counts += [number] * times
    return counts


def _in_step(environ: Mapping[str, str]) -> bool:
    of_step = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    return bool(environ.get("SLURM_STEP_ID")) and environ.get("SLURM_TASKS_PER_NODE", of_step) == of_step


def _refuse_copies(environ: Mapping[str, str]) -> None:
    """UsageError if `srun disbatch` started a copy for each task of the step. `srun -n4 --pty bash` has only
    one shell: the others ended because they had no terminal."""
    copies = whole(environ.get("SLURM_STEP_NUM_TASKS", "")) or 1
    first = environ.get("SLURM_PROCID", "0") == "0"
    if copies == 1 or (first and (environ.get("SLURM_PTY_PORT") or not _in_step(environ))):
        return
    if not first:
        raise UsageError("")  # the first copy says it
    raise UsageError(
        f"srun started {copies} copies of disbatch: start it once, without srun "
        "(in a job of sbatch or salloc; it starts its engines on the nodes by itself)"
    )


# ---- nodes and slots ----


@dataclass(frozen=True)
class _Granted:
    """A node of the job; `tasks`: None if their number is not known."""

    name: str
    cores: int
    tasks: int | None


def allocation(
    environ: Mapping[str, str],
    hostname: str,
    facts: JobFacts,
    rules: SlotRules = NO_RULES,
) -> tuple[Allocation, list[str]]:
    """The nodes and slots of the job in `environ`, and warnings for the user, a line each.

    `hostname`: of this machine. Cores per task: -c, else the job's --cpus-per-task, else 1 with -t or --fill,
    else a node's cores divided by its tasks and rounded down. Slots of a node: as many as the job has tasks
    there, within cores / cores per task; with -t that many instead, with --fill no limit instead. A -c below
    1 allows several for each of the job's tasks. UsageError if there is no job, no node, or no room.
    """
    job = job_of(environ)
    if job is None:
        raise UsageError("SLURM_JOB_ID is not set: this is not a Slurm job")
    if facts.gone:
        raise UsageError(f"SLURM_JOB_ID is {job}, but {facts.gone}: {INSTEAD}")
    _refuse_copies(environ)
    alone = "; going by the job's environment alone" if facts.nodes is None else ""
    warnings = [facts.problem + alone] if facts.problem else []
    parts = components(environ, facts)
    warnings += filter(None, (part.problem for part in parts))
    used = [part for part in parts if not part.problem]
    granted = [(part, node) for part in used for node in _granted(job, part.environ, part.facts)]
    nodes: list[Node] = []
    small: list[str] = []
    for part, node in granted:
        share = 1.0 if rules.fill or rules.tasks_per_node is not None else _share(node)
        asked = _asked_per_task(part.environ, part.facts)
        each = rules.cores_per_task if rules.cores_per_task is not None else asked or share
        room = slots(node.cores, each, _most(node, rules))
        if room:
            gpus = 0 if part.facts.gpus_per_node else part.facts.gpus.get(node.name, 0)
            nodes.append(Node(node.name, node.cores, room, Way.STEP, each, gpus, part.group))
        else:
            option = "-c " if rules.cores_per_task is not None else "the job's --cpus-per-task="
            small.append(left_out(node.name, node.cores, f"{option}{each:g}"))
    if not nodes:
        raise no_room(small)
    names = [node.name for _, node in granted]
    own = _own_node(environ, hostname, names)
    # The batch script runs on the first node, unless Slurm names another.
    keep = frozenset({own, names[0] if facts.batch_host is None else facts.batch_host} - {""})
    end = facts.end if facts.end is not None else _epoch(environ.get("SLURM_JOB_END_TIME", ""))
    found = Allocation(job, nodes, own, keep, end, facts.kill_wait, facts.version, len(parts) > 1)
    return found, warnings + small


def _share(node: _Granted) -> float:
    """Cores of each of the node's tasks: a whole number, for OMP_NUM_THREADS, unless below 1."""
    share = node.cores / (node.tasks or node.cores)
    return float(math.floor(share)) if share > 1 else share


def _most(node: _Granted, rules: SlotRules) -> int | None:
    """The limit on the node's slots besides its cores."""
    if rules.fill or rules.tasks_per_node is not None or node.tasks is None:
        return rules.tasks_per_node
    if rules.cores_per_task is None or not 0 < rules.cores_per_task < 1:
        return node.tasks
    return math.floor(min(node.tasks / rules.cores_per_task + 1e-9, MAX_CORES + 1))


def _asked_per_task(environ: Mapping[str, str], facts: JobFacts) -> int | None:
    """The job's --cpus-per-task; None if it has none."""
    told = whole(environ.get("SLURM_CPUS_PER_TASK", ""))
    if facts.cpus_per_task is None or facts.cpus_per_task == told:
        return told
    return facts.cpus_per_task if facts.cpus_per_task > 1 else None


def _granted(job: str, environ: Mapping[str, str], facts: JobFacts) -> list[_Granted]:
    variable = next((name for name in NODE_LISTS if environ.get(name)), NODE_LISTS[0])
    listed = expand(environ[variable], variable) if environ.get(variable) else []
    if facts.nodes is None and not listed:
        raise UsageError(
            f"SLURM_JOB_ID is {job}, but SLURM_JOB_NODELIST is not set"
            f"{f', and {facts.problem}' if facts.problem else ''}: {INSTEAD}"
        )
    names = listed
    if facts.nodes is not None:
        held = dict.fromkeys(facts.nodes)
        names = [name for name in listed if name in held]
        names += [name for name in held if name not in set(listed)]
    if not names:
        raise UsageError(f"SLURM_JOB_ID is {job}, but that job has no nodes: {INSTEAD}")
    cores = {**facts.cpus, **_for_each(environ, "SLURM_JOB_CPUS_PER_NODE", listed)}
    for name in names:
        if not cores.get(name):
            value = in_short(environ.get("SLURM_JOB_CPUS_PER_NODE", "not set"))
            raise UsageError(
                f"{name}: the number of cores that the job has there is not known "
                f"(SLURM_JOB_CPUS_PER_NODE: {value}"
                f"{f'; {facts.problem}' if facts.problem else ''}): "
                "name nodes with -s HOST:CORES[,HOST:CORES...]"
            )
    tasks = {} if _in_step(environ) else _for_each(environ, "SLURM_TASKS_PER_NODE", listed)
    if not tasks and facts.tasks is not None:
        tasks = _dealt(facts.tasks, {name: cores[name] // (facts.cpus_per_task or 1) for name in names})
    return [_Granted(name, cores[name], tasks.get(name)) for name in names]


def _for_each(environ: Mapping[str, str], variable: str, nodes: list[str]) -> dict[str, int]:
    """The numbers in a variable by node; none if it describes other nodes."""
    counts = expand_counts(environ[variable], variable) if environ.get(variable) else []
    return dict(zip(nodes, counts, strict=True)) if len(counts) == len(nodes) else {}


def _dealt(tasks: int, room: Mapping[str, int]) -> dict[str, int]:
    """Tasks of each node: one each, and the rest in turn to those with room."""
    dealt = dict.fromkeys(room, 1)
    rest = tasks - len(dealt)
    while rest > 0 and (open_nodes := [name for name in dealt if dealt[name] < room[name]]):
        turn = open_nodes[:rest]
        for name in turn:
            dealt[name] += 1
        rest -= len(turn)
    return dealt


def _own_node(environ: Mapping[str, str], hostname: str, names: Iterable[str]) -> str:
    known = set(names)
    mine = (environ.get("SLURMD_NODENAME", ""), hostname, hostname.partition(".")[0])
    return next((name for name in mine if name in known), "")
