"""Take values off one list of a server, each of them once; `redis` explains how and why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import valkey.exceptions as wrong

from disbatch.keystore.redis_server import Client, Server
from disbatch.model.errors import StoreError

WAIT = 5.0
"""Seconds that one pop waits at the server."""
SHORTEST_WAIT = 0.01
"""Seconds; for the server, none at all would mean for ever."""
HURRY = 1.0
"""Seconds that a pop has to end when its time is over."""
ON_ITS_WAY = 0.02
"""Seconds that a command may take to get to the server, before we look again."""
FIRST_BATCH = 16
"""Values; how many the next batch may have goes by their size in the last one."""
BATCH = 1 << 20
"""Bytes."""

Command = tuple[bytes | str | int, ...]
Commit = Callable[[Sequence[Command]], Awaitable[None]]


async def pop(source: bytes, target: bytes, wait: float, end: str, client: Client) -> bytes | None:
    """Move the oldest value from `source` to that `end` of `target`; None if none came in `wait` seconds."""
    if wait <= 0:
        moved = await client.lmove(source, target, "LEFT", end)
    else:
        moved = await client.execute_command(
            "BLMOVE", source, target, "LEFT", end, f"{max(wait, SHORTEST_WAIT):.3f}"
        )
    return moved if isinstance(moved, bytes) else None


class Taker:
    """Takes from the list `key`, one call after the other, by way of the list `taken`; a pop waits for
    `wait` seconds.

    `commit` does commands once, `in_background` work that is to be done before the store is closed.
    """

    def __init__(
        self,
        server: Server,
        key: bytes,
        taken: bytes,
        wait: float,
        *,
        commit: Commit,
        in_background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._server = server
        self._key = key
        self._taken = taken
        self._wait = wait
        self._commit = commit
        self._in_background = in_background
        self._turn = asyncio.Lock()
        self._fetch: asyncio.Task[list[bytes]] | None = None
        """Moves values, and reads them."""
        self._removing: asyncio.Future[list[bytes]] | None = None
        """Removes what was read."""
        self._hurried = False
        """It shall not wait at the server any more."""
        self._blocked: int | None = None
        """The connection on which a pop waits, by the server's number."""
        self._undoing: asyncio.Task[None] | None = None
        """Puts back what a call gave up: no other begins before."""
        self._closed = False
        self._unsure = False
        """Values may be in `taken` that nobody has read."""
        self._late = 0.0
        """Until then (the loop's time) a pop that we gave up may find a value."""
        self._batch = FIRST_BATCH

    async def take(self, most: int, timeout: float | None) -> list[bytes]:
        """As `KeyStore.take`."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        async with asyncio.timeout_at(end):
            await self._turn.acquire()
        try:
            if timeout == 0:
                end = None
            await self._undone(end)
            return await self._taken_by_now(most, end, once=timeout == 0)
        except asyncio.CancelledError:
            if self._undoing is None and (self._fetch is not None or self._removing is not None):
                self._undoing = self._in_background(self._undo())
            raise
        except Exception:
            self._removing = None
            raise
        finally:
            self._turn.release()

    async def _undone(self, end: float | None) -> None:
        """What another call gave up comes first; it is back soon, if the server is there."""
        if self._undoing is not None:
            soon = 2 * HURRY
            left = None if end is None else max(end - asyncio.get_running_loop().time(), soon)
            if not (await asyncio.wait([self._undoing], timeout=left))[0]:
                raise TimeoutError
            self._undoing = None

    async def _taken_by_now(self, most: int, end: float | None, *, once: bool) -> list[bytes]:
        while True:
            if self._closed:
                raise StoreError("the key store is closed")
            values = await self._fetched(most, end, 0.0 if once else self._wait)
            if values:
                self._removing = asyncio.ensure_future(self._remove(values))
                # Cancelled or not, they are removed: then they are the caller's, or are put back.
                await asyncio.shield(self._removing)
                self._removing = None
                return values
            if once or (end is not None and asyncio.get_running_loop().time() >= end):
                raise TimeoutError

    async def _fetched(self, most: int, end: float | None, wait: float) -> list[bytes]:
        """What one pop brought that waits so long, if it did so in time."""
        loop = asyncio.get_running_loop()
        left = wait if end is None else end - loop.time()
        if self._fetch is None:
            self._hurried = False
            step = partial(self._step, most, min(wait, left))
            self._fetch = loop.create_task(self._server.persist(step))
        fetch = self._fetch
        await asyncio.wait([fetch], timeout=None if end is None else max(left, 0))
        if not fetch.done():
            await self._hurry(fetch)
        self._fetch = None
        return [] if fetch.cancelled() else fetch.result()

    async def _step(self, most: int, wait: float, client: Client) -> list[bytes]:
        loop = asyncio.get_running_loop()
        try:
            if self._unsure:
                values = await client.lrange(self._taken, 0, most - 1)
                if values:
                    return self._measured(values)
            async with client.client() as connection:
                if wait > 0:
                    self._blocked = await _number_of(connection)
                wait = 0.0 if self._hurried else wait
                moved = await pop(self._key, self._taken, wait, "RIGHT", connection)
                self._blocked = None
            # Read what is there, even if nothing was moved just now: an earlier pop may have come late.
            async with client.pipeline(transaction=False) as pipe:
                for _ in range(min(most, self._batch) - 1 if moved is not None else 0):
                    pipe.lmove(self._key, self._taken, "LEFT", "RIGHT")
                pipe.lrange(self._taken, 0, most - 1)
                answers = await pipe.execute()
        except BaseException:
            self._blocked, self._unsure, self._late = None, True, loop.time() + self._wait
            raise
        self._unsure = False
        return self._measured(answers[-1])

    def _measured(self, values: list[bytes]) -> list[bytes]:
        if values:
            self._batch = max(1, BATCH * len(values) // (1 + sum(map(len, values))))
        return values

    async def _hurry(self, fetch: asyncio.Task[list[bytes]]) -> None:
        """Let the pop end: it may bring something in the last moment. One that does not end is given up."""
        self._hurried = True
        unblocking = asyncio.ensure_future(self._unblock(fetch))
        await asyncio.wait([fetch], timeout=0 if self._server.away else HURRY)
        unblocking.cancel()
        if not fetch.done():
            fetch.cancel()
        either: list[asyncio.Future[Any]] = [fetch, unblocking]
        await asyncio.wait(either)

    async def _unblock(self, fetch: asyncio.Task[list[bytes]]) -> None:
        while self._blocked is not None and await self._server.unblock(self._blocked) is False:
            # It is on its way to the server, or back.
            await asyncio.wait([fetch], timeout=ON_ITS_WAY)

    async def _remove(self, values: list[bytes]) -> list[bytes]:
        await self._commit([("LTRIM", self._taken, len(values), -1)])
        return values

    async def _undo(self) -> None:
        """Whoever took does not want it any more."""
        try:
            if self._removing is not None:
                values = await self._removing
                await self._commit([("LPUSH", self._key, *reversed(values))])
            await self._give_back()
        finally:
            self._removing = None

    async def _give_back(self) -> None:
        """Put back what was moved, and was not read."""
        if self._fetch is not None:
            await self._hurry(self._fetch)
            self._fetch = None
            await self._return_all()

    async def _return_all(self) -> None:
        async def step(client: Client) -> int:
            return int(await client.llen(self._taken))

        there = await self._server.persist(step)
        if there:
            await self._commit([("LMOVE", self._taken, self._key, "RIGHT", "LEFT")] * there)

    async def close(self) -> None:
        """Nobody will take any more: who waits is told so, and nothing is left in `taken`."""
        self._closed = True
        if self._fetch is not None:
            await self._hurry(self._fetch)
        async with self._turn:
            if self._undoing is not None:
                await asyncio.wait([self._undoing])
            if self._unsure:
                await self._return_all()
        left = self._late - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)  # the server's time, of which nothing else tells
            await self._return_all()


async def _number_of(connection: Client) -> int | None:
    try:
        return int(await connection.client_id())
    except wrong.ResponseError:  # its user may not ask
        return None
