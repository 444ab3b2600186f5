"""A Slurm job's nodes and slots; what scontrol says (recorded from Slurm 22.05, unless said otherwise)."""

from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.contexts.nodes import Node, SlotRules
from disbatch.contexts.slurm.job import (
    Allocation,
    JobFacts,
    allocation,
    expand_counts,
    job_of,
    parse_config,
    parse_job,
    parse_version,
)
from disbatch.model.errors import UsageError
from disbatch.model.task import Way

# ---- what scontrol says ----

BATCH = (
    "JobId=1 JobName=dump.sh UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901759 "
    "Nice=0 Account=(null) QOS=(null) JobState=RUNNING Reason=None Dependency=(null) Requeue=1 "
    "Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 DerivedExitCode=0:0 RunTime=00:00:00 "
    "TimeLimit=01:00:00 TimeMin=N/A SubmitTime=1795352112 EligibleTime=1795352112 "
    "AccrueTime=1795352112 StartTime=1795352113 EndTime=1795355713 Deadline=N/A SuspendTime=None "
    "SecsPreSuspend=0 LastSchedEval=1795352113 Scheduler=Backfill Partition=main "
    "AllocNode:Sid=localhost:22924 ReqNodeList=(null) ExcNodeList=(null) NodeList=node[1-2] "
    "BatchHost=node1 NumNodes=2 NumCPUs=6 NumTasks=6 CPUs/Task=1 ReqB:S:C:T=0:0:*:* "
    "TRES=cpu=6,mem=3000M,node=2,billing=6 Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=* "
    "JOB_GRES=(null)   Nodes=node1 CPU_IDs=0-3 Mem=2000 GRES=   Nodes=node2 CPU_IDs=0-1 Mem=1000 "
    "GRES= MinCPUsNode=1 MinMemoryCPU=500M MinTmpDiskNode=0 Features=(null) DelayBoot=00:00:00 "
    "OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null) Command=./dump.sh "
    "WorkDir=/tmp/rec StdErr=/tmp/rec/out.txt StdIn=/dev/null StdOut=/tmp/rec/out.txt Power= \n"
)
BATCH_FACTS = JobFacts(
    nodes=["node1", "node2"],
    batch_host="node1",
    end=1795355713.0,
    gpus={"node1": 0, "node2": 0},
    cpus={"node1": 4, "node2": 2},
    tasks=6,
    cpus_per_task=1,
    requeue=True,
    partition="main",
)


def job_line(
    *, name: str = "x", state: str = "RUNNING", groups: str = "", nodes: str = "node1", rest: str = ""
) -> str:
    return (
        f"JobId=7 JobName={name} UserId=me(1000) GroupId=domain users(513) MCS_label=N/A JobState={state} "
        f"Reason=None BatchFlag=1 EndTime=Unknown ReqNodeList=(null) NodeList={nodes} BatchHost=node1 "
        f"NumTasks=1 CPUs/Task=1 JOB_GRES=x {groups} MinCPUsNode=1 Command=(null) WorkDir=/ Power= {rest}\n"
    )


def test_a_batch_job() -> None:
    assert parse_job(BATCH, "1") == BATCH_FACTS


def test_salloc_has_a_batch_host_but_no_batch_script() -> None:
    assert parse_job(BATCH.replace("BatchFlag=1", "BatchFlag=0"), "1").batch_host == ""


def test_a_shrunk_job() -> None:
    line = BATCH.replace("NodeList=node[1-2] ", "NodeList=node[1,3] ").replace("Nodes=node2", "Nodes=node3")
    assert parse_job(line, "1").nodes == ["node1", "node3"]


def test_only_the_line_of_that_job_counts() -> None:
    """The last job of an array, and the first of a heterogeneous one, bring others along."""
    other = BATCH.replace("node[1-2]", "node4")
    others = "".join(other.replace("JobId=1 ", f"JobId={number} ") for number in (11, 18, 2))
    assert parse_job("CLUSTER: lab\n" + others + BATCH, "1") == BATCH_FACTS
    assert parse_job(others, "1") == JobFacts(problem="scontrol says nothing of job 1")
    assert parse_job("", "1").problem


