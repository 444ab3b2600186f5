"""The key store in a Redis-protocol server: lists, blocking pops, exactly-once commands, and a prefix for
each run.

Theory of operation
-------------------
The queue of a key is the list PREFIX + key, oldest value on the left: put is RPUSH, get takes from the left,
like RPUSH and BLPOP of any client.

A connection may break after the server has executed a command and before its answer arrives. Worse, a command
that we gave up may be executed later: the server may read it from its socket late, or a blocking pop of a
closed connection may still find a value. So:

* **Each write is executed once**, by a transaction (`_commit`) that also stores its number under a key of
  this client, its *mark*. Each try watches the mark, and does nothing if the number is there already. If an
  earlier try is executed late, it is either before our own transaction, which then fails and finds the number
  when it is tried again; or after it, and then the earlier one fails, as the mark that it watched has
  changed.
* **A value in transit is always on the server:** BLMOVE moves it to a list of this client and key, *taken*.
  Values are ours when they have been read from there (LRANGE, which may be repeated), and are then removed by
  such a transaction. Values that a lost answer or a late pop has moved there are found by the next read, in
  order.
* **A pop waits** WAIT seconds at most, then another begins; so a pop of a closed connection has no effect
  after that time, and `close` waits for it where there may be one. A value that arrives when no client waits
  for it any longer returns to the left end, where it was.
* **Looking** is BLMOVE from the left end of a list to the same place, which changes nothing.

If this process is killed, values that it had moved but not delivered are in `taken`; no other process takes
them from there. If the server comes back without its data, or with older data, the mark shows it: the loss
cannot be repaired, but it is reported. All this needs only Redis 6.2.

Every key of a run begins with the run's prefix, so that many runs can share one server: no two runs at a time
have the same. A run owns its prefix as long as the key PREFIX.driver holds the random word that its driver
renews; the server expires that key by itself if the driver is killed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from disbatch.keystore.redis_server import Client, Server
from disbatch.keystore.redis_takes import WAIT, Command, Taker, pop
from disbatch.keystore.store import Pair
from disbatch.model.errors import UsageError

log = logging.getLogger(__name__)

GIVE_BACK_WITHIN = 5.0
"""Seconds for what is still to be given back, beyond those that a pop may wait."""
FORGOTTEN = "it came back without its latest data; values that were not taken are lost, or come twice"


class ExternalStore:
    """A `KeyStore` in `server`, whose keys begin with `prefix`; `open` the server first. `wait`: see WAIT."""

    def __init__(self, server: Server, prefix: bytes, wait: float = WAIT) -> None:
        self._server = server
        self._prefix = prefix
        self._wait = wait
        self._name = secrets.token_hex(8).encode()
        self._mark = prefix + b".client:" + self._name
        self._number = 0
        self._confirmed = 0
        self._committing = asyncio.Lock()
        self._takers: dict[bytes, Taker] = {}
        self._background: set[asyncio.Task[None]] = set()

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
        return (await self.take(key, 1, timeout))[0]

    async def take(self, key: bytes, most: int, timeout: float | None = None) -> list[bytes]:
        taker = self._takers.get(key)
        if taker is None:
            pending = b"".join((self._prefix, b".taken:", self._name, b":", key))
            taker = Taker(
                *(self._server, self._prefix + key, pending, self._wait),
                commit=self._commit,
                in_background=self._in_background,
            )
            self._takers[key] = taker
        return await taker.take(most, timeout)

    async def view(self, key: bytes, timeout: float | None = None) -> bytes:
        name = self._prefix + key
        look = partial(pop, name, name, 0.0 if timeout == 0 else self._wait, "LEFT")
        loop = asyncio.get_running_loop()
        due = None if timeout is None else loop.time() + timeout
        async with asyncio.timeout(timeout or None):
            while True:
                value = await self._server.persist(look)
                if value is not None:
                    return value
                # The client library may lose the cancellation by which the timeout ends a command.
                if due is not None and loop.time() >= due:
                    raise TimeoutError

    async def claim(self, name: bytes, value: bytes, seconds: int, *, renew: bool = False) -> bool:
        """Make PREFIX + name ours for so long; False if somebody else has it."""
        key = self._prefix + name

        async def step(client: Client) -> bool:
            if await client.set(key, value, ex=seconds, nx=not renew):
                return True
            return bool(await client.get(key) == value)

        return await self._server.persist(step)

    async def remove(self, name: bytes) -> None:
        """Remove PREFIX + name, whatever it is."""
        await self._commit([("DEL", self._prefix + name)])

    async def close(self) -> None:
        for taker in self._takers.values():
            self._in_background(taker.close())
        while self._background:
            late = (await asyncio.wait(self._background, timeout=self._wait + GIVE_BACK_WITHIN))[1]
            for task in late:
                task.cancel()
        await self._server.forget(self._mark)
        await self._server.close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done_in_background)
        return task

    def _done_in_background(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("key store: %s", task.exception())

    async def _commit(self, commands: Sequence[Command]) -> None:
        """Do these commands once, all at once."""
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
