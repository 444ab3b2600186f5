"""The environment of a task: what the run and the node set, also inside a scheduler's step, and which task it
is."""

from __future__ import annotations

from collections.abc import Mapping

from disbatch.engine.resources import Division
from disbatch.wire.engine_protocol import SECRET_VARIABLES, Order, StepVariables

Environment = dict[bytes, bytes]

MARKER = b"DISBATCH_ENGINE"
"""Holds the engine's permanent id; the keeper recognises by it what an engine started."""

OF_THE_NODE = frozenset(
    b"HOME USER LOGNAME SHELL MAIL HOSTNAME HOST HOSTTYPE TMPDIR DISPLAY XAUTHORITY WAYLAND_DISPLAY TERM "
    b"COLORTERM XDG_RUNTIME_DIR XDG_DATA_DIRS WINDOWID TTY GPG_TTY PWD OLDPWD SHLVL _".split()
)
OF_THE_NODE_PREFIXES = (b"SSH_", b"XDG_SESSION_", b"DBUS_", b"KRB5CCNAME")


def merge(run: Mapping[bytes, bytes], node: Mapping[bytes, bytes]) -> Environment:
    """The run's environment on another node: the run's values win, except for those that describe the user's
    login and host, which are the node's; the node's own directories are appended to PATH."""
    merged = dict(node)
    for name, value in run.items():
        if name not in OF_THE_NODE and not name.startswith(OF_THE_NODE_PREFIXES):
            merged[name] = value
    if b"PATH" in run:
        path = run[b"PATH"].split(b":")
        path += [entry for entry in node.get(b"PATH", b"").split(b":") if entry and entry not in path]
        merged[b"PATH"] = b":".join(path)
    return merged


class TaskEnvironment:
    """Makes the environment of each attempt from `base` and the variables that describe the task."""

    def __init__(
        self, base: Mapping[bytes, bytes], engine: str, cores_per_task: float, division: Division
    ) -> None:
        self._shares = division.shares
        self._base = {name: value for name, value in base.items() if name not in SECRET_VARIABLES}
        if not base.get(b"SHLVL", b"").isdigit() or int(base[b"SHLVL"]) < 1:
            # As built by Debian and others, a bash that finds SSH_CLIENT and is no subshell believes that ssh
            # runs it, and reads ~/.bashrc: each task would do so, but on other hosts only.
            self._base[b"SHLVL"] = b"1"
        self._base[MARKER] = engine.encode()
        self._base[b"DISBATCH_CORES_PER_TASK"] = b"%g" % cores_per_task

    def joined(self, rank: int, jobid: str, task_name: bytes) -> None:
        """Set what only the driver knows."""
        self._base[b"DISBATCH_ENGINE_RANK"] = b"%d" % rank
        self._base[b"DISBATCH_JOBID"] = jobid.encode(errors="surrogateescape")
        self._base[b"DISBATCH_NAMETASKS"] = task_name

    def of(self, order: Order, slot: int) -> Environment:
        """The environment of one attempt in `slot`."""
        return self._base | {
            b"DISBATCH_TASKID": b"%d" % order.task_id,
            b"DISBATCH_TASKID_ZP": b"%06d" % order.task_id,
            b"DISBATCH_STREAM_INDEX": b"%d" % order.line,
            b"DISBATCH_STREAM_INDEX_ZP": b"%06d" % order.line,
            b"DISBATCH_REPEAT_INDEX": b"%d" % order.repeat,
            b"DISBATCH_REPEAT_INDEX_ZP": b"%06d" % order.repeat,
            b"DISBATCH_CYLINDER_RANK": b"%d" % slot,
            **(self._shares[slot].variables if slot >= 0 else {}),
        }


def merge_step(
    run: Mapping[bytes, bytes], step: Mapping[bytes, bytes], variables: StepVariables
) -> Environment:
    """The tasks' environment in a scheduler's step: the `step`'s own, which is the `run`'s with the changes
    of the scheduler on that node (TMPDIR, CUDA_VISIBLE_DEVICES, ...).

    The scheduler's own variables get the job's values again, or are removed if the job had none: a step of
    one task on one node has them for just that, and a program in a task would obey them. So do variables that
    were set for the launching command alone, and LC_CTYPE, which Python sets for itself in the C locale.
    """
    job, node = tuple(variables.job), frozenset(variables.node)
    others = frozenset([b"LC_CTYPE", *variables.launcher])

    def of_the_run(name: bytes) -> bool:
        return (name.startswith(job) and name not in node) or name in others

    merged = {name: value for name, value in step.items() if not of_the_run(name)}
    merged |= {name: value for name, value in run.items() if of_the_run(name)}
    return {name: value for name, value in merged.items() if name not in SECRET_VARIABLES}
