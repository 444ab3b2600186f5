"""Where our processes import from when PYTHONPATH names other people's modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from disbatch.contexts.local import engine_argv, own_argv
from disbatch.engine.search_path import own_first, package_path

STDLIB = ["/py/lib/python311.zip", "/py/lib/python3.11"]
SITE = "/py/lib/python3.11/site-packages"


@pytest.mark.parametrize(
    ("path", "pythonpath", "package", "expected"),
    [
        ([*STDLIB, SITE], "", SITE, [*STDLIB, SITE]),
        (["/old", *STDLIB, SITE], "/old", SITE, [*STDLIB, SITE, "/old"]),
        (["/b", "/a", *STDLIB, SITE, "/src"], "/b:/a", "/src", [*STDLIB, SITE, "/src", "/b", "/a"]),
        (["/old", "/mod", *STDLIB, SITE], "/old:/mod", "/mod", ["/mod", *STDLIB, SITE, "/old"]),
        ([SITE, "/old", *STDLIB, SITE], "/old", SITE, [*STDLIB, SITE, "/old"]),
        (["/far", "/old", *STDLIB, SITE], "/old", "/far", ["/far", *STDLIB, SITE, "/old"]),
        (["/x/a", *STDLIB, SITE], "/x/b/../a/", SITE, [*STDLIB, SITE, "/x/a"]),
        ([str(Path.cwd()), *STDLIB, SITE], "/old:", SITE, [*STDLIB, SITE, str(Path.cwd())]),
    ],
)
def test_the_order(path: list[str], pythonpath: str, package: str, expected: list[str]) -> None:
    assert own_first(path, pythonpath, package) == expected


def test_without_a_working_directory(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    program = (
        "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]);"
        "from disbatch.engine.search_path import prefer_own; prefer_own(); import disbatch.engine.engine"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "gone"],
        env={**os.environ, "PYTHONPATH": f"/nowhere:lib:{package_path()}"},
        check=False,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (engine_argv(), "standard input ended before"),
        (own_argv("dbutil", "--version"), "dbutil "),
        (own_argv("disbatch", "--version"), "disbatch "),
    ],
    ids=["engine", "dbutil", "disbatch"],
)
def test_another_package_of_our_name_is_not_taken(argv: list[str], says: str, tmp_path: Path) -> None:
    for name in ("disbatch", "zmq", "msgspec", "types", "logging"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')\n")
    done = subprocess.run(
        argv,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:"},
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
    )
    assert says in done.stdout and "the wrong" not in done.stderr


@pytest.mark.parametrize(("module", "says"), [("disbatch", "disbatch "), ("disbatch.cli.entry", "dbutil ")])
def test_as_modules(module: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith(says)
