"""The key store in a Redis-protocol server, and the prefix of a run's keys there.

The key store in a Redis-protocol server: lists, blocking pops, and everything done once.

Theory of operation
-------------------
A key's queue is the list PREFIX + key, oldest value on the left: put is RPUSH, get takes from the left, as
RPUSH and BLPOP of a plain client do.

A connection may break after the server has done a command and before its answer came. Worse, a command that
we gave up may be done later still, as the server reads what lay in its socket, or when a pop that blocks for
a connection which nobody reads any more finds a value. So:

* **What we write is done once** by a transaction (`_commit`) that also writes its number under a key of this
  client's, its *mark*. Each try watches the mark, and does nothing if the number stands there already. If an
  earlier try is done late, then either before our own transaction, which then fails and finds the number when
  it is tried again; or after it, and then the earlier one fails, as the mark that it watched has changed.
* **What we take is never on its way alone:** BLMOVE moves it, on the server, to a list of this client and
  this key's, *taken*. Values are ours when they were read from there (LRANGE, which may be repeated), and
  are then removed by such a transaction. What a lost answer or a late pop has moved there is found by the
  next reading, in order.
* **A pop waits** WAIT seconds at most, then another begins; so a pop for a connection that is gone can do no
  more after that time, and `close` waits for it where one may be left. A value that came when nobody waited
  for it any more goes back to the left end, where it was.
* **Looking** is BLMOVE from the left end of a list to the same place, which changes nothing.

If this process is killed, what it had moved and not handed on is in `taken`; nobody else takes it from there.
If the server comes back without its data, or with older data, the mark tells: nobody can mend that, but it is
said. All this needs no more than Redis 6.2.

What the keys of one run begin with, so that many runs share one server: no two at a time the same.

The prefix is a run's as long as PREFIX.driver says so: a random word that its driver renews, and which the
server forgets by itself if that is killed.
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
FORGOTTEN = "it came back without what was put there last; what nobody had taken is lost, or comes twice"


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
"""Seconds after the last renewal."""
RENEW = 20.0
"""Seconds between two."""
MOST_PREFIXES = 1000


class Lease:
    """A store whose prefix is ours."""

    def __init__(self, store: ExternalStore, prefix: str) -> None:
        self.store = store
        self.prefix = prefix
        self._word = secrets.token_hex(8).encode()

    async def take(self, *, by_force: bool = False) -> bool:
        """True if nobody else had it, or `by_force`."""
        return await self.store.claim(OWNER, self._word, OWNED_FOR, renew=by_force)

    async def renew(self) -> None:
        """We are still here."""
        await self.store.claim(OWNER, self._word, OWNED_FOR, renew=True)

    async def end(self) -> None:
        """Another run may have it."""
        await self.store.remove(OWNER)


async def find_prefix(server: Server, jobid: str, wanted: str, former: str | None) -> Lease:
    """A prefix for the run `jobid`: `wanted`, if that is not empty, else disbatch:JOBID:, with a number if
    need be. `former` is what a driver had that we replace. UsageError if it is another run's."""
    if former is not None:
        lease = Lease(ExternalStore(server, former.encode("utf-8", "surrogateescape")), former)
        await lease.take(by_force=True)
        return lease
    if wanted:
        names = [wanted]
    else:
        names = [f"disbatch:{jobid}{'' if n == 1 else f'-{n}'}:" for n in range(1, MOST_PREFIXES)]
    for name in names:
        lease = Lease(ExternalStore(server, name.encode("utf-8", "surrogateescape")), name)
        if await lease.take():
            return lease
    raise UsageError(
        f"key store: another run has the prefix {names[0]}, or had until {OWNED_FOR} s ago; "
        "set DISBATCH_KVS_PREFIX to another"
    )
