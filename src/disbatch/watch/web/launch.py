"""Start the process of the web page from the driver: the socket, the first address, and PREFIX_url.txt.

Nothing of the server is imported here, so the driver does not load it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from disbatch.contexts.child import Child
from disbatch.contexts.launch_errors import lines
from disbatch.contexts.local import own_argv
from disbatch.contexts.machine import this_machine
from disbatch.contexts.spawn import spawn
from disbatch.model.errors import UsageError
from disbatch.rundir.lock import is_held_at
from disbatch.rundir.paths import RunFiles
from disbatch.wire.engine_protocol import SECRET_VARIABLES
from disbatch.wire.ownfile import is_foreign

ANY = ("0.0.0.0", "::")
MOST_SECONDS = 4.0
"""Seconds that the end of a run waits for the page to notify its browsers."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ROOM = 4096
"""The most bytes of the address file that are read."""


class Settings(msgspec.Struct, frozen=True):
    """The settings of the page's process: the `prefix` of the run's files; the `file` for the page's address;
    the `descriptor` of its listening socket, which browsers reach as `host` and `port`, or by one of `hosts`;
    the first `token`. The process ends when no driver has answered for `patience` seconds."""

    prefix: bytes
    file: bytes
    descriptor: int
    host: str
    port: int
    hosts: list[str]
    token: str
    patience: float


def parse_settings(line: bytes) -> Settings:
    """Parse a line that the driver wrote."""
    return msgspec.json.decode(line, type=Settings)


def address_of(host: str, port: int, token: str) -> str:
    """The address for a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={token}"


class WebPage:
    """The page of a run, at `address`: (host, port; 0: any). `notify_user` gets lines for the user;
    `patience`: as in `Settings`."""

    def __init__(self, address: tuple[str, int], notify_user: Callable[[str], None], patience: float) -> None:
        self._host, self._port = address
        self._notify_user = notify_user
        self._patience = patience
        self._socket: socket.socket | None = None
        self._child: Child | None = None
        self._watching: asyncio.Task[None] | None = None
        self._file: Path | None = None
        self._closing = self._goes_on = False

    def listen(self, left: Path | None) -> None:
        """Bind the port, unless a former driver of the run has `left` a file with the address of a page that
        continues. UsageError."""
        if left is not None and not is_foreign(left) and is_held_at(left):
            self._goes_on = True
            return
        try:
            family = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0][0]
            self._socket = listening = socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._host, self._port))
            listening.listen(128)
        except OSError as error:
            at = f"--web-address {self._host}:{self._port}"
            raise UsageError(f"{at}: cannot listen there: {error.strerror or error}") from error
        self._port = int(listening.getsockname()[1])

    def start(self, files: RunFiles) -> None:
        """The run accepts requests now: start the process, and show its address."""
        self._file = file = files.url
        if self._goes_on:
            self._notify_user(f"web page: continues; {file} has an address")
            return
        assert self._socket is not None
        host = this_machine().hostname if self._host in ANY else self._host
        token = secrets.token_urlsafe(32)
        try:
            self._write(file, address_of(host, self._port, token))
            settings = Settings(
                *(bytes(files.prefix), bytes(file), self._socket.fileno(), host, self._port),
                hosts=[host, self._host, this_machine().hostname],
                token=token,
                patience=self._patience,
            )
            self._spawn(settings)
        except OSError as error:
            self._notify_user(
                f"web page: {error.filename or 'cannot be started'}: {error.strerror}; continuing without it"
            )
            return
        self._notify_user(f"web page: {address_of(host, self._port, token)}")
        if self._host not in _LOOPBACK:
            self._notify_user("web page: it is not encrypted; a tunnel through ssh would encrypt it")

    def _spawn(self, settings: Settings) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        self._socket.set_inheritable(True)
        try:
            argv = own_argv("web_page")
            mine = {k: v for k, v in os.environ.items() if os.fsencode(k) not in SECRET_VARIABLES}
            self._child = child = Child(loop, spawn(argv, mine))
        finally:
            self._socket.set_inheritable(False)
        self._watching = loop.create_task(self._feed(child, msgspec.json.encode(settings) + b"\n"))

    async def _feed(self, child: Child, settings: bytes) -> None:
        await child.feed(settings)
        child.close_stdin()
        self._drop_socket()
        await asyncio.wait([child.exited])
        if child.returncode and not self._closing:
            said = lines(child.err)
            self._notify_user(f"web page: ended: {said[-1] if said else f'exit code {child.returncode}'}")

    def _write(self, file: Path, address: str) -> None:
        file.unlink(missing_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(f"{address}\n")

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def close(self, *, elsewhere: bool) -> None:
        """The driver ends. The page knows that the run is over, and ends, too; unless the run continues
        `elsewhere`."""
        self._closing = True
        self._drop_socket()
        if self._child is not None and not elsewhere:
            await self._child.dismiss(MOST_SECONDS)
            assert self._file is not None
            self._file.unlink(missing_ok=True)
        if self._watching is not None:
            self._watching.cancel()
