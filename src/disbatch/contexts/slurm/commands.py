"""What Slurm's commands say of a job: its nodes, its end, its preemption, and where its steps run.

scontrol answers within milliseconds, or tries for a minute if the controller is away. So each command has a
time limit.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable
from dataclasses import replace

from disbatch.contexts import command as commands
from disbatch.contexts.command import Run
from disbatch.contexts.hostlist import expand
from disbatch.contexts.slurm.hetjob import JobFacts
from disbatch.contexts.slurm.job import parse_config, parse_job, parse_version
from disbatch.model.errors import UsageError

TIMEOUT = 10.0
"""Seconds that each command has."""
NOT_STEPS_OF_ANYBODY = ("batch", "extern", "interactive")
_NO_SUCH_JOB = "Invalid job id specified"


class SlurmSilentError(Exception):
    """A command of Slurm failed or did not answer; the text says why."""


def ask(job: str, timeout: float = TIMEOUT) -> JobFacts:
    """What scontrol and srun say of the job, before the run has an event loop.

    What they do not say is not known, and `problem` says in one line why.
    """
    return asyncio.run(_ask(job, timeout))


async def _ask(job: str, timeout: float) -> JobFacts:
    facts, (config, no_config), (version, no_version) = await asyncio.gather(
        _facts(job, timeout), _said("scontrol show config", timeout), _said("srun --version", timeout)
    )
    return replace(
        facts,
        kill_wait=parse_config(config),
        version=parse_version(version),
        problem=facts.problem or no_config or no_version,
    )


async def _said(command: str, timeout: float) -> tuple[str, str]:
    """What the command printed, and what went wrong."""
    answer = await commands.run(command.split(), timeout=timeout)
    return answer.out, "" if answer.problem is None else f"{command}: {answer.problem}"


async def _facts(job: str, timeout: float) -> JobFacts:
    try:
        return await _show_job(job, commands.run, timeout)
    except SlurmSilentError as error:
        if _NO_SUCH_JOB in str(error):
            return JobFacts(gone=f"Slurm knows no such job ({_NO_SUCH_JOB})")
        return JobFacts(problem=str(error))


async def job_facts(job: str, run: Run, timeout: float = TIMEOUT) -> JobFacts:
    """What scontrol says of the job. SlurmSilentError if it does not, or if that is not understood."""
    facts = await _show_job(job, run, timeout)
    if facts.problem:
        raise SlurmSilentError(facts.problem)
    return facts


async def _show_job(job: str, run: Run, timeout: float) -> JobFacts:
    environment = {**os.environ, "SLURM_TIME_FORMAT": "%s"}  # seconds since the epoch
    answer = await run(["scontrol", "show", "job", "-d", "-o", job], environment, timeout)
    if answer.problem is not None:
        raise SlurmSilentError(f"scontrol show job: {answer.problem}")
    return parse_job(answer.out, job)


async def requeues(facts: JobFacts, run: Run) -> bool | None:
    """Whether the mode of preemption is to requeue: that of the job's partition or QOS, whichever decides on
    this cluster, or of the cluster, if they have none of their own. None if nobody says."""
    config = (await run(["scontrol", "show", "config"], None, TIMEOUT)).out
    kind, mode = _field(config, "PreemptType"), _field(config, "PreemptMode")
    if "PARTITION" in kind:
        argv = ["scontrol", "-o", "show", "partition", facts.partition]
        mode = _field((await run(argv, None, TIMEOUT)).out, "PreemptMode")
    elif "QOS" in kind and facts.qos:
        argv = ["scontrol", "show", "assoc_mgr", f"qos={facts.qos}", "flags=qos"]
        own = _field((await run(argv, None, TIMEOUT)).out, "PreemptMode")
        mode = mode if own in ("CLUSTER", "OFF") else own
    return "REQUEUE" in mode if mode else None


def _field(text: str, name: str) -> str:
    """The value of `name = VALUE` or `name=VALUE`, in upper case; "" if it is not there."""
    match = re.search(rf"\b{name}\s*=\s*(\S+)", text)
    return match[1].upper() if match else ""


async def nodes_in_use(job: str, nodes: Iterable[str], run: Run) -> set[str]:
    """Those of the nodes on which the job has steps that somebody started, and maybe others. SlurmSilentError
    if squeue does not tell."""
    argv = ["squeue", "-h", "-s", "-j", job, "-w", ",".join(nodes), "-o", "%i|%N"]
    answer = await run(argv, None, TIMEOUT)
    if answer.problem is not None:
        raise SlurmSilentError(f"squeue: {answer.problem}")
    used: set[str] = set()
    for line in answer.out.splitlines():
        step, _, names = line.strip().partition("|")
        if names and step.rpartition(".")[2] not in NOT_STEPS_OF_ANYBODY:
            try:
                used.update(expand(names))
            except UsageError as error:
                raise SlurmSilentError(f"squeue: {error}") from error
    return used
