"""The verbs of `dbutil` that change a run: what each acts on, and who may request it.

The command line, the requests to the driver (`wire.verbs`) and the orders of the web page derive from this
table. docs/architecture.md has the procedure for a new verb.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Target(enum.Enum):
    """What a verb acts on; its request has the matching arguments."""

    NODES = "nodes"
    """Names of nodes, labels of nodes, or names of engines."""
    TASKS = "tasks"
    """Ranges of task ids."""
    RUN = "run"
    """The whole run: no arguments."""


class RunVerb(NamedTuple):
    """`name`: on the command line and in an order of the web page. `help`: its line in `dbutil --help`.
    `on_page`: the web page may order it."""

    name: str
    target: Target
    help: str
    on_page: bool = True


DRAIN = RunVerb(
    "drain", Target.NODES, "start no more tasks on these nodes; running tasks finish, then the nodes leave"
)
STOP = RunVerb("stop", Target.NODES, "end the tasks on these nodes, which run again elsewhere")
PAUSE = RunVerb("pause", Target.RUN, "start no more tasks; running tasks continue")
RESUME = RunVerb("resume", Target.RUN, "start tasks again")
CANCEL = RunVerb("cancel", Target.TASKS, "keep these tasks from running, or end them")
CLOSE = RunVerb("close", Target.RUN, "accept no more tasks; the run ends when all are done", on_page=False)
FINISH = RunVerb(
    "finish",
    Target.RUN,
    "end the run now, even if its driver was killed; `disbatch -r` continues it later",
)

RUN_VERBS = {verb.name: verb for verb in (DRAIN, STOP, PAUSE, RESUME, CANCEL, CLOSE, FINISH)}
