"""The key store of a run that somebody else has started, wherever that is: in its driver, or in a server."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

from disbatch.api.deals import Deal, Result
from disbatch.api.run import DisBatch
from disbatch.api.values import Values
from disbatch.cli.store import PREFIX, URL
from disbatch.driver.kvsinfo import MAX_SIZE
from disbatch.keystore.address import Address, parse_address
from disbatch.keystore.external import ExternalStore
from disbatch.keystore.server import Server
from disbatch.model.errors import DisbatchError, UsageError
from disbatch.model.text import parse_path_line

log = logging.getLogger("disbatch")

LAST_WORDS = 10.0
"""Seconds that the end of the program waits for values to go back that nobody got."""


def open_values(where: str) -> Values:
    """`where` is the name of a run's kvsinfo.txt, or the address of a server; then DISBATCH_KVS_PREFIX says
    what keys begin with there. UsageError if there is no such store."""
    if not Path(where).is_file():
        prefix = os.environ.get(PREFIX, "")
        if not prefix:
            raise UsageError(f"kvsserver {_shown(where)}: which run? name its kvsinfo.txt, or set {PREFIX}")
        return ServerValues(parse_address(where, "kvsserver"), prefix)
    address, told = _read(where)
    if "connect" in told:
        try:
            return DisBatch.connect(parse_path_line(told["connect"]), tasks=False)
        except ValueError as error:
            raise UsageError(f"{where}: is not what a run writes there: {error}") from error
    return ServerValues(_with_password(parse_address(address, where)), told.get("prefix", ""))


def _shown(where: str) -> str:
    return "of that name" if "@" in where else where


def _read(path: str) -> tuple[str, dict[str, str]]:
    try:
        with Path(path).open("rb") as file:
            first, *rest = file.read(MAX_SIZE).decode("utf-8", "surrogateescape").splitlines() or [""]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    return first, {word: named for word, _, named in (line.partition(" ") for line in rest)}


def _with_password(address: Address) -> Address:
    """The file tells no password; the environment may, of the same server."""
    url = os.environ.get(URL, "")
    if not url:
        return address
    known = parse_address(url, URL)
    return known if str(known) == str(address) else address


class ServerValues(Values):
    """In a server, under keys that begin with `prefix`; a thread serves it until the program ends."""

    def __init__(self, address: Address, prefix: str) -> None:
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="disbatch store", daemon=True)
        self._thread.start()
        try:
            self._store = self._do(self._open(address, prefix.encode("utf-8", "surrogateescape")))
        except BaseException:
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise
        atexit.register(self._close)

    async def _open(self, address: Address, prefix: bytes) -> ExternalStore:
        again = f"key store {address}: is there again"
        server = Server(address, trouble=log.warning, recovered=lambda: log.warning(again))
        await server.open()
        return ExternalStore(server, prefix)

    def _do(self, work: Awaitable[Result]) -> Result:
        async def waited() -> Result:
            return await work

        future = asyncio.run_coroutine_threadsafe(waited(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _wait_for(self, deal: Deal[Result]) -> Result:
        return self._do(deal(self._store))

    async def _await(self, deal: Deal[Result]) -> Result:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(deal(self._store), self._loop))

    def _close(self) -> None:
        with suppress(DisbatchError, TimeoutError):
            self._do(asyncio.wait_for(self._store.close(), LAST_WORDS))
        self._loop.call_soon_threadsafe(self._loop.stop)
