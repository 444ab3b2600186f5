"""Turns keyword arguments into the command line of `disbatch`: `fail_fast=True` is --fail-fast."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from disbatch.cli.options import build_parser

OURS = (
    "help", "version", "keep_open", "owned", "takeover", "force", "taskserver", "taskcommand", "fix_paths",
)  # fmt: skip
"""Options that make no sense here, or are given anyway."""


def arguments(named: Mapping[str, Any]) -> list[str]:
    """The options of these names: those of the long options, in lower case with underscores. True gives an
    option that takes no value, None and False leave it out; a list gives it again and again. TypeError for a
    name or a value that fits none."""
    known = _known()
    words: list[str] = []
    for name, value in named.items():
        action = known.get(name)
        if action is None:
            raise TypeError(
                f"no option of disbatch is called {name!r}; there are: {', '.join(sorted(known))}"
            )
        if value is not None and value is not False:
            words += _words(name, action, value)
    return words


def _known() -> dict[str, argparse.Action]:
    found = {}
    for action in build_parser()._actions:
        for option in action.option_strings:
            if option.startswith("--") and (name := _name(option)) not in OURS:
                found[name] = action
    found["nodes"] = found.pop("ssh_node")
    return found


def _name(option: str) -> str:
    """--cpusPerTask is cpus_per_task."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", option.removeprefix("--")).replace("-", "_").lower()


def _words(name: str, action: argparse.Action, value: Any) -> Iterable[str]:
    option = next(option for option in action.option_strings if option.startswith("--"))
    if action.nargs == 0:
        if value is not True:
            raise TypeError(f"{name}: True or False, not {value!r}")
        return [option]
    if value is True:
        if action.nargs != "?":
            raise TypeError(f"{name}: needs a value")
        return [option]
    listed = isinstance(value, Iterable) and not isinstance(value, str | bytes | os.PathLike)
    if listed and not isinstance(action, argparse._AppendAction):
        raise TypeError(f"{name}: one value, not {value!r}")
    return [f"{option}={_text(name, one)}" for one in (value if listed else [value])]


def _text(name: str, value: Any) -> str:
    if isinstance(value, str | bytes | os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{name}: text or a number, not {value!r}")
