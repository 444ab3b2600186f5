"""The protocol of a context: where engines come from and go back to.

A run, and each context that is attached to it, has one: `Hosts` (this machine, and hosts behind ssh) or the
job of a scheduler (`slurm.context`). Outside `contexts/` nothing asks which one it is. Each method has a
default for schedulers that lack the feature.

How to add a scheduler
----------------------
1. Write a module `contexts/NAME.py` (or a package) with a subclass of `Context` for a job, and a `Scheduler`,
   which recognises a job in the environment and discovers its nodes.
2. List it in `discovery.SCHEDULERS`, and remove it from `batch`, if it is there.
3. The names of its variables are in `model/job.py`: add them, if they are missing.

Each node says how its engine is launched (`Node.way`): as a child of this process, through ssh, or as a step,
that is, by a command of the scheduler that stays in the foreground as long as the engine. A context decides
for each node: if its scheduler starts no command on the driver's own node (Grid Engine), that node is a
child. A `Launch` says how such a command passes on the engine's Bootstrap, which holds the keys of the run,
and how the engine notices that the process that started it is gone:

    command         Bootstrap       lifeline      output comes back
    srun            stdin           stdin         yes
    qrsh -inherit   stdin           stdin         yes
    ssh             stdin           connection    yes, until the engine is in the background
    pbsdsh          a 0600 file     connection    no
"""

from __future__ import annotations

import abc
import asyncio
import enum
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from disbatch.contexts.nodes import Machine, Node, SlotRules
from disbatch.contexts.ssh import SshOptions
from disbatch.wire.engine_protocol import StepVariables