def test_a_name_is_not_taken_for_facts() -> None:
    name = "x NodeList=evil JobState=FAILED EndTime=5  Nodes=evil CPU_IDs=0 Mem=1 GRES=gpu:1"
    facts = parse_job(job_line(name=name), "7")
    assert (facts.nodes, facts.gone, facts.end, facts.cpus) == (["node1"], "", None, {})


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("", 0),
        ("gpu:4(IDX:0-3)", 4),
        ("gpu:a100:4(IDX:0-3)", 4),
        ("gpu:4(IDX:0,2-4)", 4),
        ("gpu:a100:2(IDX:0,3),gpu:v100:1(IDX:2)", 3),
        ("nvme:1,gpu:2(IDX:0,2),mps:100(IDX:0,1)", 2),
        ("craynetwork:2", 0),
        ("gpu:2", 2),
        ("gpu:gpu:3(IDX:0-2)", 3),
        ("gpu(IDX:0-1)", 2),  # before 20.02
        ("gpu:2(CNT:2)", 2),
        ("gpu:tesla:1(IDX:0),shard:8(0/8)", 1),
        ("(((", 0),
        ("gpu:x(IDX:9-0)", 0),
    ],
)
def test_gpus(gres: str, count: int) -> None:
    for key in ("GRES", "GRES_IDX"):
        facts = parse_job(job_line(groups=f"  Nodes=node[1-2] CPU_IDs=0-3,8-9 Mem=5 {key}={gres}"), "7")
        assert facts.gpus == {"node1": count, "node2": count}
        assert facts.cpus == {"node1": 6, "node2": 6}


@pytest.mark.parametrize(
    ("rest", "per_node"),
    [
        ("", False),
        ("TresPerNode=gres:gpu:2", True),
        ("TresPerNode=gres/gpu:2", True),
        ("TresPerNode=gres:nvme:2", False),
        ("TresPerJob=gres:gpu:3", False),
        ("TresPerTask=gres:gpu:1", False),
        ("TresPerJob=gres:gpu:4 TresPerNode=gres:gpu:2", False),
        ("TresPerNode=gres:gpu:2 TresPerTask=gres:gpu:1", False),
        ("TresPerNode=gres/gpu:2 TresPerTask=cpu=2", True),  # since 24.05, of -c 2
        ("NtasksPerTRES=1", False),
    ],
)
def test_how_gpus_were_asked_for(rest: str, per_node: bool) -> None:
    assert parse_job(job_line(rest=rest), "7").gpus_per_node is per_node


def end_of(text: str) -> float | None:
    return parse_job(BATCH.replace("EndTime=1795355713", f"EndTime={text}"), "1").end


def test_local_times() -> None:
    end = end_of("2026-11-22T13:55:13")
    assert end == time.mktime((2026, 11, 22, 13, 55, 13, 0, 0, -1))


@pytest.mark.parametrize("end", ["Unknown", "N/A", "", "13:59:55", "9" * 20, "2026-13-41T00:00:00"])
def test_no_end(end: str) -> None:
    assert end_of(end) is None


@pytest.mark.parametrize(
    ("state", "gone"),
    [
        ("RUNNING", False),
        ("COMPLETING", False),
        ("SUSPENDED", False),
        ("COMPLETED", True),
        ("CANCELLED", True),
        ("TIMEOUT", True),
        ("PENDING", True),
        ("", False),
    ],
)
def test_jobs_that_are_over(state: str, gone: bool) -> None:
    said = parse_job(job_line(state=state), "7").gone
    assert said == (f"Slurm says that this job is {state}" if gone else "")


def test_a_job_without_nodes_and_one_with_strange_ones() -> None:
    assert parse_job(job_line(nodes="(null)"), "7").nodes == []
    facts = parse_job(job_line(nodes="a[1"), "7")
    assert facts.nodes is None and "a[1: brackets" in facts.problem


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_is_facts(text: str, value: str) -> None:
    parse_job(text, "7")
    groups = f" Nodes={value} CPU_IDs={value} Mem=1 GRES={value}"
    parse_job(job_line(name=text, nodes=value, groups=groups), "7")
    parse_config(text)
    parse_version(text)


def test_configuration() -> None:
    text = (
        "Configuration data as of 2026-11-22\nKillOnBadExit           = 0\nKillWait                = 30 sec\n"
    )
    assert parse_config(text) == 30.0
    assert parse_config("UnkillableKillWait = 30 sec\n") is None


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("slurm-wlm 22.05.8\n", (22, 5)),
        ("slurm 23.11.4", (23, 11)),
        ("slurm 25.05.0-0rc1", (25, 5)),
        ("slurm 21.08.8-2", (21, 8)),
        ("", None),
        ("something 1.2", None),
    ],
)
def test_versions(text: str, version: tuple[int, int] | None) -> None:
    assert parse_version(text) == version


