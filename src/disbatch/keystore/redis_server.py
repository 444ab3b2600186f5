"""A connection to a Redis-protocol server that may go away and come back: each step is retried until it
succeeds.

A step (`Server.persist`) must be idempotent, since a connection may break after the server has executed it
and before its answer arrives; `redis` builds exactly-once commands on that.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import valkey.exceptions as wrong
from valkey.asyncio import Connection, ConnectionPool, SSLConnection, Valkey

from disbatch.keystore.address import Address
from disbatch.model.errors import StoreError, UsageError

Client = Any
"""The client of the valkey package, whose annotations require text where keys and values are bytes."""
Result = TypeVar("Result")

ANSWER_WITHIN = 15.0
"""Seconds for an answer, longer than any command waits; a server that is silent for longer is considered
away."""
CONNECT_WITHIN = 10.0
FIRST_RETRY = 0.1
LAST_RETRY = 2.0
"""Seconds between two tries: no event reports that a server is back."""

SILENT = "it does not answer"

_AWAY = (wrong.ConnectionError, wrong.TimeoutError, wrong.ReadOnlyError, wrong.OutOfMemoryError, OSError)
_AWAY_CODES = ("LOADING", "MASTERDOWN", "MISCONF", "BUSY", "TRYAGAIN", "NOAUTH", "WRONGPASS", "NOREPLICAS")
"""Errors of the server, not of the command: they pass, or an administrator can fix them."""


class Server:
    """The server at `address`.

    `trouble(words)` is called when the server is away, and again when it is for another reason, `recovered()`
    when it is back.
    """

    def __init__(
        self,
        address: Address,
        *,
        trouble: Callable[[str], None] = lambda words: None,
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = address
        self._trouble = trouble
        self._recovered = recovered
        self._away = ""
        self._pool = _pool(address)
        self._client: Client = Valkey(connection_pool=self._pool)

    async def open(self) -> None:
        """Check that the server answers, admits us, and supports what we need. UsageError."""
        try:
            await self._client.lmove(_NO_KEY, _NO_KEY, "LEFT", "LEFT")
            async with self._client.pipeline() as pipe:
                pipe.get(_NO_KEY)
                await pipe.execute()
        except (wrong.ValkeyError, OSError) as error:
            await self.close()
            words = words_of(error)
            if words == SILENT and self._address.tls:
                words += ", or does not speak TLS"
            raise UsageError(f"key store {self._address}: {words}") from error

    async def persist(self, step: Callable[[Client], Awaitable[Result]]) -> Result:
        """Retry this until it succeeds. StoreError for an error that retrying does not mend."""
        wait = FIRST_RETRY
        while True:
            try:
                result = await step(self._client)
            except wrong.WatchError:
                continue  # the connection broke, or the previous try has been executed meanwhile
            except _AWAY as error:
                self._is_away(words_of(error))
            except wrong.ResponseError as error:
                if not str(error).startswith(_AWAY_CODES):
                    raise StoreError(f"key store {self._address}: {words_of(error)}") from error
                self._is_away(words_of(error))
            else:
                self._is_there()
                return result
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_RETRY)

    @property
    def away(self) -> bool:
        """True if the server did not answer the last time."""
        return bool(self._away)

    async def forget(self, *keys: bytes) -> None:
        """Remove keys that are no longer needed, if the server is there."""
        if not self._away:
            with suppress(wrong.ValkeyError, OSError, TimeoutError):
                await asyncio.wait_for(self._client.delete(*keys), CONNECT_WITHIN)

    def say(self, words: str) -> None:
        """Report something about the server to its users."""
        self._trouble(f"key store {self._address}: {words}")

    def _is_away(self, words: str) -> None:
        if words != self._away:
            self._away = words
            self.say(f"{words}; retrying until it answers")

    def _is_there(self) -> None:
        if self._away:
            self._away = ""
            self._recovered()

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.disconnect()


_NO_KEY = b"disbatch:.none"


def _pool(address: Address) -> ConnectionPool:
    arguments: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "db": address.database,
        "username": address.user or None,
        "password": address.password or None,
        "socket_timeout": ANSWER_WITHIN,
        "socket_connect_timeout": CONNECT_WITHIN,
        "socket_keepalive": True,
        "client_name": "disbatch",
    }
    if not address.tls:
        return ConnectionPool(connection_class=Connection, **arguments)
    arguments |= {
        "ssl_check_hostname": True,
        "ssl_ca_certs": address.ca or None,
        "ssl_certfile": address.certificate or None,
        "ssl_keyfile": address.key or None,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
    }
    return ConnectionPool(connection_class=SSLConnection, **arguments)


def words_of(error: BaseException) -> str:
    """What is wrong, in a few words, without any value or password."""
    text = str(error)
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {seen.verify_message or seen.reason}"
        if isinstance(seen, ssl.SSLError):
            return f"no TLS connection ({seen.reason or 'the server does not speak it'})"
        if isinstance(seen, OSError) and seen.errno and seen.errno > 0 and seen.errno in errno.errorcode:
            return os.strerror(seen.errno).lower()
        if isinstance(seen, OSError) and seen.strerror:
            return str(seen.strerror).lower()
        seen = seen.__cause__ or seen.__context__
    if isinstance(error, wrong.AuthenticationError) or "WRONGPASS" in text or "NOAUTH" in text:
        if "without any password configured" in text:
            return "it has no password, but one was given"
        needs = "NOAUTH" in text or "Authentication required" in text
        return "it asks for a password" if needs else "it refuses the user name or the password"
    if isinstance(error, (wrong.TimeoutError, TimeoutError)):
        return SILENT
    if isinstance(error, (wrong.InvalidResponse, wrong.ConnectionError)):
        return _connection_words(error, text)
    return _response_words(error, text)


def _connection_words(error: BaseException, text: str) -> str:
    if isinstance(error, wrong.BusyLoadingError):
        return "it is reading its data"
    if isinstance(error, wrong.InvalidResponse) or "Protocol Error" in text:
        return "it does not speak the Redis protocol"
    if "max number of clients" in text:
        return "it has too many connections"
    return "the connection broke"


def _response_words(error: BaseException, text: str) -> str:
    if isinstance(error, wrong.OutOfMemoryError):
        return "it is full (its maxmemory)"
    if isinstance(error, wrong.ReadOnlyError):
        return "it is a read-only replica"
    if "unknown command" in text:
        return "it is too old: Redis 6.2 or Valkey is needed"
    if isinstance(error, wrong.NoPermissionError) or "NOPERM" in text:
        return "its user may not do what is needed; docs/keystore.md names the commands"
    if text.startswith("WRONGTYPE") or "WRONGTYPE" in text:
        return "a key does not hold a list; put values with RPUSH"
    if "MOVED" in text or "CLUSTER" in text.upper():
        return "it is a cluster, which cannot be used: name a single server"
    if "invalid DB index" in text or "DB index is out of range" in text:
        return "it has no such database"
    if text.startswith("MISCONF"):
        return "it cannot write its data (its disk may be full)"
    # Other texts of the server may contain a value.
    return f"it refuses ({text.split(' ', 1)[0][:40]})"
