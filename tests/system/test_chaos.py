"""Runs to which everything happens that a seed means: kills, halts, cut links, contexts that come and go, and
drivers that are replaced. Every task must be accounted for once, and nothing may be left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from chaos_plan import Flavour, make_plan
from chaos_story import Story
from chaos_world import World

FIRST_SEED = int(os.environ.get("CHAOS_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("CHAOS_SEEDS", "2")))
"""More of them: make chaos CHAOS_SEED=100 CHAOS_SEEDS=50."""


def carry_out(flavour: Flavour, seed: int, directory: Path, lab: Any | None) -> None:
    world = World(directory, lab)
    story = Story(make_plan(flavour, seed, world.here), world)
    print(f"CHAOS_SEED={seed}, {flavour.value}, in {directory}")
    try:
        problems = story.tell()
        assert not problems, "\n".join([*problems, "", *world.history])
    except BaseException:
        print("\n".join(world.history))
        raise
    finally:
        world.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_here(seed: int, tmp_path: Path) -> None:
    carry_out(Flavour.LOCAL, seed, tmp_path, None)


@pytest.mark.parametrize("seed", SEEDS)
def test_hosts(seed: int, tmp_path: Path, ssh_lab_netns: Any) -> None:
    carry_out(Flavour.SSH, seed, tmp_path, ssh_lab_netns)