# ---- what the environment says ----


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("4", [4]),
        ("3(x2),1", [3, 3, 1]),
        ("4,2", [4, 2]),
        ("1(x3)", [1] * 3),
        ("72(x2),36(x1)", [72, 72, 36]),
    ],
)
def test_counts(text: str, counts: list[int]) -> None:
    assert expand_counts(text, "SLURM_TASKS_PER_NODE") == counts


NO_COUNTS = ["x", "0", "-1", "3(x0)", "3(x)", "3(2)", "1,", "3(x2)1", "٣", "1(x10001)", "1(x9999),1(x2)"]


@pytest.mark.parametrize("text", [*NO_COUNTS, "", "\x1b", "3 (x2)", "9" * 99])
def test_counts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand_counts(text, "SLURM_TASKS_PER_NODE")
    assert str(caught.value).startswith("SLURM_TASKS_PER_NODE is '")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 170


def test_the_job_s_number() -> None:
    assert job_of({}) is None
    assert job_of({"SLURM_JOB_ID": ""}) is None
    assert job_of({"SLURM_JOB_ID": "12", "SLURM_JOBID": "13"}) == "12"
    assert job_of({"SLURM_JOBID": "13"}) == "13"
    with pytest.raises(
        UsageError, match=r"^SLURM_JOB_ID is '1; rm', which is not a job number: unset it, or"
    ):
        job_of({"SLURM_JOB_ID": "1; rm"})


# ---- nodes and slots ----

SILENT = JobFacts()
"""Slurm does not answer."""


def environment(nodes: str, cpus: str, tasks: str | None, **more: str) -> dict[str, str]:
    variables = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": nodes, "SLURM_JOB_CPUS_PER_NODE": cpus, **more}
    return variables if tasks is None else {**variables, "SLURM_TASKS_PER_NODE": tasks}


def slots_of(
    environ: dict[str, str],
    facts: JobFacts = SILENT,
    *,
    c: float | None = None,
    t: int | None = None,
    fill: bool = False,
) -> list[tuple[int, float]]:
    """Slots and cores per task of each node."""
    found, warnings = allocation(environ, "login", facts, SlotRules(c, t, fill))
    assert warnings == []
    return [(node.slots, node.cores_per_task) for node in found.nodes]


UNEVEN = environment("node[1-2]", "4,2", "4,2")
"""sbatch -n 6 -N 2"""
TWO_EACH = environment("node[1-2]", "4(x2)", "2(x2)", SLURM_CPUS_PER_TASK="2")
"""sbatch -n 4 -N 2 -c 2"""
EXCLUSIVE = environment("node[1-2]", "4(x2)", "1(x2)")
"""sbatch -n 2 -N 2 --exclusive"""


@pytest.mark.parametrize(
    ("environ", "c", "t", "fill", "expected"),
    [
        # Measured of the original 3.0:
        (UNEVEN, None, None, False, [(4, 1), (2, 1)]),
        (UNEVEN, 2, None, False, [(2, 2), (1, 2)]),
        (TWO_EACH, None, None, False, [(2, 2), (2, 2)]),
        (TWO_EACH, 1, None, False, [(2, 1), (2, 1)]),
        (EXCLUSIVE, None, None, False, [(1, 4), (1, 4)]),
        (EXCLUSIVE, None, None, True, [(4, 1), (4, 1)]),
        (EXCLUSIVE, 2, None, True, [(2, 2), (2, 2)]),
        (EXCLUSIVE, None, 3, False, [(3, 1), (3, 1)]),
        # And then:
        (UNEVEN, None, 3, False, [(3, 1), (2, 1)]),
        (UNEVEN, 2, 3, False, [(2, 2), (1, 2)]),
        (UNEVEN, 0.5, None, False, [(8, 0.5), (4, 0.5)]),
        (UNEVEN, 0.3, None, False, [(13, 0.3), (6, 0.3)]),
        (UNEVEN, 0.5, None, True, [(8, 0.5), (4, 0.5)]),
        (UNEVEN, 1.5, None, False, [(2, 1.5), (1, 1.5)]),
        (EXCLUSIVE, 0.5, None, False, [(2, 0.5), (2, 0.5)]),
        (EXCLUSIVE, None, 3, True, [(3, 1), (3, 1)]),
        (TWO_EACH, None, None, True, [(2, 2), (2, 2)]),
        (TWO_EACH, None, 9, False, [(2, 2), (2, 2)]),
        (environment("n1", "4", "3"), None, None, False, [(3, 1)]),  # exclusive: a core is left over
        (environment("n1", "1", "8"), None, None, False, [(8, 0.125)]),  # --overcommit
        (environment("n1", "8", "2"), None, None, False, [(2, 4)]),  # two threads a core, or more memory
        (environment("n[1-4]", "3(x2),1(x2)", "3(x2),1(x2)"), None, None, False, [(3, 1)] * 2 + [(1, 1)] * 2),
    ],
)
def test_slots(
    environ: dict[str, str], c: float | None, t: int | None, fill: bool, expected: list[tuple[int, float]]
) -> None:
    assert slots_of(environ, c=c, t=t, fill=fill) == expected


