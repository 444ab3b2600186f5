"""Devices over slots: what the variables list, whole devices, none of them twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.contexts.launch_errors import tidy
from disbatch.contexts.slurm.context import VARIABLES
from disbatch.engine.resources import ADVICE, GPU_VARIABLES, Devices, entries, has_rocm, present_gpus, split
from disbatch.model.errors import LaunchError

CUDA = "CUDA_VISIBLE_DEVICES"
ORDINAL = "GPU_DEVICE_ORDINAL"
ROCR = "ROCR_VISIBLE_DEVICES"
HIP = "HIP_VISIBLE_DEVICES"
ZE = "ZE_AFFINITY_MASK"
LINES = {
    "few": "2 GPUs for 4 slots: 2 tasks at a time",
    "one": "1 GPU for 4 slots: 1 task at a time",
    "rest": "5 GPUs for 2 tasks at a time: 2 each, 1 unused",
    "lengths": "CUDA_VISIBLE_DEVICES lists 4 devices and GPU_DEVICE_ORDINAL 2: the first 2 are used",
}


def parted(
    environment: dict[str, str],
    slots: int,
    *share: str,
    gpu: bool = True,
    rocm: bool = False,
    present: int = 0,
    advice: str = "set one of these",
) -> Devices:
    values = {name.encode(): value.encode() for name, value in environment.items()}
    return split("node1", values, slots, gpu=gpu, share=share, rocm=rocm, present=present, advice=advice)


def of_slots(devices: Devices, name: str) -> list[str | None]:
    """The value of a variable in each slot."""
    values = [variables.get(name.encode()) for variables in devices.slots]
    return [None if value is None else value.decode() for value in values]


@pytest.mark.parametrize(
    ("listed", "slots", "expected"),
    [
        pytest.param("0,1,2,3", 4, ["0", "1", "2", "3"], id="one each"),
        pytest.param("0,1,2,3", 2, ["0,1", "2,3"], id="two each"),
        pytest.param("2,3", 2, ["2", "3"], id="the job's, not from 0"),
        pytest.param("0,1,2,3", 1, ["0,1,2,3"], id="all in one slot"),
        pytest.param("GPU-8932f937,GPU-46abccf3", 2, ["GPU-8932f937", "GPU-46abccf3"], id="UUIDs"),
        pytest.param("MIG-GPU-1f/1/0,MIG-GPU-1f/2/0", 2, ["MIG-GPU-1f/1/0", "MIG-GPU-1f/2/0"], id="old MIG"),
        pytest.param("MIG-a-b,MIG-c-d,MIG-e-f", 3, ["MIG-a-b", "MIG-c-d", "MIG-e-f"], id="MIG"),
        pytest.param("0,1,0,1", 2, ["0", "1"], id="duplicates count once"),
        pytest.param(" 0, 1 ", 2, ["0", "1"], id="blanks"),
        pytest.param("0,1,-1,2", 2, ["0", "1"], id="CUDA stops at -1"),
        pytest.param("0,1,,2", 2, ["0", "1"], id="CUDA stops at nothing"),
        pytest.param("0,1", 4, ["0", "1"], id="too few: fewer slots"),
        pytest.param("3,4,5,6,7", 2, ["3,4", "5,6"], id="the same number in each slot"),
        pytest.param("0-3", 4, ["0", "1", "2", "3"], id="a range"),
        pytest.param("0-1,4, 6-7", 5, ["0", "1", "4", "6", "7"], id="ranges and numbers"),
        pytest.param("2-2,0-2", 3, ["2", "0", "1"], id="a range of one, and one that overlaps"),
        pytest.param("3-0,5", 2, ["3-0", "5"], id="no range"),
        pytest.param("0-999999999,5", 2, ["0-999999999", "5"], id="no range of GPUs either"),
    ],
)
def test_a_list_over_slots(listed: str, slots: int, expected: list[str]) -> None:
    assert of_slots(parted({CUDA: listed}, slots), CUDA) == expected


@pytest.mark.parametrize(
    ("environment", "slots", "line"),
    [
        ({CUDA: "0,1"}, 4, LINES["few"]),
        ({CUDA: "7"}, 4, LINES["one"]),
        ({CUDA: "0,1,2,3,4"}, 2, LINES["rest"]),
        ({CUDA: "0,1,2,3", ORDINAL: "0,1"}, 2, LINES["lengths"]),
        ({CUDA: "0,1,2,3"}, 2, None),
        ({CUDA: "0,0,1,1"}, 2, None),
    ],
)
def test_what_the_user_is_told(environment: dict[str, str], slots: int, line: str | None) -> None:
    assert parted(environment, slots).troubles == ([line] if line else [])


def test_all_variables_that_are_set_go_in_step_and_others_stay_unset() -> None:
    devices = parted({CUDA: "0,1", ROCR: "0,1", ORDINAL: "4,5", "PATH": "/bin"}, 2)
    assert devices.slots == [
        {CUDA.encode(): b"0", ORDINAL.encode(): b"4", ROCR.encode(): b"0"},
        {CUDA.encode(): b"1", ORDINAL.encode(): b"5", ROCR.encode(): b"1"},
    ]


def test_lists_of_different_lengths_count_as_the_shortest() -> None:
    devices = parted({CUDA: "0,1,2,3", ORDINAL: "8,9"}, 4)
    assert (of_slots(devices, CUDA), of_slots(devices, ORDINAL)) == (["0", "1"], ["8", "9"])
    assert devices.troubles == [LINES["few"], LINES["lengths"]]


def test_a_variable_that_lists_nothing_is_left_alone() -> None:
    devices = parted({CUDA: "", HIP: "0,1"}, 2)
    assert devices.slots == [{HIP.encode(): b"0"}, {HIP.encode(): b"1"}]


@pytest.mark.parametrize("environment", [{}, {CUDA: ""}, {CUDA: "NoDevFiles", ROCR: ""}, {CUDA: "-1"}])
@pytest.mark.parametrize("advice", [*ADVICE.values(), VARIABLES.gpu_advice])
def test_no_device_at_all(environment: dict[str, str], advice: str) -> None:
    with pytest.raises(LaunchError) as caught:
        parted(environment, 2, advice=advice)
    assert caught.value.node == "node1"
    assert tidy(caught.value.problem) == caught.value.problem  # which is not cut off on its way to the user
    for name in GPU_VARIABLES:
        assert name.decode() in caught.value.problem
    assert advice in caught.value.problem


@pytest.mark.parametrize("name", [CUDA, ORDINAL, ROCR, HIP, ZE])
def test_a_range_counts_its_devices_in_every_variable_of_gpus(name: str) -> None:
    assert of_slots(parted({name: "0-3"}, 2), name) == ["0,1", "2,3"]


def test_what_looks_like_a_range_elsewhere_is_one_entry() -> None:
    devices = parted({"YEARS": "1990-1999,2000-2009"}, 2, "YEARS", gpu=False)
    assert of_slots(devices, "YEARS") == ["1990-1999", "2000-2009"]


def test_tiles_and_the_device_that_they_are_part_of() -> None:
    assert entries(ZE.encode(), b"0.0,0.1,1") == [b"0.0", b"0.1", b"1"]
    assert entries(ZE.encode(), b"0.0,0,1.1") == [b"0", b"1.1"]


def test_numbers_below_rocr_count_anew_on_amd() -> None:
    environment = {ROCR: "2,3,4,5", HIP: "2,3,4,5", CUDA: "0,1,2,3", ORDINAL: "0,1,2,3", ZE: "0,1,2,3"}
    devices = parted(environment, 2, rocm=True)
    assert of_slots(devices, ROCR) == ["2,3", "4,5"]
    for name in (HIP, CUDA, ORDINAL):
        assert of_slots(devices, name) == ["0,1", "0,1"]
    assert of_slots(devices, ZE) == ["0,1", "2,3"]
    elsewhere = parted(environment, 2)
    assert of_slots(elsewhere, HIP) == ["2,3", "4,5"]


def test_amd_without_rocr_or_with_names() -> None:
    assert of_slots(parted({HIP: "2,3"}, 2, rocm=True), HIP) == ["2", "3"]
    named = parted({ROCR: "0,1", HIP: "GPU-a,GPU-b"}, 2, rocm=True)
    assert of_slots(named, HIP) == ["GPU-a", "GPU-b"]


def test_any_other_variable() -> None:
    devices = parted({"PORTS": "a,b,c,d", CUDA: "0,1"}, 2, "PORTS", gpu=False)
    assert devices.slots == [{b"PORTS": b"a,b"}, {b"PORTS": b"c,d"}]


def test_each_other_variable_is_a_resource_of_its_own() -> None:
    devices = parted({"PORTS": "a,b,c,d", "SEATS": "x,y,z", CUDA: "0,1"}, 4, "PORTS", "SEATS")
    assert of_slots(devices, "PORTS") == ["a,b", "c,d"]
    assert of_slots(devices, "SEATS") == ["x", "y"]
    assert of_slots(devices, CUDA) == ["0", "1"]
    assert devices.troubles == [
        LINES["few"],
        "3 entries of SEATS for 2 tasks at a time: 1 each, 1 unused",
    ]


def test_the_scarcest_decides_how_many_slots() -> None:
    devices = parted({"SEATS": "x", CUDA: "0,1"}, 4, "SEATS")
    assert of_slots(devices, CUDA) == ["0,1"]
    assert devices.troubles == ["1 entry of SEATS for 4 slots: 1 task at a time"]


def test_one_gpu_variable_alone() -> None:
    devices = parted({CUDA: "0,1", ORDINAL: "0,1"}, 2, CUDA, gpu=False)
    assert devices.slots == [{CUDA.encode(): b"0"}, {CUDA.encode(): b"1"}]


@pytest.mark.parametrize(
    ("environment", "share", "gpu", "words"),
    [
        ({}, "PORTS", False, "-E PORTS: PORTS is not set here"),
        ({"PORTS": " ,"}, "PORTS", False, "-E PORTS: PORTS lists nothing here"),
        ({}, CUDA, False, f"-E {CUDA}: {CUDA} is not set here"),
        ({HIP: "0"}, CUDA, True, f"-E {CUDA}: {CUDA} is not set here"),
    ],
)
def test_a_variable_that_was_named_and_lists_nothing(
    environment: dict[str, str], share: str, gpu: bool, words: str
) -> None:
    with pytest.raises(LaunchError) as caught:
        parted(environment, 2, share, gpu=gpu)
    assert caught.value.problem.startswith(words)


def test_devices_that_are_just_there() -> None:
    assert of_slots(parted({}, 2, present=4), CUDA) == ["0,1", "2,3"]
    assert of_slots(parted({CUDA: "3"}, 2, present=4), CUDA) == ["3"]
    with pytest.raises(LaunchError):
        parted({CUDA: ""}, 2, present=4)


def test_counts_device_files(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia0x", "null"):
        (tmp_path / name).touch()
    assert present_gpus({}, tmp_path) == 2
    assert present_gpus({b"SLURM_JOB_ID": b"7"}, tmp_path) == 0
    assert not has_rocm(tmp_path)
    (tmp_path / "kfd").touch()
    assert has_rocm(tmp_path)


def test_nothing_to_split() -> None:
    assert parted({CUDA: "0,1"}, 3, gpu=False) == Devices([{}, {}, {}], [])


@given(
    listed=st.lists(st.sampled_from([*"0123456789", "GPU-a", "MIG-b", "-1", "", "NoDevFiles"]), max_size=20),
    slots=st.integers(1, 12),
    name=st.sampled_from([CUDA, ORDINAL, ROCR, HIP, ZE]),
)
def test_never_twice_never_none(listed: list[str], slots: int, name: str) -> None:
    value = ",".join(listed)
    there = entries(name.encode(), value.encode())
    if not there:
        with pytest.raises(LaunchError):
            parted({name: value}, slots)
        return
    given_out = [str(found).split(",") for found in of_slots(parted({name: value}, slots), name)]
    flat = [entry for entries_of_slot in given_out for entry in entries_of_slot]
    assert len(flat) == len(set(flat)) and set(flat) <= {entry.decode() for entry in there}
    assert len(given_out) == min(slots, len(there))
    assert {len(entries_of_slot) for entries_of_slot in given_out} == {len(there) // len(given_out)}
