"""keystore/redis.py against a real server: whatever breaks, each value is put once, and taken once by the
run's task source; programs take each at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_server import Cable, RedisServer, certificates

from deadline import DEADLINE
from disbatch.keystore.address import parse_address
from disbatch.keystore.redis import ExternalStore
from disbatch.keystore.redis_server import Server
from disbatch.model.errors import StoreError, UsageError

WAIT = 0.5
"""Seconds that a pop waits in these tests."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.kill()


class Store:
    """An open store, and what its server said of itself."""

    def __init__(self, url: str) -> None:
        self.said: list[str] = []
        self._server = Server(
            parse_address(url, "test"),
            trouble=self.said.append,
            recovered=lambda: self.said.append("recovered"),
        )
        self._store = ExternalStore(self._server, b"run:", WAIT)

    async def __aenter__(self) -> ExternalStore:
        await self._server.open()
        return self._store

    async def __aexit__(self, *error: object) -> None:
        await self._store.close()


def play(test) -> None:  # type: ignore[no-untyped-def]
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE):
            await test

    asyncio.run(bounded())


def test_values_come_out_in_order_and_looking_changes_nothing(redis: RedisServer) -> None:
    async def test() -> None:
        async with Store(redis.url) as store:
            await store.put([(b"k", b"1"), (b"k", b"\0\xff"), (b"other", b""), (b"k", b"3")])
            assert await store.view(b"k") == b"1"
            assert await store.get(b"k") == b"1"
            assert await store.take(b"k", 9) == [b"\0\xff", b"3"]
            assert await store.get(b"other") == b""
            await store.replace(b"k", b"4")
            await store.replace(b"k", b"5")
            assert await store.take(b"k", 9) == [b"5"]

    play(test())
    assert redis.names() == set()


def test_nothing_is_there_in_time(redis: RedisServer) -> None:
    async def test() -> None:
        async with Store(redis.url) as store:
            for timeout in (0, 0.05, WAIT + 0.1):
                with pytest.raises(TimeoutError):
                    await store.get(b"k", timeout)
                with pytest.raises(TimeoutError):
                    await store.view(b"k", timeout)
            await store.put([(b"k", b"1")])
            assert await store.get(b"k", 0) == b"1"

    play(test())


def test_all_who_wait_are_served(redis: RedisServer) -> None:
    async def test() -> None:
        async with Store(redis.url) as store:
            waiting = [asyncio.ensure_future(store.get(b"k")) for _ in range(3)]
            looking = asyncio.ensure_future(store.view(b"other"))
            await store.put([(b"k", b"1"), (b"k", b"2"), (b"other", b"x"), (b"k", b"3")])
            assert sorted(await asyncio.gather(*waiting)) == [b"1", b"2", b"3"]
            assert await looking == b"x"

    play(test())


@pytest.mark.parametrize("source", [False, True], ids=["program", "task source"])
def test_a_call_that_is_cancelled_consumes_nothing(redis: RedisServer, source: bool) -> None:
    async def test() -> None:
        async with Store(redis.url) as store:

            async def take() -> list[bytes]:
                return await store.take(b"k", 1) if source else [await store.get(b"k")]

            for number in range(20):  # each at another step of its way
                waiting = asyncio.ensure_future(take())
                putting = asyncio.ensure_future(store.put([(b"k", b"1"), (b"k", b"2")]))
                for _ in range(number):
                    await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting, putting])
                taken = [] if waiting.cancelled() else waiting.result()
                while len(taken) < 2:
                    taken += await take()
                assert (taken if source else sorted(taken)) == [b"1", b"2"], number

    play(test())
    assert redis.names() == set()