def test_all_of_a_batch_job() -> None:
    facts = dataclasses.replace(BATCH_FACTS, kill_wait=3.0, version=(22, 5))
    environ = {**environment("node[1-2]", "4,2", "4,2"), "SLURM_JOB_ID": "1", "SLURMD_NODENAME": "node1"}
    assert allocation(environ, "node1", facts) == (
        Allocation(
            "1",
            [Node("node1", 4, 4, Way.STEP, 1.0), Node("node2", 2, 2, Way.STEP, 1.0)],
            own_node="node1",
            keep=frozenset({"node1"}),
            end=1795355713.0,
            kill_wait=3.0,
            version=(22, 5),
        ),
        [],
    )


def test_a_stale_cpus_per_task_does_not_count() -> None:
    """`sbatch` leaves it in the environment, if it is called in a job that has it."""
    environ = environment("n1", "4", "4", SLURM_CPUS_PER_TASK="2")
    facts = JobFacts(nodes=["n1"], cpus_per_task=1)
    assert slots_of(environ, facts) == [(4, 1)]
    assert slots_of(environ, dataclasses.replace(facts, cpus_per_task=None)) == [(2, 2)]
    # The other way round: the controller raised it, for the sake of memory.
    assert slots_of(environment("n1", "8", "4"), dataclasses.replace(facts, cpus_per_task=2)) == [(4, 2)]


def test_a_shrunk_job_has_the_nodes_that_it_has_now() -> None:
    environ = environment("node[1-4]", "4,3,1(x2)", "4,3,1(x2)", SLURMD_NODENAME="node1")
    found, _ = allocation(environ, "node1", JobFacts(nodes=["node1", "node3"], batch_host="node1"))
    assert [(node.name, node.cores, node.slots) for node in found.nodes] == [("node1", 4, 4), ("node3", 1, 1)]


def test_a_job_that_sourced_the_script_of_a_resize() -> None:
    """It unsets SLURM_TASKS_PER_NODE; NumTasks stays what it was."""
    environ = environment("node[1,3]", "4,1", None)
    facts = JobFacts(nodes=["node1", "node3"], tasks=9, cpus_per_task=1)
    assert slots_of(environ, facts) == [(4, 1), (1, 1)]
    assert slots_of(environ) == [(4, 1), (1, 1)]


def test_a_job_that_grew() -> None:
    facts = JobFacts(nodes=["node1", "node5"], cpus={"node1": 4, "node5": 3})
    found, _ = allocation(UNEVEN, "login", facts)
    assert [(node.name, node.cores, node.slots) for node in found.nodes] == [("node1", 4, 4), ("node5", 3, 3)]


def test_scontrol_alone_is_enough() -> None:
    found, warnings = allocation({"SLURM_JOB_ID": "1"}, "login", BATCH_FACTS)
    assert [(node.name, node.slots) for node in found.nodes] == [("node1", 4), ("node2", 2)]
    assert warnings == []


STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node1",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURMD_NODENAME": "node1",
}
"""srun --pty bash"""


def step_of(tasks: str, per_node: str) -> dict[str, str]:
    return {**STEP, "SLURM_STEP_NUM_TASKS": tasks, "SLURM_STEP_TASKS_PER_NODE": per_node}


