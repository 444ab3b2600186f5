"""The files under examples/ do what they say, run with the installed command."""

import shutil
import subprocess
import sys
from pathlib import Path

from deadline import DEADLINE

ROOT = Path(__file__).resolve().parents[2]
DISBATCH = Path(sys.executable).with_name("disbatch")


def run(name: str, directory: Path, expected: int = 0) -> list[list[str]]:
    """Run an example in `directory`; the fields of its status lines."""
    for file in (ROOT / "examples").iterdir():
        shutil.copy(file, directory)
    done = subprocess.run(
        [DISBATCH, "-s", "localhost:2", name],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == expected, done.stderr
    (status,) = directory.glob(f"{name}_*_status.txt")
    return [line.split("\t", 14) for line in status.read_text().splitlines()]


def ids(lines: list[list[str]]) -> list[int]:
    return sorted(int(line[1]) for line in lines if "P" not in line[0])


def test_hello(tmp_path: Path) -> None:
    lines = run("hello.tasks", tmp_path)
    assert ids(lines) == [0, 1, 2, 3]
    by_id = {int(line[1]): line for line in lines}
    assert by_id[0][0].strip() == "O"
    assert by_id[0][10] == str(len("hello from task 0\n"))
    assert (by_id[3][0].strip(), by_id[3][6]) == ("R", "3")
    assert (tmp_path / "hello.txt").read_text() and (tmp_path / "date.txt").read_text()


def test_directives(tmp_path: Path) -> None:
    lines = run("directives.tasks", tmp_path)
    assert ids(lines) == [0, 1, 2, 3, 4]
    assert (tmp_path / "words.txt").read_text() == "one\nun\ntwo\ndeux\nthree\ntrois\n"


def test_repeat(tmp_path: Path) -> None:
    lines = run("repeat.tasks", tmp_path)
    assert ids(lines) == list(range(23))
    squares = {file.name: int(file.read_text()) for file in (tmp_path / "squares").iterdir()}
    assert squares == {f"{n:06}.txt": n * n for n in range(100, 200, 5)}
    assert [int((tmp_path / f"square-{n}.txt").read_text()) for n in (0, 1)] == [100**2, 105**2]


def test_barrier_check(tmp_path: Path) -> None:
    lines = run("barrier-check.tasks", tmp_path, expected=1)
    assert ids(lines) == [0, 1, 2, 3]
    assert [line[0].strip() for line in lines if line[1] == "2"] == ["R E"]
    assert not (tmp_path / "whole").exists()


def test_perengine(tmp_path: Path) -> None:
    lines = run("perengine.tasks", tmp_path)
    assert ids(lines) == list(range(50))
    assert [line[1] for line in lines if "P" in line[0]] == ["0", "0"]
    assert {line[6] for line in lines} == {"0"}
    assert sum(int(file.read_text()) for file in (tmp_path / "sums").iterdir()) == sum(range(1001))
    (status,) = tmp_path.glob("perengine.tasks_*_status.txt")
    jobid = status.name.removeprefix("perengine.tasks_").removesuffix("_status.txt")
    assert not Path(f"/tmp/perengine-{jobid}").exists()


def test_pi(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "pi.py", "localhost:2"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pi is 3.14") and done.stdout.endswith(" tasks\n")


def test_logistic(tmp_path: Path) -> None:
    lines = run("logistic.tasks", tmp_path)
    assert ids(lines) == list(range(242))
    assert {line[6] for line in lines} == {"0"}
    points = list((tmp_path / "points").glob("*/*"))
    assert len(points) == 240
    assert {file.suffix for file in points} == {".txt"}
    picture = (tmp_path / "bifurcation.txt").read_text()
    assert picture.splitlines()[-1] == "240 values of r from 2.8 to 4.0; ^ is chaos, first at r = 3.573222"
