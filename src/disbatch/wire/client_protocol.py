"""Requests and answers of clients: dbutil, programs, watchers, attached contexts.

A client connects with the run's client key and sends no Hello; only engines do. When a connection breaks, the
client does not know whether its request was carried out, so it sends the request again, with the same `id`,
over the next connection. The driver remembers its answers to the latest ids and does nothing twice. An answer
may be delayed: `Heed`, `Watch`, `Collect` and `Get` are answered when there is something new.

Watching a run
--------------
`Watch` carries what the client has already: the number of the last view (see `model.view.RunView`), and the
numbers of the last failure and the last log line. So an answer holds only new failures and log lines; it
always holds all engines and running tasks. Numbers belong to one driver: after a takeover, the new driver
sends everything.

Changing a message: as in `wire.engine_protocol`.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from disbatch.model.view import RunView
from disbatch.wire.engine_protocol import Count, Name, Text
from disbatch.wire.keystore_protocol import Forgo, Get, Given, Keep, Kept, OfPrograms, Put
from disbatch.wire.verbs import Ranges, RunRequest

MOST_RUNNING = 1000
MOST_FAILURES = 1000
MOST_LOG = 1000
MOST_ENGINES = 20_000
MOST_WANTED_KINDS = 1000


class Wants(msgspec.Struct, frozen=True, array_like=True):
    """The most rows of each list that the client wants; of failures and log, the newest ones after those that
    it has. `course`: include the earlier course. `kinds`: the most frequent kinds of failures."""

    engines: Annotated[int, msgspec.Meta(ge=0, le=MOST_ENGINES)] = MOST_ENGINES
    running: Annotated[int, msgspec.Meta(ge=0, le=MOST_RUNNING)] = 0
    failures: Annotated[int, msgspec.Meta(ge=0, le=MOST_FAILURES)] = 0
    log: Annotated[int, msgspec.Meta(ge=0, le=MOST_LOG)] = 0
    failures_known: Count = 0
    log_known: Count = 0
    course: bool = False
    kinds: Annotated[int, msgspec.Meta(ge=0, le=MOST_WANTED_KINDS)] = 0


class Watch(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Report the state of the run as soon as it differs from view `known` of this `driver` (0: none is
    known), or report that it does not, after a while; and which of the tasks `ids` (first and last of each
    range) run. Answered with `Seen`."""

    wants: Wants
    known: Count = 0
    driver: Count = 0
    ids: Annotated[list[tuple[Count, Count]], msgspec.Meta(max_length=MOST_RUNNING)] = []