@pytest.mark.parametrize(
    ("environ", "facts", "expected"),
    [
        # salloc -N2 -n6: srun -n1
        (environment("node[1-2]", "4,2", "1", **STEP), BATCH_FACTS, [(4, 1), (2, 1)]),
        # The same, but Slurm does not answer.
        (environment("node[1-2]", "4,2", "1", **STEP), SILENT, [(4, 1), (2, 1)]),
        # srun --interactive --preserve-env
        (
            environment("node[1-2]", "4,2", "4,2", **{**STEP, "SLURM_STEP_ID": "4294967290"}),
            SILENT,
            [(4, 1), (2, 1)],
        ),
        # salloc -N2 -n4 -c2
        (
            environment("node[1-2]", "4(x2)", "1", SLURM_CPUS_PER_TASK="2", **STEP),
            JobFacts(nodes=["node1", "node2"], tasks=4, cpus_per_task=2),
            [(2, 2), (2, 2)],
        ),
        # salloc -N2 -n6 --exclusive: Slurm deals them out in turn
        (
            environment("node[1-2]", "4(x2)", "1", **STEP),
            JobFacts(nodes=["node1", "node2"], tasks=6, cpus_per_task=1),
            [(3, 1), (3, 1)],
        ),
        # salloc -N3 -n5 --exclusive
        (
            environment("node[1-3]", "4(x3)", "1", **STEP),
            JobFacts(nodes=["node1", "node2", "node3"], tasks=5, cpus_per_task=1),
            [(2, 2), (2, 2), (1, 4)],
        ),
        # srun -n1 -c2 --pty bash, without salloc
        (environment("node1", "2", "1", SLURM_CPUS_PER_TASK="2", **STEP), SILENT, [(1, 2)]),
        # srun -n4 --pty bash: one shell for four tasks
        (
            environment("node1", "4", "4", **step_of("4", "4"), SLURM_PTY_PORT="5"),
            JobFacts(nodes=["node1"], tasks=4, cpus_per_task=1),
            [(4, 1)],
        ),
        # sbatch -n3 in a step of two tasks: the step's variables are not ours
        (
            environment("node1", "3", "3", **step_of("2", "2")),
            SILENT,
            [(3, 1)],
        ),
    ],
)
def test_inside_a_step(environ: dict[str, str], facts: JobFacts, expected: list[tuple[int, float]]) -> None:
    assert slots_of(environ, facts) == expected


@pytest.mark.parametrize(
    ("rank", "tasks"),
    [("0", "1(x2)"), ("1", "1(x2)"), ("1", "4,2")],  # the last one with --preserve-env
)
def test_srun_must_not_start_copies(rank: str, tasks: str) -> None:
    environ = environment("node[1-2]", "4,2", tasks, **{**step_of("2", "1(x2)"), "SLURM_PROCID": rank})
    words = "srun started 2 copies of disbatch: start it once, without srun" if rank == "0" else r"\Z"
    with pytest.raises(UsageError, match=words):
        allocation(environ, "node1", SILENT)


@pytest.mark.parametrize(
    ("variables", "hostname", "own"),
    [
        ({"SLURMD_NODENAME": "node2"}, "elsewhere", "node2"),
        ({"SLURMD_NODENAME": "other"}, "node1", "node1"),
        ({}, "node1.cluster.org", "node1"),
        ({}, "login", ""),
        ({"SLURMD_NODENAME": ""}, "", ""),
    ],
)
def test_the_driver_s_own_node(variables: dict[str, str], hostname: str, own: str) -> None:
    environ = environment("node[1-2]", "4,2", "4,2", **variables)
    found, _ = allocation(environ, hostname, JobFacts(batch_host=""))
    assert found.own_node == own
    assert found.keep == {own} - {""}


@pytest.mark.parametrize(("batch_host", "kept"), [("node2", "node2"), ("", ""), (None, "node1")])
def test_the_batch_script_s_node_is_kept(batch_host: str | None, kept: str) -> None:
    found, _ = allocation(UNEVEN, "login", JobFacts(batch_host=batch_host))
    assert found.keep == {kept} - {""}


def test_the_driver_s_node_is_kept_even_if_it_is_too_small_for_a_task() -> None:
    found, warnings = allocation(environment("n[1-2]", "1,4", "1,4"), "n1", SILENT, SlotRules(2))
    assert [node.name for node in found.nodes] == ["n2"]
    assert (found.own_node, found.keep) == ("n1", {"n1"})
    assert warnings == ["n1: left out: it has 1 core, and -c 2 asks for more"]


