"""keystore/embedded.py: who gets which value, and that nobody who goes away consumes one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from disbatch.keystore.embedded import OVERHEAD, EmbeddedStore, Limits
from disbatch.model.errors import StoreError, UsageError

Test = Callable[[EmbeddedStore], Awaitable[None]]


def played(test: Test, limits: Limits | None = None) -> list[str]:
    """Run it on a loop; what the store said of its room."""
    said: list[str] = []

    async def play() -> None:
        store = EmbeddedStore(limits, trouble=said.append, recovered=lambda: said.append("recovered"))
        await test(store)
        assert store.held >= 0

    asyncio.run(play())
    return said


async def turns() -> None:
    """Let everybody go on who can."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_values_come_out_in_order_and_looking_changes_nothing() -> None:
    async def test(store: EmbeddedStore) -> None:
        await store.put([(b"k", b"1"), (b"k", b"2"), (b"other", b"\0\xff")])
        assert await store.view(b"k") == b"1"
        assert [await store.get(b"k"), await store.get(b"k")] == [b"1", b"2"]
        assert await store.get(b"other") == b"\0\xff"
        assert (len(store), store.held) == (0, 0)

    played(test)


def test_a_batch_is_what_there_is() -> None:
    async def test(store: EmbeddedStore) -> None:
        taking = asyncio.ensure_future(store.take(b"k", 10))
        await turns()
        await store.put([(b"k", b"%d" % number) for number in range(5)])
        # The first woke the waiter; it takes the rest when it runs.
        assert await taking == [b"0", b"1", b"2", b"3", b"4"]
        await store.put([(b"k", b"%d" % number) for number in range(5)])
        assert await store.take(b"k", 3) == [b"0", b"1", b"2"]

    played(test)


def test_waiters_are_served_in_their_order() -> None:
    async def test(store: EmbeddedStore) -> None:
        calls = [store.get(b"k"), store.view(b"k"), store.view(b"k"), store.get(b"k"), store.view(b"k")]
        waiting = [asyncio.ensure_future(call) for call in calls]
        await turns()
        await store.put([(b"k", b"1")])
        await turns()
        assert [each.done() for each in waiting] == [True, False, False, False, False]
        await store.put([(b"k", b"2")])
        await turns()
        assert [each.done() for each in waiting] == [True, True, True, True, False]
        await store.put([(b"k", b"3")])
        assert [await each for each in waiting] == [b"1", b"2", b"2", b"2", b"3"]
        assert await store.get(b"k", 0) == b"3"

    played(test)


def test_nothing_is_there_in_time() -> None:
    async def test(store: EmbeddedStore) -> None:
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                await store.get(b"k", timeout)
            with pytest.raises(TimeoutError):
                await store.view(b"k", timeout)
        await store.put([(b"k", b"1")])
        assert await store.get(b"k", 0) == b"1"

    played(test)


def test_one_who_goes_away_consumes_nothing() -> None:
    async def test(store: EmbeddedStore) -> None:
        first, second = asyncio.ensure_future(store.get(b"k")), asyncio.ensure_future(store.get(b"k"))
        await turns()
        first.cancel()
        await turns()
        await store.put([(b"k", b"1")])
        assert await second == b"1"

    played(test)


def test_one_who_goes_away_as_the_value_comes_gives_it_back_to_the_head() -> None:
    async def test(store: EmbeddedStore) -> None:
        waiting = asyncio.ensure_future(store.get(b"k"))
        await turns()
        await store.put([(b"k", b"1"), (b"k", b"2")])
        waiting.cancel()  # it was given the value, and has not run since
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [await store.get(b"k", 0), await store.get(b"k", 0)] == [b"1", b"2"]

    played(test)


def test_what_is_given_back_goes_to_the_next_who_waits() -> None:
    async def test(store: EmbeddedStore) -> None:
        first, second = asyncio.ensure_future(store.get(b"k")), asyncio.ensure_future(store.get(b"k"))
        await turns()
        store.add([(b"k", b"1")])
        first.cancel()
        assert await second == b"1"

    played(test)


def test_what_was_only_looked_at_is_not_given_back() -> None:
    async def test(store: EmbeddedStore) -> None:
        looking = asyncio.ensure_future(store.view(b"k"))
        await turns()
        store.add([(b"k", b"1")])
        looking.cancel()
        await turns()
        assert await store.take(b"k", 9) == [b"1"]

    played(test)


def test_replacing_leaves_one_value() -> None:
    async def test(store: EmbeddedStore) -> None:
        waiting = asyncio.ensure_future(store.view(b"k"))
        await turns()
        await store.replace(b"k", b"1")
        assert await waiting == b"1"
        await store.put([(b"k", b"2")])
        await store.replace(b"k", b"3")
        assert await store.take(b"k", 9) == [b"3"]

    played(test)


