"""The user's configuration of other hosts: the interpreter and the package that launches use there.

Implements `config.toml` in XDG_CONFIG_HOME/disbatch (~/.config/disbatch), or the file that DISBATCH_CONFIG
names, and --fix-paths, which writes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from disbatch.engine.search_path import package_path
from disbatch.model.errors import UsageError

SIZE_LIMIT = 1 << 20


@dataclass(frozen=True)
class Config:
    """`python`: the interpreter on other hosts; `package_path`: a directory there that holds the package.
    None: not fixed. Absolute paths."""

    python: str | None = None
    package_path: str | None = None


KEYS = ("python", "package_path")
_LINE = re.compile(rf"\s*['\"]?({'|'.join(KEYS)})['\"]?\s*=")


def config_path(environ: Mapping[str, str]) -> Path:
    """Where the configuration is, whether it exists or not. A relative XDG_CONFIG_HOME does not count."""
    if environ.get("DISBATCH_CONFIG"):
        return Path(environ["DISBATCH_CONFIG"])
    home = environ.get("XDG_CONFIG_HOME", "")
    if not home.startswith("/"):
        home = str(Path(environ.get("HOME") or Path.home()) / ".config")
    return Path(home) / "disbatch" / "config.toml"


def read_config(environ: Mapping[str, str]) -> Config:
    """The configuration; an empty one if there is no file, unless DISBATCH_CONFIG names it. UsageError."""
    path = config_path(environ)
    named = bool(environ.get("DISBATCH_CONFIG"))
    if not named and _out_of_reach(path):
        return Config()
    text = _text(path)
    if text is None:
        if named:
            raise UsageError(f"{path}: no such file (DISBATCH_CONFIG names it)")
        return Config()
    values = _parse(path, text)
    for key, value in values.items():
        if key not in KEYS:
            raise UsageError(f"{path}: unknown key '{key}'; the keys are {', '.join(KEYS)}")
        if not isinstance(value, str) or not value.startswith("/"):
            raise UsageError(f"{path}: {key} must be an absolute path in quotes")
    return Config(**{key: str(value) for key, value in values.items()})


def _out_of_reach(path: Path) -> bool:
    """True if this user cannot read HOME, as under `su` and in containers: then there is no configuration."""
    try:
        path.stat()
    except (PermissionError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    if len(data) > SIZE_LIMIT:
        raise UsageError(f"{path}: too large for a configuration file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8") from error


def _parse(path: Path, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from error


def fix_paths(environ: Mapping[str, str]) -> list[str]:
    """--fix-paths: write this interpreter and this package's directory to the configuration, keeping the rest
    of the file as it is. Returns lines that tell the user what was written where. UsageError."""
    path = config_path(environ)
    if not sys.executable:
        raise UsageError("--fix-paths: cannot find out which Python this is")
    values = {"python": sys.executable, "package_path": package_path()}
    before = _text(path) or ""
    others = {key: value for key, value in _parse(path, before).items() if key not in KEYS}
    text = _with_values(path, before, values)
    if _parse(path, text) != {**others, **values}:
        raise UsageError(f"{path}: cannot change this file safely; set {' and '.join(KEYS)} by hand")
    _replace(path, text)
    return [f"wrote {path}:", *(f"  {key} = {_quoted(path, value)}" for key, value in values.items())]


def _with_values(path: Path, text: str, values: Mapping[str, str]) -> str:
    """The file with `values` in place of their former lines, or at its top: after a table they would belong
    to that table."""
    left = dict(values)
    lines: list[str] = []
    in_table = False
    for line in text.splitlines():
        in_table = in_table or line.lstrip().startswith("[")
        match = None if in_table else _LINE.match(line)
        if match is None:
            lines.append(line)
        elif match[1] in left:
            lines.append(f"{match[1]} = {_quoted(path, left.pop(match[1]))}")
    return "\n".join([*(f"{key} = {_quoted(path, value)}" for key, value in left.items()), *lines]) + "\n"


def _quoted(path: Path, value: str) -> str:
    if not value.isprintable():
        raise UsageError(
            f"--fix-paths: a path with unprintable characters cannot be written to {path}: {value!r}"
        )
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _replace(path: Path, text: str) -> None:
    try:
        path = path.resolve()  # a configuration that is a link to the user's dotfiles stays one
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