@pytest.mark.parametrize(("per_node", "told"), [(False, [2, 1]), (True, [0, 0])])
def test_gpus_that_a_step_has_to_be_told(per_node: bool, told: list[int]) -> None:
    facts = JobFacts(gpus={"node1": 2, "node2": 1}, gpus_per_node=per_node)
    assert [node.gpus for node in allocation(UNEVEN, "login", facts)[0].nodes] == told


def test_the_end_of_the_job() -> None:
    environ = {**UNEVEN, "SLURM_JOB_END_TIME": "1795355000"}
    assert allocation(environ, "login", SILENT)[0].end == 1795355000.0
    assert allocation(environ, "login", JobFacts(end=5.0))[0].end == 5.0
    assert allocation(UNEVEN, "login", SILENT)[0].end is None


def test_warnings() -> None:
    said = allocation(UNEVEN, "login", JobFacts(problem="scontrol: no answer within 10 s"))[1]
    assert said == ["scontrol: no answer within 10 s; going by the job's environment alone"]
    assert allocation(UNEVEN, "login", JobFacts(nodes=["node1"], problem="no srun"))[1] == ["no srun"]
    said = allocation({**UNEVEN, "SLURM_HET_SIZE": "2"}, "login", SILENT)[1]
    assert said == ["component 1 of the heterogeneous job is not used: nothing says which nodes it has"]


# ---- heterogeneous jobs ----

HET = {
    "SLURM_JOB_ID": "7", "SLURM_HET_SIZE": "2", "SLURM_NTASKS": "5", "SLURM_PACK_SIZE": "2",
    "SLURM_JOB_ID_HET_GROUP_0": "7", "SLURM_JOB_NODELIST_HET_GROUP_0": "node1",
    "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_0": "2", "SLURM_TASKS_PER_NODE_HET_GROUP_0": "2",
    "SLURM_JOB_ID_HET_GROUP_1": "8", "SLURM_JOB_NODELIST_HET_GROUP_1": "node[2-3]",
    "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_1": "4,2", "SLURM_TASKS_PER_NODE_HET_GROUP_1": "2,1",
    "SLURM_CPUS_PER_TASK_HET_GROUP_1": "2",
}  # fmt: skip
HET_NODES = [
    Node("node1", 2, 2, Way.STEP, 1.0, 0, 0),
    Node("node2", 4, 2, Way.STEP, 2.0, 0, 1),
    Node("node3", 2, 1, Way.STEP, 2.0, 0, 1),
]


def het_lines() -> str:
    one = job_line(nodes="node1", groups="  Nodes=node1 CPU_IDs=0-1 Mem=1 GRES=gpu:1(IDX:0) ")
    two = job_line(nodes="node[2-3]", groups="  Nodes=node[2-3] CPU_IDs=0-3 Mem=1 GRES=")
    two = two.replace("JobId=7 ", "JobId=8 ").replace("NumTasks=1 CPUs/Task=1", "NumTasks=3 CPUs/Task=2")
    one, two = (
        text.replace("JobName", f"HetJobId=7 HetJobOffset={n} JobName") for n, text in enumerate((one, two))
    )
    return one.replace("EndTime=Unknown", "EndTime=2000") + two.replace("EndTime=Unknown", "EndTime=1000")


def test_all_components_of_a_heterogeneous_job() -> None:
    found, warnings = allocation(HET, "login", SILENT)
    assert (found.nodes, warnings, found.heterogeneous) == (HET_NODES, [], True)
    older = {name.replace("HET_", "PACK_"): value for name, value in HET.items()}
    assert allocation(older, "login", SILENT)[0].nodes == HET_NODES
    # A batch script has the variables of the first component besides, as those of any job.
    batch = {**HET, **environment("node1", "2", "2")}
    found, warnings = allocation(batch, "node1", SILENT)
    assert (found.nodes, warnings, found.own_node) == (HET_NODES, [], "node1")


