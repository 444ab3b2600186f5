"""The requests and answers by which programs use the key store of a run, and their protocol.

Theory of operation
-------------------
A program sends its requests over a *channel*, whose name it makes up, one at a time, and numbers them. The
driver remembers the last number of each channel and its outcome. So a request may arrive any number of times,
over any number of connections: the same number refers to the same put or the same waiting get, a smaller
number is an old copy and is ignored, and a greater number means that the former request is over.

ZeroMQ does not report that a program has died. So a waiting program repeats its request (the driver answers a
`Get` at least every HOLD seconds, if only to say that there is nothing yet), and is forgotten when it has not
asked for LEASE seconds.

A taken value must reach exactly one living program. The driver sends the value but keeps it; the program
confirms its arrival (`Keep`), and may use it once the driver has answered that the value is its own (`Kept`).
Then

* a program that dies, or is cut off, before its `Keep` arrives has consumed nothing: after LEASE seconds the
  value returns to the head of its queue;
* a `Keep` that arrives after that is answered with no, so no value is used twice;
* a `Keep` whose answer was lost is sent again, and the channel remembers that the answer was yes.

One gap remains: a client that crashes between `Kept` and its own use of the value loses the value.

Changing a message: as in `wire.engine_protocol`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from disbatch.wire.engine_protocol import Count

HOLD = 3.0
"""Seconds after which a waiting client is told that there is nothing yet."""
LEASE = 12.0
"""Seconds after its last message that a program is considered dead."""
MAX_KEY = 1 << 10
"""Bytes of a key."""
MAX_PUT = 1 << 20
"""The most bytes of the values in one `Put`, together."""
MOST_PUT = 4096
"""Values in one `Put`."""
MAX_GIVEN = 15 << 20
"""The most bytes of a value in an answer; a server may hold larger ones."""
OVER = "the run is over, and its key store with it"
"""The answer when the key store is gone."""

Channel = Annotated[str, msgspec.Meta(min_length=16, max_length=64)]
Key = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_KEY)]


class Put(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Append each value to its key's queue, all of them or none."""

    channel: Channel
    number: Count
    pairs: Annotated[list[tuple[Key, bytes]], msgspec.Meta(min_length=1, max_length=MOST_PUT)]


class Get(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Get the oldest value of this key once there is one: take it out (`takes`), or look at it. `seconds`: if
    none arrives in this time (HOLD at most), answer so; `last`: and stop waiting. Answered with `Given`."""

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
    """The program no longer waits for the request with this number; a value that it took goes back."""

    channel: Channel
    number: Count


OfPrograms = Put | Get | Keep | Forgo


class Given(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A value, or none yet. `serial`: the driver's number for the operation, which changes if the value went
    back meanwhile. `store`: identifies the store; a new driver of the run has another one."""

    value: bytes | None
    serial: int
    store: str


class Kept(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Whether the value is the program's own; it is not if the confirmation came too late."""

    ours: bool
