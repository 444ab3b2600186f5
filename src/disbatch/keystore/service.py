"""The key-store service: carry out the puts, gets and views of remote programs, each of them once.

`wire.keystore_protocol` describes the protocol. Each channel has one operation, the latest that its program
requested. An operation is settled when it is done and, if it took a value, the program has confirmed the
arrival. It is abandoned when its program gives it up, begins the next one, or is considered dead; then the
value that it took goes back.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from disbatch.keystore.store import KeyStore
from disbatch.model.errors import DisbatchError
from disbatch.wire.client_protocol import Answer, Request
from disbatch.wire.keystore_protocol import (
    HOLD,
    LEASE,
    MAX_GIVEN,
    OVER,
    Get,
    Given,
    Keep,
    Kept,
    OfPrograms,
    Put,
)
from disbatch.wire.longpoll import LongPoll

log = logging.getLogger(__name__)

REMEMBERED = 600.0
"""Seconds for which a silent channel is remembered: no program asks again after that."""
MOST_CHANNELS = 20_000
"""Beyond these, silent channels are forgotten earlier; if none is silent, no new one is served."""
RETURN_WITHIN = 2.0
"""Seconds that the end of the run waits for values to be returned."""


class _Operation:
    """What the program of a channel requested last: `work` carries it out, now or when there is a value."""

    def __init__(self, verb: Put | Get, serial: int, work: asyncio.Task[bytes | None]) -> None:
        self.number = verb.number
        self.serial = serial
        self.key = verb.key if isinstance(verb, Get) else b""
        self.takes = isinstance(verb, Get) and verb.takes
        self.immediate = _is_immediate(verb)
        self.work = work
        self.value: bytes | None = None
        """The value that the work took, until the program owns it or it is returned."""
        self.confirmed = False
        """The value is the program's own."""
        self.abandoned = False
        self.heard = 0.0
        """When the program sent its last message (the loop's time)."""
        self.lease: asyncio.TimerHandle | None = None

    @property
    def has_value(self) -> bool:
        """True if it holds a value that its program does not own yet."""
        work = self.work
        pending = self.takes and not (self.confirmed or self.abandoned)
        return pending and work.done() and not work.cancelled() and work.exception() is None

    @property
    def settled(self) -> bool:
        """True if it can have no further outcome."""
        return self.abandoned or self.confirmed or (self.work.done() and self.value is None)


def _is_immediate(verb: Put | Get) -> bool:
    return isinstance(verb, Get) and verb.last and not verb.seconds


class _Waiting(NamedTuple):
    """A request that waits for the outcome of its operation. `last`: the program will not ask again."""

    operation: _Operation
    request: Request
    last: bool


