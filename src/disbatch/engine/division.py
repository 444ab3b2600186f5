"""What belongs to each slot of an engine alone: cores and devices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from disbatch.engine import cores, devices
from disbatch.model.quantity import counted
from disbatch.model.way import Way
from disbatch.wire.messages import Bootstrap

MOST_TOLD = 256
"""Slots that the log says something of."""


class Share(NamedTuple):
    """One slot's own: variables that its tasks find in addition, and the CPUs (numbers of the kernel) that
    they are bound to; None: all that the engine has."""

    variables: dict[bytes, bytes]
    cpus: frozenset[int] | None


class Division(NamedTuple):
    """The shares, one a slot, which may be fewer slots than asked for; `troubles` are lines for the user."""

    shares: list[Share]
    troubles: list[str]

    @property
    def slots(self) -> int:
        """How many tasks may run at once."""
        return len(self.shares)

    def description(self) -> str:
        """What the slots have, in one line for the log; empty if none has anything of its own."""
        told = [f"slot {slot}: {text}" for slot, share in enumerate(self.shares) if (text := _told(share))]
        more = [f"and {len(told) - MOST_TOLD} more"] if len(told) > MOST_TOLD else []
        return "; ".join(told[:MOST_TOLD] + more)


def _told(share: Share) -> str:
    words = [os.fsdecode(name + b"=" + value) for name, value in share.variables.items()]
    if share.cpus is not None:
        words.insert(0, f"CPUs {cores.format_cpus(share.cpus)}")
    return ", ".join(words)


def usable_cpus() -> set[int] | None:
    """The CPUs that this process may run on; None where the system does not say (macOS)."""
    try:
        return os.sched_getaffinity(0)
    except (AttributeError, OSError):
        return None


def variables_of_run(bootstrap: Bootstrap, node: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The run's environment, for an engine on another node than the driver's, without what says which devices
    to split there. `node` is the environment of the engine itself.

    A GPU's number means nothing on another host: with `gpu` the node alone says what it has. What else is to
    be split may be set for the run, unless the node says otherwise.
    """
    gpus = devices.GPU_VARIABLES if bootstrap.gpu else ()
    of_node = {*gpus, *(name for name in map(os.fsencode, bootstrap.share) if name in node)}
    return {name: value for name, value in bootstrap.environment.items() if name not in of_node}


def divide(
    bootstrap: Bootstrap,
    environment: Mapping[bytes, bytes],
    *,
    mask: set[int] | None = None,
    system: Path = cores.SYSTEM,
    files: Path = Path("/dev"),
) -> Division:
    """Split what the node has over the slots: devices first, of which there may be too few for all slots,
    then the CPUs over the slots that are left.

    `environment` is what the tasks shall find. `mask`: the CPUs to divide, if not all that we may use;
    `system` and `files` are where the kernel describes CPUs and devices. Raises LaunchError (one line) if
    there are devices to split and none is there.
    """
    shares = devices.split(
        bootstrap.node,
        environment,
        bootstrap.slots,
        gpu=bootstrap.gpu,
        share=bootstrap.share,
        rocm=devices.has_rocm(files),
        present=_present(bootstrap, environment, files),
        way=bootstrap.way,
    )
    troubles = list(shares.troubles)
    cpus = _bind(bootstrap, len(shares.slots), mask or usable_cpus(), system, troubles)
    return Division(
        [Share(variables, cpus[slot] if cpus else None) for slot, variables in enumerate(shares.slots)],
        troubles,
    )


def _present(bootstrap: Bootstrap, environment: Mapping[bytes, bytes], files: Path) -> int:
    if not bootstrap.gpu or bootstrap.way is Way.STEP:
        return 0
    return devices.present_gpus(environment, files)


def _bind(
    bootstrap: Bootstrap, slots: int, mask: set[int] | None, system: Path, troubles: list[str]
) -> list[frozenset[int]] | None:
    """The CPUs of each slot, or None: leave it to the system. Asked for, it says why it cannot be done."""
    wanted, given = bootstrap.bind, bootstrap.cores
    if wanted is False:
        return None
    if mask is None:
        if wanted:
            troubles.append("--bind cores: this system cannot bind: tasks run where it puts them")
        return None
    if wanted is None and given != len(mask):
        return None  # More CPUs than are ours: which ones are others'?
    topology = cores.read_topology(system)
    if wanted is None and not cores.whole_cores(topology, mask):
        return None
    parts = cores.allot(topology, mask, slots, bootstrap.cores_per_task)
    if wanted and parts is None:
        troubles.append(
            f"{counted(slots, 'slot')} of {counted(bootstrap.cores_per_task, 'core')} and "
            f"{counted(len(mask), 'core')} here: tasks are not bound"
        )
    elif wanted and given is not None and given < len(mask):
        troubles.append(
            f"{counted(given, f'of the {len(mask)} cores here was', f'of the {len(mask)} cores here were')} "
            "given to us, but nothing confines us to them: "
            "tasks are bound to cores that other jobs may use, too"
        )
    return parts
