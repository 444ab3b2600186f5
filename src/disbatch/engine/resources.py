"""What each slot owns exclusively: devices and cores.

The lists in variables such as CUDA_VISIBLE_DEVICES are divided among the slots: whole devices, none of them
twice.

Theory of operation
-------------------
Such a variable lists devices, separated by commas. Only the library that reads it knows what an entry means:
a number (`0`), a name (`GPU-8932f937-...`), a part of a device that is handed out as a whole
(`MIG-GPU-.../1/0`, `0.1`). Here entries are opaque, and equal entries are the same device. Only a range of
GPUs (`0-3`), which people write although no library reads it, is expanded.

The variables in GPU_VARIABLES name the same devices for different libraries, so they are divided in parallel.
The list in any other variable is a resource of its own. Slot 0 gets the first entries, slot 1 the next, all
of them the same number: tasks that found more devices in one slot than in another would behave differently
there, which is worse than an idle device, and users are told of idle devices.

Inside a scheduler's job, the scheduler decides which devices and cores are ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from disbatch.engine import cpu_topology
from disbatch.model.errors import LaunchError
from disbatch.model.job import is_job
from disbatch.model.task import Way
from disbatch.model.text import counted
from disbatch.wire.engine_protocol import Bootstrap

CUDA = b"CUDA_VISIBLE_DEVICES"
ROCR = b"ROCR_VISIBLE_DEVICES"
ZE = b"ZE_AFFINITY_MASK"
GPU_VARIABLES = (CUDA, b"GPU_DEVICE_ORDINAL", ROCR, b"HIP_VISIBLE_DEVICES", ZE)
"""The variables that -g divides."""
BELOW_ROCR = (CUDA, b"GPU_DEVICE_ORDINAL", b"HIP_VISIBLE_DEVICES")
"""For AMD devices, numbers in these count the devices that ROCR_VISIBLE_DEVICES admits."""
NO_DEVICES = b"NoDevFiles"
"""What a scheduler writes where a job has no GPU."""
MOST_GPUS = 1024
"""The most GPUs of one node; a longer range is not a list of GPUs."""
ADVICE = {
    Way.CHILD: "set one of these before you start disbatch (export CUDA_VISIBLE_DEVICES=0,1)",
    Way.SSH: "set one of these on that host, where a command of ssh finds it (for bash: "
    "`export CUDA_VISIBLE_DEVICES=0,1` at the top of ~/.bashrc)",
    Way.STEP: "ask the scheduler for GPUs",
}
_RANGE = re.compile(rb"([0-9]{1,9})-([0-9]{1,9})")

Variables = dict[bytes, bytes]


class Devices(NamedTuple):
    """The variables of each slot, for as many slots as there are devices; `troubles` are messages for the
    user."""

    slots: list[Variables]
    troubles: list[str]


class _Resource(NamedTuple):
    """The devices that some variables list in parallel; `kind` is its name for display: singular, plural."""

    kind: tuple[str, str]
    lists: dict[bytes, list[bytes]]

    @property
    def size(self) -> int:
        return min(map(len, self.lists.values()))


def entries(name: bytes, value: bytes) -> list[bytes]:
    """The devices that `value` lists, each once, as the library that uses variable `name` reads it."""
    found: dict[bytes, None] = {}
    for word in value.split(b","):
        entry = word.strip()
        if name == CUDA and entry in (b"", b"-1"):
            break  # CUDA ignores the rest
        if entry and not (name in GPU_VARIABLES and entry in (NO_DEVICES, b"-1")):
            found.update(dict.fromkeys(_written_out(entry) if name in GPU_VARIABLES else [entry]))
    if name == ZE:
        # `0` is all of device 0, with its tile `0.1`.
        return [entry for entry in found if b"." not in entry or entry.split(b".")[0] not in found]
    return list(found)


def _written_out(entry: bytes) -> list[bytes]:
    """`0-3` as four entries; any other entry, and an invalid range, unchanged."""
    ends = _RANGE.fullmatch(entry)
    numbers = range(int(ends[1]), int(ends[2]) + 1) if ends else range(0)
    return [b"%d" % number for number in numbers] if 0 < len(numbers) <= MOST_GPUS else [entry]


def split(
    node: str,
    environment: Mapping[bytes, bytes],
    slots: int,
    *,
    gpu: bool,
    share: Iterable[str],
    rocm: bool = False,
    present: int = 0,
    advice: str = ADVICE[Way.CHILD],
) -> Devices:
    """Divide what the variables list among at most `slots` slots. `gpu`: those of GPU_VARIABLES that are set;
    `share`: these as well. `rocm`: the node's GPUs are AMD's. `present`: the number of GPUs that are ours if
    no variable lists them. `advice`: how the user can set a variable for the engine.

    Raises LaunchError if there is no device for a slot.
    """
    names = list(dict.fromkeys(map(os.fsencode, share)))
    gpu_names = [name for name in GPU_VARIABLES if gpu or name in names]
    if present and not any(name in environment for name in gpu_names):
        environment = {**environment, CUDA: b",".join(b"%d" % number for number in range(present))}
    named = {name: _listed(node, environment, name) for name in names}
    resources = [_gpus(node, environment, gpu_names, advice)] if gpu_names else []
    resources += [resource for name, resource in named.items() if name not in GPU_VARIABLES]
    troubles: list[str] = []
    if not resources:
        return Devices([{} for _ in range(slots)], [])
    tightest = min(resources, key=lambda resource: resource.size)
    room = min(slots, tightest.size)
    if room < slots:
        troubles.append(
            f"{counted(room, *tightest.kind)} for {slots} slots: {counted(room, 'task')} at a time"
        )
    shares: list[Variables] = [{} for _ in range(room)]
    for resource in resources:
        troubles += _unequal(resource)
        each, rest = divmod(resource.size, room)
        if rest:
            troubles.append(
                f"{counted(resource.size, *resource.kind)} for {counted(room, 'task')} at a time: "
                f"{each} each, {rest} unused"
            )
        for slot, variables in enumerate(shares):
            variables.update(_part(resource.lists, slot * each, each, rocm))
    return Devices(shares, troubles)


def _gpus(node: str, environment: Mapping[bytes, bytes], names: list[bytes], advice: str) -> _Resource:
    """The GPUs of the node. A variable that is set but empty hides devices of its kind on purpose: it is
    ignored."""
    lists = {name: listed for name in names if (listed := entries(name, environment.get(name, b"")))}
    if not lists:
        looked_at = ", ".join(name.decode() for name in names)
        raise LaunchError(node, f"-g: no GPU is listed in {looked_at}: {advice}")
    return _Resource(("GPU", "GPUs"), lists)


def _unequal(resource: _Resource) -> list[str]:
    """A message about lists that should name the same devices and do not."""
    shortest = min(resource.lists, key=lambda name: len(resource.lists[name]))
    longest = max(resource.lists, key=lambda name: len(resource.lists[name]))
    most = len(resource.lists[longest])
    if most == resource.size:
        return []
    return [
        f"{longest.decode()} lists {most} devices and {shortest.decode()} {resource.size}: "
        f"the first {counted(resource.size, 'is', 'are')} used"
    ]


def _listed(node: str, environment: Mapping[bytes, bytes], name: bytes) -> _Resource:
    """The devices in a variable that the user named."""
    text = name.decode(errors="replace")
    listed = entries(name, environment.get(name, b""))
    if not listed:
        state = "lists nothing" if name in environment else "is not set"
        raise LaunchError(node, f"-E {text}: {text} {state} here; set it to what is to be split: A,B,...")
    return _Resource((f"entry of {text}", f"entries of {text}"), {name: listed})


def _part(lists: Mapping[bytes, list[bytes]], first: int, count: int, rocm: bool) -> Variables:
    part: Variables = {}
    for name, listed in lists.items():
        own = listed[first : first + count]
        if rocm and ROCR in lists and name in BELOW_ROCR and all(entry.isdigit() for entry in own):
            own = [b"%d" % number for number in range(count)]
        part[name] = b",".join(own)
    return part


def present_gpus(environment: Mapping[bytes, bytes], devices: Path = Path("/dev")) -> int:
    """The number of NVIDIA devices of the node, by their files /dev/nvidia0, ...; 0 in a scheduler's job.

    Their numbers do not matter: a container may have only /dev/nvidia2, and CUDA counts from 0 there, too.
    """
    if is_job(environment):  # then a device of the node need not be ours
        return 0
    return sum(1 for path in devices.glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdigit())


def has_rocm(devices: Path = Path("/dev")) -> bool:
    """True on a node with AMD's driver."""
    return (devices / "kfd").exists()