def test_a_source_that_stops_waiting_at_any_step_takes_each_value_once(redis: RedisServer) -> None:
    """As it does when its program ends: a transaction may be given up before the server has it."""

    async def test() -> None:
        async with Store(redis.url) as store:
            for steps in range(120):
                former, value = b"a%d" % steps, b"b%d" % steps
                await store.put([(b"k", former)])
                assert await store.take(b"k", 1) == [former]
                await store.put([(b"k", value)])
                taking = asyncio.ensure_future(store.take(b"k", 1))
                for _ in range(steps):
                    await asyncio.sleep(0)
                taking.cancel()
                await asyncio.wait([taking])
                taken = await store.take(b"k", 1, 0) if taking.cancelled() else taking.result()
                assert taken == [value], steps

    play(test())
    assert redis.names() == set()


def test_what_a_source_did_not_read_is_there_for_another(redis: RedisServer) -> None:
    async def test() -> None:
        for steps in range(0, 60, 3):
            async with Store(redis.url) as store:
                taking = asyncio.ensure_future(store.take(b"k", 9))
                for _ in range(steps):
                    await asyncio.sleep(0)
                taking.cancel()
                await asyncio.wait([taking])
            taken = [] if taking.cancelled() else taking.result()
            async with Store(redis.url) as another:
                assert taken or await another.take(b"k", 9, 0) == [b"1", b"2", b"3"], steps
                await another.put([(b"k", value) for value in (b"1", b"2", b"3")])

    redis.do("RPUSH", "run:k", "1", "2", "3")
    play(test())


def test_what_a_cancelled_pop_gets_goes_back_before_the_end(redis: RedisServer) -> None:
    async def test() -> None:
        async with Cable(redis.port) as cable, Store(f"redis://127.0.0.1:{cable.port}") as store:
            sent = asyncio.Event()

            def look(at: int, data: bytes) -> bool:
                if b"BLPOP" in data:
                    sent.set()
                return False

            cable.hold = look
            waiting = asyncio.ensure_future(store.get(b"k"))
            await sent.wait()
            waiting.cancel()
            await asyncio.wait([waiting])
            redis.do("RPUSH", "run:k", "1", "2")

    play(test())
    assert redis.do("LRANGE", "run:k", "0", "-1").split() == ["1", "2"]
    assert redis.names() == {"run:k"}


def test_plain_clients_are_understood(redis: RedisServer) -> None:
    async def test() -> None:
        async with Store(redis.url) as store:
            redis.do("RPUSH", "run:k", "a", "b")
            assert await store.take(b"k", 9) == [b"a", b"b"]
            await store.put([(b"answer", b"c")])
            assert redis.do("BLPOP", "run:answer", "0").split() == ["run:answer", "c"]

    play(test())


async def traffic(store: ExternalStore, first: int) -> list[bytes]:
    """Some of everything; what was taken."""
    await store.put([(b"k", b"%d" % (first + number)) for number in range(3)])
    taken = await store.take(b"k", 1)
    await store.put([(b"k", b"%d" % (first + 3))])
    assert await store.view(b"k") == b"%d" % (first + 1)
    while len(taken) < 4:
        taken += await store.take(b"k", 2)
    return taken


@pytest.mark.parametrize("to_server", [True, False], ids=["commands", "answers"])
def test_whatever_is_lost_on_the_way_nothing_is_lost_or_doubled(redis: RedisServer, to_server: bool) -> None:
    async def test() -> None:
        async with Cable(redis.port) as cable:
            pieces = 0
            for lost in range(10_000):
                async with Store(f"redis://127.0.0.1:{cable.port}") as store:
                    begin = cable.pieces
                    lose_one(cable, begin + lost, to_server)
                    assert await traffic(store, 100) == [b"100", b"101", b"102", b"103"], lost
                    with pytest.raises(TimeoutError):
                        await store.take(b"k", 1, 0)
                    pieces = cable.pieces - begin
                    cable.cut = lambda at, direction: False
                # What may be left are keys of this client, if they could not be removed at once.
                assert all(key.startswith(("run:.client:", "run:.taken:")) for key in redis.names()), lost
                if lost > pieces:
                    break

    play(test())


