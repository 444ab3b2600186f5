"""How a job is made smaller: what is asked first, which nodes the list keeps, what is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from deadline import DEADLINE
from disbatch.contexts import command
from disbatch.contexts.command import Answer
from disbatch.contexts.slurm.job import RETIRE_COMMAND, Allocation
from disbatch.contexts.slurm.resize import JOIN_DELAY as FIRST
from disbatch.contexts.slurm.resize import PAUSE, RETRIES, Shrinker

NAMES = ["NODE", "RETCODE", "NODES", "RETCODES", "ACTIVE", "RETIRED", "DRIVER_NODE", "SLURM_JOBID"]
BUSY = Answer("exit code 1: Job update not available right now, try again in a bit", "")
GOOD = Answer(None, "")


class Slurm:
    """A job of the nodes n1 to n4; the driver on n1. `steps` are squeue's lines; `answers` are what comes of
    the next calls of the retire command, which are good when there are none left."""

    def __init__(self, own_node: str = "n1", keep: str = "n1") -> None:
        self.nodes = ["n1", "n2", "n3", "n4"]
        self.steps = ["7.batch|n1", "7.extern|n[1-4]", "7.0|n5"]
        self.silent = ""
        self.answers: list[Answer] = []
        self.now = 0.0
        self.calls: list[tuple[float, str, str]] = []
        """When, what the job kept (DRIVER_NODE, ACTIVE), and the nodes of the call."""
        self.environment: Mapping[str, str] = {}
        self.trouble: list[str] = []
        self.at: dict[float, Callable[[], None]] = {}
        """What happens when the clock passes a moment."""
        keeps = frozenset(keep.split())
        self.allocation = Allocation("7", [], own_node, keeps, None, None, None)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self.at if moment <= self.now]:
            self.at.pop(moment)()
        await asyncio.sleep(0)

    async def run(self, argv: list[str], environment: Mapping[str, str] | None, timeout: float) -> Answer:
        assert timeout > 0
        if argv[0] == self.silent:
            return Answer("not done after 10 s", "")
        if argv[0] == "scontrol":
            assert argv == ["scontrol", "show", "job", "-d", "-o", "7"]
            return Answer(None, f"JobId=7 JobName=x JobState=RUNNING NodeList={','.join(self.nodes)}\n")
        if argv[0] == "squeue":
            assert argv[:7] == ["squeue", "-h", "-s", "-j", "7", "-w", argv[6]]
            return Answer(None, "".join(f"{step}\n" for step in self.steps))
        assert argv[:2] == ["/bin/sh", "-c"] and argv[3:] == ["/scratch", "/bin/sh", "-c", "shrink"]
        assert environment is not None
        self.environment = environment
        kept = ",".join(filter(None, (environment.get("DRIVER_NODE"), environment["ACTIVE"])))
        self.calls.append((self.now, kept, environment["NODES"]))
        answer = self.answers.pop(0) if self.answers else GOOD
        if answer.problem is None:
            self.nodes = kept.split(",")
        return answer

    def play(
        self, course: Callable[[Shrinker], None], *, finish: bool = False
    ) -> list[tuple[float, str, str]]:
        """Engines join on all nodes, then `course`, and all that follows; the calls."""

        async def run() -> None:
            shrinker = Shrinker(
                *(self.allocation, "shrink", "/scratch", self.trouble.append),
                run=self.run,
                sleep=self.sleep,
                clock=lambda: self.now,
            )
            for node in ("n1", "n2", "n3", "n4"):
                shrinker.joined(node)
            course(shrinker)
            async with asyncio.timeout(DEADLINE):
                while not finish and (task := shrinker._task) is not None and not task.done():
                    await asyncio.wait([task])
                await shrinker.finish()

        asyncio.run(run())
        return self.calls


def leave(*nodes: str, spare: bool = True) -> Callable[[Shrinker], None]:
    def course(shrinker: Shrinker) -> None:
        for node in nodes:
            shrinker.retire(node, 0, spare=spare)

    return course


def test_spare_nodes_go_together_and_all_others_stay() -> None:
    slurm = Slurm()
    assert slurm.play(leave("n2", "n4")) == [(FIRST, "n1,n3", "n2,n4")]
    assert [slurm.environment.get(name) for name in NAMES] == [
        *("n2", "0", "n2,n4", "0,0", "n1,n3", "n2,n4", None, "7"),
    ]


def test_nodes_that_engines_left_at_the_end_of_the_run_stay() -> None:
    assert Slurm().play(leave("n2", "n3", spare=False)) == []


def test_kept_nodes_stay() -> None:
    assert Slurm(keep="n1 n2").play(leave("n1", "n2")) == []
    assert Slurm(keep="n1 n2").play(leave("n2", "n3")) == [(FIRST, "n1,n2,n4", "n3")]


def test_the_drivers_node_is_named_apart_if_no_engine_is_there() -> None:
    slurm = Slurm()
    assert slurm.play(leave("n1", "n2")) == [(FIRST, "n1,n3,n4", "n2")]
    assert (slurm.environment["DRIVER_NODE"], slurm.environment["ACTIVE"]) == ("n1", "n3,n4")


def test_a_driver_that_is_not_in_the_job_is_not_named() -> None:
    slurm = Slurm(own_node="", keep="")
    assert slurm.play(leave("n1", "n2")) == [(FIRST, "n3,n4", "n1,n2")]
    assert "DRIVER_NODE" not in slurm.environment


def test_never_the_last_node() -> None:
    slurm = Slurm(own_node="", keep="")
    assert slurm.play(leave("n1", "n2", "n3", "n4")) == []
    assert slurm.trouble == []


def test_a_node_with_another_step_stays_until_that_is_over() -> None:
    slurm = Slurm()
    slurm.steps.append("7.12|n[3-4]")
    slurm.at[FIRST + 5.5] = lambda: slurm.steps.remove("7.12|n[3-4]")
    assert slurm.play(leave("n2", "n3")) == [(FIRST, "n1,n3,n4", "n2"), (FIRST + 6, "n1,n4", "n3")]


def test_a_node_with_another_step_for_ever_stays_without_a_word() -> None:
    slurm = Slurm()
    slurm.steps.append("7.12|n3")
    assert slurm.play(leave("n3")) == []
    assert slurm.trouble == []


def test_what_the_job_has_lost_meanwhile_is_not_named() -> None:
    """Another run gave n3 back, or it died: a list with it would be refused."""
    slurm = Slurm()
    slurm.nodes = ["n1", "n2", "n4"]
    assert slurm.play(leave("n2", "n3")) == [(FIRST, "n1,n4", "n2")]


def test_a_job_that_another_run_made_smaller_already_is_left_alone() -> None:
    slurm = Slurm()
    slurm.nodes = ["n1", "n4"]
    assert slurm.play(leave("n2", "n3")) == []


def test_a_refused_call_is_made_again_with_what_came_meanwhile() -> None:
    slurm = Slurm()
    slurm.answers = [BUSY, BUSY]

    def course(shrinker: Shrinker) -> None:
        shrinker.retire("n2", 0, spare=True)
        slurm.at[FIRST + 0.5] = lambda: shrinker.retire("n4", 0, spare=True)

    assert slurm.play(course) == [
        (FIRST, "n1,n3,n4", "n2"),
        (FIRST + 1, "n1,n3", "n2,n4"),
        (FIRST + 3, "n1,n3", "n2,n4"),
    ]
    assert slurm.trouble == []


def test_a_call_that_is_always_refused_is_told_of_once() -> None:
    slurm = Slurm()
    slurm.answers = [BUSY] * 100
    calls = slurm.play(leave("n2"))
    assert [when for when, _, _ in calls] == [FIRST + sum(RETRIES[:n]) for n in range(len(RETRIES) + 1)]
    assert slurm.trouble == [f"n2: cannot be given back to Slurm: {BUSY.problem}"]


@pytest.mark.parametrize("silent", ["scontrol", "squeue"])
def test_nothing_is_given_back_while_slurm_does_not_answer(silent: str) -> None:
    slurm = Slurm()
    slurm.silent = silent
    slurm.at[FIRST + 3] = lambda: setattr(slurm, "silent", "")
    assert slurm.play(leave("n2")) == [(FIRST + 3, "n1,n3,n4", "n2")]


def test_an_answer_that_is_not_understood_keeps_all() -> None:
    slurm = Slurm()
    slurm.steps.append("7.1|n[2-")
    assert slurm.play(leave("n2")) == []
    assert len(slurm.trouble) == 1


def test_a_pause_between_two_calls() -> None:
    slurm = Slurm()

    async def run() -> None:
        shrinker = Shrinker(
            *(slurm.allocation, "shrink", "/scratch", slurm.trouble.append),
            run=slurm.run,
            sleep=slurm.sleep,
            clock=lambda: slurm.now,
        )
        for node in ("n1", "n2", "n3", "n4"):
            shrinker.joined(node)
        for node in ("n2", "n3"):
            shrinker.retire(node, 0, spare=True)
            assert shrinker._task is not None
            await shrinker._task

    asyncio.run(run())
    assert slurm.calls == [(FIRST, "n1,n3,n4", "n2"), (FIRST + PAUSE, "n1,n4", "n3")]


def test_the_end_of_the_run_drops_what_is_not_done() -> None:
    assert Slurm().play(leave("n2"), finish=True) == []


def test_an_engine_that_came_back_keeps_its_node() -> None:
    def course(shrinker: Shrinker) -> None:
        shrinker.retire("n2", 0, spare=True)
        shrinker.joined("n2")

    assert Slurm().play(course) == []


def test_the_command_itself_leaves_its_litter_in_the_scratch_folder(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "scontrol"
    fake.write_text('#!/bin/sh\npwd > resize.sh; echo "$@" >> resize.sh\n')
    fake.chmod(0o755)
    (tmp_path / "scratch").mkdir()
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "SLURM_JOBID": "7", "ACTIVE": "n1,n2"}
    argv = command.in_directory(f"{tmp_path}/scratch", ["/bin/sh", "-c", RETIRE_COMMAND])
    assert asyncio.run(command.run(argv, environment)).problem is None
    said = (tmp_path / "scratch" / "resize.sh").read_text()
    assert said == f"{tmp_path}/scratch\nupdate JobId=7 NodeList=n1,n2\n"
    asyncio.run(command.run(argv, {**environment, "DRIVER_NODE": "n9"}))
    assert "NodeList=n9,n1,n2" in (tmp_path / "scratch" / "resize.sh").read_text()
