"""`dbutil put`, `get` and `view`: values of the run's key store."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from disbatch.cli.control import usual_options
from disbatch.model.errors import EXIT_COMPLETE, EXIT_FAILED, DisbatchError, SilenceError, UsageError

if TYPE_CHECKING:
    from disbatch.client.find import Run

READ = 1 << 20
MOST_PATIENCE = 1e9


def add_values(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the verbs with `add(name, help=...)`, which makes a parser."""
    key = "what the value stands under"
    put = add("put", parents=[usual_options()], help="put values into the run's key store")
    put.add_argument("key", metavar="KEY", help=key)
    put.add_argument("values", nargs="*", metavar="VALUE",
        help="behind those that stand there; - (or none) is what standard input holds")  # fmt: skip
    for name, does in (("get", "take the oldest value out of the"), ("view", "show the oldest value in the")):
        verb = add(name, help=f"{does} run's key store, when there is one")
        verb.add_argument(
            "--run", metavar="PREFIX", default=argparse.SUPPRESS, help="the run: what its files begin with"
        )
        verb.add_argument("--timeout", metavar="SECONDS", type=_timeout, default=None,
            help="wait so long for a value, 0: not at all; exit 1 if there is none (default: as long as it "
            "takes)")  # fmt: skip
        verb.add_argument("--raw", action="store_true", help="its bytes alone, without a line end")
        verb.add_argument("key", metavar="KEY", help=key)


def values(options: argparse.Namespace, complain: Callable[[str], None]) -> int:
    """Do it; the exit code. A value goes to standard output."""
    pairs = _pairs(options) if options.verb == "put" else []
    from disbatch.client.find import find_run

    run = find_run(options.run)
    try:
        return asyncio.run(_values(run, options, pairs, lambda text: complain(f"{run.prefix}: {text}")))
    except UsageError as error:
        raise UsageError(f"{run.prefix}: {error}") from error
    except DisbatchError as error:
        raise DisbatchError(f"{run.prefix}: {error}") from error


async def _values(
    run: Run,
    options: argparse.Namespace,
    pairs: list[tuple[bytes, bytes]],
    say: Callable[[str], None],
) -> int:
    from disbatch.client.find import client_of
    from disbatch.client.keyvalue import Storefront

    async with client_of(run, say) as client:
        store = Storefront(client.ask, say=say)
        if options.verb == "put":
            try:
                async with asyncio.timeout(options.timeout):
                    await store.put(pairs)
            except TimeoutError:
                raise SilenceError(client.no_answer(options.timeout)) from None
            return EXIT_COMPLETE
        key = os.fsencode(options.key)
        try:
            value = await (store.get if options.verb == "get" else store.view)(key, options.timeout)
        except TimeoutError:
            within = f" within {options.timeout:g} s" if options.timeout else ""
            say(f"no value under {options.key}{within}")
            return EXIT_FAILED
        try:
            _write(value if options.raw or value.endswith(b"\n") else value + b"\n")
        except OSError as error:
            if options.verb == "view":
                raise
            await store.put([(key, value)])
            why = error.strerror or error
            raise DisbatchError(f"standard output: {why}; the value went back, behind the others") from None
    return EXIT_COMPLETE


def _write(data: bytes) -> None:
    """To standard output, past any buffer."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def _pairs(options: argparse.Namespace) -> list[tuple[bytes, bytes]]:
    words = options.values or ["-"]
    if words.count("-") > 1:
        raise UsageError("put: standard input can be read once only")
    key = os.fsencode(options.key)
    return [(key, _standard_input() if word == "-" else os.fsencode(word)) for word in words]


def _standard_input() -> bytes:
    """All of it; UsageError if it cannot be read, or is more than can be put."""
    from disbatch.sources.file import unreadable
    from disbatch.wire.client_protocol import MAX_PUT

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


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= MOST_PATIENCE:
        raise argparse.ArgumentTypeError(f"{text}: give seconds")
    return seconds
