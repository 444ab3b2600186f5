"""What a real Slurm says of its jobs, taken for nodes and slots."""

from __future__ import annotations

import json
import shlex
import sys
import time

import pytest
from slurm_lab import SlurmLab
from slurm_run import SlurmRun

SCRIPT = """\
import json, os, sys
from disbatch.contexts.discovery import Entry, choose_nodes
from disbatch.contexts.machine import this_machine
from disbatch.contexts.nodes import SlotRules
from disbatch.contexts.slurm.commands import ask
from disbatch.contexts.slurm.context import Slurm
from disbatch.model.errors import UsageError

slurm = Entry(("SLURM_JOB_ID",), lambda: Slurm(lambda job: ask(job, 60)))
try:
    choice = choose_nodes([], os.environ, this_machine(), SlotRules(), read=str, schedulers=[slurm])
except UsageError as error:
    print(error)
    sys.exit(2)
found = choice.job
nodes = [[n.name, n.cores, n.slots, n.cores_per_task, n.gpus] for n in choice.nodes]
print(json.dumps([nodes, found.own_node, sorted(found.keep), found.kill_wait, found.end, choice.warnings]))
"""
ONCE = (
    "start it once, without srun (in a job of sbatch or salloc; it starts its engines on the nodes by itself)"
)
HOUR = 3600
"""The time that a job in the lab gets, in seconds."""


@pytest.fixture
def script(slurm_lab: SlurmLab) -> str:
    path = slurm_lab.directory / "found.py"
    path.write_text(SCRIPT)
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))}"


UNEVEN = [["node1", 4, 4, 1.0, 0], ["node2", 2, 2, 1.0, 0]]
WHOLE = [["node1", 4, 3, 1.0, 4], ["node2", 4, 3, 1.0, 4]]
TWOS = [["node1", 4, 2, 2.0, 0], ["node2", 4, 2, 2.0, 0]]


@pytest.mark.parametrize(
    ("command", "nodes", "own"),  # name, cores, slots, cores per task, GPUs that steps must ask for
    [
        ("salloc -Q -w node1,node2 -n6", UNEVEN, ""),
        ("salloc -Q -w node1,node2 -n6 srun -n1 -N1", UNEVEN, "node1"),
        ("salloc -Q -w node1,node2 -n6 srun --interactive --preserve-env -N1", UNEVEN, "node1"),
        ("salloc -Q -w node1,node2 -n6 --gpus=3", [["node1", 4, 4, 1.0, 2], ["node2", 2, 2, 1.0, 1]], ""),
        ("salloc -Q -w node1,node2 -n6 --gres=gpu:2", UNEVEN, ""),
        ("salloc -Q -w node1,node2 -n6 --exclusive", WHOLE, ""),
        ("salloc -Q -w node1,node2 -n6 --exclusive srun -n1 -N1", WHOLE, "node1"),
        ("salloc -Q -w node1,node2 -n4 -c2 srun -n1 -N1", TWOS, "node1"),
        ("srun -w node1 -n1 -c2", [["node1", 2, 1, 2.0, 0]], "node1"),
    ],
)
def test_jobs(slurm_lab: SlurmLab, script: str, command: str, nodes: list[object], own: str) -> None:
    # Named, as the nodes of the job before may be busy with its end for a moment.
    before = int(time.time())
    found = json.loads(slurm_lab.call(*shlex.split(f"{command} {script}")))
    assert found[:4] == [nodes, own, [own] if own else [], 3.0]
    assert before + HOUR <= found[4] <= time.time() + HOUR
    assert found[5] == []


def test_a_batch_job_before_and_after_it_gave_nodes_back(slurm_run: SlurmRun, script: str) -> None:
    shrink = "scontrol update JobId=$SLURM_JOB_ID NodeList=node1,node3"
    slurm_run.sbatch("-N4 -n9", f"{script} > before; {shrink} && {script} > after")
    slurm_run.end()
    whole = [
        ["node1", 4, 4, 1.0, 0],
        ["node2", 3, 3, 1.0, 0],
        ["node3", 1, 1, 1.0, 0],
        ["node4", 1, 1, 1.0, 0],
    ]
    for name, nodes in (("before", whole), ("after", whole[:3:2])):
        found = json.loads((slurm_run.directory / name).read_text())
        assert found[:3] == [nodes, "node1", ["node1"]]


def test_copies_are_refused(slurm_lab: SlurmLab, script: str) -> None:
    said = slurm_lab.call("sh", "-c", f"srun -n3 -N3 {script} || true")
    assert [line for line in said.splitlines() if line] == [f"srun started 3 copies of disbatch: {ONCE}"]


def test_jobs_that_are_none(slurm_lab: SlurmLab, script: str) -> None:
    job = slurm_lab.call("salloc", "-Q", "-n1", "printenv", "SLURM_JOB_ID")
    over = slurm_lab.call("sh", "-c", f"SLURM_JOB_ID={job} {script} || true")
    assert over.startswith(f"SLURM_JOB_ID is {job}, but Slurm says that this job is COMPLETED: unset it, or")
    unknown = slurm_lab.call("sh", "-c", f"SLURM_JOB_ID=4242 {script} || true")
    assert unknown.startswith(
        "SLURM_JOB_ID is 4242, but Slurm knows no such job (Invalid job id specified): unset"
    )
