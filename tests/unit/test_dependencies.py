"""What the package imports is what a plain installation brings, but for what an extra is there for."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import disbatch

PACKAGE = Path(disbatch.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
NAMES = {"pyzmq": "zmq"}
"""Distributions whose module is called otherwise."""


def modules_of(requirements: list[str]) -> set[str]:
    names = {re.split(r"[^A-Za-z0-9_-]", requirement, maxsplit=1)[0] for requirement in requirements}
    return {NAMES.get(name, name) for name in names}


def imported() -> Iterator[tuple[str, str]]:
    """Each module from elsewhere that is imported, and a file that does it."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in {*sys.stdlib_module_names, "_typeshed", "disbatch"}:
                    yield top, str(path.relative_to(PACKAGE))


def test_a_plain_installation_has_all_that_is_imported_but_polars() -> None:
    missing = {(top, file) for top, file in imported() if top not in modules_of(PROJECT["dependencies"])}
    assert {top for top, _ in missing} <= modules_of(PROJECT["optional-dependencies"]["polars"]), missing


def test_no_dependency_is_there_for_nothing() -> None:
    assert modules_of(PROJECT["dependencies"]) <= {top for top, _ in imported()}


def test_the_page_needs_no_extra_and_its_former_name_still_installs() -> None:
    assert {"starlette", "uvicorn"} <= modules_of(PROJECT["dependencies"])
    assert PROJECT["optional-dependencies"]["web"] == []
