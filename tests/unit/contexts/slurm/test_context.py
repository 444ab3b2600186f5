"""contexts/slurm/context.py: a Slurm job as a context, and its state while the run goes on."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from disbatch.contexts.command import Answer, Run
from disbatch.contexts.context import (
    Ending,
    Gone,
    Installation,
    JobState,
    Preempted,
    Running,
    Unknown,
)
from disbatch.contexts.nodes import Node
from disbatch.contexts.slurm.context import PREEMPTION_MARGIN, Slurm, SlurmJob, job_state
from disbatch.contexts.slurm.hetjob import JobFacts
from disbatch.contexts.slurm.job import Allocation
from disbatch.contexts.ssh import SshOptions
from disbatch.model.task import Way

JOB = (
    "JobId=7 JobName=x UserId=me(1) GroupId=me(1) MCS_label=N/A QOS={qos} JobState=RUNNING Requeue={requeue} "
    "BatchFlag=1 EndTime=5 PreemptEligibleTime=3 PreemptTime={at} Partition=spare NodeList=node1 NumTasks=1\n"
)
CONFIG = "PreemptMode             = {mode}\nPreemptType             = preempt/{kind}\nPreemptExemptTime = 0\n"
ALLOCATION = Allocation("7", [], "", frozenset(), None, None, (22, 5))
PARTITION = "PartitionName=spare OverTimeLimit=NONE PreemptMode={mode} State=UP\n"
QOS = "QOS Records\n\nQOS=low(3)\n    Preempt=\n    PreemptMode={mode}\n"


def found(
    *,
    at: str = "4",
    requeue: str = "1",
    kind: str = "partition_prio",
    mode: str = "OFF",
    own: str = "",
    qos: str = "low",
) -> tuple[float, bool | None, str] | None:
    """What `job_state` makes of these answers: of the job, of the cluster's configuration, and of its
    partition or QOS, whose own mode is `own`."""

    async def run(argv: list[str], environment: Mapping[str, str] | None, timeout: float) -> Answer:
        texts = {
            "job": JOB.format(at=at, requeue=requeue, qos=qos),
            "config": CONFIG.format(mode=mode, kind=kind),
            "partition": PARTITION.format(mode=own),
            "assoc_mgr": QOS.format(mode=own) if own else "",
        }
        return Answer(None, texts[argv[argv.index("show") + 1]])

    state = asyncio.run(job_state("7", run))
    if isinstance(state, Preempted):
        return state.left, state.again, state.words
    assert state == Running()
    return None


AGAIN = "Slurm preempts this job, to start it again later: waiting for that"
NOT_AGAIN = "Slurm preempts this job and will not start it again"
UNKNOWN = "Slurm preempts this job: waiting until Slurm ends it, or starts it again later"


@pytest.mark.parametrize(
    ("answers", "again", "words"),
    [
        ({"own": "REQUEUE"}, True, AGAIN),
        ({"own": "CANCEL"}, False, NOT_AGAIN),
        ({"own": "CANCEL", "mode": "REQUEUE"}, False, NOT_AGAIN),
        ({"own": "REQUEUE", "requeue": "0"}, False, NOT_AGAIN),
        ({"kind": "qos", "own": "requeue", "mode": "CANCEL"}, True, AGAIN),
        ({"kind": "qos", "own": "cancel", "mode": "GANG,REQUEUE"}, False, NOT_AGAIN),
        ({"kind": "qos", "own": "cluster", "mode": "GANG,REQUEUE"}, True, AGAIN),
        ({"kind": "qos", "mode": "REQUEUE"}, None, UNKNOWN),
        ({"kind": "qos", "mode": "CANCEL", "qos": "(null)"}, False, NOT_AGAIN),
        ({"kind": "none", "mode": "REQUEUE"}, True, AGAIN),
    ],
)
def test_what_slurm_does_with_a_job_that_it_preempts(
    answers: dict[str, str], again: bool | None, words: str
) -> None:
    assert found(**answers) == (PREEMPTION_MARGIN, again, words)


@pytest.mark.parametrize("at", ["None", "Unknown", ""])
def test_a_job_that_is_not_preempted(at: str) -> None:
    assert found(at=at, own="REQUEUE") is None


def test_a_scontrol_that_does_not_answer() -> None:
    async def run(argv: list[str], environment: Mapping[str, str] | None, timeout: float) -> Answer:
        return Answer("not done after 10 s", "")

    state = asyncio.run(job_state("7", run))
    assert state == Unknown("scontrol show job: not done after 10 s")


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (JobFacts(nodes=["a"]), Running()),
        (JobFacts(nodes=["a"], ending=True), Ending()),
        (JobFacts(gone="it is over"), Gone("it is over")),
        (JobFacts(problem="no answer"), Unknown("no answer")),
    ],
)
def test_the_state_of_another_job(facts: JobFacts, state: JobState) -> None:
    assert Slurm(lambda job: facts).job_state("7") == state


def test_a_job_that_may_not_lose_nodes() -> None:
    assert SlurmJob(ALLOCATION).can_release
    assert not SlurmJob(dataclasses.replace(ALLOCATION, heterogeneous=True)).can_release


def test_variables_of_the_options_file_are_for_srun_alone(tmp_path: Path) -> None:
    (tmp_path / "options").write_text("UCX_TLS=ib\n")
    installation = Installation("/py", "/lib", SshOptions())
    environ = {"DISBATCH_SLURM_SRUN_OPTIONS_FILE": str(tmp_path / "options")}
    job = SlurmJob(ALLOCATION).prepared(installation, environ)
    assert job.variables.launcher == [b"UCX_TLS"]
    launch = job.launch(Node("node1", 4, 4, Way.STEP))
    assert launch.environment is not None and launch.environment["UCX_TLS"] == "ib"
    assert (launch.argv[0], launch.argv[-4], launch.argv[-1]) == ("srun", "/py", "/lib")


def answering(answer: Answer) -> Run:
    async def run(argv: list[str], environment: Mapping[str, str] | None, timeout: float) -> Answer:
        assert (argv, timeout) == (["scontrol", "show", "job", "-d", "-o", "7"], 3.0)
        return answer

    return run


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (
            Answer(None, "JobId=7 JobName=a JobState=RUNNING EndTime=1700000000 NodeList=n1\n"),
            1_700_000_000.0,
        ),
        (Answer(None, "JobId=7 JobName=a JobState=RUNNING EndTime=Unknown NodeList=n1\n"), None),
        (Answer(None, "nonsense"), None),
        (Answer("exit code 1: no", ""), None),
    ],
)
def test_the_present_end(answer: Answer, end: float | None) -> None:
    job = SlurmJob(ALLOCATION, run=answering(answer))
    assert asyncio.run(job.current_end(3.0)) == end
