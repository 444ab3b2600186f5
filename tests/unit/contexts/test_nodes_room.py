"""How many nodes the limit on open files allows."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from disbatch.contexts.nodes import A_CHILD, Node, affordable, need, room_for_connections
from disbatch.contexts.spawn import limit_children, limited
from disbatch.model.errors import UsageError
from disbatch.model.task import Way
from disbatch.wire import descriptors


def nodes(count: int, way: Way) -> list[Node]:
    return [Node(f"n{number}", 1, 1, way) for number in range(count)]


@pytest.fixture(autouse=True)
def few() -> Iterator[None]:
    """A limit of 1024, or what there is of it."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, limits[1]), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(
    ("way", "tunnel", "connected", "count"),
    [
        (Way.STEP, False, True, A_CHILD + 1),
        (Way.STEP, False, False, A_CHILD),
        (Way.CHILD, False, True, A_CHILD + 1),
        (Way.SSH, False, True, 1),
        (Way.SSH, True, True, A_CHILD + 1),
    ],
)
def test_what_a_node_takes(way: Way, tunnel: bool, connected: bool, count: int) -> None:
    assert need(nodes(1, way)[0], tunnel=tunnel, connected=connected) == count


@pytest.mark.parametrize("way", list(Way))
def test_fewer_nodes_and_one_line(way: Way) -> None:
    wanted = nodes(5000, way)
    chosen, words = affordable(wanted, tunnel=False, connected=True)
    assert chosen == wanted[: len(chosen)] and 150 < len(chosen) < 1000
    left = len(wanted) - len(chosen)
    assert words == (
        f"only {descriptors.limit():,} files may be open (ulimit -Hn): {left:,} nodes are not used, "
        f"from n{len(chosen)} on; raise that limit"
    )


def test_all_that_fit() -> None:
    wanted = nodes(100, Way.STEP)
    assert affordable(wanted, tunnel=False, connected=True) == (wanted, "")


def test_room_for_none() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors.in_use() + 2, hard))
    with pytest.raises(UsageError, match=r"only \d+ files may be open .* too few to start an engine"):
        affordable(nodes(1, Way.CHILD), tunnel=False, connected=True)
    assert room_for_connections(0, 0) == 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_that_are_expected_have_their_place() -> None:
    assert room_for_connections(50, 50) <= room_for_connections(0, 0)
    assert room_for_connections(10_000, 0) == room_for_connections(0, 10_000) == 0


def test_ours_is_raised_and_that_of_others_is_not() -> None:
    """In a process of its own."""
    program = (
        "import os, resource\n"
        "from disbatch.contexts.spawn import limit_children, spawn\n"
        "from disbatch.wire.descriptors import limit, raise_limit\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "limit_children(raise_limit())\n"
        "print(limit() == hard, raise_limit())\n"
        "argv = ['sh', '-c', 'ulimit -Sn; ulimit -Hn; echo $ODD']\n"
        "child = spawn(argv, {**os.environ, 'ODD': 'kept'})\n"
        "print(open(child.stdout).read().split() == ['200', str(hard), 'kept'])\n"
    )
    done = subprocess.run(
        ["bash", "-c", 'ulimit -Sn 200; exec "$@"', "bash", sys.executable, "-c", program],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "True None\nTrue\n", done.stderr


def test_a_command_that_is_not_there_stays_as_it_was() -> None:
    limit_children(200)
    try:
        assert limited(["no-such-command", "x"]) == ["no-such-command", "x"]
        assert limited(["sh", "x"])[1:2] == ["--nofile=200:"] and os.path.isabs(limited(["sh"])[0])
    finally:
        limit_children(None)
    assert limited(["sh", "x"]) == ["sh", "x"]
