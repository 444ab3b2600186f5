"""What Slurm says of a job while the run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from disbatch.contexts.command import Answer
from disbatch.contexts.slurm.commands import PREEMPTION_MARGIN, preemption

JOB = (
    "JobId=7 JobName=x UserId=me(1) GroupId=me(1) MCS_label=N/A QOS={qos} JobState=RUNNING Requeue={requeue} "
    "BatchFlag=1 EndTime=5 PreemptEligibleTime=3 PreemptTime={at} Partition=spare NodeList=node1 NumTasks=1\n"
)
CONFIG = "PreemptMode             = {mode}\nPreemptType             = preempt/{kind}\nPreemptExemptTime = 0\n"
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
    """What `preemption` makes of these answers: of the job, of the cluster's configuration, and of its
    partition or QOS, whose own mode is `own`."""

    async def run(argv: list[str], environment: Mapping[str, str] | None, timeout: float) -> Answer:
        texts = {
            "job": JOB.format(at=at, requeue=requeue, qos=qos),
            "config": CONFIG.format(mode=mode, kind=kind),
            "partition": PARTITION.format(mode=own),
            "assoc_mgr": QOS.format(mode=own) if own else "",
        }
        return Answer(None, texts[argv[argv.index("show") + 1]])

    answer = asyncio.run(preemption("7", run))
    return None if answer is None else (answer.left, answer.again, answer.words)


AGAIN = "Slurm preempts this job, to start it again later: waiting for that"
NOT_AGAIN = "Slurm preempts this job and will not start it again"
UNKNOWN = "Slurm preempts this job: waiting until it ends it, or starts it again later"


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

    assert asyncio.run(preemption("7", run)) is None
