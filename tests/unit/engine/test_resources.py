"""What each slot has alone: who decides that tasks are bound, and that a real engine keeps to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from computers import LAPTOP, TWO_SOCKETS, describe
from engine_driver import EngineProcess, FakeDriver

from disbatch.contexts.slurm.context import VARIABLES
from disbatch.engine.bootstrap import check
from disbatch.engine.resources import Division, Share, divide, variables_of_run
from disbatch.engine.spawn import Binding
from disbatch.model.errors import LaunchError
from disbatch.model.task import Phase, Way
from disbatch.wire.engine_protocol import PROTOCOL, Bootstrap, Hello, Trouble

CUDA = b"CUDA_VISIBLE_DEVICES"
HERE = os.sched_getaffinity(0)


def bootstrap(**changes: Any) -> Bootstrap:
    fields: dict[str, Any] = {
        **dict.fromkeys(("engine", "node", "server_key", "client_key", "client_secret"), "node1"),
        **dict.fromkeys(("directory", "log"), b"/"),
        "protocol": PROTOCOL,
        "slots": 4,
        "cores_per_task": 1.0,
        "addresses": [],
        "environment": {},
        "way": Way.STEP,
    }
    return Bootstrap(**(fields | changes))


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """The description of 4 cores with 2 threads each."""
    describe(tmp_path / "laptop", LAPTOP)
    return tmp_path / "laptop"


def cpus(division: Division) -> list[set[int]] | None:
    """The CPUs of the slots; None if they are not bound."""
    found = [share.cpus for share in division.shares]
    if None in found:
        assert set(found) == {None}
        return None
    return [set(part) for part in found if part is not None]


# ---- who is bound ----


@pytest.mark.parametrize(
    ("bind", "given", "mask", "bound", "trouble"),
    [
        pytest.param(None, 8, range(8), True, None, id="all of the computer is ours"),
        pytest.param(None, 4, [0, 1, 4, 5], True, None, id="whole cores, and confined to them"),
        pytest.param(None, 4, [0, 1, 2, 3], False, None, id="half of each core is another's"),
        pytest.param(None, 4, range(8), False, None, id="not confined to ours"),
        pytest.param(None, None, range(8), False, None, id="nobody says what is ours"),
        pytest.param(None, 2, [0, 4], False, None, id="too few, and nobody asked"),
        pytest.param(True, None, range(8), True, None, id="asked for"),
        pytest.param(True, None, [0, 1, 2, 3], True, None, id="asked for, on half cores"),
        pytest.param(True, 8, range(8), True, None, id="asked for, all ours"),
        pytest.param(True, 4, range(8), True, "4 of the 8 cores here were given to us", id="not confined"),
        pytest.param(True, None, [0, 4], False, "4 slots of 1 core and 2 cores here", id="too few"),
        pytest.param(False, 8, range(8), False, None, id="not wanted"),
    ],
)
def test_who_is_bound(
    bind: bool | None, given: int | None, mask: Any, bound: bool, trouble: str | None, laptop: Path
) -> None:
    division = divide(bootstrap(bind=bind, cores=given), {}, mask=set(mask), system=laptop)
    assert (cpus(division) is not None) == bound
    assert len(division.troubles) == (1 if trouble else 0)
    assert all(line.startswith(str(trouble)) for line in division.troubles)


def test_cores_are_divided_over_the_slots_that_have_a_device(tmp_path: Path) -> None:
    describe(tmp_path, TWO_SOCKETS)
    division = divide(
        bootstrap(slots=16, bind=True, gpu=True), {CUDA: b"0,1"}, mask=set(range(16)), system=tmp_path
    )
    assert [share.variables for share in division.shares] == [{CUDA: b"0"}, {CUDA: b"1"}]
    assert cpus(division) == [set(range(8)), set(range(8, 16))]
    assert division.troubles == ["2 GPUs for 16 slots: 2 tasks at a time"]


def test_nothing_was_asked_for() -> None:
    assert divide(bootstrap(), {CUDA: b"0,1"}) == Division([Share({}, None)] * 4, [])


def test_what_the_log_says() -> None:
    shares = [Share({CUDA: b"0"}, frozenset({4, 0, 1})), Share({CUDA: b"1"}, None)]
    assert Division(shares, []).description() == (
        "slot 0: CPUs 0-1,4, CUDA_VISIBLE_DEVICES=0; slot 1: CUDA_VISIBLE_DEVICES=1"
    )
    assert Division([Share({}, None)] * 2, []).description() == ""
    assert Division([Share({}, frozenset({0}))] * 1000, []).description().endswith("; and 744 more")


# ---- whose word counts ----


def test_device_files_count_where_no_scheduler_gives_devices(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"nvidia{number}").touch()
    for way in (Way.CHILD, Way.SSH):
        division = divide(bootstrap(gpu=True, way=way), {}, files=tmp_path)
        assert [share.variables for share in division.shares] == [{CUDA: b"0"}, {CUDA: b"1"}]
    with pytest.raises(LaunchError, match="--gres=gpu:N"):
        divide(bootstrap(gpu=True, way=Way.STEP, step=VARIABLES), {}, files=tmp_path)
    with pytest.raises(LaunchError, match="before you start disbatch"):
        divide(bootstrap(gpu=True, way=Way.CHILD), {b"SLURM_JOB_ID": b"1"}, files=tmp_path)
    with pytest.raises(LaunchError, match="on that host, where a command of ssh finds it"):
        divide(bootstrap(gpu=True, way=Way.SSH), {b"SLURM_JOB_ID": b"1"}, files=tmp_path)


def test_amd_numbers_count_what_rocr_lets_through(tmp_path: Path) -> None:
    (tmp_path / "kfd").touch()
    given = {b"ROCR_VISIBLE_DEVICES": b"2,3", b"HIP_VISIBLE_DEVICES": b"0,1"}
    division = divide(bootstrap(gpu=True, slots=2), given, files=tmp_path)
    assert [share.variables[b"HIP_VISIBLE_DEVICES"] for share in division.shares] == [b"0", b"0"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {CUDA: b"5", b"PORTS": b"a", b"X": b"1"}),
        ({"gpu": True}, {b"PORTS": b"a", b"X": b"1"}),
        ({"share": ["PORTS", "X"]}, {CUDA: b"5", b"X": b"1"}),
        ({"share": ["CUDA_VISIBLE_DEVICES"]}, {CUDA: b"5", b"PORTS": b"a", b"X": b"1"}),
    ],
)
def test_the_node_says_what_it_has(changes: dict[str, Any], expected: dict[bytes, bytes]) -> None:
    run = {CUDA: b"5", b"PORTS": b"a", b"X": b"1"}
    assert variables_of_run(bootstrap(environment=run, **changes), {b"PORTS": b"b"}) == expected


# ---- a thread goes to the CPUs and comes back ----


def test_back_again_whatever_happens() -> None:
    cpu = min(HERE)
    binding = Binding([Share({}, frozenset({cpu}))], pytest.fail)
    with binding.at(0):
        assert os.sched_getaffinity(0) == {cpu}
    assert os.sched_getaffinity(0) == HERE
    with pytest.raises(OSError, match="no room"), binding.at(0):
        raise OSError("no room")
    assert os.sched_getaffinity(0) == HERE
    with binding.at(-1):
        assert os.sched_getaffinity(0) == HERE


def test_cpus_that_are_gone() -> None:
    told: list[str] = []
    binding = Binding([Share({}, frozenset({8000}))], told.append)
    for _ in range(2):
        with binding.at(0):
            assert os.sched_getaffinity(0) == HERE
    (line,) = told
    assert line.startswith("tasks cannot be bound to their cores (")


def test_the_way_back_is_gone() -> None:
    told: list[str] = []
    binding = Binding([Share({}, frozenset({min(HERE)}))], told.append, own={8000})
    try:
        for _ in range(2):
            with binding.at(0):
                pass
            assert os.sched_getaffinity(0) >= HERE
    finally:
        os.sched_setaffinity(0, HERE)
    assert len(told) == 1


# ---- a real engine ----


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FakeDriver]:
    driver = FakeDriver(tmp_path)
    yield driver
    driver.close()


def test_tasks_run_on_their_slots_cpus(driver: FakeDriver) -> None:
    slots = len(HERE)
    engine = EngineProcess(driver.bootstrap(slots=slots, cores_per_task=1, bind=True))
    try:
        assert driver.expect(Hello).slots == slots
        # The first thing that a task does is to ask, and a child of its, too.
        show = "grep Cpus_allowed_list /proc/self/status > cpus.$DISBATCH_CYLINDER_RANK.$DISBATCH_TASKID"
        attempts = driver.start(*[show] * (4 * slots))
        driver.start_per_engine(Phase.STOP, 1000, show.replace("$DISBATCH_TASKID", "stop"))
        for attempt in (*attempts, 1000):
            assert driver.outcome(attempt).return_code == 0
        assert driver.leave()
        assert engine.wait() == 0
    finally:
        engine.finish()
    allowed: dict[str, set[str]] = {}
    for path in driver.folder.glob("cpus.*"):
        allowed.setdefault(path.suffixes[0], set()).add(path.read_text().split()[1])
    whole = Path("/proc/self/status").read_text().partition("Cpus_allowed_list:\t")[2].split()[0]
    assert allowed.pop(".-1") == {whole}
    assert all(len(found) == 1 for found in allowed.values()), "a slot keeps its CPUs"
    assert set().union(*allowed.values()) <= {str(cpu) for cpu in HERE}
    assert len(set().union(*allowed.values())) == len(allowed), "no two slots have the same"
    assert not any(isinstance(message, Trouble) for message in driver.messages)
    assert "slot 0: CPUs " in (driver.folder / "run_here_engine.txt").read_text()


def test_no_two_tasks_at_once_have_the_same_device(driver: FakeDriver) -> None:
    devices = {CUDA: b"GPU-a,GPU-b,GPU-c", b"GPU_DEVICE_ORDINAL": b"4,5,6"}
    environment = {**os.environb, **devices}
    engine = EngineProcess(driver.bootstrap(slots=8, cores_per_task=0.1, gpu=True, environment=environment))
    try:
        assert driver.expect(Hello).slots == 3
        assert driver.expect(Trouble).text == "3 GPUs for 8 slots: 3 tasks at a time"
        # Whoever finds the directory of its device there is not alone with it.
        use = (
            "mkdir held.$CUDA_VISIBLE_DEVICES && echo $CUDA_VISIBLE_DEVICES $GPU_DEVICE_ORDINAL >> used && "
            "sleep 0.02 && rmdir held.$CUDA_VISIBLE_DEVICES"
        )
        for attempt in driver.start(*[use] * 30):
            assert driver.outcome(attempt).return_code == 0
        all_of_them = 'test "$CUDA_VISIBLE_DEVICES" = GPU-a,GPU-b,GPU-c'
        driver.start_per_engine(Phase.STOP, 1000, all_of_them)
        assert driver.outcome(1000).return_code == 0
        assert driver.leave()
    finally:
        engine.finish()
    used = set((driver.folder / "used").read_text().splitlines())
    assert used <= {"GPU-a 4", "GPU-b 5", "GPU-c 6"}


def test_a_host_behind_ssh_says_which_gpus_it_has(
    driver: FakeDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # check goes there itself
    run = {CUDA: b"7", b"HIP_VISIBLE_DEVICES": b"7", b"MINE": b"x"}
    orders = driver.bootstrap(way=Way.SSH, gpu=True, environment=run)
    ready = check(orders, {CUDA: b"0,1"})
    ready.log.close()
    assert [share.variables for share in ready.division.shares] == [{CUDA: b"0"}, {CUDA: b"1"}]
    assert ready.environment == {CUDA: b"0,1", b"MINE": b"x", b"PWD": bytes(tmp_path)}


def test_an_engine_without_devices_does_not_start(driver: FakeDriver) -> None:
    environment = {
        name: value for name, value in os.environb.items() if not name.endswith(b"_VISIBLE_DEVICES")
    } | {b"SLURM_JOB_ID": b"1"}
    engine = EngineProcess(driver.bootstrap(gpu=True, environment=environment))
    try:
        assert engine.wait() == 2
        assert engine.process.stdout is not None
        assert b"-g: no GPU is listed in CUDA_VISIBLE_DEVICES" in engine.process.stdout.read()
    finally:
        engine.finish()
