"""What Slurm says of our job while the run goes on: its nodes, its end, and what runs where."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable
from typing import NamedTuple

from disbatch.contexts.hetjob import JobFacts
from disbatch.contexts.hostlist import expand
from disbatch.contexts.slurm import parse_job
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


class Preemption(NamedTuple):
    """A job has to make room for another one. `left`: seconds that it may have until Slurm ends it. `again`:
    it will be started again later; None: that is not known."""

    left: float
    again: bool | None

    @property
    def words(self) -> str:
        """What the user is told."""
        if self.again is None:
            return "Slurm preempts this job: waiting until it ends it, or starts it again later"
        later = (
            ", to start it again later: waiting for that" if self.again else " and will not start it again"
        )
        return f"Slurm preempts this job{later}"


async def preemption(job: str, run: Run) -> Preemption | None:
    """Whether Slurm ends the job because it preempts it, and what it does with it then; None if not."""
    try:
        facts = await job_facts(job, run)
    except SlurmSilentError as error:
        log.info("whether the job is preempted is not known: %s", error)
        return None
    if not facts.preempted:
        return None
    again = await _requeues(facts, run) if facts.requeue else False
    return Preemption(max(0.0, (facts.end or 0.0) - time.time()) + PREEMPTION_MARGIN, again)


async def _requeues(facts: JobFacts, run: Run) -> bool | None:
    """Whether the mode of preemption is to requeue: that of the job's partition or QOS, whichever decides on
    this cluster, or of the cluster, if they have none of their own. None if nobody says."""
    config = await _said(["scontrol", "show", "config"], run)
    kind, mode = _field(config, "PreemptType"), _field(config, "PreemptMode")
    if "PARTITION" in kind:
        mode = _field(
            await _said(["scontrol", "-o", "show", "partition", facts.partition], run), "PreemptMode"
        )
    elif "QOS" in kind and facts.qos:
        argv = ["scontrol", "show", "assoc_mgr", f"qos={facts.qos}", "flags=qos"]
        own = _field(await _said(argv, run), "PreemptMode")
        mode = mode if own in ("CLUSTER", "OFF") else own
    return "REQUEUE" in mode if mode else None


async def _said(argv: list[str], run: Run) -> str:
    return (await run(argv, None, ASK_TIMEOUT)).out


def _field(text: str, name: str) -> str:
    """The value of `name = VALUE` or `name=VALUE`, in upper case; "" if it is not there."""
    match = re.search(rf"\b{name}\s*=\s*(\S+)", text)
    return match[1].upper() if match else ""


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
