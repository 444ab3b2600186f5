"""The life of an engine as one value: its states, the events that change it, and what each state means.

                   Hello             Goodbye, end of the run
    Launching -------------> Joined -------------------------> Left
        |                     |  |                               ^
        |                     |  | silent on this host           |
        |                     |  +---------------------> Ending -+
        |                     | given up                    |
        |                     +------> Lost <---------------+ given up
        |
        +-- launch failed --> Failed
        +-- cancelled ------> Cancelled
        +-- given up -------> Lost
        +-- run ended ------> Missing

An engine joins whenever it says Hello, also from the states at the bottom and from Lost, but not from Left:
it may say Hello over a new connection then, but takes no more tasks. `after` has all transitions. What
follows from them is done by `engine_table.EngineTable.change`, and nowhere else.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from disbatch.wire.client_protocol import Fate
from disbatch.wire.engine_protocol import Beat

# ---- states ----


class EngineState(msgspec.Struct, frozen=True, kw_only=True):
    """One of the variants below. `exit_code`: the return code of the process that was started for the engine
    and stays while the engine runs; None as long as that is not known to have ended."""

    name: ClassVar[str]
    """The state for displays, unless the plan knows more."""
    exit_code: int | None = None

    @property
    def has_joined(self) -> bool:
        """The engine has joined this driver, now or before."""
        return False


class Launching(EngineState, frozen=True):
    """The engine is being launched; or a former driver had it, and it is expected."""

    name = "launching"


class Failed(EngineState, frozen=True):
    """The engine's launch failed, or its process ended before it joined."""

    name = "failed"


class Cancelled(EngineState, frozen=True):
    """The launch was cancelled. The engine may join nevertheless."""

    name = "failed"


class Heartbeat(NamedTuple):
    """A message of the engine about itself, received at `time` (of the loop)."""

    time: float
    message: Beat


class Joined(EngineState, frozen=True, kw_only=True):
    """The engine offers its slots since the loop's time `since`. `beat`: its latest heartbeat, if there was
    one."""

    name = "active"
    since: float
    beat: Heartbeat | None = None

    @property
    def has_joined(self) -> bool:
        return True


class Ending(Joined, frozen=True, kw_only=True):
    """The engine is silent and runs on the driver's host, so its processes are being ended, before its tasks
    start elsewhere. `reason`: why it will be given up then."""

    reason: str


class Lost(EngineState, frozen=True, kw_only=True):
    """The engine was given up, and not heard since. `before`: it had joined this driver."""

    name = "lost"
    before: bool

    @property
    def has_joined(self) -> bool:
        return self.before


class Missing(Lost, frozen=True, kw_only=True):
    """The run was ended before this engine of a former driver was heard. It remains in the journal, for the
    next driver."""

    before: bool = False


class Left(EngineState, frozen=True, kw_only=True):
    """The engine said Goodbye, or the run is over. `spare`: it was released during the run because there was
    no more work. `retired`: its node is not needed any more; False as long as a step whose node is to leave
    the job has not ended."""

    name = "left"
    spare: bool
    retired: bool

    @property
    def has_joined(self) -> bool:
        return True


# ---- events ----


class SaidHello(msgspec.Struct, frozen=True):
    """The engine said Hello at this time of the loop."""

    time: float


class SentBeat(msgspec.Struct, frozen=True):
    """The engine sent a heartbeat."""

    beat: Heartbeat


class FellSilent(msgspec.Struct, frozen=True):
    """The engine is silent, and its processes, on the driver's host, are being ended for this reason."""

    reason: str


class GivenUp(msgspec.Struct, frozen=True):
    """The driver does not wait for the engine any longer."""


class NotHeard(msgspec.Struct, frozen=True):
    """The run was ended, and the engine of a former driver was not heard in time."""


class SaidGoodbye(msgspec.Struct, frozen=True):
    """The engine leaves. `spare`: as of `Left`. `in_step`: its node leaves the job only after the step has
    ended."""

    spare: bool
    in_step: bool


class ProcessEnded(msgspec.Struct, frozen=True):
    """The process that was started for the engine, or the command of its step, ended."""

    return_code: int


class LaunchFailed(msgspec.Struct, frozen=True):
    """The engine could not be launched, or did not join in time."""


class LaunchCancelled(msgspec.Struct, frozen=True):
    """The engine need not join."""


class RunOver(msgspec.Struct, frozen=True):
    """The run is over, and all nodes are released."""


EngineEvent: TypeAlias = (
    SaidHello
    | SentBeat
    | FellSilent
    | GivenUp
    | NotHeard
    | SaidGoodbye
    | ProcessEnded
    | LaunchFailed
    | LaunchCancelled
    | RunOver
)

# ---- transitions ----


def after(state: EngineState, event: EngineEvent) -> EngineState:
    """The state that follows. An event that has no meaning in a state does not change it."""
    if isinstance(state, Launching):
        return _after_launching(state, event)
    if isinstance(state, Joined):
        return _after_joined(state, event)
    match event:
        case SaidHello(time) if not isinstance(state, Left):
            return Joined(since=time, exit_code=state.exit_code)
        case ProcessEnded(code):
            ended = replace(state, exit_code=code)
            return replace(ended, retired=True) if isinstance(ended, Left) else ended
        case RunOver() if isinstance(state, Left):
            return replace(state, retired=True)
    return state


def _after_launching(state: Launching, event: EngineEvent) -> EngineState:
    match event:
        case SaidHello(time):
            return Joined(since=time)
        case ProcessEnded(code):
            return Failed(exit_code=code)
        case LaunchFailed():
            return Failed()
        case LaunchCancelled():
            return Cancelled()
        case GivenUp():
            return Lost(before=False)
        case NotHeard():
            return Missing()
    return state


def _after_joined(state: Joined, event: EngineEvent) -> EngineState:
    code = state.exit_code
    match event:
        case SentBeat(beat):
            return replace(state, beat=beat)
        case FellSilent(reason) if not isinstance(state, Ending):
            return Ending(since=state.since, beat=state.beat, exit_code=code, reason=reason)
        case GivenUp():
            return Lost(before=True, exit_code=code)
        case SaidGoodbye(spare, in_step):
            return Left(spare=spare, retired=code is not None or not (spare and in_step), exit_code=code)
        case RunOver():
            return Left(spare=False, retired=True, exit_code=code)
        case ProcessEnded(code):
            return replace(state, exit_code=code)
    return state


# ---- what follows ----


def fate(state: EngineState) -> Fate:
    """What an attached context is told of its engine that came into this state; not of one that is
    launching."""
    match state:
        case Joined():
            return Fate.JOINED
        case Lost():
            return Fate.LOST
        case Left(spare=True):
            return Fate.SPARE
    return Fate.LEFT


def releases_node(old: EngineState, new: EngineState) -> bool:
    """With this transition the engine's node is no longer needed."""
    if isinstance(new, Left):
        return new.retired and not (isinstance(old, Left) and old.retired)
    return isinstance(new, Lost) and isinstance(old, Joined)