def lose_one(cable: Cable, number: int, to_server: bool) -> None:
    """From this piece of bytes on, lose the next that goes this way."""
    done = False

    def one(at: int, direction: bool) -> bool:
        nonlocal done
        now = at > number and direction is to_server and not done
        done = done or now
        return now

    cable.cut = one


def test_a_command_that_arrives_late_does_nothing(redis: RedisServer) -> None:
    """The connection broke for us, but the server reads what was on its way when we have done it again."""

    async def test() -> None:
        async with Cable(redis.port) as cable, Store(f"redis://127.0.0.1:{cable.port}") as store:
            await store.put([(b"k", b"1")])
            held = False

            def one(at: int, data: bytes) -> bool:
                nonlocal held
                now, held = b"EXEC" in data and not held, held or b"EXEC" in data
                return now

            cable.hold = one
            await store.put([(b"k", b"2")])
            await cable.release()
            await store.put([(b"k", b"3")])
            assert held
            assert await store.take(b"k", 9) == [b"1", b"2", b"3"]

    play(test())


def test_a_connection_that_breaks_while_a_program_pops_may_lose_that_value_only(redis: RedisServer) -> None:
    async def test() -> None:
        async with Cable(redis.port) as cable, Store(f"redis://127.0.0.1:{cable.port}") as store:
            await store.put([(b"k", b"1"), (b"k", b"2"), (b"k", b"3")])
            lose_one(cable, cable.pieces, False)
            assert await store.get(b"k") == b"2"
            assert await store.get(b"k") == b"3"
            with pytest.raises(TimeoutError):
                await store.get(b"k", 0)

    play(test())


@pytest.mark.parametrize("number", [9, 15], ids=["killed", "ended"])
def test_a_server_that_comes_back_finds_everybody_waiting(redis: RedisServer, number: int) -> None:
    async def test() -> None:
        opened = Store(redis.url)
        async with opened as store:
            await store.put([(b"before", b"1")])
            waiting, looking = asyncio.ensure_future(store.get(b"k")), asyncio.ensure_future(store.view(b"v"))
            with pytest.raises(TimeoutError):
                await store.get(b"nothing", 0.1)
            redis.kill(number)
            putting = asyncio.ensure_future(store.put([(b"k", b"2"), (b"v", b"3")]))
            while not opened.said:
                await asyncio.sleep(0.01)
            redis.start()
            assert await asyncio.gather(waiting, looking, putting) == [b"2", b"3", None]
            assert await store.get(b"before") == b"1"
        assert "retrying until it answers" in opened.said[0]
        assert opened.said[-1] == "recovered"
        assert not any("lost" in line for line in opened.said)

    play(test())


def test_a_server_that_forgot_everything_is_told_of(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, keeps=False)

    async def test() -> None:
        opened = Store(redis.url)
        async with opened as store:
            await store.put([(b"k", b"1")])
            redis.kill()
            redis.start()
            await store.put([(b"k", b"2")])
            assert await store.take(b"k", 9) == [b"2"]
        assert any("came back without its latest data" in line for line in opened.said)

    try:
        play(test())
    finally:
        redis.kill()


def test_a_timeout_ends_the_wait_for_a_server_that_is_away(redis: RedisServer) -> None:
    async def test() -> None:
        async with Store(redis.url) as store:
            redis.kill()
            with pytest.raises(TimeoutError):
                await store.get(b"k", 0.2)
            with pytest.raises(TimeoutError):
                await store.view(b"k", 0.2)

    play(test())


def test_a_key_that_holds_something_else(redis: RedisServer) -> None:
    redis.do("SET", "run:k", "text")

    async def test() -> None:
        async with Store(redis.url) as store:
            for call in (store.put([(b"k", b"1")]), store.get(b"k"), store.view(b"k")):
                with pytest.raises(StoreError, match="put values with RPUSH"):
                    await call
            await store.put([(b"other", b"1")])
            assert await store.get(b"other") == b"1"

    play(test())


