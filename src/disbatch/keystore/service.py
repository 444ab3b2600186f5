"""Serve the run's key store to remote programs: each put is executed once, and each value reaches one living
program.

`wire.client_protocol` describes the protocol. Here each channel has one *deal*, its latest put or wait. A
deal is over when it is done and, if it took a value, the program has confirmed the arrival; or when its
program is considered dead, or has begun its next deal.
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
LAST_PATIENCE = 2.0
"""Seconds that the end of the run waits for values to go back."""


class _Deal:
    """The pending operation of a channel: `work` carries it out, now or when there is a value."""

    def __init__(self, verb: Put | Get, serial: int, work: asyncio.Task[bytes | None]) -> None:
        self.number = verb.number
        self.serial = serial
        self.key = verb.key if isinstance(verb, Get) else b""
        self.takes = isinstance(verb, Get) and verb.takes
        self.now = _is_now(verb)
        self.work = work
        self.value: bytes | None = None
        """The value that the work took, until a program owns it."""
        self.kept = False
        self.gone = False
        """No program waits for it any longer."""

    @property
    def has_value(self) -> bool:
        """True if it holds a value that its program does not own yet."""
        work = self.work
        if self.kept or self.gone or not self.takes:
            return False
        return work.done() and not work.cancelled() and work.exception() is None

    @property
    def settled(self) -> bool:
        """True if it can have no further outcome."""
        return self.gone or self.kept or (self.work.done() and self.value is None)


def _is_now(verb: Put | Get) -> bool:
    return isinstance(verb, Get) and verb.last and not verb.seconds


class _Waiting(NamedTuple):
    """A request that waits for the outcome of its deal. `last`: the program will not ask again."""

    deal: _Deal
    request: Request
    last: bool


class _Channel:
    """A program, as far as it is known: when it was last heard, and its deal."""

    def __init__(self, deal: _Deal) -> None:
        self.deal = deal
        self.heard = 0.0
        self.lease: asyncio.TimerHandle | None = None


class Storekeeper:
    """`request` answers a request, or returns None: then the answer comes later, through `answer`. Requests
    wait until `open`. Seconds to `hold` a request and of a `lease` as in `wire.client_protocol`."""

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
        self._channels: OrderedDict[str, _Channel] = OrderedDict()
        """Least recently heard first."""
        self._returns: set[asyncio.Task[None]] = set()
        self._over = False
        self.stirred: Callable[[], None] = lambda: None
        """Called when a program asks for something."""

    # ---- life ----

    def open(self, store: KeyStore, name: str) -> None:
        """From now on there is a store. `name`: another one if the values that a former driver held are not
        in it."""
        self._store = store
        self._name = name
        early, self._early = self._early, []
        for request in early:
            answer = self.request(request)
            if answer is not None:
                self._answer(request, answer)

    async def close(self) -> None:
        """No program gets anything any more; unclaimed values are requeued."""
        self._over = True
        for request in self._early:
            self._answer(request, _refusal(request, OVER))
        for channel in self._channels.values():
            self._abandon(channel.deal, OVER)
            if channel.lease is not None:
                channel.lease.cancel()
        if self._returns:
            await asyncio.wait(self._returns, timeout=LAST_PATIENCE)

    def holds(self, prefix: bytes) -> bool:
        """True if a value of a key with this prefix is on its way to a program."""
        deals = (channel.deal for channel in self._channels.values())
        return any(deal.has_value and deal.key.startswith(prefix) for deal in deals)

    # ---- requests ----

    def request(self, request: Request) -> Answer | None:
        """Carry it out."""
        verb = request.verb
        assert isinstance(verb, OfPrograms)
        if self._over:
            return _refusal(request, OVER)
        if self._store is None:
            self._early.append(request)
            return None
        self._loop.call_soon(self.stirred)
        channel = self._channels.get(verb.channel)
        if isinstance(verb, Put | Get):
            return self._begin_or_go_on(self._store, request, verb, channel)
        deal = None if channel is None or channel.deal.number != verb.number else channel.deal
        if channel is not None:
            self._hear(verb.channel, channel)
        if isinstance(verb, Keep):
            ours = deal is not None and deal.serial == verb.serial and _keep(deal)
            return Answer(request.id, True, [], Kept(ours))
        if deal is not None:
            self._abandon(deal)
        return Answer(request.id, True, [])

    def _begin_or_go_on(
        self, store: KeyStore, request: Request, verb: Put | Get, channel: _Channel | None
    ) -> Answer | None:
        if channel is None:
            if not self._has_room():
                return _refusal(
                    request, f"{len(self._channels):,} programs use the key store already; that is the limit"
                )
            channel = self._channels[verb.channel] = _Channel(self._begin(store, verb))
        elif verb.number < channel.deal.number:
            return _refusal(request, "an old copy of a request")
        elif verb.number > channel.deal.number or channel.deal.gone:
            self._abandon(channel.deal)
            channel.deal = self._begin(store, verb)
        self._hear(verb.channel, channel)
        deal = channel.deal
        if deal.work.done():
            return self._outcome(request, deal)
        self._let_wait(deal, request, verb)
        return None

    def _has_room(self) -> bool:
        """Forget channels that were silent for long or, if there are many, those with nothing pending."""
        long_ago, now = self._loop.time() - REMEMBERED, self._loop.time() - self._lease
        while self._channels:
            name, oldest = next(iter(self._channels.items()))
            full = len(self._channels) >= MOST_CHANNELS
            if not oldest.deal.settled or oldest.heard > (now if full else long_ago):
                return not full
            del self._channels[name]
        return True

    def _begin(self, store: KeyStore, verb: Put | Get) -> _Deal:
        work: Coroutine[Any, Any, bytes | None]
        if isinstance(verb, Put):
            work = store.offer(verb.pairs)
        else:
            log.debug("a program asks for a value")
            timeout = 0.0 if _is_now(verb) else None
            work = store.get(verb.key, timeout) if verb.takes else store.view(verb.key, timeout)
        self._serial += 1
        deal = _Deal(verb, self._serial, self._loop.create_task(work))
        deal.work.add_done_callback(lambda _: self._done(deal))
        return deal

    def _hear(self, name: str, channel: _Channel) -> None:
        """The program lives."""
        channel.heard = self._loop.time()
        self._channels.move_to_end(name)
        if channel.lease is None and not channel.deal.settled:
            channel.lease = self._loop.call_later(self._lease, self._look_at, channel)

    def _look_at(self, channel: _Channel) -> None:
        """The program may be dead."""
        channel.lease = None
        left = channel.heard + self._lease - self._loop.time()
        if channel.deal.settled:
            return
        if left > 0:
            channel.lease = self._loop.call_later(left, self._look_at, channel)
        elif channel.deal.key:
            self._abandon(channel.deal)

    # ---- deals ----

    def _let_wait(self, deal: _Deal, request: Request, verb: Put | Get) -> None:
        former = self._waiting.take(deal)
        if former is not None and former.request.id != request.id:
            self._answer(former.request, self._given(former.request, deal, None))
        seconds = min(verb.seconds, self._hold) if isinstance(verb, Get) and not deal.now else math.inf
        self._waiting.wait(deal, _Waiting(deal, request, isinstance(verb, Get) and verb.last), seconds)

    def _nothing_yet(self, waiting: _Waiting) -> None:
        deal, request, last = waiting
        if deal.work.done():  # and `_done` is about to be called
            self._waiting.wait(deal, waiting, math.inf)
            return
        if last:
            self._abandon(deal)
        log.debug("a program is told that there is nothing yet")
        self._answer(request, self._given(request, deal, None))

    def _done(self, deal: _Deal) -> None:
        """Its work has ended."""
        work = deal.work
        error = None if work.cancelled() else work.exception()
        if error is not None and not isinstance(error, DisbatchError | TimeoutError):
            log.error("key store: %r", error, exc_info=error)
        if deal.takes and not work.cancelled() and error is None:
            deal.value = work.result()
            if deal.gone:  # it was too late to stop it
                self._give_back(deal)
        waiting = self._waiting.take(deal)
        if waiting is not None:
            self._answer(waiting.request, self._outcome(waiting.request, deal))

    def _outcome(self, request: Request, deal: _Deal) -> Answer:
        """The outcome, which is reported as often as it is asked for."""
        if deal.gone or deal.work.cancelled():
            return self._given(request, deal, None)
        error = deal.work.exception()
        if isinstance(error, TimeoutError):
            return self._given(request, deal, None)
        if error is not None:
            return _refusal(request, str(error) or repr(error))
        if not deal.key:
            return Answer(request.id, True, [])
        value = deal.value if deal.takes else deal.work.result()
        if value is not None and len(value) > MAX_GIVEN:
            self._abandon(deal)
            most = f"more than the {MAX_GIVEN >> 20} MiB that can be sent from here"
            return _refusal(request, f"a value of {len(value):,} bytes, {most}")
        return self._given(request, deal, value)

    def _given(self, request: Request, deal: _Deal, value: bytes | None) -> Answer:
        return Answer(request.id, True, [], Given(value, deal.serial, self._name))

    def _abandon(self, deal: _Deal, words: str = "") -> None:
        """No program waits for this any longer; one that asks nevertheless is told why."""
        waiting = self._waiting.take(deal) if words else None
        if waiting is not None:
            self._answer(waiting.request, _refusal(waiting.request, words))
        if deal.kept or deal.gone or not deal.key:
            return
        deal.gone = True
        deal.work.cancel()
        if deal.value is not None:
            self._give_back(deal)

    def _give_back(self, deal: _Deal) -> None:
        value, deal.value = deal.value, None
        if value is None or self._store is None:
            return
        task = self._loop.create_task(self._store.give_back(deal.key, [value]))
        self._returns.add(task)
        task.add_done_callback(self._returned)

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._returns.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.warning("key store: an undelivered value could not be put back: %s", error)


def _refusal(request: Request, words: str) -> Answer:
    return Answer(request.id, False, [words])


def _keep(deal: _Deal) -> bool:
    """The value is now the program's own, unless it is gone."""
    if deal.value is not None:
        deal.value = None
        deal.kept = True
    return deal.kept
