"""Requests and answers of clients: dbutil, programs, watchers, attached contexts.

A client connects with the run's client key and sends no Hello; only engines do. When a connection breaks, the
client does not know whether its request was carried out, so it sends the request again, with the same `id`,
over the next connection. The driver remembers its answers to the latest ids and does nothing twice. An answer
may be delayed: `Heed`, `Watch`, `Collect` and `Get` are answered when there is something new.

Watching a run
--------------
`Watch` carries what the client has already: the number of the last view (see `model.view.View`), and the
numbers of the last failure and the last log line. So an answer holds only new failures and log lines; it
always holds all engines and running tasks. Numbers belong to one driver: after a takeover, the new driver
sends everything.

The key store
-------------
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

import enum
from typing import Annotated

import msgspec

from disbatch.model.view import View
from disbatch.wire.engine_protocol import Count, Name, Text

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


MOST_RUNNING = 1000
MOST_FAILURES = 1000
MOST_LOG = 1000
MOST_ENGINES = 20_000
MOST_WANTED_KINDS = 1000


class Wants(msgspec.Struct, frozen=True, array_like=True):
    """At most so many of each, the newest of failures and log, behind those numbers that are known.
    `course`: what was before, too. `kinds`: of failures, the most frequent."""

    engines: Annotated[int, msgspec.Meta(ge=0, le=MOST_ENGINES)] = MOST_ENGINES
    running: Annotated[int, msgspec.Meta(ge=0, le=MOST_RUNNING)] = 0
    failures: Annotated[int, msgspec.Meta(ge=0, le=MOST_FAILURES)] = 0
    log: Annotated[int, msgspec.Meta(ge=0, le=MOST_LOG)] = 0
    failures_known: Count = 0
    log_known: Count = 0
    course: bool = False
    kinds: Annotated[int, msgspec.Meta(ge=0, le=MOST_WANTED_KINDS)] = 0


class Watch(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Tell how the run stands, as soon as that differs from view `known` of this `driver` (0: none is known);
    or that it does not, after a while; and which of the tasks `ids` (first and last of each range) run.
    Answered with `Seen`."""

    wants: Wants
    known: Count = 0
    driver: Count = 0
    ids: Annotated[list[tuple[Count, Count]], msgspec.Meta(max_length=MOST_RUNNING)] = []


class Seen(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """How the run stands. `over`: it is, and this is the last view. `running`: which of the tasks that were
    asked for are in slots at this moment."""

    view: View
    over: bool = False
    running: list[int] = []


MOST_NAMES = 1024
MOST_RANGES = 8192
"""In one request, which stays far below what may come from a socket."""
MOST_LINES_SUBMITTED = 65536
MAX_SUBMITTED = 1 << 20
"""Bytes of the lines in one `Submit`, together."""
MAX_ANSWER = 16 << 20
"""Largest answer, bytes. One to `Attach` holds an environment, for which Linux has at most 6 MiB."""
MOST_LINES = 1000
"""In one answer, MAX_LINE characters each at most."""
MAX_LINE = 250

MOST_NODES = 10_000
"""In one context."""
Phrase = Annotated[str, msgspec.Meta(max_length=255)]
Names = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=MOST_NAMES)]
Ranges = Annotated[list[tuple[Count, Count]], msgspec.Meta(min_length=1, max_length=MOST_RANGES)]


class Drain(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Let these nodes (or the nodes of these labels) finish what runs there, then let them go."""

    names: Names


class Stop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """End what runs on these nodes (or the nodes of these labels), to be run elsewhere, and let them go."""

    names: Names


class Pause(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Start nothing new."""


class Unpause(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Start tasks again."""


class Cancel(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Never run these tasks, and end those that run: (first, last) id of each range."""

    ranges: Ranges


class Finish(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """End the run now, in order, to be resumed later."""


class Newcomer(msgspec.Struct, frozen=True, array_like=True):
    """An engine that a context is about to start, under a name that it made up, on this node."""

    engine: Name
    node: Name
    slots: Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class Attach(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Expect the engines of another context, which process `pid` on `host` starts; answered with `Attached`.

    `limit`: the context leaves after so many tasks; None: no limit. `spare_after`: its engines are let go
    when they have had nothing to expect for so many seconds, but for those on the nodes that it is to `keep`;
    None: they are not. `scheduled`: the nodes are a scheduler's, so that a signal to an engine is, too; it
    sends SIGKILL `kill_wait` seconds after SIGTERM (None: nobody knows). `far`: the engines come from other
    hosts, and the connect file names no port.
    """

    label: Phrase
    host: Name
    pid: Count
    nodes: Annotated[list[Newcomer], msgspec.Meta(min_length=1, max_length=MOST_NODES)]
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    spare_after: Annotated[float, msgspec.Meta(ge=0)] | None = None
    keep: Annotated[list[Name], msgspec.Meta(max_length=MOST_NODES)] = []
    scheduled: bool = False
    kill_wait: float | None = None
    far: bool = False


class Heed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Tell what became of the engines of this context, as soon as that is more than the `known` first events
    of this `history`; or nothing new, after a while. Answered with `News`."""

    context: Name
    known: Count
    history: Count = 0


class Ended(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The context could not start this engine, or the process that it started for it ended: with this code,
    and `words` for the user."""

    context: Name
    engine: Name
    came: bool
    return_code: int
    words: Annotated[str, msgspec.Meta(max_length=4096)]


class Detach(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The context leaves: end what runs on its engines, to be run elsewhere, and let them go. `kindly`: let
    what runs there finish. `why`, for people."""

    context: Name
    kindly: bool = False
    why: Phrase = "leaving"


class Submit(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Take these lines of a task file, all of them or none; answered with `Taken`. `source`: what an error
    calls the place where they come from, where the first of them has this `number`. Without lines: would the
    run take some?"""

    lines: Annotated[list[bytes], msgspec.Meta(max_length=MOST_LINES_SUBMITTED)]
    source: Phrase = "submitted"
    number: Count = 1


class Collect(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Tell how these tasks ended, (first, last) id of each range, as far as their lines stand behind the
    first `after` bytes of the status file: as soon as there are any, or that there are none, after a while.
    Answered with `Results`."""

    ranges: Ranges
    after: Count


class Close(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """No more tasks will be submitted: the run ends when all are done."""


OfUsers = Drain | Stop | Pause | Unpause | Cancel | Finish
OfContexts = Attach | Heed | Ended | Detach
OfClients = Submit | Collect | Close
Verb = OfUsers | OfContexts | OfClients | OfPrograms | Watch
REPEATABLE = (Attach, Heed, Collect, Watch, Put, Get, Keep, Forgo)
"""Verbs that do nothing, or nothing a second time: then they are answered anew. Their answers, which may be
large, are not kept."""


# ---- values ----


class Attached(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engines of the context are expected. What it tells them: see `messages.Bootstrap`. Seconds of
    `grace` and the two patiences as in `messages.Welcome`. `known`: `prefix` by the user's name of the
    directory, b"" from an older driver. `addresses`: where the driver listens, if the context is `far`."""

    context: str
    directory: bytes
    prefix: bytes
    environment: dict[bytes, bytes]
    grace: float
    patience: float
    orphan_patience: float
    known: bytes = b""
    addresses: list[str] = []


class Fate(enum.Enum):
    """What became of an engine."""

    JOINED = "joined"
    LOST = "lost"
    LEFT = "left"
    SPARE = "spare"
    """It left as there was nothing more for it to do, while the run goes on."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """Something became of that engine."""

    engine: str
    fate: Fate


class News(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What became of the engines of a context: `events`, of which the first comes after `since` others of
    this `history`. A driver that took the run over begins another one. `over`: the run is."""

    since: int
    events: list[Event]
    over: bool = False
    history: int = 0


class Taken(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The lines were taken. Their tasks and barriers have the ids from `first` on; `counts`: how many ids
    a line has (none: a comment, or a PREFIX), and how many lines in a row have so many. Their results stand
    behind the first `at` bytes of the status file."""

    first: int
    counts: list[tuple[int, int]]
    at: int

    @property
    def ids(self) -> int:
        """How many ids there are."""
        return sum(ids * lines for ids, lines in self.counts)


class Results(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Lines of the status file, which tell how tasks ended that somebody asked for; very long ones without
    their last field, the command. All such lines among the first `upto` bytes have been told. `over`: the run
    is, and there will be no others; how it ended, in `words`."""

    lines: list[bytes]
    upto: int
    over: bool = False
    words: str = ""


Value = Attached | News | Taken | Results | Seen | Given | Kept


class Request(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Do this. `id` is random, and the same each time that this request is sent. `by`: who asks, for people;
    "": `dbutil`."""

    protocol: Count
    id: Annotated[str, msgspec.Meta(min_length=16, max_length=64)]
    version: Text
    verb: Verb
    by: Phrase = ""


class Answer(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What was done, a line each; or, if not `ok`, the one line that says why nothing was. `value`: what a
    program asked for."""

    id: str
    ok: bool
    lines: list[str]
    value: Value | None = None