class KeyStoreService:
    """`request` answers a request, or returns None: then the answer comes later, through `answer`. Requests
    wait until `open`. Seconds to `hold` a request and of a `lease` as in `wire.keystore_protocol`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: Callable[[Request, Answer], None],
        *,
        hold: float = HOLD,
        lease: float = LEASE,
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._hold = hold
        self._waiting: LongPoll[_Waiting] = LongPoll(loop, self._nothing_yet)
        self._lease = lease
        self._store: KeyStore | None = None
        self._name = ""
        self._serial = 0
        self._early: list[Request] = []
        self._channels: OrderedDict[str, _Operation] = OrderedDict()
        """The operation of each channel; least recently heard first."""
        self._returns: set[asyncio.Task[None]] = set()
        self._over = False
        self.requested: Callable[[], None] = lambda: None
        """Called when a program requests something."""

    # ---- life ----

    def open(self, store: KeyStore, name: str) -> None:
        """Serve this store. `name` identifies it: another one if values that a former driver held are not in
        it."""
        self._store = store
        self._name = name
        early, self._early = self._early, []
        for request in early:
            answer = self.request(request)
            if answer is not None:
                self._answer(request, answer)

    async def close(self) -> None:
        """Refuse all requests; return values whose arrival was not confirmed."""
        self._over = True
        for request in self._early:
            self._answer(request, _refusal(request, OVER))
        for operation in self._channels.values():
            self._abandon(operation, OVER)
        if self._returns:
            await asyncio.wait(self._returns, timeout=RETURN_WITHIN)

    def holds(self, prefix: bytes) -> bool:
        """True if a value of a key with this prefix is on its way to a program."""
        return any(each.has_value and each.key.startswith(prefix) for each in self._channels.values())

    # ---- requests ----

    def request(self, request: Request) -> Answer | None:
        """Carry out a request."""
        verb = request.verb
        assert isinstance(verb, OfPrograms)
        if self._over:
            return _refusal(request, OVER)
        if self._store is None:
            self._early.append(request)
            return None
        self._loop.call_soon(self.requested)
        current = self._channels.get(verb.channel)
        if isinstance(verb, Put | Get):
            return self._begin_or_continue(self._store, request, verb, current)
        if current is not None:
            self._hear(verb.channel, current)
        operation = current if current is not None and current.number == verb.number else None
        if isinstance(verb, Keep):
            ours = operation is not None and operation.serial == verb.serial and _confirm(operation)
            return Answer(request.id, True, [], Kept(ours))
        if operation is not None:
            self._abandon(operation)
        return Answer(request.id, True, [])

    def _begin_or_continue(
        self, store: KeyStore, request: Request, verb: Put | Get, current: _Operation | None
    ) -> Answer | None:
        if current is None and not self._has_room():
            words = f"{len(self._channels):,} programs use the key store already; that is the limit"
            return _refusal(request, words)
        if current is not None and verb.number < current.number:
            return _refusal(request, "an old copy of a request")
        if current is None or verb.number > current.number or current.abandoned:
            if current is not None:
                self._abandon(current)
                if current.lease is not None:
                    current.lease.cancel()  # it would keep the value as long as it lasts
            current = self._channels[verb.channel] = self._begin(store, verb)
        self._hear(verb.channel, current)
        if current.work.done():
            return self._outcome(request, current)
        self._let_wait(current, request, verb)
        return None

    def _has_room(self) -> bool:
        """Forget channels that were silent for long or, if there are many, those with nothing pending."""
        long_ago, now = self._loop.time() - REMEMBERED, self._loop.time() - self._lease
        while self._channels:
            name, oldest = next(iter(self._channels.items()))
            full = len(self._channels) >= MOST_CHANNELS
            if not oldest.settled or oldest.heard > (now if full else long_ago):
                return not full
            del self._channels[name]
        return True

    def _begin(self, store: KeyStore, verb: Put | Get) -> _Operation:
        work: Coroutine[Any, Any, bytes | None]
        if isinstance(verb, Put):
            work = store.offer(verb.pairs)
        else:
            log.debug("a program asks for a value")
            timeout = 0.0 if _is_immediate(verb) else None
            work = store.get(verb.key, timeout) if verb.takes else store.view(verb.key, timeout)
        self._serial += 1
        operation = _Operation(verb, self._serial, self._loop.create_task(work))
        operation.work.add_done_callback(lambda _: self._done(operation))
        return operation

    def _hear(self, channel: str, operation: _Operation) -> None:
        """The program is alive."""
        operation.heard = self._loop.time()
        self._channels.move_to_end(channel)
        if operation.lease is None and not operation.settled:
            operation.lease = self._loop.call_later(self._lease, self._check_lease, operation)

    def _check_lease(self, operation: _Operation) -> None:
        """Consider the program dead if it was silent for as long as a lease."""
        operation.lease = None
        left = operation.heard + self._lease - self._loop.time()
        if operation.settled:
            return
        if left > 0:
            operation.lease = self._loop.call_later(left, self._check_lease, operation)
        else:
            self._abandon(operation)

    # ---- outcomes ----

    def _let_wait(self, operation: _Operation, request: Request, verb: Put | Get) -> None:
        former = self._waiting.take(operation)
        if former is not None and former.request.id != request.id:
            self._answer(former.request, self._given(former.request, operation, None))
        last, seconds = False, math.inf
        if isinstance(verb, Get):
            last = verb.last
            seconds = math.inf if operation.immediate else min(verb.seconds, self._hold)
        self._waiting.wait(operation, _Waiting(operation, request, last), seconds)

    def _nothing_yet(self, waiting: _Waiting) -> None:
        operation, request, last = waiting
        if operation.work.done():  # and `_done` is about to be called
            self._waiting.wait(operation, waiting, math.inf)
            return
        if last:
            self._abandon(operation)
        log.debug("a program is told that there is nothing yet")
        self._answer(request, self._given(request, operation, None))

    def _done(self, operation: _Operation) -> None:
        """Its work has ended."""
        work = operation.work
        error = None if work.cancelled() else work.exception()
        if error is not None and not isinstance(error, DisbatchError | TimeoutError):
            log.error("key store: %r", error, exc_info=error)
        if operation.takes and not work.cancelled() and error is None:
            operation.value = work.result()
            if operation.abandoned:  # it was too late to cancel the work
                self._return(operation)
        waiting = self._waiting.take(operation)
        if waiting is not None:
            self._answer(waiting.request, self._outcome(waiting.request, operation))

    def _outcome(self, request: Request, operation: _Operation) -> Answer:
        """The outcome, which is reported as often as it is asked for."""
        if operation.abandoned or operation.work.cancelled():
            return self._given(request, operation, None)
        error = operation.work.exception()
        if isinstance(error, TimeoutError):
            return self._given(request, operation, None)
        if error is not None:
            return _refusal(request, str(error) or repr(error))
        if not operation.key:
            return Answer(request.id, True, [])
        value = operation.value if operation.takes else operation.work.result()
        if value is not None and len(value) > MAX_GIVEN:
            self._abandon(operation)
            most = f"more than the {MAX_GIVEN >> 20} MiB that can be sent from here"
            return _refusal(request, f"a value of {len(value):,} bytes, {most}")
        return self._given(request, operation, value)

    def _given(self, request: Request, operation: _Operation, value: bytes | None) -> Answer:
        return Answer(request.id, True, [], Given(value, operation.serial, self._name))

    def _abandon(self, operation: _Operation, words: str = "") -> None:
        """End an operation that no program waits for; with `words`, a waiting program is told why. A put is
        carried out all the same."""
        if words and operation.lease is not None:
            operation.lease.cancel()
        waiting = self._waiting.take(operation) if words else None
        if waiting is not None:
            self._answer(waiting.request, _refusal(waiting.request, words))
        if operation.confirmed or operation.abandoned or not operation.key:
            return
        operation.abandoned = True
        operation.work.cancel()
        self._return(operation)

    def _return(self, operation: _Operation) -> None:
        """Put the value that it took back to the head of its queue."""
        value, operation.value = operation.value, None
        if value is None or self._store is None:
            return
        task = self._loop.create_task(self._store.give_back(operation.key, [value]))
        self._returns.add(task)
        task.add_done_callback(self._returned)

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._returns.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.warning("key store: an undelivered value could not be put back: %s", error)


def _refusal(request: Request, words: str) -> Answer:
    return Answer(request.id, False, [words])


def _confirm(operation: _Operation) -> bool:
    """The value is now the program's own, unless it was returned."""
    if operation.value is not None:
        operation.value = None
        operation.confirmed = True
    return operation.confirmed
