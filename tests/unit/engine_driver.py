"""A driver for tests: a ROUTER socket that plays the driver to a real engine process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zmq

from deadline import DEADLINE
from disbatch.model.task import Outcome, Phase, Way
from disbatch.wire.connect import RunKeys
from disbatch.wire.engine_protocol import (
    PROTOCOL,
    Beat,
    Bootstrap,
    End,
    Finished,
    FromEngine,
    Goodbye,
    Hello,
    Leave,
    Order,
    Pulse,
    Recall,
    Start,
    StartPerEngine,
    ToEngine,
    Welcome,
)
from disbatch.wire.session import Session
from disbatch.wire.sockets import tune

Message = TypeVar("Message")


def wait_until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """For states of the system that announce themselves to nobody: look until it is so."""
    end = time.monotonic() + deadline
    while not (answer := condition()):
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.01)
    return answer


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def all_gone(pids: Iterable[int]) -> None:
    """Wait until none of them is alive."""
    for pid in pids:
        wait_until(lambda pid=pid: not alive(pid), f"end of process {pid}: {command_line(pid)}")


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def read_pids(path: Path) -> list[int]:
    """The process numbers that tasks have written to `path`, one a line."""
    words = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [int(word) for word in words if word.endswith("\n")]


class FakeDriver:
    """Listens at an ipc path in `folder` and keeps everything an engine says."""

    def __init__(self, folder: Path, keys: RunKeys | None = None) -> None:
        self.folder = folder
        self.keys = keys or RunKeys.generate()
        self.inherits = keys is not None
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.address = f"ipc://{folder / 'driver'}"
        self.socket: zmq.Socket[bytes] | None = None
        self.peer = b""
        self.session: Session[FromEngine] = Session(
            self._transmit, msgspec.msgpack.Decoder(FromEngine).decode
        )
        self.welcome = {"heartbeat": 0.2, "patience": 5.0, "orphan_patience": 30.0, "grace": 0.5}
        self.acknowledges = True
        self.messages: list[FromEngine] = []
        self.outcomes: dict[int, Outcome] = {}
        self.listen()

    # ---- connection ----

    def listen(self) -> None:
        self.socket = socket = self.context.socket(zmq.ROUTER)
        tune(socket, 1 << 20)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.curve_server = 1
        socket.curve_publickey = self.keys.server_key.encode()
        socket.curve_secretkey = self.keys.server_secret.encode()
        socket.bind(self.address)

    def hang_up(self) -> None:
        assert self.socket is not None
        self.socket.close(0)
        self.socket = None

    def close(self) -> None:
        if self.socket is not None:
            self.hang_up()
        self.context.destroy(0)

    def _transmit(self, data: bytes) -> None:
        if self.socket is not None and self.peer:
            self.socket.send_multipart([self.peer, data])

    def bootstrap(self, **changes: Any) -> Bootstrap:
        fields: dict[str, Any] = {
            "protocol": PROTOCOL,
            "engine": "engine-of-tests",
            "node": "here",
            "slots": 2,
            "cores_per_task": 1.5,
            "directory": os.fsencode(self.folder),
            "log": os.fsencode(self.folder / "run_here_engine.txt"),
            "addresses": [self.address],
            "server_key": self.keys.server_key,
            "client_key": self.keys.client_key,
            "client_secret": self.keys.client_secret,
            "environment": dict(os.environb) | {b"GREETING": b"hello", b"DISBATCH_SMTP": b"secret"},
            "way": Way.CHILD,
        }
        return Bootstrap(**(fields | changes))

    # ---- messages ----

    def _take(self, frames: list[bytes]) -> None:
        self.peer = frames[0]
        received = self.session.receive(frames[-1])
        if received is None:
            return
        number, message = received
        self.messages.append(message)
        if isinstance(message, Hello):
            self.session.skip_to(message.results_from)
            if self.inherits:
                self.session.post_from(message.orders_seen + 1)
            self.session.tell(
                Welcome(
                    3,
                    "4711",
                    b"Tasks",
                    **self.welcome,
                    results_seen=self.session.seen,
                    next_order=self.session.next_number,
                )
            )
            self.session.resend(message.orders_seen)
        elif number and self.acknowledges:
            self.session.acknowledge(number)
            self.session.tell(Pulse())
        if isinstance(message, Finished):
            for outcome in message.outcomes:
                assert outcome.attempt not in self.outcomes, "the same outcome twice"
                self.outcomes[outcome.attempt] = outcome

    def serve_until(self, condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
        """Serve the engine until `condition` holds."""
        end = time.monotonic() + deadline
        assert self.socket is not None
        while not (answer := condition()):
            left = end - time.monotonic()
            assert left > 0, f"not within {deadline} s: {what}; heard: {self.messages[-5:]}"
            if self.socket.poll(int(min(left, 0.05) * 1000)):
                self._take(self.socket.recv_multipart())
        return answer

    def expect(self, kind: type[Message], deadline: float = DEADLINE) -> Message:
        """The next message of this kind, whatever else came before it."""

        def look() -> Message | None:
            for position, message in enumerate(self.messages):
                if isinstance(message, kind):
                    del self.messages[position]
                    return message
            return None

        found: Message = self.serve_until(look, kind.__name__, deadline)
        return found

    def outcome(self, attempt: int, deadline: float = DEADLINE) -> Outcome:
        """How this attempt ended."""
        found: Outcome = self.serve_until(lambda: self.outcomes.get(attempt), f"outcome {attempt}", deadline)
        return found

    def running(self, *attempts: int) -> None:
        """Wait until the engine says that these run."""

        def look() -> bool:
            beats = [message for message in self.messages if isinstance(message, Beat)]
            return bool(beats) and {r.attempt for r in beats[-1].running} >= set(attempts)

        self.messages = [message for message in self.messages if not isinstance(message, Beat)]
        self.serve_until(look, f"running {attempts}")

    def pids(self, count: int) -> list[int]:
        """The process numbers that tasks write to the file `pids`, once there are `count`."""

        def complete() -> list[int] | None:
            found = read_pids(self.folder / "pids")
            return found if len(found) >= count else None

        found: list[int] = self.serve_until(complete, f"{count} process numbers")
        return found

    def post(self, message: ToEngine) -> None:
        self.session.post(message)

    def start(self, *commands: str | bytes, first: int = 1) -> list[int]:
        """Order these commands; their attempts, which count from `first`."""
        attempts = list(range(first, first + len(commands)))
        self.post(Start([order(a, c) for a, c in zip(attempts, commands, strict=True)]))
        return attempts

    def start_per_engine(self, phase: Phase, attempt: int, command: str) -> None:
        self.post(StartPerEngine(phase, order(attempt, command)))

    def run(self, command: str | bytes, attempt: int = 1) -> Outcome:
        """Run one command to its end."""
        self.start(command, first=attempt)
        return self.outcome(attempt)

    def end(self, *attempts: int, at_once: bool = False) -> None:
        self.post(End(list(attempts), at_once))

    def recall(self, *attempts: int) -> None:
        self.post(Recall(list(attempts)))

    def leave(self) -> Goodbye:
        self.post(Leave())
        return self.expect(Goodbye)


def order(attempt: int, command: str | bytes) -> Order:
    """An order whose task id and line follow from its attempt."""
    text = command.encode() if isinstance(command, str) else command
    return Order(attempt, attempt + 100, attempt + 200, -1, text)


class EngineProcess:
    """A real engine; `stdin` stays open, as a local driver keeps it. `program`: what Python is to run."""

    def __init__(
        self,
        bootstrap: Bootstrap | bytes,
        environment: dict[str, str] | None = None,
        program: Sequence[str] = ("-m", "disbatch.engine"),
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        assert self.process.stdin is not None
        body = bootstrap if isinstance(bootstrap, bytes) else msgspec.msgpack.encode(bootstrap)
        self.process.stdin.write(len(body).to_bytes(4, "big") + body)
        self.process.stdin.flush()

    @property
    def pid(self) -> int:
        """The keeper's, which the engine's process becomes."""
        return self.process.pid

    def close_lifeline(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self, deadline: float = DEADLINE) -> int:
        """The exit status."""
        return self.process.wait(deadline)

    def engine(self) -> int:
        """The process number of the engine itself, the child of its keeper, once it is there."""

        def look() -> list[int]:
            return [int(word) for word in children.read_text().split()]

        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        found: list[int] = wait_until(look, "an engine")
        return found[0]

    def finish(self) -> None:
        """Whatever happened: leave nothing behind."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass
