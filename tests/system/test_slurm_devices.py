"""The GPUs and cores that the tasks of a Slurm job find: each in one slot at a time."""

from __future__ import annotations

import os
import re
from collections import defaultdict

import pytest
from slurm_run import SlurmRun
from ssh_run import TELL, most_at_once

from disbatch.model.statusline import Record

DEVICES = f"echo $CUDA_VISIBLE_DEVICES:$GPU_DEVICE_ORDINAL > devices-$DISBATCH_TASKID; {TELL}; : < gate"


def _devices(run: SlurmRun) -> dict[tuple[str, str], list[Record]]:
    """The tasks that used each device of each node."""
    used = defaultdict(list)
    for record in run.counting():
        numbers, ordinals = (run.directory / f"devices-{record.id}").read_text().strip().split(":")
        assert numbers == ordinals and numbers, str(run)
        for number in numbers.split(","):
            used[record.node, number].append(record)
    return used


@pytest.mark.parametrize(
    ("options", "devices"),
    [
        ("-N 2 --ntasks-per-node 2 --gres=gpu:2", [2, 2]),
        ("-N 2 --ntasks-per-node 2 --gpus-per-node=4", [4, 4]),
        ("-N 2 -n 3 --gpus=3", [2, 1]),
        ("-N 2 -n 4 --gpus-per-task=1", [3, 1]),
    ],
)
def test_a_device_is_in_one_slot_at_a_time(slurm_run: SlurmRun, options: str, devices: list[int]) -> None:
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 14 {DEVICES}")
    run.salloc(options, "disbatch", "-g", "Tasks")
    slots = int((re.findall(r"-n (\d)", options) or ["4"])[0])
    run.until_told(slots)
    run.open_gate()
    assert run.end() == 0, str(run)
    run.check_each_once(14)
    used = _devices(run)
    by_node: dict[str, int] = defaultdict(int)
    for (node, _), records in used.items():
        by_node[node] += 1
        assert most_at_once(records) == 1, str(run)
    assert sorted(by_node.values(), reverse=True) == devices, str(run)
    assert sum(run.most_at_once().values()) == slots


def test_fewer_devices_than_slots(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 10 {DEVICES}")
    run.salloc("-N 2 --ntasks-per-node 4 --gres=gpu:2", "disbatch", "-g", "Tasks")
    run.until_told(4)
    run.open_gate()
    assert run.end() == 0, str(run)
    run.check_each_once(10)
    assert sorted(run.most_at_once().values()) == [2, 2]
    assert all(most_at_once(records) == 1 for records in _devices(run).values())
    warnings = [line for line in run.stderr.splitlines() if "slots" in line and "device" in line.lower()]
    assert warnings, run.stderr


def test_without_g_every_task_finds_all_devices(slurm_run: SlurmRun) -> None:
    slurm_run.tasks("echo $CUDA_VISIBLE_DEVICES > devices")
    slurm_run.salloc("-N 1 -n 2 --gres=gpu:3", "disbatch", "Tasks")
    assert slurm_run.end() == 0, str(slurm_run)
    assert (slurm_run.directory / "devices").read_text() == "0,1,2\n"


def test_no_device_at_all(slurm_run: SlurmRun) -> None:
    slurm_run.tasks("touch ran")
    slurm_run.salloc("-N 1 -n 2", "disbatch", "-g", "Tasks")
    assert slurm_run.end() in (2, 3), str(slurm_run)
    assert "Traceback" not in slurm_run.stderr
    assert not (slurm_run.directory / "ran").exists()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be divided")
@pytest.mark.parametrize(
    ("options", "arguments", "whole"),
    [("--exclusive", "--fill", False), ("--exclusive", "--fill --bind none", True)],
)
def test_tasks_are_bound_to_cores_of_their_slot(
    slurm_run_with_real_cores: SlurmRun, options: str, arguments: str, whole: bool
) -> None:
    """With as many slots as cores, and Slurm that binds: each slot its own core, unless told otherwise."""
    run = slurm_run_with_real_cores
    cores = len(os.sched_getaffinity(0))
    bound = f"awk '/^Cpus_allowed_list/ {{ print $2 }}' /proc/self/status > cores-$DISBATCH_TASKID; {TELL}"
    run.tasks(f"#DISBATCH REPEAT {cores * 3} {bound}; : < gate")
    run.sbatch(f"-N 1 {options}", f"disbatch {arguments} Tasks")
    run.until_told(cores)
    run.open_gate()
    assert run.ended() == ("COMPLETED", 0), str(run)
    found: dict[int, set[str]] = defaultdict(set)
    for told in run.told:
        found[told.slot].add((run.directory / f"cores-{told.task}").read_text().strip())
    assert set(found) == set(range(cores))
    assert all(len(lists) == 1 for lists in found.values()), found
    lists = {one for lists in found.values() for one in lists}
    if whole:
        assert len(lists) == 1
    else:
        assert len(lists) == cores and all(one.isdigit() for one in lists), found
