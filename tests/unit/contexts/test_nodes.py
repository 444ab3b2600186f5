"""Node lists, slots and the choice of nodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.contexts.context import Choice, Scheduler
from disbatch.contexts.discovery import Entry, choose_nodes
from disbatch.contexts.machine import cpu_quota, this_machine, usable_cores
from disbatch.contexts.nodes import MAX_CORES, Machine, Node, SlotRules, parse_node_list, slots
from disbatch.contexts.slurm.context import Slurm, SlurmJob
from disbatch.contexts.slurm.hetjob import JobFacts
from disbatch.model.errors import UsageError
from disbatch.model.task import Way


@pytest.mark.parametrize(
    ("texts", "cores"),
    [
        (["host1:7,host2:3"], {"host1": 7, "host2": 3}),
        (["host1:7", "host2:3,host1:1"], {"host1": 8, "host2": 3}),
        ([" a:1 , b:2 "], {"a": 1, "b": 2}),
        (["user@host:3"], {"user@host": 3}),
        (["[2001:db8::1]:3"], {"2001:db8::1": 3}),
        (["me@[fe80::1%eth0]:3"], {"me@fe80::1%eth0": 3}),
        (["b:1,a:1"], {"b": 1, "a": 1}),
        ([f"a:{MAX_CORES}"], {"a": MAX_CORES}),
        (["büro.example:2"], {"büro.example": 2}),
        (["node[01-03]:8,x:1"], {"node01": 8, "node02": 8, "node03": 8, "x": 1}),
        (["n[1-2,7]:1,n2:3"], {"n1": 1, "n2": 4, "n7": 1}),
        (["me@rack[1-2]n[9-10].org:4"], {f"me@rack{r}n{n}.org": 4 for r in (1, 2) for n in (9, 10)}),
    ],
)
def test_node_lists(texts: list[str], cores: dict[str, int]) -> None:
    parsed = parse_node_list(texts)
    assert parsed == cores
    assert list(parsed) == list(cores)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("localhost", "-s localhost: say how many cores, e.g. localhost:4"),
        ("host:", "say how many cores, e.g. host:4"),
        ("host:0", "at least 1 core"),
        ("host:-2", "at least 1 core"),
        ("host:two", "whole number, not 'two'"),
        ("host:1.5", "whole number"),
        ("host:٣", "whole number"),
        ("0:\U00018cd6", "whole number, not '\\U00018cd6'"),
        ("host:1\x1b[2J" + "x" * 300, "whole number"),
        ("host:100001", "more than 100000"),
        ("host:" + "9" * 5000, "more than 100000"),
        ("host:60000,host:60000", "more than 100000"),
        (":4", "name is missing"),
        ("@host:4", "name is missing"),
        ("user@:4", "name is missing"),
        ("[]:4", "name is missing"),
        ("-oProxyCommand=evil:4", "cannot start with '-'"),
        ("me@-oProxyCommand:4", "cannot start with '-'"),
        ("-l@host:4", "cannot start with '-'"),
        ("ho st:4", "not a host's name"),
        ("$(touch x):4", "not a host's name"),
        ("a;b:4", "not a host's name"),
        ("h" * 256 + ":4", "not a host's name"),
        ("::1:4", "in brackets"),
        ("2001:db8::1", "in brackets"),
        ("[::1]", "say how many cores, e.g. [::1]:4"),
        ("a:1,,b:1", "missing between two commas"),
        ("node[1-3]", "-s node[1-3]: say how many cores, e.g. node[1-3]:4"),
        ("node[3-1]:8", "-s node[3-1]:8: [3-1]: write numbers and ranges, e.g. [1-3,7]"),
        ("node[1-3:8", "not a host's name"),
        ("node[a-c]:8", "not a host's name"),
        ("node[]:8", "not a host's name"),
        ("n[1-2]:0", "at least 1 core"),
        ("@n[1-2]:3", "name is missing"),
        ("-x[1-2]:3", "cannot start with '-'"),
        ("u ser@n[1-2]:3", "not a host's name"),
        ("n[1-20000]:3", "more than 10000 hosts"),
        ("a:1,", "missing between two commas"),
        ("", "empty list"),
        (",".join(f"h{i}:1" for i in range(10_001)), "more than 10000 hosts"),
    ],
)
def test_bad_node_lists_give_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_node_list([text])
    assert says in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400 or "9999" in text


@given(st.text(max_size=40))
def test_any_text_is_a_list_or_a_usage_error(text: str) -> None:
    try:
        parsed = parse_node_list([text])
    except UsageError as error:
        assert str(error).isprintable()
    else:
        assert all(host and not host.startswith("-") and 1 <= n <= MAX_CORES for host, n in parsed.items())


@pytest.mark.parametrize(
    ("cores", "per_task", "most", "expected"),
    [
        (8, 1.0, None, 8),
        (8, 3.0, None, 2),
        (8, 1.0, 3, 3),
        (8, 4.0, 3, 2),
        (4, 0.1, None, 40),
        (3, 0.3, None, 10),
        (1, 2.0, None, 0),
        (1, 0.00001, 5, 5),
    ],
)
def test_slots(cores: int, per_task: float, most: int | None, expected: int) -> None:
    assert slots(cores, per_task, most) == expected


@pytest.mark.parametrize("per_task", [0.0, -1.0, math.nan, math.inf, 1e-300])
def test_cores_per_task_that_make_no_sense(per_task: float) -> None:
    with pytest.raises(UsageError, match=r"^-c "):
        slots(4, per_task)


def test_tasks_per_node_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="-t 0"):
        slots(4, 1.0, 0)


HERE = Machine("vm7.example.org", 6, lambda: pytest.fail("no name server is needed"))


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("vm7", True),
        ("VM7.example.org", True),
        ("vm7.example.org.", True),
        ("vm7.elsewhere.org", False),
        ("vm70", False),
        ("me@localhost", False),
    ],
)
def test_names_of_this_machine(host: str, local: bool) -> None:
    assert HERE.is_called(host) is local


def test_a_short_host_name_is_completed_by_the_name_server_only_if_that_matters() -> None:
    asked: list[bool] = []

    def full_name() -> str:
        asked.append(True)
        return "vm7.example.org"

    machine = Machine("vm7", 2, full_name)
    assert not machine.is_called("other.example.org")
    assert machine.is_called("vm7")
    assert not asked
    assert machine.is_called("vm7.example.org")
    assert not machine.is_called("vm7.other.org")


def nobody(job: str) -> JobFacts:
    pytest.fail("no scheduler is to be asked")


def slurm(ask: Callable[[str], JobFacts]) -> list[Entry]:
    def load() -> Scheduler:
        return Slurm(ask)

    return [Entry(("SLURM_JOB_ID", "SLURM_JOBID"), load)]


def chosen(lists: list[str], environ: dict[str, str], cores_per_task: float | None = None) -> Choice:
    rules = SlotRules(cores_per_task)
    return choose_nodes(lists, environ, HERE, rules, read=lambda _: "", schedulers=slurm(nobody))


def test_without_a_list_it_is_this_machine() -> None:
    assert chosen([], {}) == Choice([Node("localhost", 6, 6, Way.CHILD, 1.0)], [])
    assert chosen([], {}, 2.0) == Choice([Node("localhost", 6, 3, Way.CHILD, 2.0)], [])


def test_lists_win_over_the_environment_and_over_slurm() -> None:
    environ = {"DISBATCH_SSH_NODELIST": "a:1", "SLURM_JOB_ID": "7"}
    assert chosen(["b:2"], environ) == Choice([Node("b", 2, 2, Way.SSH)], [])
    assert chosen([], environ) == Choice([Node("a", 1, 1, Way.SSH)], [])


def test_errors_name_the_variable() -> None:
    with pytest.raises(UsageError, match=r"^DISBATCH_SSH_NODELIST a: say how many"):
        chosen([], {"DISBATCH_SSH_NODELIST": "a"})


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "SLURM_JOBID"])
def test_a_slurm_job_is_asked_about(variable: str) -> None:
    asked: list[str] = []

    def ask(job: str) -> JobFacts:
        asked.append(job)
        return JobFacts(nodes=["vm7", "vm8"], cpus={"vm7": 2, "vm8": 4})

    rules = SlotRules(2.0, tasks_per_node=3)
    choice = choose_nodes([], {variable: "7"}, HERE, rules, read=lambda _: "", schedulers=slurm(ask))
    assert asked == ["7"]
    assert choice.nodes == [Node("vm7", 2, 1, Way.STEP, 2.0), Node("vm8", 4, 2, Way.STEP, 2.0)]
    assert isinstance(choice.job, SlurmJob)
    assert (choice.job.allocation.job, choice.job.own_node) == ("7", "vm7")


def test_a_job_without_a_number_is_not_asked_about() -> None:
    with pytest.raises(UsageError, match=r"^SLURM_JOB_ID is '-x', which is not a job number: .* -s"):
        chosen([], {"SLURM_JOB_ID": "-x"})


def test_a_node_that_is_too_small_is_left_out_with_a_warning() -> None:
    assert chosen(["small:1,big:8"], {}, 4.0) == Choice(
        [Node("big", 8, 2, Way.SSH, 4.0)],
        ["small: left out: it has 1 core, and -c 4 asks for more"],
    )


def test_no_node_left_is_an_error() -> None:
    with pytest.raises(UsageError, match="no node has room for a task: localhost: left out"):
        chosen([], {}, 7.0)


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "250000 100000\n",
            },
            2.5,
        ),
        ({"proc/self/cgroup": "0::/not/here\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n1:name=systemd:/x\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        ({"proc/self/cgroup": "garbage\n0:\n", "sys/fs/cgroup/cpu.max": "x y z\n"}, None),
    ],
)
def test_cpu_quotas(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(_tree(tmp_path, files)) == quota


def test_a_quota_below_one_core_is_still_one(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000\n"})
    assert usable_cores(root) == 1


def test_this_machine_has_cores_and_a_name() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.is_called(machine.hostname)