class Seen(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The state of the run. `over`: the run is over, and this is the last view. `running`: which of the
    requested tasks are in slots at this moment."""

    view: RunView
    over: bool = False
    running: list[int] = []


MOST_LINES_SUBMITTED = 65536
MAX_SUBMITTED = 1 << 20
"""The most bytes of the lines in one `Submit`, together."""
MAX_ANSWER = 16 << 20
"""The largest answer, bytes. An answer to `Attach` holds an environment, which Linux limits to 6 MiB."""
MOST_LINES = 1000
"""The most lines in one answer, MAX_LINE characters each at most."""
MAX_LINE = 250

MOST_NODES = 10_000
"""The most nodes of one context."""
Phrase = Annotated[str, msgspec.Meta(max_length=255)]


class Newcomer(msgspec.Struct, frozen=True, array_like=True):
    """An engine that a context is about to start on this node, with the id that the context has chosen."""

    engine: Name
    node: Name
    slots: Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class Attach(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Expect the engines of another context, which process `pid` on `host` starts; answered with `Attached`.

    `limit`: the context leaves after so many tasks; None: no limit. `spare_after`: its engines are released
    when they have had nothing to expect for so many seconds, except on the nodes to `keep`; None: they are
    not released. `scheduled`: the nodes belong to a scheduler, which signals an engine together with its
    tasks and sends SIGKILL `kill_wait` seconds after SIGTERM (None: not known). `far`: the engines come from
    other hosts, and the connect file names no port.
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
    """Report what happened to the engines of this context, as soon as there is more than the `known` first
    events of this `history`; or nothing new, after a while. Answered with `News`."""

    context: Name
    known: Count
    history: Count = 0


class Ended(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The context could not start this engine, or the process that it started for it ended: with this exit
    code, and `words` for the user."""

    context: Name
    engine: Name
    came: bool
    return_code: int
    words: Annotated[str, msgspec.Meta(max_length=4096)]


class Detach(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The context leaves: end what runs on its engines, to be run elsewhere, and release them. `kindly`: let
    running tasks finish. `why`, for display."""

    context: Name
    kindly: bool = False
    why: Phrase = "leaving"


class Submit(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Accept these lines of a task file, all of them or none; answered with `Taken`. `source`: the name of
    their source in errors, where the first of them has this `number`. Without lines: ask whether the run
    would accept any."""

    lines: Annotated[list[bytes], msgspec.Meta(max_length=MOST_LINES_SUBMITTED)]
    source: Phrase = "submitted"
    number: Count = 1


class Collect(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Report how these tasks ended, (first, last) id of each range, as far as their lines are after the first
    `after` bytes of the status file: as soon as there are any, or that there are none, after a while.
    Answered with `Results`."""

    ranges: Ranges
    after: Count


OfContexts = Attach | Heed | Ended | Detach
OfClients = Submit | Collect
Verb = RunRequest | OfContexts | OfClients | OfPrograms | Watch
REPEATABLE = (Attach, Heed, Collect, Watch, Put, Get, Keep, Forgo)
"""Verbs that are idempotent: when repeated, they are carried out again. Their answers, which may be large,
are not kept."""


# ---- values ----


class Attached(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engines of the context are expected. For what the context tells them, see
    `engine_protocol.Bootstrap`; `grace` and the two patiences are in seconds, as in
    `engine_protocol.Welcome`. `known`: `prefix` with the user's name of the directory, b"" from an older
    driver. `addresses`: where the driver listens, if the context is `far`."""

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
    """What happened to an engine."""

    JOINED = "joined"
    LOST = "lost"
    LEFT = "left"
    SPARE = "spare"
    """It left because there was nothing more for it to do, while the run goes on."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """An event in the life of that engine."""

    engine: str
    fate: Fate


class News(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What happened to the engines of a context: `events`, the first of which follows `since` others of this
    `history`. After a takeover, the new driver begins another history. `over`: the run is over."""

    since: int
    events: list[Event]
    over: bool = False
    history: int = 0


class Taken(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The lines were accepted. Their tasks and barriers have ids from `first` on; `counts`: how many ids a
    line has (none: a comment, or a PREFIX), and how many consecutive lines have so many. Their results come
    after the first `at` bytes of the status file."""

    first: int
    counts: list[tuple[int, int]]
    at: int

    @property
    def ids(self) -> int:
        """The number of ids."""
        return sum(ids * lines for ids, lines in self.counts)


class Results(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Lines of the status file with the results of the requested tasks; very long ones lack their last field,
    the command. All such lines among the first `upto` bytes have been sent. `over`: the run is over, and
    there will be no others; how it ended, in `words`."""

    lines: list[bytes]
    upto: int
    over: bool = False
    words: str = ""


Value = Attached | News | Taken | Results | Seen | Given | Kept


class Request(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A request. `id` is random, and the same each time that the request is sent. `by`: the name of the
    client, for display; "": `dbutil`."""

    protocol: Count
    id: Annotated[str, msgspec.Meta(min_length=16, max_length=64)]
    version: Text
    verb: Verb
    by: Phrase = ""


class Answer(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What was done, one line each; or, if not `ok`, one line that says why nothing was. `value`: what a
    program asked for."""

    id: str
    ok: bool
    lines: list[str]
    value: Value | None = None
