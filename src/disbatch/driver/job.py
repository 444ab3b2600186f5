"""What Slurm says of our job while the run goes on: its nodes, its end, and what runs where."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable

from disbatch.contexts.hostlist import expand
from disbatch.contexts.slurm import JobFacts, parse_job
from disbatch.driver.command import Run
from disbatch.model.errors import UsageError

log = logging.getLogger(__name__)

ASK_TIMEOUT = 10.0
PREEMPTION_MARGIN = 30.0
"""Seconds beyond the grace of a preemption that Slurm may take to come back to it."""
NOT_STEPS_OF_ANYBODY = ("batch", "extern", "interactive")


class SlurmSilentError(Exception):
    """Slurm's commands did not tell; the text says what went wrong."""


async def job_facts(job: str, run: Run, timeout: float = ASK_TIMEOUT) -> JobFacts:
    """What scontrol says of the job. SlurmSilentError if it does not."""
    environment = {**os.environ, "SLURM_TIME_FORMAT": "%s"}
    answer = await run(["scontrol", "show", "job", "-d", "-o", job], environment, timeout)
    if answer.problem is not None:
        raise SlurmSilentError(f"scontrol show job: {answer.problem}")
    facts = parse_job(answer.out, job)
    if facts.problem:
        raise SlurmSilentError(facts.problem)
    return facts


async def preemption_left(job: str, run: Run) -> float:
    """Seconds that a job which is being preempted, to be started again, may have until Slurm ends it; 0 if
    that is not what happens to it."""
    try:
        facts = await job_facts(job, run)
    except SlurmSilentError as error:
        log.info("whether the job is preempted is not known: %s", error)
        return 0.0
    if not facts.preempted:
        return 0.0
    return max(0.0, (facts.end or 0.0) - time.time()) + PREEMPTION_MARGIN


async def nodes_in_use(job: str, nodes: Iterable[str], run: Run) -> set[str]:
    """Those of the nodes on which the job has steps that somebody started, and maybe others. SlurmSilentError
    if squeue does not tell."""
    argv = ["squeue", "-h", "-s", "-j", job, "-w", ",".join(nodes), "-o", "%i|%N"]
    answer = await run(argv, None, ASK_TIMEOUT)
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
