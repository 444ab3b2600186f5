"""The key store of a run for programs: puts, gets and views of `DisBatch`, carried out on the loop of its
courier."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from disbatch.model.errors import RunEndedError


class Store(Protocol):
    """A key store, as programs use it: `client.keyvalue.Storefront`, or `keystore.redis.ExternalStore`."""

    async def put(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Append each value to its key's queue."""

    async def get(self, key: bytes, timeout: float | None = None) -> bytes:
        """Take the oldest value, when there is one."""

    async def view(self, key: bytes, timeout: float | None = None) -> bytes:
        """The oldest value, when there is one."""


Result = TypeVar("Result")
Deal = Callable[[Store], Coroutine[Any, Any, Result]]
"""Something to do with a key store."""


class Deals:
    """Those that are not done; on `loop`, from when there is a `store`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: set[asyncio.Task[Any]] = set()
        self._over = False
        self.store: Store | None = None

    def begin(self, deal: Deal[Result]) -> Future[Result]:
        """Do this; from any thread. RunEndedError if it is over before."""
        return asyncio.run_coroutine_threadsafe(self._do(deal), self._loop)

    async def _do(self, deal: Deal[Result]) -> Result:
        task = asyncio.current_task()
        assert task is not None and self.store is not None
        if self._over:
            raise RunEndedError("this run is closed")
        self._open.add(task)
        try:
            return await deal(self.store)
        except asyncio.CancelledError:
            if self._over:
                raise RunEndedError("this run is closed") from None
            raise
        finally:
            self._open.discard(task)

    async def end(self) -> None:
        """Nobody gets anything any more."""
        self._over = True
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


class Values(abc.ABC):
    """Under each key a queue of values, oldest first. Keys and values are text, which is put as UTF-8, or
    bytes, and what comes out is bytes.

    UsageError for a key or value that is too long, RunEndedError if the run is over, or ends, DisbatchError
    if the store has no room.
    """

    @abc.abstractmethod
    def _wait_for(self, deal: Deal[Result]) -> Result:
        """Do this."""

    @abc.abstractmethod
    async def _await(self, deal: Deal[Result]) -> Result:
        """Do this, on an asyncio loop."""

    def put(self, key: str | bytes, *values: str | bytes) -> None:
        """Append these values, together at most 1 MiB, to what stands under `key`."""
        self._wait_for(_put(key, values))

    def get(self, key: str | bytes, timeout: float | None = None) -> bytes:
        """Take the oldest value that stands under `key`, when there is one. TimeoutError if none comes within
        `timeout` seconds; 0: if none is there."""
        return self._wait_for(_get(key, timeout))

    def view(self, key: str | bytes, timeout: float | None = None) -> bytes:
        """The oldest value that stands under `key`, which stays there. As `get`."""
        return self._wait_for(_view(key, timeout))

    async def aput(self, key: str | bytes, *values: str | bytes) -> None:
        """As `put`, on an asyncio loop."""
        await self._await(_put(key, values))

    async def aget(self, key: str | bytes, timeout: float | None = None) -> bytes:
        """As `get`, on an asyncio loop. If it is cancelled it has taken nothing."""
        return await self._await(_get(key, timeout))

    async def aview(self, key: str | bytes, timeout: float | None = None) -> bytes:
        """As `view`, on an asyncio loop."""
        return await self._await(_view(key, timeout))


def _put(key: str | bytes, values: Sequence[str | bytes]) -> Deal[None]:
    pairs = [(_bytes(key), _bytes(value)) for value in values]
    if not pairs:
        raise ValueError("put: no value")
    return lambda store: store.put(pairs)


def _get(key: str | bytes, timeout: float | None) -> Deal[bytes]:
    name = _bytes(key)
    return lambda store: _in_time(store.get(name, timeout), key, timeout)


def _view(key: str | bytes, timeout: float | None) -> Deal[bytes]:
    name = _bytes(key)
    return lambda store: _in_time(store.view(name, timeout), key, timeout)


async def _in_time(value: Awaitable[bytes], key: str | bytes, timeout: float | None) -> bytes:
    try:
        return await value
    except TimeoutError:
        within = f" within {timeout:g} s" if timeout else ""
        raise TimeoutError(f"no value under {key!r}{within}") from None


def _bytes(text: str | bytes) -> bytes:
    if not isinstance(text, str | bytes):
        raise TypeError(f"keys and values are text or bytes, not {text!r:.80}")
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
