"""`dbutil put`, `get` and `view`: values of the run's key store."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, NamedTuple

from disbatch.cli.verb_options import AddVerb, run_option, seconds, usual_options
from disbatch.model.errors import EXIT_COMPLETE, EXIT_FAILED, DisbatchError, SilenceError, UsageError

if TYPE_CHECKING:
    from disbatch.client.keyvalue import KeyValueClient
    from disbatch.client.run_client import RunClient

Complain = Callable[[str], None]
"""Gets a line for the user."""

READ = 1 << 20


def add_values(add: AddVerb) -> None:
    """Declare the verbs."""
    key = "the key of the value"
    put = add("put", parents=[usual_options()], help="put values into the run's key store")
    put.add_argument("key", metavar="KEY", help=key)
    put.add_argument("values", nargs="*", metavar="VALUE",
        help="appended to the values of the key; - or none: standard input")  # fmt: skip
    put.set_defaults(
        perform=lambda given, say: put_values(given.run, given.key, given.values, given.timeout, say)
    )
    for name, does in (
        ("get", "take the oldest value of a key from the"),
        ("view", "show the oldest value of a key in the"),
    ):
        verb = add(name, parents=[run_option()], help=f"{does} run's key store; wait until there is one")
        verb.add_argument("--timeout", metavar="SECONDS", type=seconds(0, 1e9), default=None,
            help="seconds to wait for a value, then exit with 1 (0: do not wait; default: no "
            "limit)")  # fmt: skip
        verb.add_argument("--raw", action="store_true", help="print only its bytes, without a line end")
        verb.add_argument("key", metavar="KEY", help=key)
        verb.set_defaults(perform=_show)


class Wanted(NamedTuple):
    """The value to show: `take` it out of the store, within `timeout` seconds (None: as long as it takes);
    `raw`: without a line end."""

    key: str
    take: bool
    timeout: float | None
    raw: bool


def _show(given: argparse.Namespace, say: Complain) -> int:
    return show_value(given.run, Wanted(given.key, given.verb == "get", given.timeout, given.raw), say)


def put_values(run: str | None, key: str, words: list[str], patience: float, complain: Complain) -> int:
    """Put them; the exit code. `-`, or no words: what standard input holds."""
    pairs = _pairs(key, words or ["-"])

    async def put(client: RunClient, store: KeyValueClient, say: Complain) -> int:
        try:
            async with asyncio.timeout(patience):
                await store.put(pairs)
        except TimeoutError:
            raise SilenceError(client.no_answer(patience)) from None
        return EXIT_COMPLETE

    return _with_store(run, put, complain)


def show_value(run: str | None, wanted: Wanted, complain: Complain) -> int:
    """Write a value to standard output; the exit code."""

    async def show(client: RunClient, store: KeyValueClient, say: Complain) -> int:
        key = os.fsencode(wanted.key)
        try:
            value = await (store.get if wanted.take else store.view)(key, wanted.timeout)
        except TimeoutError:
            within = f" within {wanted.timeout:g} s" if wanted.timeout else ""
            say(f"no value under {wanted.key}{within}")
            return EXIT_FAILED
        try:
            _write(value if wanted.raw or value.endswith(b"\n") else value + b"\n")
        except OSError as error:
            if not wanted.take:
                raise
            await store.put([(key, value)])
            why = error.strerror or error
            raise DisbatchError(f"standard output: {why}; the value went back, behind the others") from None
        return EXIT_COMPLETE

    return _with_store(run, show, complain)


def _with_store(
    prefix: str | None,
    work: Callable[[RunClient, KeyValueClient, Complain], Coroutine[None, None, int]],
    complain: Complain,
) -> int:
    """Do `work` with the key store of the run; the exit code."""
    from disbatch.client.find import client_of, find_run
    from disbatch.client.keyvalue import KeyValueClient

    run = find_run(prefix)

    def say(text: str) -> None:
        complain(f"{run.prefix}: {text}")

    async def with_store() -> int:
        async with client_of(run, say) as client:
            return await work(client, KeyValueClient(client.ask, notify_user=say), say)

    try:
        return asyncio.run(with_store())
    except UsageError as error:
        raise UsageError(f"{run.prefix}: {error}") from error
    except DisbatchError as error:
        raise DisbatchError(f"{run.prefix}: {error}") from error


def _write(data: bytes) -> None:
    """To standard output, past any buffer."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def _pairs(key: str, words: list[str]) -> list[tuple[bytes, bytes]]:
    if words.count("-") > 1:
        raise UsageError("put: standard input can be read once only")
    name = os.fsencode(key)
    return [(name, _standard_input() if word == "-" else os.fsencode(word)) for word in words]


def _standard_input() -> bytes:
    """All of it; UsageError if it cannot be read, or is more than can be put."""
    from disbatch.sources.file import unreadable
    from disbatch.wire.keystore_protocol import MAX_PUT

    data = bytearray()
    try:
        while len(data) <= MAX_PUT and (piece := os.read(0, READ)):
            data += piece
    except OSError as error:
        raise unreadable("stdin", error) from error
    if len(data) > MAX_PUT:
        raise UsageError(
            f"stdin: more than {MAX_PUT:,} bytes, which is what can be put at once; put a file's name instead"
        )
    return bytes(data)