def test_a_full_server_is_waited_for(redis: RedisServer) -> None:
    async def test() -> None:
        opened = Store(redis.url)
        async with opened as store:
            redis.do("CONFIG", "SET", "maxmemory", "1")
            putting = asyncio.ensure_future(store.put([(b"k", b"1")]))
            while not opened.said:
                await asyncio.sleep(0.01)
            redis.do("CONFIG", "SET", "maxmemory", "0")
            await putting
            assert await store.get(b"k") == b"1"
        assert opened.said == [
            f"key store {redis.url}/0: it is full (its maxmemory); retrying until it answers",
            "recovered",
        ]

    play(test())


def test_an_ordinary_user_of_the_server_may_do_all_that_is_needed(redis: RedisServer) -> None:
    redis.do("ACL", "SETUSER", "ann", "on", ">geheim", "~run:*", "~disbatch:*", "+@all", "-@dangerous")
    url = redis.url.replace("redis://", "redis://ann:geheim@")

    async def test() -> None:
        async with Store(url) as store:
            assert await traffic(store, 0) == [b"0", b"1", b"2", b"3"]
            with pytest.raises(TimeoutError):
                await store.get(b"k", 0.1)

    play(test())


def test_passwords_and_tls(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, tls=certificates(tmp_path), password="p@ss/wörd")
    url = f"rediss://:p%40ss%2Fw%C3%B6rd@localhost:{redis.port}/0?ssl_ca_certs={tmp_path}/ca.pem"

    async def test() -> None:
        async with Store(url) as store:
            assert await traffic(store, 0) == [b"0", b"1", b"2", b"3"]

    try:
        play(test())
        for wrong, words in {
            url.replace("p%40ss", "pass"): "it refuses the user name or the password",
            url.replace(":p%40ss%2Fw%C3%B6rd@", ""): "it asks for a password",
            url.partition("?")[0]: "its certificate is not trusted",
            url.replace("localhost", "127.0.0.1"): "its certificate is not trusted: .*not valid for",
            url.replace("ca.pem", "none.pem"): "no such file or directory",
            f"redis://localhost:{redis.port}": "the connection broke|connection reset",
        }.items():
            refused(wrong, words)
    finally:
        redis.kill()


def test_what_is_no_such_server(redis: RedisServer, tmp_path: Path) -> None:
    refused("redis://nowhere.invalid:6379", "not known|no address|resolution")
    refused(f"redis://:geheim@127.0.0.1:{redis.port}", "it has no password, but one was given")
    refused(f"redis://127.0.0.1:{redis.port}/99", "it has no such database")
    redis.do("ACL", "SETUSER", "bob", "on", ">x", "~other:*", "+@all")
    refused(f"redis://bob:x@127.0.0.1:{redis.port}", "its user may not do what is needed")
    redis.kill()
    refused(redis.url, "connection refused")


def refused(url: str, words: str) -> None:
    async def test() -> None:
        async with Store(url):
            raise AssertionError(f"{url} was taken")

    with pytest.raises(UsageError, match=words) as raised:
        play(test())
    assert "geheim" not in str(raised.value)


def test_a_silent_server_has_not_said_that_nothing_is_there(redis: RedisServer) -> None:
    async def test() -> None:
        async with Store(redis.url) as store:
            await store.put([(b"k", b"1")])
            redis.halt()
            taking = asyncio.ensure_future(store.take(b"k", 9, 0))
            looking = asyncio.ensure_future(store.view(b"k", 0))
            with pytest.raises(TimeoutError):
                await store.view(b"other", 0.2)
            with pytest.raises(TimeoutError):
                await store.get(b"other", 0.2)
            assert not taking.done() and not looking.done()
            redis.go_on()
            assert await taking == [b"1"]
            await asyncio.wait([looking])  # before or after it was taken

    play(test())
