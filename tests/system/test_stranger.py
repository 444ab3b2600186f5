"""Whoever reaches the driver's port, with or without the key: the run goes on and finishes right."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from command import Running, records, status_file, tasks, write
from zmq.utils.monitor import recv_monitor_message

from deadline import DEADLINE
from disbatch.model.task import Ending, Outcome
from disbatch.wire.connect import ConnectFile
from disbatch.wire.engine_protocol import (
    MAX_FROM_ENGINE,
    PROTOCOL,
    Beat,
    Claim,
    Finished,
    Goodbye,
    Hello,
    Pulse,
    Recalled,
    Refuse,
    Start,
    ToEngine,
    Trouble,
    Welcome,
)
from disbatch.wire.session import Session, encode
from disbatch.wire.sockets import HANDSHAKE_TIMEOUT

REST = 40
WAIT = 10_000
"""Milliseconds for an answer."""
IMPATIENT = ("--heartbeat", "0.2", "--patience", "2")

_to_engine = msgspec.msgpack.Decoder(ToEngine)


class Target:
    """A run with an open port; its first task waits until `finish`."""

    def __init__(self, directory: Path, *options: str, wrapper: list[str] | None = None) -> None:
        self.directory = directory
        os.mkfifo(directory / "go")
        write(
            directory / "Tasks",
            ["touch up; read x < go; echo 0 >> ran", f"#DISBATCH REPEAT {REST} echo $DISBATCH_TASKID >> ran"],
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        listen = ("-s", "localhost:1", "--use-address", f"127.0.0.1:{self.port}")
        self.run = Running(directory, *listen, *options, "Tasks", wrapper=wrapper or [])
        self.run.until((directory / "up").exists, "the first task")
        self.connect = ConnectFile.read(next(directory.glob("*_connect.json")))
        self.address = f"tcp://127.0.0.1:{self.port}"
        assert self.address in self.connect.addresses

    @property
    def log(self) -> str:
        return next(self.directory.glob("disBatch_*_driver.txt")).read_text()

    @property
    def engine(self) -> str:
        """The name of the real engine."""
        text = next(self.directory.glob("*_engine.txt")).read_text()
        found = re.search(r"engine (\S+) on", text)
        assert found
        return found[1]

    def finish(self) -> str:
        """Let the run go to its end and look whether all is right; what it said."""
        (self.directory / "go").write_text("go\n")
        with self.run:
            assert self.run.ended() == 0, self.run.err
        done = tasks(status_file(self.directory))
        assert sorted(done) == list(range(REST + 1))
        assert {record.return_code for record in done.values()} == {0}
        assert sorted(map(int, (self.directory / "ran").read_text().split())) == list(range(REST + 1))
        assert len(records(status_file(self.directory))) == REST + 1
        assert "Traceback" not in self.run.err and "Traceback" not in self.log, self.log
        return self.run.err


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    target = Target(tmp_path, *IMPATIENT)
    with target.run:
        yield target


class Stranger:
    """A DEALER socket that says what it likes."""

    def __init__(self, target: Target, name: str = "stranger", **options: Any) -> None:
        self.name = name
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, WAIT)
        self.socket.setsockopt(zmq.SNDTIMEO, WAIT)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.socket.setsockopt(zmq.ROUTING_ID, name.encode())
        keys = {
            "curve_serverkey": target.connect.server_key.encode(),
            "curve_publickey": target.connect.client_key.encode(),
            "curve_secretkey": target.connect.client_secret.encode(),
        }
        for option, value in {**keys, **options}.items():
            if value is not None:
                setattr(self.socket, option, value)
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_ALL)
        self.socket.connect(target.address)
        self.session = Session(self.socket.send, _to_engine.decode)

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)
        self.context.term()

    def event(self, *wanted: int) -> int:
        """Wait for one of these events of the connection."""
        while True:
            assert self.monitor.poll(WAIT), "nothing happened"
            event = recv_monitor_message(self.monitor)["event"]
            if event in wanted:
                return int(event)

    def hello(self, **changes: Any) -> None:
        message = Hello(
            protocol=PROTOCOL,
            engine=self.name,
            node="elsewhere",
            host="elsewhere",
            pid=1,
            slots=1,
            version="0",
            orders_seen=0,
            results_from=1,
            holding=[],
        )
        self.session.tell(msgspec.structs.replace(message, **changes))

    def answer(self, kind: type) -> Any:
        """Wait for a message of this kind."""
        while True:
            received = self.session.receive(self.socket.recv())
            if received is not None and isinstance(received[1], kind):
                return received[1]

    def heard(self) -> None:
        """Wait until the driver has dealt with everything said before: it answers who is unknown."""
        self.session.tell(Beat([], 0, 0.0))
        self.answer(Pulse)


def outcome(attempt: int, **changes: Any) -> Outcome:
    plain = Outcome(attempt, 0, 1, 99, 0.1, 1.0, 1.1, 0, b"", 0, b"", Ending.OWN)
    return msgspec.structs.replace(plain, **changes)


# ---- without the key ----


def test_wrong_server_key(target: Target) -> None:
    other, _ = zmq.curve_keypair()
    with Stranger(target, curve_serverkey=other) as stranger:
        stranger.event(zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        target.finish()


def test_wrong_client_key(target: Target) -> None:
    public, secret = zmq.curve_keypair()
    with Stranger(target, curve_publickey=public, curve_secretkey=secret) as stranger:
        assert stranger.event(zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_SUCCEEDED) == (
            zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        target.finish()


def test_clients_public_key_with_another_secret(target: Target) -> None:
    _, secret = zmq.curve_keypair()
    with Stranger(target, curve_secretkey=secret) as stranger:
        stranger.event(zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        target.finish()


@pytest.mark.parametrize("how", ["null", "plain"])
def test_without_curve(target: Target, how: str) -> None:
    options: dict[str, Any] = {"curve_serverkey": None, "curve_publickey": None, "curve_secretkey": None}
    if how == "plain":
        options |= {"plain_username": b"admin", "plain_password": b"admin"}
    with Stranger(target, **options) as stranger:
        happened = stranger.event(
            zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_SUCCEEDED
        )
        assert happened != zmq.EVENT_HANDSHAKE_SUCCEEDED
        target.finish()


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\x00" + bytes(31)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0" * 4096,
        bytes(range(256)) * 300,
        b"\xff" * 9 + b"\x7f" * 4096,
        GREETING + b"\x04\xff\xff\xff\xff\xff\xff\xff\xff",
        GREETING + b"\x06\x7f\xff\xff\xff\xff\xff\xff\xff" + b"x" * 100_000,
        GREETING + b"\x04\xc8\x05HELLO" + b"\0" * 194,
        GREETING + b"\x04\x05\x04READY",
    ],
)
def test_garbage_bytes(target: Target, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", target.port)) as raw:
        raw.settimeout(3 * HANDSHAKE_TIMEOUT)  # some of it looks like a greeting that is yet to be completed
        try:
            raw.sendall(garbage)
            while raw.recv(4096):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            pytest.fail("the connection was not closed")
        target.finish()


@pytest.mark.parametrize("limit", [None, 128])
def test_many_half_greetings_then_silence(tmp_path: Path, limit: int | None) -> None:
    """Also more of them than the driver may have files open."""
    wrapper = ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash"] if limit else None
    target = Target(tmp_path, wrapper=wrapper)
    silent = []
    try:
        for _ in range(300):
            raw = socket.socket()
            raw.setblocking(False)
            raw.connect_ex(("127.0.0.1", target.port))
            silent.append(raw)
        for raw in silent[::2]:
            try:
                raw.send(GREETING[:20])
            except OSError:  # not connected: the queue of those who wait is full
                pass
        target.finish()
    finally:
        for raw in silent:
            raw.close()


def test_a_crowd_of_strangers(tmp_path: Path) -> None:
    """The driver does not notice, its owner can ask it, and when they are gone others come in again."""
    target = Target(tmp_path, *IMPATIENT, wrapper=["bash", "-c", 'ulimit -n 200; exec "$@"', "bash"])
    crowd = []
    for _ in range(500):
        raw = socket.socket()
        raw.setblocking(False)
        raw.connect_ex(("127.0.0.1", target.port))
        crowd.append(raw)
    with target.run:
        target.run.until_said("connections to our port know nothing of this run")
        assert len(os.listdir(f"/proc/{target.run.pid}/fd")) < 60
        script = next(tmp_path.glob("*_dbUtil.sh"))
        asked = subprocess.run(
            [script, "status", "--json"], capture_output=True, timeout=DEADLINE, check=True
        )
        assert msgspec.json.decode(asked.stdout)["done"] == 0
        for raw in crowd:
            raw.close()
        with Stranger(target, "late") as late:
            late.heard()
        assert "lost" not in target.finish()


# ---- with the key ----


def test_oversized_frame(target: Target) -> None:
    with Stranger(target) as stranger:
        stranger.heard()
        stranger.socket.send(b"x" * (MAX_FROM_ENGINE + 1))
        stranger.event(zmq.EVENT_DISCONNECTED)
        target.finish()


NESTED = b"\x91" * 200_000


@pytest.mark.parametrize("greeted", [False, True])
def test_garbage_messages(target: Target, greeted: bool) -> None:
    with Stranger(target) as stranger:
        if greeted:
            stranger.hello(slots=1)
            stranger.answer(Welcome)
        for data in (
            b"",
            b"\xc1",
            os.urandom(1000),
            NESTED,
            b"\xdd\xff\xff\xff\xff",
            encode([0, 0, ["Nonsense"]]),
            encode([0, 0, ["Hello", "x"]]),
            encode([1, 2]),
            encode([-5, -5, Trouble("x")]),
            encode([2**64 - 1, 0, Goodbye("x")]),
            encode({"number": 1}),
            encode([0, 0, ["Finished", [[-1] * 12]]]),
        ):
            stranger.socket.send(data)
            stranger.socket.send_multipart([data, b"", data])
        stranger.heard()
        target.run.until(lambda: "dropped: " in target.log, "the log to tell of it")
        if greeted:
            stranger.session.post(Goodbye("enough"))
        target.finish()


@pytest.mark.parametrize("name", ["a b", "../../x", "n" * 200, "\x1b[31m"])
def test_improper_names(target: Target, name: str) -> None:
    with Stranger(target) as stranger:
        stranger.hello(engine=name)
        target.run.until(lambda: "with an invalid name" in target.log, "the log to tell of it")
        assert "\x1b" not in target.log
        target.finish()


def test_hello_of_another_protocol(target: Target) -> None:
    with Stranger(target) as stranger:
        stranger.hello(protocol=PROTOCOL + 1, version="99")
        refuse = stranger.answer(Refuse)
        assert "99" in refuse.reason and str(PROTOCOL + 1) in refuse.reason
        stranger.session.post(Finished([outcome(1), outcome(2)]))
        stranger.heard()
        target.finish()


def test_results_for_attempts_of_others(target: Target) -> None:
    with Stranger(target) as stranger:
        stranger.hello(holding=[Claim(attempt, attempt) for attempt in range(1, 100)])
        stranger.answer(Welcome)
        mine = {order.attempt for order in stranger.answer(Start).orders}
        others = [attempt for attempt in range(1, 100) if attempt not in mine]
        stranger.session.post(Finished([outcome(attempt) for attempt in others]))
        stranger.session.post(Recalled(others))
        stranger.heard()
        # Silent from now on: it is lost, and what it was given runs elsewhere.
        said = target.finish()
        assert "elsewhere: engine lost: not heard for 6 s" in said


@pytest.mark.parametrize(
    "nonsense",
    [
        {"elapsed": float("nan")},
        {"elapsed": float("inf")},
        {"elapsed": -1.0},
        {"start": float("nan"), "finish": float("-inf")},
    ],
)
def test_results_without_sense(target: Target, nonsense: dict[str, float]) -> None:
    with Stranger(target) as stranger:
        stranger.hello()
        stranger.answer(Welcome)
        orders = stranger.answer(Start).orders
        stranger.session.post(Finished([outcome(order.attempt, **nonsense) for order in orders]))
        stranger.heard()
        target.finish()


def test_trouble_with_control_characters_reaches_no_terminal(target: Target) -> None:
    with Stranger(target) as stranger:
        stranger.hello(node="\x1b[2Jnode\n")
        stranger.answer(Welcome)
        stranger.session.post(Trouble("\x1b]0;owned\x07\ndisbatch: complete"))
        stranger.session.post(Goodbye("enough"))
        stranger.heard()
        said = target.finish()
        assert "owned" in said and "\x1b" not in said and "\x07" not in said
        assert "\ndisbatch: complete\n" not in said


@pytest.mark.parametrize("numbers", [{}, {"results_from": 10**6}, {"orders_seen": 10**6}])
def test_hello_under_the_name_of_a_live_engine(target: Target, numbers: dict[str, int]) -> None:
    with Stranger(target, target.engine) as stranger:
        stranger.hello(**numbers)
        if "results_from" not in numbers:
            stranger.answer(Welcome)
        # The real engine says Hello again, and then this connection is nobody's.
        while True:
            stranger.session.tell(Beat([], 0, 0.0))
            if not stranger.answer(Pulse).known:
                break
        target.finish()


def test_hello_after_goodbye(target: Target) -> None:
    """The connection of an engine that leaves may break, too: it is let in to learn that all has come."""
    with Stranger(target) as stranger:
        stranger.hello()
        stranger.answer(Welcome)
        stranger.session.post(Goodbye("enough"))
        stranger.heard()
        stranger.hello()
        stranger.answer(Welcome)
        said = target.finish().splitlines()
        assert [line for line in said if "engine" in line] == ["disbatch: elsewhere: its engine left: enough"]


def test_two_that_fight_for_a_name(target: Target) -> None:
    with Stranger(target, target.engine) as stranger:
        for _ in range(20):
            stranger.hello()
            stranger.answer(Welcome)
        target.finish()


def test_numbers_without_sense_under_the_name_of_a_live_engine(target: Target) -> None:
    """ZeroMQ's own name for a connection gives nobody the place of an engine."""
    with Stranger(target, target.engine) as stranger:
        stranger.event(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        stranger.socket.send(encode([10**6, 10**6, Recalled([])]))
        stranger.socket.send(encode([0, 10**6, Beat([], 0, 0.0)]))
        assert not stranger.answer(Pulse).known
        target.finish()
