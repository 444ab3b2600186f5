"""What programs ask of the run's key store, through its driver: puts, gets that wait, and views.

Theory of operation
-------------------
A program asks over a *channel*, whose name it makes up, one thing after the other, and numbers them. The
driver remembers the last number of each channel and what came of it. So a request may come any number of
times, over any number of connections: what has this number is the same put or the same waiter, what has a
smaller one is an old copy and does nothing, and a greater one says that the former is over.

ZeroMQ tells nobody that a program died. So whoever waits asks again and again (`Get`, the driver answers
every HOLD seconds that there is nothing yet), and is forgotten if it does not for LEASE seconds.

A value that is taken must reach one who lives, and him alone. The driver sends it, but keeps it; the program
says that it has arrived (`Keep`), and may use it when it has been told that it is its own (`Kept`). Then

* a program that dies, or is cut off, before its `Keep` came has consumed nothing: after LEASE seconds the
  value goes back to the head of its queue;
* a `Keep` that comes after that is told that the value is not its own, so nobody uses a value twice;
* a `Keep` whose answer was lost is sent again, and the channel knows that it was answered with yes.

What is left is the moment between `Kept` and the program's own use: who dies there dies with his value.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from disbatch.wire.messages import Count

HOLD = 3.0
"""Seconds after which one who waits is told that there is nothing yet."""
LEASE = 12.0
"""Seconds after its last word that a program is taken for dead."""
MAX_KEY = 1 << 10
"""Bytes of a key."""
MAX_PUT = 1 << 20
"""Bytes of the values in one `Put`, together."""
MOST_PUT = 4096
"""Values in one `Put`."""
MAX_GIVEN = 15 << 20
"""Bytes of a value that fits into an answer; a server may hold larger ones."""
OVER = "the run is over, and its key store with it"
"""The answer when there is no store any more."""

Channel = Annotated[str, msgspec.Meta(min_length=16, max_length=64)]
Key = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_KEY)]


class Put(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Append each value to its key's queue, all of them or none."""

    channel: Channel
    number: Count
    pairs: Annotated[list[tuple[Key, bytes]], msgspec.Meta(min_length=1, max_length=MOST_PUT)]


class Get(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Give the oldest value of this key when there is one, to take it out (`takes`), or to look at it.
    `seconds`: if none comes in this time (HOLD at most), say so; `last`: and wait no more. Answered with
    `Given`."""

    channel: Channel
    number: Count
    key: Key
    takes: bool
    seconds: Annotated[float, msgspec.Meta(ge=0)]
    last: bool


class Keep(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The value that this `Get` took has arrived, with this `serial`; answered with `Kept`."""

    channel: Channel
    number: Count
    serial: Count


class Forgo(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Nobody waits any more for what had this number; what it took goes back."""

    channel: Channel
    number: Count


OfPrograms = Put | Get | Keep | Forgo


class Given(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A value, or none yet. `serial`: the driver's number for what was begun, which is not the same again if
    the value went back meanwhile. `store`: which store that is; another driver of the run has another one."""

    value: bytes | None
    serial: int
    store: str


class Kept(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The value is the program's own; or not, as it came too late."""

    ours: bool
