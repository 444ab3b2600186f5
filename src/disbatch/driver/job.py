"""What Slurm says of our job while the run goes on: its nodes, its end, and what runs where."""

from __future__ import annotations

import os
from collections.abc import Iterable

from disbatch.contexts.hostlist import expand
from disbatch.contexts.slurm import JobFacts, parse_job
from disbatch.driver.command import Run
from disbatch.model.errors import UsageError

ASK_TIMEOUT = 10.0
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
