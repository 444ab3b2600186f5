"""keystore/service.py and client/keyvalue.py: each put once, each value to one who lives."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from clock_loop import run

from disbatch.client.keyvalue import NEW_STORE, KeyValueClient
from disbatch.keystore.embedded import EmbeddedStore
from disbatch.keystore.service import KeyStoreService
from disbatch.model.errors import RunEndedError, StoreError, UsageError
from disbatch.wire.client_protocol import Answer, Request, Verb
from disbatch.wire.client_socket import request_for
from disbatch.wire.keystore_protocol import (
    MAX_GIVEN,
    MAX_KEY,
    MAX_PUT,
    OVER,
    Forgo,
    Get,
    Given,
    Keep,
    Kept,
    Put,
)

HOLD = 0.02
LEASE = 0.2
ME, YOU = "channel-of-mine-1", "channel-of-yours-2"


class Bench:
    """A storekeeper and what it answered, by request."""

    def __init__(self, hold: float = HOLD, lease: float = LEASE) -> None:
        self.loop = asyncio.get_running_loop()
        self.hold, self.lease = hold, lease
        self.answers: dict[str, asyncio.Future[Answer]] = {}
        self.said: list[str] = []
        self.begin()

    def begin(self) -> None:
        """A driver."""
        self.store = EmbeddedStore()
        self.keeper = KeyStoreService(self.loop, self.answered, hold=self.hold, lease=self.lease)
        self.keeper.open(self.store, f"store {id(self.store)}")

    def answered(self, request: Request, answer: Answer) -> None:
        assert answer.id == request.id
        self.answers[request.id].set_result(answer)

    def send(self, request: Request) -> asyncio.Future[Answer]:
        """As it arrives."""
        future = self.answers[request.id] = self.loop.create_future()
        answer = self.keeper.request(request)
        if answer is not None:
            future.set_result(answer)
        return future

    async def ask(self, verb: Verb) -> Answer:
        return await self.send(request_for(verb))

    def program(self) -> KeyValueClient:
        return KeyValueClient(self.ask, notify_user=self.said.append, hold=self.hold)

    async def get(self, number: int, key: bytes = b"k", channel: str = ME, seconds: float = 9) -> Given:
        answer = await self.ask(Get(channel, number, key, True, seconds, False))
        assert isinstance(answer.value, Given)
        return answer.value

    async def keep(self, number: int, serial: int, channel: str = ME) -> bool:
        answer = await self.ask(Keep(channel, number, serial))
        assert isinstance(answer.value, Kept)
        return answer.value.ours


def played(test: Callable[[Bench], Awaitable[Any]], **settings: float) -> None:
    async def play() -> None:
        await test(Bench(**settings))

    run(play())


# ---- both ends ----


def test_values_come_out_in_order_and_looking_changes_nothing() -> None:
    async def test(bench: Bench) -> None:
        program = bench.program()
        await program.put([(b"k", b"1"), (b"k", b"\0\xff"), (b"other", b"")])
        assert await program.view(b"k", 0) == b"1"
        assert [await program.get(b"k", 0), await program.get(b"k")] == [b"1", b"\0\xff"]
        assert await program.get(b"other", 5) == b""
        for timeout in (0, HOLD / 2, HOLD * 3):
            with pytest.raises(TimeoutError):
                await program.get(b"k", timeout)
            with pytest.raises(TimeoutError):
                await program.view(b"k", timeout)
        assert (len(bench.store), bench.store.held) == (0, 0)

    played(test)


def test_those_who_wait_long_keep_their_place() -> None:
    async def test(bench: Bench) -> None:
        program = bench.program()
        waiting = [asyncio.ensure_future(program.get(b"k")) for _ in range(3)]
        looking = asyncio.ensure_future(program.view(b"k"))
        await asyncio.wait([*waiting, looking], timeout=LEASE * 2)
        await program.put([(b"k", b"%d" % number) for number in range(4)])
        assert await asyncio.gather(*waiting) == [b"0", b"1", b"2"]
        assert await looking == b"3"
        assert await program.get(b"k") == b"3"

    played(test)


def test_one_who_is_cancelled_takes_nothing() -> None:
    async def test(bench: Bench) -> None:
        program = bench.program()
        for turns in range(12):  # each at another step of its way
            waiting = asyncio.ensure_future(program.get(b"k"))
            putting = asyncio.ensure_future(program.put([(b"k", b"1"), (b"k", b"2")]))
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting, putting])
            taken = [] if waiting.cancelled() else [waiting.result()]
            while len(taken) < 2:
                taken.append(await program.get(b"k", 5))
            assert taken == [b"1", b"2"], turns

    played(test, lease=9.0)


def test_what_is_refused() -> None:
    async def test(bench: Bench) -> None:
        program = bench.program()
        for call, words in (
            (program.put([(b"", b"1")]), "empty"),
            (program.get(b"x" * (MAX_KEY + 1)), "1,025 bytes"),
            (program.put([(b"k", b"x" * (MAX_PUT + 1))]), "1,048,577 bytes: at most 1,048,576"),
            (program.put([(b"k", b"x" * MAX_PUT)] * 2), "values of 2,097,152 bytes together"),
            (program.put([(b"k", b"")] * 4097), "4,097 values"),
        ):
            with pytest.raises(UsageError, match=words):
                await call
        await bench.store.put([(b"k", b"x" * (MAX_GIVEN + 1)), (b"k", b"2")])
        with pytest.raises(StoreError, match="15,728,641 bytes, more than"):
            await program.get(b"k")
        assert len(await bench.store.get(b"k")) == MAX_GIVEN + 1  # it is where it was

    played(test)


def test_a_full_store_says_so() -> None:
    async def test(bench: Bench) -> None:
        bench.store.limits = type(bench.store.limits)(total=1000)
        program = bench.program()
        await program.put([(b"k", b"x" * 500)])
        with pytest.raises(StoreError, match="the key store is full"):
            await program.put([(b"k", b"x" * 500)])

    played(test)


def test_the_end_of_the_run() -> None:
    async def test(bench: Bench) -> None:
        program = bench.program()
        waiting = asyncio.ensure_future(program.get(b"k"))
        await asyncio.sleep(0)
        await bench.keeper.close()
        for call in (waiting, program.put([(b"k", b"1")])):
            with pytest.raises(RunEndedError, match=OVER):
                await call

    played(test)


def test_another_driver_has_an_empty_store_and_says_so() -> None:
    async def test(bench: Bench) -> None:
        program = bench.program()
        waiting = asyncio.ensure_future(program.get(b"k"))
        await asyncio.wait([waiting], timeout=HOLD * 3)
        bench.begin()
        await asyncio.wait([waiting], timeout=HOLD * 5)
        await program.put([(b"k", b"1")])
        assert await waiting == b"1"
        assert bench.said == [NEW_STORE]

    played(test)


# ---- one request after the other ----


def test_what_comes_before_the_store_is_there_waits_for_it() -> None:
    async def test(bench: Bench) -> None:
        bench.keeper = KeyStoreService(bench.loop, bench.answered)
        putting, getting = bench.ask(Put(ME, 1, [(b"k", b"1")])), bench.get(1, channel=YOU)
        both = [asyncio.ensure_future(each) for each in (putting, getting)]
        await asyncio.sleep(0)
        bench.keeper.open(bench.store, "")
        assert (await both[1]).value == b"1"

    played(test)


def test_a_put_that_comes_again_is_done_once() -> None:
    async def test(bench: Bench) -> None:
        for _ in range(3):
            assert (await bench.ask(Put(ME, 1, [(b"k", b"1")]))).ok
        assert (await bench.ask(Put(ME, 2, [(b"k", b"2")]))).ok
        assert not (await bench.ask(Put(ME, 1, [(b"k", b"1")]))).ok
        assert await bench.store.take(b"k", 9) == [b"1", b"2"]

    played(test)


def test_an_operation_is_forgotten_when_the_next_one_begins() -> None:
    """A program that gets a thousand values a second does not keep those of the last seconds here."""

    async def test(bench: Bench) -> None:
        before = len(_operations())
        for number in range(1, 50):
            await bench.store.put([(b"k", b"x" * 1000)])
            given = await bench.get(number)
            await bench.ask(Keep(ME, number, given.serial))
        assert len(_operations()) - before <= 2

    played(test)


def _operations() -> list[object]:
    gc.collect()
    return [each for each in gc.get_objects() if type(each).__name__ == "_Operation"]


def test_one_who_dies_with_a_value_on_its_way_has_consumed_nothing() -> None:
    async def test(bench: Bench) -> None:
        await bench.store.put([(b"k", b"1"), (b"k", b"2")])
        dead = await bench.get(1)
        assert dead.value == b"1"
        again = await bench.get(1)  # its answer was lost
        assert again == dead
        assert (await bench.get(1, channel=YOU)).value == b"2"
        # It goes back, and comes before what is put later.
        await bench.store.put([(b"k", b"3")])
        third = await bench.get(1, channel="a third channel, too")
        assert third.value == b"3"
        assert await bench.keep(1, third.serial, channel="a third channel, too")
        assert sorted([await bench.store.get(b"k", 9), await bench.store.get(b"k", 9)]) == [b"1", b"2"]
        assert not await bench.keep(1, dead.serial)

    played(test)


def test_one_who_dies_while_it_waits_takes_nothing() -> None:
    async def test(bench: Bench) -> None:
        assert (await bench.get(1, seconds=HOLD)).value is None  # and is not heard again
        await asyncio.wait([asyncio.ensure_future(bench.get(1, channel=YOU))], timeout=LEASE * 2)
        await bench.store.put([(b"k", b"1")])
        assert await bench.store.get(b"k", 1) == b"1"

    played(test)


def test_what_came_too_late_is_not_used_and_what_comes_then_is_another() -> None:
    async def test(bench: Bench) -> None:
        await bench.store.put([(b"k", b"1"), (b"k", b"2")])
        late = await bench.get(1)
        taken = await bench.store.get(b"k")  # 2
        back = await bench.store.get(b"k", 9)  # 1, when its time is over
        assert (late.value, taken, back) == (b"1", b"2", b"1")
        await bench.store.put([(b"k", b"3")])
        # An old copy of its request, which has the same number, begins anew; the word that 1 arrived is not
        # about 3.
        assert (await bench.get(1)).value == b"3"
        assert not await bench.keep(1, late.serial)

    played(test)


def test_what_is_kept_is_kept_however_often_it_is_said() -> None:
    async def test(bench: Bench) -> None:
        await bench.store.put([(b"k", b"1")])
        given = await bench.get(1)
        assert bench.keeper.holds(b"k")
        assert [await bench.keep(1, given.serial) for _ in range(2)] == [True, True]
        assert not bench.keeper.holds(b"k")
        await bench.ask(Forgo(ME, 1))
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=LEASE * 2)
        assert await bench.keep(1, given.serial)
        assert bench.store.held == 0

    played(test)


def test_whoever_goes_on_to_the_next_has_left_the_last() -> None:
    async def test(bench: Bench) -> None:
        await bench.store.put([(b"k", b"1")])
        given = await bench.get(1)
        assert (await bench.get(2, key=b"other", seconds=HOLD)).value is None
        assert await bench.store.get(b"k", 0.1) == b"1"
        assert not await bench.keep(1, given.serial)

    played(test, lease=9.0)


def test_each_request_is_answered_when_another_one_takes_its_place() -> None:
    async def test(bench: Bench) -> None:
        first = bench.send(request_for(Get(ME, 1, b"k", True, 9, False)))
        second = bench.send(request_for(Get(ME, 1, b"k", True, 9, False)))
        assert (await first).value == Given(None, 1, f"store {id(bench.store)}")
        await bench.store.put([(b"k", b"1")])
        answer = await second
        assert isinstance(answer.value, Given) and answer.value.value == b"1"

    played(test, hold=9.0)


# ---- whatever is lost ----


class Dead(BaseException):
    """This program is no more."""


class BadLink:
    """A way to the storekeeper on which messages are lost, doubled and late; what is not answered is sent
    again. At some point the program at its end may die."""

    def __init__(self, bench: Bench, dice: random.Random, lives: float) -> None:
        self.bench = bench
        self.dice = dice
        self.lives = lives
        self.copies: set[asyncio.Task[Answer]] = set()

    async def ask(self, verb: Verb) -> Answer:
        request = request_for(verb)
        while True:
            self.lives -= 1
            if self.lives < 0:
                raise Dead
            if self.dice.random() < 0.7:
                arrived = self.bench.send(request)
                if self.dice.random() < 0.2:
                    self.copy_later(request)
                if self.dice.random() < 0.7:
                    await asyncio.wait([arrived], timeout=HOLD * 2)
                    if arrived.done():
                        return arrived.result()
            await asyncio.sleep(self.dice.random() * HOLD / 4)

    def copy_later(self, request: Request) -> None:
        async def later() -> Answer:
            await asyncio.sleep(self.dice.random() * HOLD)
            return await self.bench.send(request)

        task = asyncio.ensure_future(later())
        self.copies.add(task)


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost_or_doubled_on_a_bad_link(seed: int) -> None:
    count, dice = 60, random.Random(seed)

    async def test(bench: Bench) -> None:
        got: list[bytes] = []
        deaths = 0

        async def consume() -> None:
            nonlocal deaths
            while True:
                link = BadLink(bench, dice, dice.choice([3, 10, 1000]))
                program = KeyValueClient(link.ask, notify_user=bench.said.append, hold=HOLD)
                try:
                    while True:
                        value = await program.get(b"k")
                        if value == b"end":
                            return
                        got.append(value)
                except Dead:
                    deaths += 1

        consumers = [asyncio.ensure_future(consume()) for _ in range(3)]
        producer = KeyValueClient(BadLink(bench, dice, 1e9).ask, notify_user=bench.said.append, hold=HOLD)
        for number in range(count):
            await producer.put([(b"k", b"%d" % number)])
        while bench.store.held or bench.keeper.holds(b"k"):
            await asyncio.sleep(HOLD)
        for _ in consumers:
            await asyncio.wait(consumers, timeout=HOLD)
            await bench.store.put([(b"k", b"end")] * 20)
        await asyncio.gather(*consumers)
        # Who dies between the driver's yes and his own use dies with his value: that is what may be missing.
        assert len(got) == len(set(got))
        assert count - deaths <= len(got) <= count

    played(test)
