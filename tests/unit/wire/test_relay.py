"""The relay between the port and the driver's socket: who is kept out, who is passed on, who stays."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from deadline import DEADLINE
from disbatch.wire.relay import GREETING, MOST_HANDSHAKES, OPENING, Relay, is_plausible

HELLO = GREETING + b"\x04\xc8\x05HELLO" + bytes(194)
WELCOME = b"w" * 170


class Driver:
    """What a driver does with a client: its greeting, WELCOME, and an echo."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.there = 0
        self.came = 0
        self.silent = False
        self.changed = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.there += 1
        self.came += 1
        async with self.changed:
            self.changed.notify_all()
        writer.write(GREETING)
        assert await reader.readexactly(OPENING) == HELLO
        if not self.silent:
            writer.write(WELCOME + b"ready")
            while data := await reader.read(1000):
                writer.write(data)
        else:
            await reader.read(1)
        self.there -= 1
        writer.close()

    async def until(self, came: int) -> None:
        """Wait until so many have come."""
        async with asyncio.timeout(DEADLINE), self.changed:
            await self.changed.wait_for(lambda: self.came >= came)


class Bench:
    """A relay before a driver, and clients."""

    def __init__(self, folder: Path, most_strangers: int, most_connections: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.driver = Driver(f"{folder}/driver")
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))
        self.listening.listen()
        self.address = self.listening.getsockname()
        self.crowded = asyncio.Event()
        self.relay = Relay(
            *(self.loop, self.listening, self.driver.path),
            most_strangers=most_strangers,
            most_connections=most_connections,
            crowded=self.crowded.set,
        )
        self.open = ExitStack()

    async def client(self, said: bytes = b"") -> socket.socket:
        """Somebody who connects, and says this."""
        client = self.open.enter_context(socket.socket())
        client.setblocking(False)
        await self.loop.sock_connect(client, self.address)
        await self.loop.sock_sendall(client, said)
        return client

    async def hear(self, client: socket.socket, count: int) -> bytes:
        """So many bytes of what it is told; fewer at the end."""
        heard = b""
        async with asyncio.timeout(DEADLINE):
            while len(heard) < count:
                data = await self.loop.sock_recv(client, count - len(heard))
                if not data:
                    break
                heard += data
        return heard

    async def enter(self) -> socket.socket:
        """One who knows the run, let in."""
        client = await self.client(HELLO)
        assert await self.hear(client, len(GREETING + WELCOME) + 5) == GREETING + WELCOME + b"ready"
        return client

    async def is_echoed(self, client: socket.socket, data: bytes) -> bool:
        await self.loop.sock_sendall(client, data)
        return await self.hear(client, len(data)) == data


def play(
    folder: Path,
    course: Callable[[Bench], Awaitable[None]],
    most_strangers: int = 8,
    most_connections: int = 100,
) -> None:
    async def run() -> None:
        bench = Bench(folder, most_strangers, most_connections)
        server = await asyncio.start_unix_server(bench.driver.serve, bench.driver.path)
        with bench.open:
            await course(bench)
        await bench.relay.close(5)
        server.close()

    asyncio.run(run())


def test_who_knows_the_run_is_passed_on(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        client = await bench.enter()
        assert await bench.is_echoed(client, bytes(range(256)) * 4000)

    play(tmp_path, course)


def test_an_opening_in_small_pieces(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        client = await bench.client()
        for i in range(len(HELLO)):
            await bench.loop.sock_sendall(client, HELLO[i : i + 1])
        assert len(await bench.hear(client, len(GREETING + WELCOME))) == len(GREETING + WELCOME)

    play(tmp_path, course)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", bytes(300), HELLO[:64] + b"\x04\x05\x04READY"])
def test_others_are_closed_at_once(tmp_path: Path, said: bytes) -> None:
    async def course(bench: Bench) -> None:
        client = await bench.client(said)
        try:
            assert await bench.hear(client, 1000) in (b"", GREETING)
        except ConnectionError:
            pass
        assert bench.driver.came == 0

    play(tmp_path, course)


def test_every_beginning_of_an_opening_is_plausible() -> None:
    older = HELLO[:11] + b"\0" + HELLO[12:]
    assert all(is_plausible(opening[:n]) for opening in (HELLO, older) for n in range(1, OPENING + 1))
    assert not is_plausible(HELLO[:12] + b"NULL") and not is_plausible(b"\xff" + bytes(9) + b"\1")


def test_the_silent_cost_the_driver_nothing_and_newcomers_come_in_after_them(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        first = await bench.enter()
        silent = [await bench.client(HELLO[:n]) for n in range(20)]
        await bench.crowded.wait()
        assert bench.driver.came == 1
        assert await bench.is_echoed(first, b"still there")
        assert await bench.is_echoed(await bench.enter(), b"newcomer")
        assert bench.driver.came == 2
        assert await bench.hear(silent[0], 1000) == GREETING  # and then its end

    play(tmp_path, course)


def test_few_at_a_time_are_strange_to_the_driver(tmp_path: Path) -> None:
    """Whoever repeats another's HELLO gets a WELCOME, and no further."""

    async def course(bench: Bench) -> None:
        bench.driver.silent = True
        several = [await bench.client(HELLO) for _ in range(MOST_HANDSHAKES + 10)]
        for client in several[:MOST_HANDSHAKES]:
            assert await bench.hear(client, len(GREETING)) == GREETING
        await bench.driver.until(MOST_HANDSHAKES)
        assert bench.driver.there == MOST_HANDSHAKES
        for client in several[:10]:
            client.close()
        await bench.driver.until(MOST_HANDSHAKES + 10)

    play(tmp_path, course, most_strangers=1000)


def test_no_more_connections_than_the_limit_allows(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        first, second = await bench.enter(), await bench.enter()
        third = await bench.client(HELLO)
        assert await bench.hear(third, len(GREETING)) == GREETING
        assert bench.driver.came == 2
        first.close()
        assert await bench.hear(third, len(WELCOME)) == WELCOME
        assert await bench.is_echoed(second, b"undisturbed")

    play(tmp_path, course, most_connections=2)


def test_what_was_said_last_arrives_when_the_port_is_closed(tmp_path: Path) -> None:
    async def course(bench: Bench) -> None:
        client = await bench.enter()
        closing = bench.loop.create_task(bench.relay.close(20))
        assert await bench.is_echoed(client, b"x" * 100_000)
        client.close()
        await closing

    play(tmp_path, course)