MOST_TOLD = 256
"""The most slots that the log describes."""


class Share(NamedTuple):
    """What one slot owns: additional variables for its tasks, and the CPUs (numbers of the kernel) that they
    are bound to; None: all CPUs of the engine."""

    variables: dict[bytes, bytes]
    cpus: frozenset[int] | None


class Division(NamedTuple):
    """The shares, one for each slot; there may be fewer slots than requested. `troubles` are lines for the
    user."""

    shares: list[Share]
    troubles: list[str]

    @property
    def slots(self) -> int:
        """The number of tasks that may run at once."""
        return len(self.shares)

    def description(self) -> str:
        """What the slots own, in one line for the log; empty if none owns anything."""
        told = [f"slot {slot}: {text}" for slot, share in enumerate(self.shares) if (text := _told(share))]
        more = [f"and {len(told) - MOST_TOLD} more"] if len(told) > MOST_TOLD else []
        return "; ".join(told[:MOST_TOLD] + more)


def _told(share: Share) -> str:
    words = [os.fsdecode(name + b"=" + value) for name, value in share.variables.items()]
    if share.cpus is not None:
        words.insert(0, f"CPUs {cpu_topology.format_cpus(share.cpus)}")
    return ", ".join(words)


def usable_cpus() -> set[int] | None:
    """The CPUs that this process may run on; None where the system does not report them (macOS)."""
    try:
        return os.sched_getaffinity(0)
    except (AttributeError, OSError):
        return None