def test_what_is_supplied_is_made_when_asked_for() -> None:
    async def test(store: EmbeddedStore) -> None:
        made = iter((b"first", b"second", b"third"))
        store.supply(b"k", lambda: next(made))
        assert [await store.view(b"k"), await store.get(b"k"), await store.view(b"k")] == [
            b"first",
            b"second",
            b"third",
        ]

    played(test)


LIMITS = Limits(key=4, value=10, total=3 * (OVERHEAD + 11), waiters=2)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (b"", b"", "a key cannot be empty"),
        (b"12345", b"", "a key of 5 bytes: it may have 4"),
        (b"k", b"12345678901", "a value of 11 bytes: it may have 10"),
    ],
)
def test_what_is_too_long_is_refused_and_nothing_put(key: bytes, value: bytes, words: str) -> None:
    async def test(store: EmbeddedStore) -> None:
        with pytest.raises(UsageError, match=words):
            await store.put([(b"ok", b"1"), (key, value)])
        with pytest.raises(UsageError, match=words):
            store.add([(b"ok", b"1"), (key, value)])
        assert len(store) == 0

    played(test, LIMITS)


def test_a_full_store_refuses_or_lets_wait() -> None:
    async def test(store: EmbeddedStore) -> None:
        await store.put([(b"k", b"0123456789")] * 3)
        with pytest.raises(StoreError, match="full"):
            store.add([(b"k", b"")])
        putting = asyncio.ensure_future(store.put([(b"k", b"late")]))
        await turns()
        assert not putting.done()
        assert await store.get(b"k") == b"0123456789"
        await putting
        assert len(await store.take(b"k", 9)) == 3
        await store.put([(b"k", b"0123456789")] * 9)  # larger than all: it would never fit

    assert played(test, LIMITS) == ["the key store is full (0 MiB)", "recovered"]


def test_not_everybody_may_wait() -> None:
    async def test(store: EmbeddedStore) -> None:
        waiters = [asyncio.ensure_future(store.get(b"k")) for _ in range(2)]
        await turns()
        with pytest.raises(StoreError, match="2 clients wait"):
            await store.get(b"k")
        waiters[0].cancel()
        await turns()
        third = asyncio.ensure_future(store.get(b"k"))
        await store.put([(b"k", b"1"), (b"k", b"2")])
        assert [await waiters[1], await third] == [b"1", b"2"]

    played(test, LIMITS)


def test_the_end_is_told_to_all_who_wait() -> None:
    async def test(store: EmbeddedStore) -> None:
        waiting = asyncio.ensure_future(store.get(b"k"))
        await turns()
        await store.close()
        with pytest.raises(StoreError, match="the run is over"):
            await waiting

    played(test)


class Histories(RuleBasedStateMachine):
    """Whatever puts, waits and goes away: each value is taken once, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = self.do(self.make())
        self.waiting: list[asyncio.Future[list[bytes]]] = []
        self.put = 0
        self.taken: list[int] = []

    async def make(self) -> EmbeddedStore:
        return EmbeddedStore()

    def do(self, work):  # type: ignore[no-untyped-def]
        return self.loop.run_until_complete(work)

    @rule(count=st.integers(1, 4))
    def puts(self, count: int) -> None:
        values = [(b"k", b"%d" % (self.put + number)) for number in range(count)]
        self.put += count
        self.do(self.store.put(values))

    @rule(most=st.integers(1, 3), timeout=st.sampled_from([None, 0]))
    def waits(self, most: int, timeout: float | None) -> None:
        self.waiting.append(self.loop.create_task(self.store.take(b"k", most, timeout)))

    @rule(data=st.data())
    def goes_away(self, data: st.DataObject) -> None:
        if self.waiting:
            data.draw(st.sampled_from(self.waiting)).cancel()

    @rule()
    def time_passes(self) -> None:
        self.do(turns())
        for waiter in [each for each in self.waiting if each.done()]:
            self.waiting.remove(waiter)
            if not waiter.cancelled() and waiter.exception() is None:
                self.taken += map(int, waiter.result())

    @invariant()
    def each_is_taken_once(self) -> None:
        assert len(set(self.taken)) == len(self.taken)

    def teardown(self) -> None:
        for waiter in self.waiting:
            waiter.cancel()
        self.time_passes()
        rest = []
        try:
            rest = self.do(self.store.take(b"k", 10**6, 0))
        except TimeoutError:
            pass
        assert sorted([*self.taken, *map(int, rest)]) == list(range(self.put))
        assert self.store.held == 0
        self.loop.close()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
