"""A real redis-server on a free port of the loopback, and a cable to it that can be cut where it hurts."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ports import free_port

from deadline import DEADLINE


def need(*programs: str) -> None:
    """Skip the test, or in continuous integration fail it, if one of these is not here."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"missing: {', '.join(missing)}")
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}; scripts/require tests installs them")


class RedisServer:
    """Started at once; `keeps`: it writes down everything at once, so that even a kill loses nothing."""

    def __init__(
        self, directory: Path, *options: str, keeps: bool = True, tls: Path | None = None, password: str = ""
    ) -> None:
        need("redis-server", "redis-cli")
        self.directory = directory
        self.tls = tls
        self.password = password
        self.port = free_port()
        self._options = ["--bind", "127.0.0.1", "--dir", str(directory), "--save", "", *options]
        self._options += ["--appendonly", "yes" if keeps else "no", "--appendfsync", "always"]
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        plain = ["--port", str(self.port)]
        if self.tls is not None:
            plain = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            for option, name in (("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")):
                plain += [f"--tls-{option}-file", str(self.tls / name)]
        self._process = subprocess.Popen(
            ["redis-server", "-", *plain, *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._process.stdin as configuration:  # not on its command line, which everybody sees
            configuration.write(f"requirepass {self.password}\n" if self.password else "")
        said = ""
        for line in self._process.stdout:
            said += line
            if "Ready to accept connections" in line:
                return
        raise AssertionError(f"redis-server did not start: {said}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it, and wait for that."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(DEADLINE)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def halt(self) -> None:
        """Let it be silent."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @property
    def url(self) -> str:
        """For those who may know the password."""
        secret = f":{self.password}@" if self.password else ""
        if self.tls is not None:
            return f"rediss://{secret}localhost:{self.port}/0?ssl_ca_certs={self.tls / 'ca.pem'}"
        return f"redis://{secret}127.0.0.1:{self.port}"

    def do(self, *command: str) -> str:
        """What redis-cli answers."""
        tls = [] if self.tls is None else ["--tls", "--cacert", str(self.tls / "ca.pem")]
        done = subprocess.run(
            ["redis-cli", "-h", "localhost", "-p", str(self.port), *tls, *command],
            env={**os.environ, **({"REDISCLI_AUTH": self.password} if self.password else {})},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
        return done.stdout.strip()

    def names(self) -> set[str]:
        """All keys."""
        return set(self.do("KEYS", "*").split("\n")) - {""}


def certificates(directory: Path) -> Path:
    """An authority of our own, and a certificate of `localhost` that it signed; the directory they are in."""
    need("openssl")
    for name, subject in (("ca", "/CN=test authority"), ("server", "/CN=localhost")):
        _openssl(directory, "genpkey", "-algorithm", "RSA", "-out", f"{name}.key")
        how = ["-x509", "-days", "2"] if name == "ca" else ["-addext", "subjectAltName=DNS:localhost"]
        out = f"{name}.pem" if name == "ca" else f"{name}.csr"
        _openssl(directory, "req", "-new", *how, "-key", f"{name}.key", "-subj", subject, "-out", out)
    _openssl(
        directory,
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "2", "-copy_extensions", "copy", "-out", "server.pem"),
    )
    return directory


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=DEADLINE)


class Cable:
    """A proxy before a server, on `port`.

    `cut(at)` is asked for each piece of bytes, with its number and whether it goes to the server: True drops
    the piece and breaks the connection. `hold(at, data)`: the piece to the server waits, its connection is
    broken for the client, and the server gets the piece when `release` is called.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.pieces = 0
        self.cut: Callable[[int, bool], bool] = lambda at, to_server: False
        self.hold: Callable[[int, bytes], bool] = lambda at, data: False
        self._held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for writer, _ in self._held:
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._server_port)
        for pair in ((reader, ours, writer, True), (theirs, writer, ours, False)):
            task = asyncio.ensure_future(self._carry(*pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        to_server: bool,
    ) -> None:
        try:
            while data := await reader.read(1 << 20):
                self.pieces += 1
                if to_server and self.hold(self.pieces, data):
                    self._held.append((writer, data))
                    back.close()
                    return
                if self.cut(self.pieces, to_server):
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        if not any(held is writer or held is back for held, _ in self._held):
            writer.close()
            back.close()

    async def release(self) -> None:
        """Now the server gets what was held."""
        for writer, data in self._held:
            writer.write(data)
            await writer.drain()
