"""The key store of a run for programs: puts, gets and views of `DisBatch`, carried out on the loop of its
courier."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from disbatch.keystore.store import KeyValues
from disbatch.model.errors import RunEndedError

Result = TypeVar("Result")
Operation = Callable[[KeyValues], Coroutine[Any, Any, Result]]
"""Something to do with a key store."""


class PendingOperations:
    """Operations that have not ended, on `loop`; `store` must be set before the first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pending: set[asyncio.Task[Any]] = set()
        self._over = False
        self.store: KeyValues | None = None

    def begin(self, operation: Operation[Result]) -> Future[Result]:
        """Carry it out; from any thread. RunEndedError if the run is over, or ends before."""
        return asyncio.run_coroutine_threadsafe(self._carry_out(operation), self._loop)

    async def _carry_out(self, operation: Operation[Result]) -> Result:
        task = asyncio.current_task()
        assert task is not None and self.store is not None
        if self._over:
            raise RunEndedError("this run is closed")
        self._pending.add(task)
        try:
            return await operation(self.store)
        except asyncio.CancelledError:
            if self._over:
                raise RunEndedError("this run is closed") from None
            raise
        finally:
            self._pending.discard(task)

    async def end(self) -> None:
        """End all of them with RunEndedError."""
        self._over = True
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)


class Values(abc.ABC):
    """Under each key a queue of values, oldest first. Keys and values are text, which is put as UTF-8, or
    bytes, and what comes out is bytes.

    UsageError for a key or value that is too long, RunEndedError if the run is over, or ends, DisbatchError
    if the store has no room.
    """

    @abc.abstractmethod
    def _wait_for(self, operation: Operation[Result]) -> Result:
        """Carry it out, and wait for its result."""

    @abc.abstractmethod
    async def _await(self, operation: Operation[Result]) -> Result:
        """As `_wait_for`, on an asyncio loop."""

    def put(self, key: str | bytes, *values: str | bytes) -> None:
        """Append these values, together at most 1 MiB, to the queue of `key`."""
        self._wait_for(_put(key, values))

    def get(self, key: str | bytes, timeout: float | None = None) -> bytes:
        """Take the oldest value of `key`, once there is one. TimeoutError if none arrives in `timeout`
        seconds; 0: if there is none now."""
        return self._wait_for(_get(key, timeout))

    def view(self, key: str | bytes, timeout: float | None = None) -> bytes:
        """The oldest value of `key`, which stays in the queue. As `get`."""
        return self._wait_for(_view(key, timeout))

    async def aput(self, key: str | bytes, *values: str | bytes) -> None:
        """As `put`, on an asyncio loop."""
        await self._await(_put(key, values))

    async def aget(self, key: str | bytes, timeout: float | None = None) -> bytes:
        """As `get`, on an asyncio loop. If it is cancelled, it takes nothing."""
        return await self._await(_get(key, timeout))

    async def aview(self, key: str | bytes, timeout: float | None = None) -> bytes:
        """As `view`, on an asyncio loop."""
        return await self._await(_view(key, timeout))


def _put(key: str | bytes, values: Sequence[str | bytes]) -> Operation[None]:
    pairs = [(_bytes(key), _bytes(value)) for value in values]
    if not pairs:
        raise ValueError("put: no value")
    return lambda store: store.put(pairs)


def _get(key: str | bytes, timeout: float | None) -> Operation[bytes]:
    name = _bytes(key)
    return lambda store: _in_time(store.get(name, timeout), key, timeout)


def _view(key: str | bytes, timeout: float | None) -> Operation[bytes]:
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
