"""Which key store a run uses, by its options and the environment; and options without their passwords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from disbatch.keystore.address import PREFIX, URL, Address, parse_address
from disbatch.model.errors import UsageError

if TYPE_CHECKING:
    from disbatch.cli.run_options import SourceOptions

MAX_PREFIX = 200
_OPTIONS = ("--kvsserver", "--taskserver")


def choose_store(source: SourceOptions, environment: Mapping[str, str]) -> tuple[Address | None, str]:
    """The server to use (None: the driver's own store), and what keys shall begin with there ("": a prefix of
    the run's own). UsageError."""
    named = {"--kvsserver": source.kvsserver, "--taskserver": source.taskserver}
    given = {option: parse_address(text, option) for option, text in named.items() if text}
    if len(set(given.values())) > 1:
        raise UsageError("--kvsserver and --taskserver name two servers, and a run has one key store")
    address = next(iter(given.values()), None)
    if address is None and any(text is not None for text in named.values()) and environment.get(URL):
        address = parse_address(environment[URL], URL)
    if address is None and source.kvsserver is not None:
        raise UsageError(f"--kvsserver: which one? name it HOST:PORT, or set {URL}")
    return address, "" if address is None else _prefix(environment.get(PREFIX, ""))


def _prefix(text: str) -> str:
    if len(text) > MAX_PREFIX or not text.isprintable():
        raise UsageError(f"{PREFIX}: must be at most {MAX_PREFIX} printable characters")
    return text


def without_passwords(arguments: list[str]) -> list[str]:
    """The command line for logs and for later commands: an address that holds a password is left out, so that
    it is looked for in the environment."""
    shown = list(arguments)
    for at, word in enumerate(arguments):
        option, _, text = word.partition("=")
        if option not in _OPTIONS:
            continue
        if "=" in word:
            if has_password(text):
                shown[at] = f"{option}="
        elif at + 1 < len(arguments) and has_password(arguments[at + 1]):
            shown[at : at + 2] = [f"{option}=", ""]
    return [word for word, before in zip(shown, arguments, strict=True) if word or not before]


def has_password(text: str) -> bool:
    """True for an address that is not for everybody's eyes."""
    return "://" in text and "@" in text