def test_what_scontrol_says_of_components() -> None:
    facts = parse_job(het_lines(), "7")
    assert (facts.end, facts.nodes, list(facts.components)) == (1000.0, ["node1"], [0, 1])
    found, warnings = allocation({"SLURM_JOB_ID": "7"}, "login", facts)
    assert [(node.name, node.cores, node.slots, node.gpus, node.component) for node in found.nodes] == [
        ("node1", 2, 1, 1, 0),
        ("node2", 4, 2, 0, 1),
        ("node3", 4, 1, 0, 1),
    ]
    assert warnings == []
    over = parse_job(het_lines().replace("RUNNING", "FAILED").replace("FAILED", "RUNNING", 1), "7")
    found, warnings = allocation(HET, "login", over)
    assert [node.name for node in found.nodes] == ["node1"]
    assert warnings == [
        "component 1 of the heterogeneous job is not used: Slurm says that this job is FAILED"
    ]


INSTEAD = "unset it, or name nodes with -s HOST:CORES"


@pytest.mark.parametrize(
    ("environ", "facts", "says"),
    [
        ({}, SILENT, "SLURM_JOB_ID is not set"),
        (
            UNEVEN,
            JobFacts(gone="Slurm knows no such job (Invalid job id specified)"),
            f"SLURM_JOB_ID is 7, but Slurm knows no such job (Invalid job id specified): {INSTEAD}",
        ),
        (UNEVEN, JobFacts(gone="Slurm says that this job is TIMEOUT"), f"this job is TIMEOUT: {INSTEAD}"),
        ({"SLURM_JOB_ID": "7"}, SILENT, f"SLURM_JOB_ID is 7, but SLURM_JOB_NODELIST is not set: {INSTEAD}"),
        (
            {"SLURM_JOB_ID": "7"},
            JobFacts(problem="there is no scontrol command in PATH"),
            f"SLURM_JOB_NODELIST is not set, and there is no scontrol command in PATH: {INSTEAD}",
        ),
        (UNEVEN, JobFacts(nodes=[]), f"SLURM_JOB_ID is 7, but that job has no nodes: {INSTEAD}"),
        (environment("a[1", "4", "4"), SILENT, "SLURM_JOB_NODELIST: a[1: brackets"),
        ({"SLURM_JOB_ID": "7", "SLURM_NODELIST": "-x"}, SILENT, "SLURM_NODELIST: -x: not a host's name"),
        (
            environment("n[1-3]", "4(x2)", "4"),
            SILENT,
            "n1: the number of cores that the job has there is not known",
        ),
        (environment("n1", "four", "4"), SILENT, "SLURM_JOB_CPUS_PER_NODE is 'four'; that should be"),
        (environment("n1", "4", "\x1b"), SILENT, "SLURM_TASKS_PER_NODE is '\\x1b'; that should be"),
    ],
)
def test_what_cannot_be(environ: dict[str, str], facts: JobFacts, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        allocation(environ, "login", facts)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_no_room() -> None:
    with pytest.raises(UsageError, match="room for a task: node1: left out: it has 4 cores, and -c 8 asks"):
        allocation(UNEVEN, "login", SILENT, SlotRules(8))
    asked = environment("n1", "2", "1", SLURM_CPUS_PER_TASK="4")
    with pytest.raises(UsageError, match="and the job's --cpus-per-task=4 asks for more"):
        allocation(asked, "login", SILENT)


@pytest.mark.parametrize("tiny", [5e-324, 1e-300, 0.0])
def test_cores_per_task_that_make_no_sense(tiny: float) -> None:
    with pytest.raises(UsageError, match=r"^-c "):
        allocation(UNEVEN, "login", SILENT, SlotRules(tiny))


VALUES = st.sampled_from(["", "0", "1", "2", "4,2", "3(x2),1", "node[1-2]", "x", "7"]) | st.text(max_size=8)
VARIABLES = sorted({*UNEVEN, *STEP, "SLURM_CPUS_PER_TASK", "SLURM_HET_SIZE"})


@given(
    st.dictionaries(st.sampled_from(VARIABLES), VALUES),
    st.booleans(),
    st.sampled_from([None, 0.5, 1.0, 3.0]),
    st.booleans(),
)
def test_any_environment_is_an_allocation_or_a_usage_error(
    changes: dict[str, str], answered: bool, c: float | None, fill: bool
) -> None:
    facts = BATCH_FACTS if answered else SILENT
    try:
        found, _ = allocation({**UNEVEN, **changes}, "login", facts, SlotRules(c, fill=fill))
    except UsageError as error:
        assert str(error).isprintable()
    else:
        assert all(0 < node.slots <= node.cores / node.cores_per_task + 1e-6 for node in found.nodes)
