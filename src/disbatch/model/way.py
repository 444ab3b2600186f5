"""How an engine is started on a node, and what that means for its life."""

from __future__ import annotations

import enum


class Way(enum.Enum):
    """Who starts an engine, and how it learns that nobody wants it any more."""

    CHILD = "child"
    """The driver, on its own machine: the engine is its child, and the end of its standard input is the end
    of the driver."""
    SSH = "ssh"
    """ssh: the engine goes to the background and survives its connection."""
    STEP = "step"
    """A scheduler, as the only process of a step (Slurm: `srun`): it must not go to the background, for the
    step would end; and whatever signals the step signals the tasks, too."""
