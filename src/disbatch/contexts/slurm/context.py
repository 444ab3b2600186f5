"""A Slurm job as a context: its steps are the engines, and its nodes can go back to Slurm."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from disbatch.contexts import command as commands
from disbatch.contexts.context import (
    Choice,
    Context,
    Ending,
    Gone,
    Installation,
    JobState,
    Launch,
    Preempted,
    Retirement,
    Running,
    Unknown,
)
from disbatch.contexts.nodes import Machine, Node, SlotRules
from disbatch.contexts.slurm.commands import SlurmSilentError, ask, job_facts, requeues
from disbatch.contexts.slurm.hetjob import JobFacts
from disbatch.contexts.slurm.job import RETIRE_COMMAND, Allocation, allocation, job_of
from disbatch.contexts.slurm.resize import Shrinker
from disbatch.contexts.slurm.srun import (
    OPTIONS_FILE,
    SrunOptions,
    read_options_file,
    srun_argv,
    srun_environment,
    srun_waits_for,
    srun_words,
)
from disbatch.wire.engine_protocol import StepVariables

log = logging.getLogger(__name__)

PREEMPTION_MARGIN = 30.0
"""Seconds beyond the grace of a preemption that Slurm may take to come back to it."""
LOST_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL for the srun of a lost engine. By then srun has asked Slurm to end its
step; it would wait for the node for Slurm's KillWait and 2 s."""
VARIABLES = StepVariables(
    job=[b"SLURM_", b"SRUN_", b"SBATCH_", b"SALLOC_"],
    # Also set in a batch script, and different from node to node.
    node=(
        b"SLURM_CONF SLURM_NODEID SLURM_LOCALID SLURM_PROCID SLURM_GTIDS SLURM_TASK_PID SLURM_CPUS_ON_NODE "
        b"SLURM_GPUS_ON_NODE SLURM_JOB_GPUS SLURM_STEP_GPUS SLURM_TOPOLOGY_ADDR "
        b"SLURM_TOPOLOGY_ADDR_PATTERN"
    ).split(),
    # The host of srun, set by slurmd.
    launched_from=[b"SLURM_LAUNCH_NODE_IPADDR", b"SLURM_SRUN_COMM_HOST"],
    gpu_advice="ask Slurm for GPUs (--gres=gpu:N)",
)
"""Our step has one task on one node, and says so in SLURM_NTASKS and others; an `srun` or an MPI program in a
task would obey them. SLURM_STEP_ID is removed: Open MPI would believe that srun had started each program."""


class SlurmJob(Context):
    """The job of `allocation`; `srun` says how its steps are started."""

    scheduler = "Slurm"

    def __init__(
        self, allocation: Allocation, srun: SrunOptions | None = None, run: commands.Run = commands.run
    ) -> None:
        self.allocation = allocation
        self.own_node = allocation.own_node
        self.keep = allocation.keep
        self.end = allocation.end
        self.kill_wait = allocation.kill_wait
        # Components of a heterogeneous job are jobs of their own, and none of them may lose all its nodes.
        self.can_release = not allocation.heterogeneous
        self._srun = srun or SrunOptions(allocation.version)
        self._run = run
        launcher = [os.fsencode(name) for name in self._srun.variables]
        self.variables = msgspec.structs.replace(VARIABLES, launcher=launcher)

    def prepared(self, installation: Installation, environ: Mapping[str, str]) -> SlurmJob:
        """The same, with the srun options of DISBATCH_SLURM_SRUN_OPTIONS_FILE."""
        path = environ.get(OPTIONS_FILE)
        variables = read_options_file(Path(path)) if path else {}
        version = self.allocation.version
        srun = SrunOptions(version, variables, installation.python, installation.package)
        return SlurmJob(self.allocation, srun, self._run)

    def launch(self, node: Node) -> Launch:
        """By srun, in the foreground, as the only process of a step."""
        environment = srun_environment(os.environ, self._srun)
        return Launch(srun_argv(node, self._srun), environment, grace_lost=LOST_GRACE)

    def ended(self, node: Node, return_code: int, out: bytes, err: bytes) -> str:
        """From the output of srun."""
        return srun_words(return_code, out, err)

    def waits_for(self, err: bytes) -> str:
        """From the output of srun."""
        return srun_waits_for(err)

    async def current_end(self, timeout: float) -> float | None:
        """The end of the job as scontrol knows it."""
        try:
            return (await job_facts(self.allocation.job, self._run, timeout)).end
        except SlurmSilentError as error:
            log.info("when the job ends is not known anew: %s", error)
            return None

    async def job_state(self) -> JobState:
        """As scontrol knows it."""
        return await job_state(self.allocation.job, self._run)

    def releaser(self, directory: str, notify_user: Callable[[str], None]) -> Retirement:
        """Makes the job smaller."""
        return Shrinker(self.allocation, RETIRE_COMMAND, directory, notify_user, run=self._run)


async def job_state(job: str, run: commands.Run) -> JobState:
    """The state of the job, and whether Slurm ends it because it preempts it."""
    try:
        facts = await job_facts(job, run)
    except SlurmSilentError as error:
        log.info("the state of the job is not known: %s", error)
        return Unknown(str(error))
    if facts.preempted:
        again = await requeues(facts, run) if facts.requeue else False
        left = max(0.0, (facts.end or 0.0) - time.time()) + PREEMPTION_MARGIN
        return Preempted(left, again, _preemption_words(again))
    return _state(facts)


def _state(facts: JobFacts) -> JobState:
    """The state of a job that is not preempted."""
    if facts.gone:
        return Gone(facts.gone)
    if facts.ending:
        return Ending()
    return Unknown(facts.problem) if facts.nodes is None else Running()


def _preemption_words(again: bool | None) -> str:
    if again is None:
        return "Slurm preempts this job: waiting until Slurm ends it, or starts it again later"
    later = ", to start it again later: waiting for that" if again else " and will not start it again"
    return f"Slurm preempts this job{later}"


class Slurm:
    """Recognises Slurm's jobs; a `Scheduler`. `ask(job)` asks Slurm about one."""

    name = "Slurm"

    def __init__(self, ask: Callable[[str], JobFacts] = ask) -> None:
        self._ask = ask

    def discover(self, environ: Mapping[str, str], machine: Machine, rules: SlotRules) -> Choice:
        """The job of SLURM_JOB_ID."""
        facts = self._ask(job_of(environ) or "")
        found, warnings = allocation(environ, machine.hostname, facts, rules)
        return Choice(found.nodes, warnings, SlurmJob(found))

    def is_restarted(self, environ: Mapping[str, str]) -> bool:
        """As SLURM_RESTART_COUNT says."""
        return environ.get("SLURM_RESTART_COUNT", "0").strip("0") != ""

    def job_state(self, job: str) -> JobState:
        """As scontrol knows it."""
        return _state(self._ask(job))
