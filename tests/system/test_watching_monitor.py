"""dbutil monitor on a real terminal, of a real run: numbers move, keys work, the driver dies."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import DBUTIL, DEADLINE, call, disbatch, write
from held_run import Held
from terminal import Terminal

QUICKLY = ("--interval", "0.1")


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    run = Held(tmp_path)
    yield run
    run.close()


def monitor(directory: Path, *words: str, columns: int = 80, lines: int = 24, **env: str) -> Terminal:
    argv = [DBUTIL, "monitor", "--run", "P", *QUICKLY, *words]
    return Terminal(argv, directory, columns=columns, lines=lines, env=env)


def test_from_the_beginning_over_a_takeover_to_the_end(held: Held) -> None:
    held.lines += ["echo bad words >&2; exit 3"]
    held.gated(5)
    with held.beginning("-s", "localhost:2") as run:
        held.until_ran(1, 2)
        with monitor(held.directory) as terminal:
            terminal.until_shown("1 of 6 done, 1 failed, 2 running")
            held.let_pass(1)
            terminal.until_shown("2 of 6 done")
            terminal.press("3")
            terminal.until_shown("bad words")
            terminal.press("\r")
            terminal.until_shown("Details")
            terminal.press("\x1b")
            terminal.until_gone("Details")
            held.kill(run)
            terminal.until_shown("P: dead, last heard of at ")
            terminal.until_shown("--takeover P")
            with held.taking_over() as next_run:
                terminal.until_shown("P: running for")
                held.let_pass(1)
                terminal.until_shown("3 of 6 done")
                held.let_pass(3)
                assert next_run.ended() == 0
                terminal.until_shown("P: over, ")
                terminal.until_shown("6 of 6 done, 1 failed")
                terminal.until_shown("complete")
            terminal.press("q")
            assert terminal.ended() == 0
            assert b"\x1b[?1049l" in terminal.raw, "it leaves the terminal as it was"


def test_drain_cancel_pause_by_keys(held: Held) -> None:
    held.gated(8)
    with held.beginning("-s", "localhost:2") as run, Attached(held) as attached:
        with monitor(held.directory) as terminal:
            terminal.until_shown("Nodes 2")
            terminal.press("2")
            terminal.until_shown("COMMAND")
            terminal.press("c")
            terminal.until_shown("Cancel task ")
            terminal.press("n")
            terminal.until_gone("Cancel task ")
            terminal.press("p")
            terminal.until_shown("Pause the run?")
            terminal.press("y")
            terminal.until_shown("P: paused, began ")
            terminal.press("p")
            terminal.until_shown("Resume the run?")
            terminal.press("y")
            terminal.until_shown("P: running for ")
            terminal.press("1")
            terminal.until_shown("MEMORY")
            terminal.press("\x1b[F")  # the last one
            terminal.press("d")
            terminal.until_shown("It gets no new tasks")
            terminal.press("y")
            terminal.until_shown("draining")
            held.let_pass(8)
            terminal.until_shown("P: over, ")
            terminal.press("q")
            assert terminal.ended() == 0
        assert run.ended() == 0
        assert "dbutil drain" in run.err and "paused by dbutil" in run.err
        attached.wait(DEADLINE)


class Attached:
    """Another context of this machine, under a name of its own."""

    def __init__(self, held: Held) -> None:
        self._held = held

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._held.until_ran(0, 1)
        self.process = self._held.attach("-s", "localhost:2")
        self._held.until_ran(2, 3)
        return self.process

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(DEADLINE)


def test_of_a_run_that_is_over(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true", "echo no luck >&2; exit 7"])
    assert disbatch(tmp_path, "-s", "localhost:1", "-p", "P", "Tasks").returncode == 0
    with Terminal([str(tmp_path / "P_dbUtil.sh"), "--mon"], tmp_path) as terminal:
        terminal.until_shown("P: over, ")
        terminal.until_shown("2 done, 1 failed")
        terminal.press("3")
        terminal.until_shown("no luck")
        terminal.resize(160, 45)
        terminal.until(lambda: "1 Nodes 1" in terminal.shown and "no luck" in terminal.shown, "all tables")
        terminal.press("q")
        assert terminal.ended() == 0


def test_few_bytes(held: Held) -> None:
    """A picture is 80 x 24 characters; one more task that is done changes a few lines of it."""
    held.gated(40)
    with held.beginning("-s", "localhost:1", "--heartbeat", "60", "--patience", "130") as run:
        held.until_ran(0)
        with monitor(held.directory) as terminal:
            terminal.until_shown("0 of 40 done, 1 running")
            terminal.until_shown("help")
            begun = len(terminal.raw)
            for number in range(1, 11):
                held.let_pass(1)
                terminal.until_shown(f" {number} of 40 done, 1 running")
            assert len(terminal.raw) - begun < 10 * 1500
            terminal.press("q")
            assert terminal.ended() == 0
        held.let_pass(30)
        assert run.ended() == 0


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"COLORTERM": "truecolor"}])
def test_colours(held: Held, env: dict[str, str]) -> None:
    """Those of the terminal itself, or none: on dark and light ones, and few bytes."""
    held.gated(1)
    with held.beginning("-s", "localhost:1") as run:
        held.until_ran(0)
        with monitor(held.directory, **env) as terminal:
            terminal.until_shown("MEMORY")
            terminal.press("p")
            terminal.until_shown("Pause the run?")
            terminal.press("nq")
            assert terminal.ended() == 0
            assert b"38;2;" not in terminal.raw and b"48;2;" not in terminal.raw
            assert ("NO_COLOR" in env) == (re.search(rb"\x1b\[[0-9;]*\b3[1-6]\b", terminal.raw) is None)
        held.let_pass(1)
        assert run.ended() == 0


def test_interrupt_key(held: Held) -> None:
    held.gated(1)
    with held.beginning("-s", "localhost:1") as run:
        held.until_ran(0)
        with monitor(held.directory) as terminal:
            terminal.until_shown("MEMORY")
            terminal.press("\x03")
            assert terminal.ended() == 0
        held.let_pass(1)
        assert run.ended() == 0, "the run goes on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals(held: Held, number: signal.Signals) -> None:
    held.gated(1)
    with held.beginning("-s", "localhost:1") as run:
        held.until_ran(0)
        with monitor(held.directory) as terminal:
            terminal.until_shown("MEMORY")
            terminal.process.send_signal(number)
            assert terminal.ended() == 128 + number
            assert b"\x1b[?1049l" in terminal.raw, "it leaves the terminal as it was"
        held.let_pass(1)
        assert run.ended() == 0


def test_the_terminal_goes_away(held: Held) -> None:
    held.gated(1)
    with held.beginning("-s", "localhost:1") as run:
        held.until_ran(0)
        with monitor(held.directory) as terminal:
            terminal.until_shown("MEMORY")
            terminal.hang_up()
            terminal.process.wait(DEADLINE)
        held.let_pass(1)
        assert run.ended() == 0


def test_no_terminal(held: Held) -> None:
    done = call([DBUTIL, "monitor", "--run", "P"], held.directory, {"TERM": "xterm"})
    said = "dbutil: monitor: this is no terminal; `dbutil status --watch` writes lines\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--run", "none"), "none: there is no such run"),
        (("--run", "other"), "is not a status file"),
        (("--interval", "0"), "--interval: 0: give seconds"),
        (("--interval", "nan"), "--interval: nan: give seconds"),
    ],
)
def test_words_that_mean_nothing(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "other_status.txt").write_text("hello\n")
    with Terminal([DBUTIL, "monitor", *words], tmp_path, columns=200) as terminal:
        assert terminal.ended() == 2
        assert said in terminal.shown and "Traceback" not in terminal.shown
