"""A client of the run's key store: put, get and view, also across takeovers; see `wire.keystore_protocol`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from disbatch.client.run_client import OverError
from disbatch.model.errors import DisbatchError, RunEndedError, SilenceError, StoreError, UsageError
from disbatch.wire.client_protocol import Answer, Verb
from disbatch.wire.keystore_protocol import (
    HOLD,
    MAX_KEY,
    MAX_PUT,
    MOST_PUT,
    OVER,
    Forgo,
    Get,
    Given,
    Keep,
    Kept,
    Put,
)

MARGIN = 5.0
"""Seconds that the driver's answer that there is no value may be late."""
GIVE_UP_WITHIN = 1.0
"""Seconds for the last message of a call that is cancelled."""
NEW_STORE = "another driver has the run now; what the key store of the one before it held is lost"

Expected = TypeVar("Expected", Given, Kept)


class _Channel:
    """Operations one after the other."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(12)
        self.number = 0


class KeyValueClient:
    """The key store of a run, on an asyncio loop. `ask` is that of a `RunClient`, and raises its errors;
    `notify_user` gets a line for the user.

    Keys and values are bytes: UsageError for a key that is empty or longer than MAX_KEY, or for values of
    more than MAX_PUT together. RunEndedError if the run is over, or ends. A cancelled call has done nothing
    or everything.
    """

    def __init__(
        self,
        ask: Callable[[Verb], Awaitable[Answer]],
        *,
        notify_user: Callable[[str], None],
        hold: float = HOLD,
    ) -> None:
        self._ask_driver = ask
        self._notify_user = notify_user
        self._hold = hold
        self._idle: list[_Channel] = []

    async def put(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Append each value to its key's queue, all or none. StoreError if there is no room."""
        _check(pairs)
        channel = self._next_channel()
        try:
            await self._ask(Put(channel.name, channel.number, list(pairs)))
        finally:
            self._idle.append(channel)

    async def get(self, key: bytes, timeout: float | None = None) -> bytes:
        """Take the oldest value, once there is one. TimeoutError if none arrives in `timeout` seconds; 0: if
        there is none now."""
        return await self._wait(key, True, timeout)

    async def view(self, key: bytes, timeout: float | None = None) -> bytes:
        """The oldest value, which stays in the queue. As `get`."""
        return await self._wait(key, False, timeout)

    async def _wait(self, key: bytes, takes: bool, timeout: float | None) -> bytes:
        _check([(key, b"")])
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        channel, store = self._next_channel(), ""
        try:
            while True:
                left = None if deadline is None else max(0.0, deadline - loop.time())
                given = await self._ask_for(channel, key, takes, left)
                if store and given.store != store:
                    self._notify_user(NEW_STORE)
                store = given.store
                if given.value is None:
                    if left is not None and left <= self._hold:
                        raise TimeoutError
                elif not takes or await self._confirm(channel, given):
                    return given.value
        except asyncio.CancelledError:
            with suppress(DisbatchError, TimeoutError):
                async with asyncio.timeout(GIVE_UP_WITHIN):
                    await self._ask(Forgo(channel.name, channel.number))
            raise
        finally:
            self._idle.append(channel)

    async def _ask_for(self, channel: _Channel, key: bytes, takes: bool, left: float | None) -> Given:
        seconds = self._hold if left is None else min(left, self._hold)
        verb = Get(channel.name, channel.number, key, takes, seconds, left is not None and left <= self._hold)
        try:
            async with asyncio.timeout(None if left is None else left + MARGIN):
                return _value(await self._ask(verb), Given)
        except TimeoutError:
            raise SilenceError("the driver is not heard; nothing was taken") from None

    async def _confirm(self, channel: _Channel, given: Given) -> bool:
        """Report that the value has arrived; true if it is ours."""
        keeping = asyncio.ensure_future(self._ask(Keep(channel.name, channel.number, given.serial)))
        try:
            answer = await asyncio.shield(keeping)
        except asyncio.CancelledError:
            # The value may be ours by now: then the caller gets it, so that it is not lost.
            await asyncio.wait([keeping], timeout=GIVE_UP_WITHIN)
            if not keeping.done() or keeping.exception() is not None:
                keeping.cancel()
                raise
            answer = keeping.result()
            if not _value(answer, Kept).ours:
                raise
        return _value(answer, Kept).ours

    def _next_channel(self) -> _Channel:
        channel = self._idle.pop() if self._idle else _Channel()
        channel.number += 1
        return channel

    async def _ask(self, verb: Verb) -> Answer:
        try:
            answer = await self._ask_driver(verb)
        except OverError:
            raise RunEndedError(OVER) from None
        if not answer.ok:
            raise (RunEndedError if answer.lines == [OVER] else StoreError)(" ".join(answer.lines))
        return answer


def _value(answer: Answer, kind: type[Expected]) -> Expected:
    if not isinstance(answer.value, kind):
        raise StoreError("the driver's answer makes no sense")
    return answer.value


def _check(pairs: Sequence[tuple[bytes, bytes]]) -> None:
    for key, _ in pairs:
        if not key:
            raise UsageError("a key cannot be empty")
        if len(key) > MAX_KEY:
            raise UsageError(f"a key of {len(key):,} bytes: it may have {MAX_KEY:,}")
    size = sum(len(value) for _, value in pairs)
    if size > MAX_PUT:
        what = f"a value of {size:,} bytes" if len(pairs) == 1 else f"values of {size:,} bytes together"
        raise UsageError(f"{what}: at most {MAX_PUT:,} can be put at once; put a file's name instead")
    if len(pairs) > MOST_PUT:
        raise UsageError(f"{len(pairs):,} values: at most {MOST_PUT:,} can be put at once")
