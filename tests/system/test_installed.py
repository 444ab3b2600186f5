"""The commands, as pip installs them: also where the system cannot run a script by its first line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import DEADLINE, environment

ROOT = Path(__file__).parents[2]
COMMANDS = {"disbatch": "disbatch ", "disBatch": "disbatch ", "dbutil": "dbutil "}


def run(*argv: str | Path, directory: Path, env: dict[str, str] | None = None) -> str:
    """What it prints."""
    done = subprocess.run(
        argv,
        cwd=directory,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built from the checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory), directory=ROOT)
    (built,) = directory.iterdir()
    return built


def install(wheel: Path, directory: Path) -> Path:
    """A virtual environment there, with the package and our dependencies; where its commands are."""
    run(sys.executable, "-m", "venv", "--without-pip", directory, directory=wheel.parent)
    python = directory / "bin/python"
    packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", directory=ROOT)[:-1]
    )
    ours = run(sys.executable, "-c", "import zmq; print(zmq.__path__[0].rsplit('/', 1)[0])", directory=ROOT)
    (packages / "dependencies.pth").write_text(ours)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel), directory=wheel.parent)
    return python.parent


@pytest.mark.parametrize("name", ["my env", "e" * 240, 'it\'s $HOME & "more" \\'])
def test_commands_start(wheel: Path, tmp_path: Path, name: str) -> None:
    commands = install(wheel, tmp_path / name)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for module in ("re", "enum", "disbatch", "zmq", "msgspec"):
        (theirs / f"{module}.py").write_text(f"raise SystemExit('the wrong {module}')\n")
    env = {"PYTHONPATH": str(theirs)}
    for command, says in COMMANDS.items():
        assert run(commands / command, "--version", directory=tmp_path, env=env).startswith(says)
    (tmp_path / "Tasks").write_text('echo "$PYTHONPATH" > found\n')
    run(commands / "disbatch", "-s", "localhost:1", "-p", "P", "Tasks", directory=tmp_path, env=env)
    assert (tmp_path / "found").read_text() == f"{theirs}\n"
    assert run("./P_dbUtil.sh", "--version", directory=tmp_path, env=env).startswith("dbutil ")


def test_a_link_to_a_command(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "there").symlink_to(Path(sys.executable).with_name("dbutil"))
    (tmp_path / "bin/du").symlink_to("../there")
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    assert run("/bin/sh", "-c", "du --version", directory=tmp_path, env=env).startswith("dbutil ")


def test_a_copy_of_a_command(tmp_path: Path) -> None:
    copy = tmp_path / "dbutil"
    copy.write_bytes(Path(sys.executable).with_name("dbutil").read_bytes())
    copy.chmod(0o755)
    done = subprocess.run([copy], capture_output=True, text=True, timeout=DEADLINE, check=False)
    said = f"dbutil: {tmp_path}/disbatch-start cannot be read: install disbatch again\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
