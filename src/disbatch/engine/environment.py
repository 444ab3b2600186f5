"""The environment of a task, also of one inside a scheduler's step (Slurm: `srun`)."""

from __future__ import annotations

from collections.abc import Mapping

from disbatch.engine.resources import Division
from disbatch.wire.engine_protocol import SECRET_VARIABLES, SRUN_VARIABLES, Order

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


_OF_SLURM = (b"SLURM_", b"SRUN_", b"SBATCH_", b"SALLOC_")
_OF_THE_NODE = frozenset(
    b"SLURM_CONF SLURM_NODEID SLURM_LOCALID SLURM_PROCID SLURM_GTIDS SLURM_TASK_PID SLURM_CPUS_ON_NODE "
    b"SLURM_GPUS_ON_NODE SLURM_JOB_GPUS SLURM_STEP_GPUS SLURM_TOPOLOGY_ADDR "
    b"SLURM_TOPOLOGY_ADDR_PATTERN".split()
)
"""Slurm sets these for a batch script, too, and they differ between nodes."""


def merge_step(run: Mapping[bytes, bytes], step: Mapping[bytes, bytes]) -> Environment:
    """The tasks' environment from the `run`'s and the `step`'s own. The latter is the run's, as srun passes
    it on, with changes by slurmd, SPANK plugins and a TaskProlog on that node (TMPDIR, CUDA_VISIBLE_DEVICES,
    ...).

    So the step's values are used, except for Slurm's own variables: a step of one task on one node has
    SLURM_NTASKS and many others for just that, and an `srun` or an MPI program in a task would obey them.
    Those are set to the job's values, or removed if the job had none, except for _OF_THE_NODE. There is no
    SLURM_STEP_ID: Open MPI would believe that srun had started each program.

    Variables that were set for srun alone get the run's values again, and so does LC_CTYPE, which Python sets
    for itself in the C locale.
    """
    others = frozenset([b"LC_CTYPE", *step.get(SRUN_VARIABLES, b"").split(b":")])

    def of_the_run(name: bytes) -> bool:
        return (name.startswith(_OF_SLURM) and name not in _OF_THE_NODE) or name in others

    merged = {name: value for name, value in step.items() if not of_the_run(name)}
    merged |= {name: value for name, value in run.items() if of_the_run(name)}
    for name in (SRUN_VARIABLES, *SECRET_VARIABLES):
        merged.pop(name, None)
    return merged
