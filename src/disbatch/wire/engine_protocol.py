"""The protocol between the driver and its engines: two unions of messages.

Theory of operation
-------------------
An engine connects and says `Hello`; the driver answers `Welcome` (or `Refuse`). From then on each side sends
numbered messages (1, 2, 3, ... in each direction) and keeps each message until the other side has
acknowledged its number; acknowledgements ride on everything that is sent. A connection may break and be
replaced at any time: the engine then says `Hello` again with the last number that it has seen, and both sides
resend what the other lacks. A number that was seen already is dropped, and so is one that comes too early (it
will be resent), so each message is processed exactly once and in order. See `wire.session`.

`Hello`, `Welcome`, `Refuse`, `Beat` and `Pulse` are not numbered: they describe only the current state.

The driver acknowledges `Finished` only when its lines are in the status file.

Changing a message: only append fields with defaults; any other change raises PROTOCOL.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from disbatch.model.task import Outcome, Phase, Way

PROTOCOL = 3
"""Raised whenever an older peer could misunderstand; `Hello` and `Bootstrap` carry it."""

MAX_FROM_ENGINE = 2 << 20
"""Largest message from an engine, bytes; a connection that sends more is dropped."""
MAX_TO_ENGINE = 64 << 20
"""Largest message to an engine, bytes: one command of MAX_COMMAND and its neighbours fit."""

MAX_OUTCOMES = 1024
MAX_ATTEMPTS = 65536

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Attempts = Annotated[list[Count], msgspec.Meta(max_length=MAX_ATTEMPTS)]


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One attempt to start: `attempt` is unique within the run; the rest as in `model.task.Task`."""

    attempt: int
    task_id: int
    line: int
    repeat: int
    command: bytes


# ---- to an engine ----


