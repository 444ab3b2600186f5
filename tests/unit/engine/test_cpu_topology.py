"""CPUs over slots: made-up computers, and what holds on each of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from computers import EPYC, HYBRID, LAPTOP, TWO_SOCKETS, describe, made
from hypothesis import given
from hypothesis import strategies as st

from disbatch.engine.cpu_topology import (
    Core,
    Topology,
    allot,
    format_cpus,
    parse_cpus,
    read_topology,
    whole_cores,
)


def all_of(topology: Topology) -> set[int]:
    return {cpu for core in topology.cores for cpu in core.cpus}


def shares(
    topology: Topology, slots: int, cores_per_task: float = 1, mask: set[int] | None = None
) -> list[set[int]]:
    parts = allot(topology, mask or all_of(topology), slots, cores_per_task)
    assert parts is not None
    return [set(part) for part in parts]


def domains_of(topology: Topology, cpus: set[int]) -> set[int]:
    return {core.domain for core in topology.cores if cpus.intersection(core.cpus)}


# ---- dividing ----


def test_siblings_stay_together() -> None:
    assert shares(LAPTOP, 4) == [{0, 4}, {1, 5}, {2, 6}, {3, 7}]
    assert shares(LAPTOP, 2) == [{0, 1, 4, 5}, {2, 3, 6, 7}]


def test_more_slots_than_cores_have_a_thread_each() -> None:
    assert shares(LAPTOP, 8) == [{0}, {4}, {1}, {5}, {2}, {6}, {3}, {7}]


def test_an_uneven_number_of_cores() -> None:
    assert shares(LAPTOP, 3) == [{0, 4}, {1, 2, 5, 6}, {3, 7}]


def test_siblings_part_rather_than_that_somebody_starves() -> None:
    # Whole cores would be 2, 1 and 1: too few for tasks of three CPUs.
    parts = shares(made(1, 1, 5, 2), 3, 3)
    assert sorted(map(len, parts)) == [3, 3, 4]


def test_within_a_domain() -> None:
    assert shares(TWO_SOCKETS, 4, 4) == [{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}]
    six = shares(TWO_SOCKETS, 6, 2)
    assert [len(part) for part in six] == [2, 2, 2, 2, 4, 4]
    assert all(len(domains_of(TWO_SOCKETS, part)) == 1 for part in six)


def test_across_domains_where_a_slot_would_have_too_little() -> None:
    # 5 slots of 3: a domain of 4 has room for one.
    parts = shares(TWO_SOCKETS, 5, 3)
    assert sorted(map(len, parts)) == [3, 3, 3, 3, 4]


def test_fewer_slots_than_domains_use_them_all() -> None:
    assert shares(TWO_SOCKETS, 2) == [set(range(8)), set(range(8, 16))]
    assert shares(TWO_SOCKETS, 1) == [set(range(16))]
    parts = shares(EPYC, 4)
    assert [domains_of(EPYC, part) for part in parts] == [{0, 1}, {2, 3}, {4, 5}, {6, 7}]


@pytest.mark.parametrize("slots", [8, 16, 32, 64])
def test_a_big_node(slots: int) -> None:
    parts = shares(EPYC, slots)
    assert {len(part) for part in parts} == {128 // slots}
    assert all(len(domains_of(EPYC, part)) == 1 for part in parts)
    assert all(whole_cores(EPYC, part) for part in parts)


def test_a_cpuset_of_odd_cpus() -> None:
    mask = {1, 5, 2, 11, 13, 14}
    assert shares(TWO_SOCKETS, 3, mask=mask) == [{1, 2}, {5, 11}, {13, 14}]
    assert shares(TWO_SOCKETS, 4, mask=mask) == [{1, 2}, {5}, {11}, {13, 14}]


def test_a_cpuset_of_half_cores() -> None:
    assert shares(LAPTOP, 2, mask={0, 4, 1}) == [{0, 4}, {1}]
    assert shares(LAPTOP, 3, mask={0, 4, 1}) == [{0}, {4}, {1}]


def test_cores_of_two_kinds() -> None:
    assert [len(part) for part in shares(HYBRID, 3)] == [4, 4, 4]
    assert [len(part) for part in shares(HYBRID, 12)] == [1] * 12


def test_an_unknown_cpu_is_a_core() -> None:
    assert shares(Topology([]), 2, mask={3, 9}) == [{3}, {9}]
    assert shares(LAPTOP, 2, mask={0, 40}) == [{0}, {40}]


def test_half_a_core_each() -> None:
    assert shares(made(1, 1, 2, 1), 4, 0.5) == [{0}, {0}, {1}, {1}]
    # Five of 0.4 on two: the one in the middle may use both.
    assert shares(made(1, 1, 2, 1), 5, 0.4) == [{0}, {0}, {0, 1}, {1}, {1}]


def test_half_cores_for_a_few_slots_are_whole_ones() -> None:
    assert shares(LAPTOP, 2, 0.5) == [{0, 1, 4, 5}, {2, 3, 6, 7}]


@pytest.mark.parametrize(("slots", "cores_per_task"), [(9, 1), (3, 3), (17, 0.5), (0, 1)])
def test_too_few_cpus(slots: int, cores_per_task: float) -> None:
    assert allot(LAPTOP, all_of(LAPTOP), slots, cores_per_task) is None


def test_whole_cores() -> None:
    assert whole_cores(LAPTOP, {0, 4})
    assert not whole_cores(LAPTOP, {0, 1})
    assert whole_cores(TWO_SOCKETS, {3})


@st.composite
def computers(draw: st.DrawFn) -> tuple[Topology, set[int]]:
    """A computer and the CPUs of it that we may use."""
    sizes = [draw(st.integers(1, top)) for top in (2, 4, 8, 2)]
    topology = made(*sizes)
    cpus = sorted(all_of(topology))
    mask = set(draw(st.lists(st.sampled_from(cpus), min_size=1, unique=True)))
    return topology, draw(st.sampled_from([mask, set(cpus)]))


@given(
    computer=computers(), slots=st.integers(1, 80), cores_per_task=st.sampled_from([0.25, 0.5, 1, 1.5, 2, 3])
)
def test_on_any_computer(computer: tuple[Topology, set[int]], slots: int, cores_per_task: float) -> None:
    topology, mask = computer
    parts = allot(topology, mask, slots, cores_per_task)
    if len(mask) < slots * cores_per_task:
        assert parts is None
        return
    assert parts is not None and len(parts) == slots
    assert set().union(*parts) == mask, "all are used, and no others"
    assert min(map(len, parts)) >= max(1, math.floor(cores_per_task)), "nobody starves"
    if len(mask) < slots:
        assert max(map(len, parts)) <= 2
        return
    assert sum(map(len, parts)) == len(mask), "disjoint"
    by_domains: dict[frozenset[int], list[int]] = {}
    for part in parts:
        by_domains.setdefault(frozenset(domains_of(topology, set(part))), []).append(len(part))
    threads = max(len(core.cpus) for core in topology.cores)
    for sizes in by_domains.values():
        assert max(sizes) - min(sizes) <= 2 * threads - 1, "even, to a core"


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 8), st.integers(1, 2)),
    each=st.integers(1, 4),
)
def test_slots_that_fit_are_whole_cores_of_one_domain(shape: tuple[int, int, int, int], each: int) -> None:
    topology = made(*shape)
    packages, domains, cores, threads = shape
    slots = packages * domains * (cores // each)
    if not slots:
        return
    for part in shares(topology, slots, each * threads):
        assert len(domains_of(topology, part)) == 1
        assert whole_cores(topology, part)


# ---- reading ----


@pytest.mark.parametrize("topology", [LAPTOP, TWO_SOCKETS, EPYC, HYBRID])
def test_reads_what_the_kernel_writes(topology: Topology, tmp_path: Path) -> None:
    describe(tmp_path, topology)
    (tmp_path / "cpu/cpufreq").mkdir()
    (tmp_path / "node/node9").mkdir()
    (tmp_path / "node/node9/cpulist").write_text("\n")  # memory alone
    assert read_topology(tmp_path) == topology


def test_packages_stand_in_for_missing_domains(tmp_path: Path) -> None:
    describe(tmp_path, made(2, 1, 2, 2), numa=False)
    assert [core.domain for core in read_topology(tmp_path).cores] == [0, 0, 1, 1]


def damage_nothing(folder: Path) -> None:
    (folder / "thread_siblings_list").unlink()
    (folder / "physical_package_id").unlink()


def damage_text(folder: Path) -> None:
    (folder / "thread_siblings_list").write_bytes(b"\xff-x,,-,99999999999")
    (folder / "physical_package_id").write_text("-1\n")


@pytest.mark.parametrize("damage", [damage_nothing, damage_text])
def test_without_descriptions_each_cpu_is_a_core(damage: Callable[[Path], None], tmp_path: Path) -> None:
    describe(tmp_path, LAPTOP, numa=False)
    for folder in tmp_path.glob("cpu/cpu*/topology"):
        damage(folder)
    assert read_topology(tmp_path).cores == [Core(0, 0, (cpu,)) for cpu in range(8)]


def test_nothing_to_read(tmp_path: Path) -> None:
    assert read_topology(tmp_path / "none") == Topology([])


def test_this_machine_has_what_we_run_on() -> None:
    topology = read_topology()
    assert all(core.cpus for core in topology.cores)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-3\n", [0, 1, 2, 3]),
        ("0,2-3,7\n", [0, 2, 3, 7]),
        ("\n", []),
        ("5", [5]),
        ("3-1", []),
        ("x,1", [1]),
    ],
)
def test_lists_of_cpus(text: str, expected: list[int]) -> None:
    assert parse_cpus(text) == expected


@given(st.sets(st.integers(0, 300)))
def test_lists_of_cpus_both_ways(cpus: set[int]) -> None:
    assert parse_cpus(format_cpus(cpus)) == sorted(cpus)
