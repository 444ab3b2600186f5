"""What each slot of this machine has alone: devices with -g and -E, cores with --bind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import disbatch, status_file, tasks, write

SHOW = "echo $DISBATCH_CYLINDER_RANK $CUDA_VISIBLE_DEVICES $GPU_DEVICE_ORDINAL $PORTS >> shown"
ALONE = "mkdir held.$CUDA_VISIBLE_DEVICES && sleep 0.02 && rmdir held.$CUDA_VISIBLE_DEVICES"
"""Fails if a task with the same device runs at the same time."""
NO_GPUS = dict.fromkeys(
    (
        "CUDA_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL",
        "ROCR_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "ZE_AFFINITY_MASK",
    ),
    "",
)


def shown(directory: Path) -> set[str]:
    """What the tasks found, each line once."""
    return set((directory / "shown").read_text().splitlines())


def test_a_device_for_each_slot(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", [f"{SHOW}; {ALONE}"] * 40)
    env = {"CUDA_VISIBLE_DEVICES": "4,5,GPU-a,GPU-b", "GPU_DEVICE_ORDINAL": "0,1,2,3"}
    done = disbatch(tmp_path, "-s", "localhost:4", "-g", "Tasks", env={**NO_GPUS, **env})
    assert done.returncode == 0, done.stderr
    assert {record.return_code for record in tasks(status_file(tmp_path)).values()} == {0}
    assert shown(tmp_path) <= {"0 4 0", "1 5 1", "2 GPU-a 2", "3 GPU-b 3"}


def test_too_few_devices_are_fewer_slots(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", [f"{SHOW}; {ALONE}"] * 20)
    env = {**NO_GPUS, "CUDA_VISIBLE_DEVICES": "0,1"}
    done = disbatch(tmp_path, "-s", "localhost:4", "-g", "Tasks", env=env)
    assert done.returncode == 0, done.stderr
    assert "2 GPUs for 4 slots: 2 tasks at a time" in done.stderr
    assert {record.return_code for record in tasks(status_file(tmp_path)).values()} == {0}
    assert shown(tmp_path) <= {"0 0", "1 1"}


def test_all_that_another_variable_lists(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", [SHOW] * 12)
    done = disbatch(
        tmp_path, "-s", "localhost:2", "-E", "PORTS", "Tasks", env={**NO_GPUS, "PORTS": "7001,7002,7003,7004"}
    )
    assert done.returncode == 0, done.stderr
    assert shown(tmp_path) <= {"0 7001,7002", "1 7003,7004"}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["-g"], "-g: no GPU is listed in CUDA_VISIBLE_DEVICES, "),
        (["-E", "PORTS"], "-E PORTS: PORTS is not set here"),
    ],
)
def test_nothing_to_split(option: list[str], words: str, tmp_path: Path) -> None:
    write(tmp_path / "Tasks", [SHOW])
    done = disbatch(tmp_path, "-s", "localhost:2", *option, "Tasks", env=NO_GPUS)
    assert done.returncode == 3
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "shown").exists()


def test_cores_for_each_slot(tmp_path: Path) -> None:
    slots = len(os.sched_getaffinity(0))
    # The shell itself, and what it starts.
    show = (
        "grep Cpus_allowed_list /proc/$$/status | sed s/^.*:/$DISBATCH_CYLINDER_RANK:/ >> shown; "
        "grep Cpus_allowed_list /proc/self/status >> allowed"
    )
    write(tmp_path / "Tasks", [show] * (6 * slots))
    done = disbatch(tmp_path, "-s", f"localhost:{slots}", "--bind", "cores", "Tasks")
    assert done.returncode == 0, done.stderr
    places = dict(line.split(":\t") for line in shown(tmp_path))
    assert len(places) == len(shown(tmp_path)), "a slot keeps its core"
    assert len(set(places.values())) == len(places), "no two slots share one"
    assert {int(cpu) for cpu in places.values()} <= os.sched_getaffinity(0)
    assert {line.split()[1] for line in (tmp_path / "allowed").read_text().splitlines()} == set(
        places.values()
    )


def test_too_few_cores_to_bind(tmp_path: Path) -> None:
    cpus = len(os.sched_getaffinity(0))
    write(tmp_path / "Tasks", ["grep Cpus_allowed_list /proc/self/status >> shown"] * 4)
    done = disbatch(tmp_path, "-s", f"localhost:{2 * cpus}", "--bind", "cores", "Tasks")
    assert done.returncode == 0, done.stderr
    assert f"{2 * cpus} slots of 1 core and {cpus} core" in done.stderr
    assert "here: tasks are not bound" in done.stderr
    assert len(shown(tmp_path)) == 1


def test_no_binding_unless_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["grep Cpus_allowed_list /proc/self/status >> shown"] * 8)
    done = disbatch(tmp_path, "-s", "localhost:2", "Tasks")
    assert done.returncode == 0, done.stderr
    whole = Path("/proc/self/status").read_text().partition("Cpus_allowed_list:")[2].split()[0]
    assert {line.split()[1] for line in shown(tmp_path)} == {whole}
