"""The key store in a Redis-protocol server: lists, blocking pops, and a prefix for each run.

Theory of operation
-------------------
The queue of a key is the list PREFIX + key, oldest value on the left: put is RPUSH, get is BLPOP, as with any
client.

A connection may break after the server has executed a command and before its answer arrives. Worse, a command
that we gave up may be executed later: the server may read it from its socket late, or a blocking pop of a
closed connection may still find a value. So:

* **Each write is executed once**, by a transaction (`_commit`) that also stores its number under a key of
  this client, its *mark*. Each try watches the mark, and does nothing if the number is there already. If an
  earlier try is executed late, it is either before our own transaction, which then fails and finds the number
  when it is tried again; or after it, and then the earlier one fails, as the mark that it watched has
  changed.
* **The run's task source takes each value once** (`take`). Such a transaction moves values to a new list of
  this client, *taken*, where they stay until the next one; so they can be read from there any number of
  times. If a call is cancelled, its transaction may never be executed; then its list is empty.
* **A program takes each value at most once** (`get`): if the connection breaks after the pop, or the program
  crashes, the value is lost. A pop whose caller is cancelled ends within WAIT seconds, and returns what it
  has popped.
* **Viewing** is BLMOVE from the left end of a list to the same place, which changes nothing.

If the server comes back without its data, or with older data, the mark shows it: the loss cannot be repaired,
but it is reported. All this needs only Redis 6.2.

Every key of a run begins with the run's prefix, so that many runs can share one server: no two runs at a time
have the same. A run owns its prefix as long as the key PREFIX.driver holds the random word that its driver
renews; the server expires that key by itself if the driver is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter

from disbatch.keystore.redis_server import Client, Server
from disbatch.keystore.store import Pair
from disbatch.model.errors import StoreError, UsageError

log = logging.getLogger(__name__)

WAIT = 1.0
"""Seconds that one blocking command waits at the server; then the next one begins."""
SHORTEST_WAIT = 0.01
"""Seconds; for the server, 0 would mean without limit."""
ANSWER_WITHIN = 1.0
"""Seconds for the answer when a timeout is over."""
RETURN_WITHIN = 5.0
"""Seconds, after those that a pop waits, for values to be returned."""
FIRST_BATCH = 16
"""Values taken at once; their size determines how many the next time."""
BATCH = 1 << 20
"""Bytes."""
FORGOTTEN = "it came back without its latest data; values that were not taken are lost, or come twice"

Command = tuple[bytes | str | int, ...]


class ExternalStore:
    """A `KeyStore` in `server`, whose keys begin with `prefix`; `open` the server first. `wait`: see WAIT.

    `take` is for one consumer, which must repeat a cancelled call with the same key before any other.
    """

    def __init__(self, server: Server, prefix: bytes, wait: float = WAIT) -> None:
        self._server = server
        self._prefix = prefix
        self._wait = wait
        name = secrets.token_hex(8).encode()
        self._mark = prefix + b".client:" + name
        self._taken = prefix + b".taken:" + name
        """The lists of taken values begin with this."""
        self._unread = b""
        """The list that may have values that have not been read; empty: there is none."""
        self._unread_of = b""
        """The list from which these were moved."""
        self._read: list[bytes] = []
        """Lists whose values have been read; the next transaction removes them."""
        self._batch = FIRST_BATCH
        self._number = 0
        self._confirmed = 0
        self._committing = asyncio.Lock()
        self._returning: set[asyncio.Task[None]] = set()

    async def put(self, pairs: Sequence[Pair]) -> None:
        commands: list[Command] = []
        for key, group in groupby(pairs, itemgetter(0)):
            commands.append(("RPUSH", self._prefix + key, *(value for _, value in group)))
        await self._commit(commands)

    async def offer(self, pairs: Sequence[Pair]) -> None:
        await self.put(pairs)

    async def give_back(self, key: bytes, values: Sequence[bytes]) -> None:
        await self._commit([("LPUSH", self._prefix + key, *reversed(values))])

    async def replace(self, key: bytes, value: bytes) -> None:
        await self._commit([("DEL", self._prefix + key), ("RPUSH", self._prefix + key, value)])

    async def get(self, key: bytes, timeout: float | None = None) -> bytes:
        return await self._oldest(partial(self._pop, key), timeout)

    async def view(self, key: bytes, timeout: float | None = None) -> bytes:
        async def look(wait: float) -> bytes | None:
            return await self._server.persist(partial(_look, self._prefix + key, wait))

        return await self._oldest(look, timeout)

    async def take(self, key: bytes, most: int, timeout: float | None = None) -> list[bytes]:
        while True:
            if not self._unread:
                await self.view(key, timeout)
            values = await self._move(self._prefix + key, min(most, self._batch))
            if values:
                self._batch = max(1, BATCH * len(values) // (1 + sum(map(len, values))))
                return values

    async def _oldest(self, ask: Callable[[float], Awaitable[bytes | None]], timeout: float | None) -> bytes:
        """Ask, with the seconds to wait at the server, until there is a value."""
        loop = asyncio.get_running_loop()
        due = None if timeout is None else loop.time() + timeout
        async with asyncio.timeout(timeout + ANSWER_WITHIN if timeout else None):
            while True:
                left = self._wait if due is None else min(self._wait, due - loop.time())
                value = await ask(0.0 if timeout == 0 else max(left, SHORTEST_WAIT))
                if value is not None:
                    return value
                # The client library may lose a cancellation, such as the one of a timeout.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError
                if due is not None and loop.time() >= due:
                    raise TimeoutError

    async def _pop(self, key: bytes, wait: float) -> bytes | None:
        popping = asyncio.ensure_future(self._server.persist(partial(_pop, self._prefix + key, wait)))
        try:
            return await asyncio.shield(popping)
        except asyncio.CancelledError:
            returning = asyncio.ensure_future(self._return(key, popping))
            self._returning.add(returning)
            returning.add_done_callback(self._returned)
            raise

    async def _return(self, key: bytes, popping: asyncio.Future[bytes | None]) -> None:
        value = await popping
        if value is not None:
            await self.give_back(key, [value])

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._returning.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("key store: %s", task.exception())

    async def _move(self, name: bytes, most: int) -> list[bytes]:
        """Move values to a new list and read them; first, those that a cancelled call has moved."""
        moves: list[Command] = []
        read = [*self._read]
        if not self._unread:
            there = await self._server.persist(lambda client: client.llen(name))
            taken = b"%b:%d" % (self._taken, self._number)
            moves = [("LMOVE", name, taken, "LEFT", "RIGHT")] * min(most, there)
            self._unread, self._unread_of = taken, name
        await self._commit([*(("DEL", each) for each in read), *moves])
        self._read = []
        values: list[bytes] = await self._server.persist(lambda client: client.lrange(self._unread, 0, -1))
        self._read, self._unread = [self._unread], b""
        return values

    async def claim(self, name: bytes, value: bytes, seconds: int, *, renew: bool = False) -> bool:
        """Make PREFIX + name ours for `seconds`; False if another client has it."""
        key = self._prefix + name

        async def step(client: Client) -> bool:
            if await client.set(key, value, ex=seconds, nx=not renew):
                return True
            return bool(await client.get(key) == value)

        return await self._server.persist(step)

    async def remove(self, name: bytes) -> None:
        """Remove PREFIX + name."""
        await self._commit([("DEL", self._prefix + name)])

    async def close(self) -> None:
        if self._returning:
            late = (await asyncio.wait(self._returning, timeout=self._wait + RETURN_WITHIN))[1]
            for task in late:
                task.cancel()
        if self._unread and not self._server.away:
            with contextlib.suppress(TimeoutError, StoreError):
                await asyncio.wait_for(self._return_unread(), RETURN_WITHIN)
        await self._server.forget(self._mark, *self._read)
        await self._server.close()

    async def _return_unread(self) -> None:
        """Move back what a cancelled call has moved."""
        await self._commit([])
        there = await self._server.persist(lambda client: client.llen(self._unread))
        await self._commit([("LMOVE", self._unread, self._unread_of, "RIGHT", "LEFT")] * there)

    async def _commit(self, commands: Sequence[Command]) -> None:
        """Execute these commands once, as one transaction; afterwards no earlier one can be executed."""
        async with self._committing:
            self._number += 1
            await self._server.persist(partial(self._try, self._number, commands))
            self._confirmed = self._number

    async def _try(self, number: int, commands: Sequence[Command], client: Client) -> None:
        async with client.pipeline(transaction=True) as pipe:
            await pipe.watch(self._mark)
            found = int(await pipe.get(self._mark) or 0)
            if found >= number:
                return
            if found < self._confirmed:
                self._server.say(FORGOTTEN)
                self._confirmed = found
            pipe.multi()
            pipe.set(self._mark, number)
            for command in commands:
                pipe.execute_command(*command)
            await pipe.execute()


async def _pop(name: bytes, wait: float, client: Client) -> bytes | None:
    """The oldest value of the list, removed; None if none arrives in `wait` seconds."""
    if not wait:
        value: bytes | None = await client.lpop(name)
        return value
    found = await client.blpop([name], round(wait, 3))
    return None if found is None else found[1]


async def _look(name: bytes, wait: float, client: Client) -> bytes | None:
    """The oldest value of the list, which stays there; None if none arrives in `wait` seconds."""
    ends = ("LEFT", "LEFT")
    looking = client.blmove(name, name, round(wait, 3), *ends) if wait else client.lmove(name, name, *ends)
    value: bytes | None = await looking
    return value


OWNER = b".driver"
OWNED_FOR = 60
"""Seconds that a lease lasts after its last renewal."""
RENEW = 20.0
"""Seconds between two renewals."""
MOST_PREFIXES = 1000


class PrefixLease:
    """The lease of a prefix, with its store."""

    def __init__(self, store: ExternalStore, prefix: str) -> None:
        self.store = store
        self.prefix = prefix
        self._word = secrets.token_hex(8).encode()

    async def acquire(self) -> bool:
        """False if another run has it."""
        return await self.store.claim(OWNER, self._word, OWNED_FOR)

    async def renew(self) -> None:
        """Extend it; if a driver that we replace has it, it becomes ours."""
        await self.store.claim(OWNER, self._word, OWNED_FOR, renew=True)

    async def release(self) -> None:
        """Let another run have it."""
        await self.store.remove(OWNER)


async def find_prefix(server: Server, jobid: str, wanted: str, former: str | None) -> PrefixLease:
    """Lease a prefix for the run `jobid`: `wanted`, if that is not empty, else disbatch:JOBID:, with a number
    if another run has that. `former` is the prefix of a driver that we replace. UsageError if another run has
    the prefix."""
    if former is not None:
        lease = PrefixLease(ExternalStore(server, former.encode("utf-8", "surrogateescape")), former)
        await lease.renew()
        return lease
    if wanted:
        names = [wanted]
    else:
        names = [f"disbatch:{jobid}{'' if n == 1 else f'-{n}'}:" for n in range(1, MOST_PREFIXES)]
    for name in names:
        lease = PrefixLease(ExternalStore(server, name.encode("utf-8", "surrogateescape")), name)
        if await lease.acquire():
            return lease
    raise UsageError(
        f"key store: another run has the prefix {names[0]}, or had until {OWNED_FOR} s ago; "
        "set DISBATCH_KVS_PREFIX to another"
    )