class Welcome(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engine is admitted. Times in seconds. `results_seen`: the last number received from the engine;
    `next_order`: the number of the next numbered message to it. `pid`: the driver's."""

    rank: int
    jobid: str
    task_name: bytes
    heartbeat: float
    patience: float
    orphan_patience: float
    grace: float
    results_seen: int
    next_order: int
    pid: int = 0


class Refuse(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engine cannot join; it must end its tasks and exit."""

    reason: str


class Pulse(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The driver is alive. `known` false: it does not know the engine (any more), which must say Hello."""

    known: bool = True


class Start(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Run these in this order, as slots become free."""

    orders: list[Order]


class StartPerEngine(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Run this PERENGINE command, after earlier ones, outside the slots (rank -1)."""

    phase: Phase
    order: Order


class Recall(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Give back those of these attempts that have not started; answer with `Recalled`, even if there are
    none."""

    attempts: list[int]


class End(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """End these attempts: SIGTERM, the grace period, SIGKILL (`at_once`: SIGKILL). Each is answered in
    `Finished` with Ending.ORDERED, including those that had not started (pid 0); unknown ones are ignored."""

    attempts: list[int]
    at_once: bool


class Leave(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """No more work will come: end what ended tasks left running, send what is unsent, say `Goodbye`, exit."""


ToEngine = Welcome | Refuse | Pulse | Start | StartPerEngine | Recall | End | Leave


# ---- from an engine ----


class Claim(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attempt that an engine has, and its item: the task `task_id`, or the PERENGINE command of that
    number and phase."""

    attempt: Count
    task_id: Count
    phase: Phase | None = None


class Hello(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An engine greets the driver, at first and after each break. `engine` is its permanent id; `node` the
    name of the computer as the user gave it; `slots` the number of tasks at a time; `orders_seen` the last
    number received; `results_from` the number of the first message that the engine still keeps; `holding` the
    attempts that it has: waiting, running, or ended and not acknowledged. For a driver that took the run
    over: `ran` are the PERENGINE commands whose results were delivered already, `leaving` means that the
    engine was told to leave, `recorded` is how many tasks that ended by themselves were acknowledged. `boot`
    and `started` distinguish this process from a later one with the same process id: see
    `engine.process_tree`."""

    protocol: Count
    engine: Name
    node: Name
    host: Name
    pid: Count
    slots: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    version: Text
    orders_seen: Count
    results_from: Count
    holding: Annotated[list[Claim], msgspec.Meta(max_length=MAX_ATTEMPTS)]
    ran: Annotated[list[tuple[Phase, Count]], msgspec.Meta(max_length=MAX_ATTEMPTS)] = []
    leaving: bool = False
    boot: Text = ""
    started: Count = 0
    recorded: Count = 0


class Running(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A running attempt: for `elapsed` seconds, in slot `slot`."""

    attempt: Count
    slot: int
    elapsed: float


class Beat(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engine is alive. `running`: the longest first; `waiting`: attempts not started. Of the node:
    `load`, its 1-minute load average, and bytes of memory (0: not known)."""

    running: Annotated[list[Running], msgspec.Meta(max_length=MAX_ATTEMPTS)]
    waiting: Count
    load: float
    memory_used: Count = 0
    memory_total: Count = 0


class Finished(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """These attempts ended."""

    outcomes: Annotated[list[Outcome], msgspec.Meta(max_length=MAX_OUTCOMES)]


class Recalled(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Answer to one `Recall`: these attempts had not started, and never will on this engine."""

    attempts: Attempts


class Trouble(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """One line to show to the user."""

    text: Text


AS_TOLD = "all is done"
"""The reason of an engine that leaves because it was told to."""


class Goodbye(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Everything is acknowledged and ended; this engine exits now."""

    reason: Text


FromEngine = Hello | Beat | Finished | Recalled | Trouble | Goodbye


# ---- on an engine's standard input, before there is a connection ----


class StepVariables(msgspec.Struct, frozen=True):
    """What a scheduler puts into the environment of the steps that it starts, as its context tells.

    `job`: prefixes of variables that describe the job or the step. Tasks find those of the run, but for the
    ones in `node`, which differ from node to node. `launcher`: names that are set for the command alone that
    starts the step. `launched_from`: the first of them that is set begins with the address of the computer
    that started the step. `gpu_advice`: how the user gets GPUs.
    """

    job: list[bytes] = []
    node: list[bytes] = []
    launcher: list[bytes] = []
    launched_from: list[bytes] = []
    gpu_advice: str = ""


class Bootstrap(msgspec.Struct, frozen=True, tag=True):
    """What an engine needs to start: four bytes of length (big endian), then this as msgpack.

    `addresses` are tried in order: `ipc://PATH`, `tcp://HOST:PORT`, or `tcp://@client:PORT`, where `@client`
    stands for the address that the ssh connection or the step came from. Keys are Z85 text (CURVE).
    `environment` is the environment of the tasks, already merged for a local engine; other engines merge it
    with their own. `log` is the log file's path, `directory` the tasks' working directory. `way`: how the
    engine was launched.

    `slots` is the number of tasks that the node may run at once; the engine takes fewer if there are fewer
    devices. `gpu`: divide the GPUs that the node's environment lists among the slots; `share`: divide what
    these variables list, too. `bind`: bind each slot to cores of its own; None: only if these are certainly
    ours alone. `cores`: how many cores a scheduler gave us on the node; None: not known. `run`: the prefix of
    the run's files, for messages. `by_driver`: the driver itself launched the engine, not an attached
    context. `orphan_patience`: seconds, as in Welcome, for the time before that. `output`: the directory for
    what tasks print; empty: nothing is kept. `output_pack`: in a pack instead of files; `output_limit`: bytes
    of each stream of a task. `step`: the scheduler's variables, in a step. `lifeline`: standard input ends
    when the process that started the engine is gone.
    """

    protocol: int
    engine: str
    node: str
    slots: int
    cores_per_task: float
    directory: bytes
    log: bytes
    addresses: list[str]
    server_key: str
    client_key: str
    client_secret: str
    environment: dict[bytes, bytes]
    way: Way
    gpu: bool = False
    share: list[str] = []
    bind: bool | None = False
    cores: int | None = None
    run: bytes = b""
    by_driver: bool = True
    orphan_patience: float = 600.0
    output: bytes = b""
    output_pack: bool = False
    output_limit: int = 0
    step: StepVariables | None = None
    lifeline: bool = True


SECRET_VARIABLES = frozenset({b"DISBATCH_SMTP", b"DISBATCH_KVS_URL"})
"""Variables of the user that hold passwords; no engine and no task gets them."""
READY_MARK = "disbatch-engine-ready"
"""An engine prints this and its pid on a line of stdout when it no longer needs its launcher's pipes."""
ERROR_MARK = "disbatch-engine-error"
"""An engine prints this and one line for the user on stdout when it cannot start; it then exits 2."""