TERM_GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL for a command that started an engine."""


class Delivery(enum.Enum):
    """How a Bootstrap reaches its engine."""

    STDIN = "stdin"
    FILE = "file"
    """In a file of mode 0600 on a shared file system, whose path is appended to the command's arguments. The
    engine removes it."""


class Lifeline(enum.Enum):
    """How an engine notices that the process that started it is gone."""

    STDIN = "stdin"
    """Its standard input ends."""
    CONNECTION = "connection"
    """Its connection to the driver is silent; it waits for another driver for the orphan patience."""


@dataclass(frozen=True)
class Launch:
    """The command that starts an engine on a node.

    `argv` is looked up in PATH and runs in `environment` (None: that of this process). `merged`: one pipe for
    its stdout and stderr. `answers`: the engine's stdout comes back, and the launch is over when the engine
    reports that it is ready; otherwise the launch is over when the command has its Bootstrap. `grace`:
    seconds from SIGTERM to SIGKILL for the command; `grace_lost`: the same, if the engine is lost.
    """

    argv: list[str]
    environment: dict[str, str] | None = None
    merged: bool = True
    delivery: Delivery = Delivery.STDIN
    lifeline: Lifeline = Lifeline.STDIN
    answers: bool = True
    grace: float = TERM_GRACE
    grace_lost: float = TERM_GRACE


@dataclass(frozen=True)
class Installation:
    """Where nodes find disbatch: `python`, the interpreter, and `package`, the directory of the package
    (None: as here). `ssh`: how hosts behind ssh are reached, and their interpreter."""

    python: str | None
    package: str | None
    ssh: SshOptions


# ---- the state of a job ----


@dataclass(frozen=True)
class Running:
    """The job has its nodes, or there is no job."""


@dataclass(frozen=True)
class Ending:
    """The scheduler is ending what is left of the job."""


@dataclass(frozen=True)
class Gone:
    """The job has no nodes any more; `why`, for the user."""

    why: str


@dataclass(frozen=True)
class Preempted:
    """The job makes room for another one. `left`: seconds after which the scheduler has ended it. `again`: it
    will be started again; None: not known. `words`: the message for the user."""

    left: float
    again: bool | None
    words: str


@dataclass(frozen=True)
class Unknown:
    """The scheduler does not answer; `problem` says why. This is not the end of the job."""

    problem: str


JobState = Running | Ending | Gone | Preempted | Unknown


class Retirement(abc.ABC):
    """Retires nodes that are no longer needed, with a command that runs beside the run. A subclass says how:
    `left` and `finish`."""

    def __init__(self) -> None:
        self._active: dict[str, int] = {}
        """How many engines each node in use has."""
        self._waiting: dict[str, int] = {}
        """Nodes to be retired, and the return codes of their engines."""
        self._retired: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def joined(self, node: str) -> None:
        """An engine joined on the node, which is in use (again)."""
        self._active[node] = self._active.get(node, 0) + 1
        self._waiting.pop(node, None)
        if node in self._retired:
            self._retired.remove(node)

    def retire(self, node: str, return_code: int, *, spare: bool = False) -> None:
        """An engine of the node is gone; `spare`: it was released during the run, as there was no more
        work."""
        if node in self._active:
            self._active[node] -= 1
            if not self._active[node]:
                del self._active[node]
                self.left(node, return_code, spare=spare)

    @abc.abstractmethod
    def left(self, node: str, return_code: int, *, spare: bool) -> None:
        """The last engine of the node is gone."""

    @abc.abstractmethod
    async def finish(self) -> None:
        """The run is over. Returns, in bounded time, when no command is running any more."""

    def abandon(self) -> None:
        """End the command that is running, and start no other."""
        self._over = True
        if self._task is not None:
            self._task.cancel()

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start `work`, unless it is going on."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(work())

    def _environment(
        self, nodes: Mapping[str, int], active: Iterable[str], driver_node: str
    ) -> dict[str, str]:
        """The environment of a command that retires these nodes, whose engines ended with these codes."""
        codes = list(map(str, nodes.values()))
        lists = {"NODES": nodes, "RETCODES": codes, "ACTIVE": active}
        lists["RETIRED"] = dict.fromkeys([*self._retired, *nodes])
        environment = {**os.environ, "NODE": next(iter(nodes)), "RETCODE": codes[0]}
        environment |= {name: ",".join(values) for name, values in lists.items()}
        environment.pop("DRIVER_NODE", None)
        return environment | ({"DRIVER_NODE": driver_node} if driver_node else {})


class Context(Protocol):
    """A subclass overrides what its scheduler has.

    `scheduler`: its name as users know it; "": none. `own_node`: the scheduler's name of the node that this
    process runs on; "": the job does not have it. `keep`: nodes that are never released. `end`: end of the
    allocation as first known, in seconds since the epoch. `kill_wait`: seconds from the scheduler's SIGTERM
    to its SIGKILL. `can_release`: nodes can be given back while the job runs. `variables`: the scheduler's
    variables in the environment of a step.
    """

    scheduler: str = ""
    own_node: str = ""
    keep: frozenset[str] = frozenset()
    end: float | None = None
    kill_wait: float | None = None
    can_release: bool = False
    variables: StepVariables | None = None

    def prepared(self, installation: Installation, environ: Mapping[str, str]) -> Context:
        """The same context with this installation. UsageError if a setting in `environ` is wrong."""

    def name_of(self, node: Node, hostname: str) -> str:
        """The node's name in the run; `hostname`: the name of this machine."""
        return node.name

    def launch(self, node: Node) -> Launch:
        """How an engine is launched on the node."""

    def ended(self, node: Node, return_code: int, out: bytes, err: bytes) -> str:
        """Why the engine did not start, or ended, from what its command printed: one line for the user."""

    def waits_for(self, err: bytes) -> str:
        """What a command waits for that has not started its engine; "" if it does not say."""
        return ""

    async def current_end(self, timeout: float) -> float | None:
        """The present end of the allocation; None if the scheduler does not answer within `timeout`
        seconds."""
        return self.end

    async def job_state(self) -> JobState:
        """The state of the job, now."""
        return Running()

    def releaser(self, directory: str, notify_user: Callable[[str], None]) -> Retirement | None:
        """Gives nodes back to the scheduler, if `can_release`. `directory`: where a command may leave files;
        `notify_user` gets a line if nodes cannot be given back."""
        return None


# ---- discovery ----


@dataclass(frozen=True)
class Choice:
    """The nodes of a run, each with room for a task; `warnings` for the user, a line each; `job`: the context
    of the job that has the nodes; None: they are this machine and hosts behind ssh."""

    nodes: list[Node]
    warnings: list[str]
    job: Context | None = None


class Scheduler(Protocol):
    """Recognises the jobs of one scheduler by their environment."""

    name: str

    def discover(self, environ: Mapping[str, str], machine: Machine, rules: SlotRules) -> Choice:
        """The job that `environ` describes. UsageError if it has no node, or no room for a task."""

    def is_restarted(self, environ: Mapping[str, str]) -> bool:
        """True in a job that the scheduler has started before, with the same number."""

    def job_state(self, job: str) -> JobState:
        """The state of the job with that number, which may be another one than ours."""
