"""The retire command: what it finds, which nodes share a call, and that a failed one is tried again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from deadline import DEADLINE
from disbatch.contexts.retire import ATTEMPTS, Retirer

ALL = ["NODE", "RETCODE", "NODES", "RETCODES", "ACTIVE", "RETIRED", "DRIVER_NODE"]


def retire(
    command: str, course: Callable[[Retirer], None], driver: str = "d", keep: frozenset[str] = frozenset()
) -> list[str]:
    """Let nodes a, b, d join, do `course`, wait for the end; what it complained of."""
    trouble: list[str] = []

    async def run() -> None:
        retirer = Retirer(command, driver, trouble.append, retry=0.01, keep=keep)
        for node in ("a", "b", "d"):
            retirer.joined(node)
        course(retirer)
        async with asyncio.timeout(DEADLINE):
            await retirer.finish()

    asyncio.run(run())
    return trouble


def both(retirer: Retirer) -> None:
    retirer.retire("a", 0)
    retirer.retire("b", 3)
    retirer.retire("b", 3)
    retirer.retire("stranger", 0)


def test_one_call_for_all(tmp_path: Path) -> None:
    command = f'echo "{"|".join("$" + name for name in ALL)}" >> {tmp_path}/calls'
    assert retire(command, both) == []
    assert (tmp_path / "calls").read_text() == "a|0|a,b|0,3|d|a,b|\n"


def test_a_call_for_each(tmp_path: Path) -> None:
    assert retire(f"echo $NODE $RETCODE ${{DRIVER_NODE-none}} >> {tmp_path}/calls", both) == []
    assert (tmp_path / "calls").read_text() == "a 0 none\nb 3 none\n"


def test_driver_node_if_it_is_not_active(tmp_path: Path) -> None:
    assert retire(f"echo $DRIVER_NODE $ACTIVE >> {tmp_path}/calls", both, driver="x") == []
    assert (tmp_path / "calls").read_text() == "x d\n"


def test_kept_nodes_are_never_retired(tmp_path: Path) -> None:
    """Those of the driver and of the batch script; the latter stays in use."""

    def course(retirer: Retirer) -> None:
        for node in ("d", "b", "a"):
            retirer.retire(node, 0)

    command = f"echo $NODES $DRIVER_NODE $ACTIVE >> {tmp_path}/calls"
    assert retire(command, course, keep=frozenset({"d", "b"})) == []
    assert (tmp_path / "calls").read_text() == "a d b\n"


def test_node_of_two_engines_is_retired_with_the_second(tmp_path: Path) -> None:
    command = f"echo $NODE $RETCODE >> {tmp_path}/calls"

    def course(retirer: Retirer) -> None:
        retirer.joined("a")
        retirer.retire("a", 1)
        retirer.retire("b", 2)
        retirer.retire("a", 3)

    assert retire(command, course) == []
    assert (tmp_path / "calls").read_text() == "b 2\na 3\n"


def test_failed_call_is_tried_again(tmp_path: Path) -> None:
    command = f"echo $NODE >> {tmp_path}/calls; test $(wc -l < {tmp_path}/calls) = 2"
    assert retire(command, lambda retirer: retirer.retire("a", 0)) == []
    assert (tmp_path / "calls").read_text() == "a\na\n"


def test_command_that_never_works_is_told_of_once(tmp_path: Path) -> None:
    command = f"echo x >> {tmp_path}/calls; echo cannot >&2; exit 4"
    said = retire(command, lambda retirer: retirer.retire("a", 0))
    assert said == ["the retire command (-k) for a failed: exit code 4: cannot"]
    assert (tmp_path / "calls").read_text() == "x\n" * ATTEMPTS


def test_background_process_does_not_hold_a_call_up(tmp_path: Path) -> None:
    command = f"(cat {tmp_path}/never; exec cat) & echo $NODE >> {tmp_path}/calls"
    os.mkfifo(tmp_path / "never")
    try:
        assert retire(command, lambda retirer: retirer.retire("a", 0)) == []
    finally:
        (tmp_path / "never").write_bytes(b"")
    assert (tmp_path / "calls").read_text() == "a\n"


def test_abandoned_while_the_command_runs(tmp_path: Path) -> None:
    """A user who wants the end at once does not wait for it."""
    os.mkfifo(tmp_path / "began")
    os.mkfifo(tmp_path / "never")
    command = f"echo x > {tmp_path}/began; cat {tmp_path}/never; echo $NODE >> {tmp_path}/calls"

    async def run() -> None:
        retirer = Retirer(command, "d", lambda text: None)
        retirer.joined("a")
        retirer.joined("b")
        retirer.retire("a", 0)
        await asyncio.to_thread((tmp_path / "began").read_bytes)
        retirer.abandon()
        retirer.retire("b", 0)
        async with asyncio.timeout(DEADLINE):
            await retirer.finish()

    asyncio.run(run())
    assert not (tmp_path / "calls").exists()


def test_command_that_cannot_be_started() -> None:
    said = retire("echo " + "x" * (1 << 18), lambda retirer: retirer.retire("a", 0))
    assert len(said) == 1 and said[0].startswith("the retire command (-k) for a failed: cannot run")