def variables_of_run(bootstrap: Bootstrap, node: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The run's environment for an engine on another node than the driver's, without the lists of devices to
    divide there. `node` is the environment of the engine itself.

    A GPU's number means nothing on another host: with `gpu`, only the node's own lists are used. Other lists
    to divide may be set for the run, unless the node has its own.
    """
    gpus = GPU_VARIABLES if bootstrap.gpu else ()
    of_node = {*gpus, *(name for name in map(os.fsencode, bootstrap.share) if name in node)}
    return {name: value for name, value in bootstrap.environment.items() if name not in of_node}


def divide(
    bootstrap: Bootstrap,
    environment: Mapping[bytes, bytes],
    *,
    mask: set[int] | None = None,
    system: Path = cpu_topology.SYSTEM,
    files: Path = Path("/dev"),
) -> Division:
    """Divide what the node has among the slots: devices first, of which there may be too few for all slots,
    then the CPUs among the slots that remain.

    `environment` is that of the tasks. `mask`: the CPUs to divide, if not all that we may use; `system` and
    `files` are where the kernel describes CPUs and devices. Raises LaunchError (one line) if there should be
    devices to divide and there are none.
    """
    shares = split(
        bootstrap.node,
        environment,
        bootstrap.slots,
        gpu=bootstrap.gpu,
        share=bootstrap.share,
        rocm=has_rocm(files),
        present=_present(bootstrap, environment, files),
        advice=bootstrap.step.gpu_advice if bootstrap.step else ADVICE[bootstrap.way],
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
    return present_gpus(environment, files)


def _bind(
    bootstrap: Bootstrap, slots: int, mask: set[int] | None, system: Path, troubles: list[str]
) -> list[frozenset[int]] | None:
    """The CPUs of each slot, or None: leave it to the system. If binding was requested, report why it cannot
    be done."""
    wanted, given = bootstrap.bind, bootstrap.cores
    if wanted is False:
        return None
    if mask is None:
        if wanted:
            troubles.append("--bind cores: this system cannot bind: tasks run where it puts them")
        return None
    if wanted is None and given != len(mask):
        return None  # More CPUs than are ours: it is not known which ones are others'.
    topology = cpu_topology.read_topology(system)
    if wanted is None and not cpu_topology.whole_cores(topology, mask):
        return None
    parts = cpu_topology.allot(topology, mask, slots, bootstrap.cores_per_task)
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
