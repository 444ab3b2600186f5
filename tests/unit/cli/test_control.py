"""dbutil's command line: which run is meant, and words that mean nothing."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import msgspec
import pytest

from disbatch.cli.dbutil import main
from disbatch.cli.verb_options import parse_ranges
from disbatch.client.find import find_run
from disbatch.model.errors import SilenceError, UsageError
from disbatch.rundir.journal import Asked, SourceKind
from disbatch.rundir.journal_file import JournalFile
from disbatch.rundir.lock import hold
from disbatch.wire.connect import ConnectFile, RunKeys
from disbatch.wire.engine_protocol import PROTOCOL


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def connect(prefix: str, *addresses: str, host: str = "") -> None:
    keys = msgspec.structs.asdict(RunKeys.generate())
    file = ConnectFile(
        protocol=PROTOCOL,
        jobid="J",
        host=host or socket.gethostname(),
        pid=7,
        started=0.0,
        addresses=list(addresses),
        status_file="s",
        directory="d",
        **keys,
    )
    file.write(Path(f"{prefix}_connect.json"))


def run_here(prefix: str) -> int:
    """A run whose driver is on this host and whose status file is held; the descriptor that holds it."""
    connect(prefix, "ipc:///nowhere")
    descriptor = os.open(f"{prefix}_status.txt", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    hold(descriptor)
    return descriptor


def test_ranges() -> None:
    assert parse_ranges("cancel", ["12", "100-199", "7-7", "0"]) == [(12, 12), (100, 199), (7, 7), (0, 0)]


@pytest.mark.parametrize("word", ["", "-", "5-", "-5", "7-6", "1,2", "1e3", "x", "٣", "1" * 19, "1-2-3"])
def test_what_is_no_range(word: str) -> None:
    with pytest.raises(UsageError, match="give the ids of tasks"):
        parse_ranges("cancel", [word])


def test_the_only_live_run_here() -> None:
    with pytest.raises(UsageError, match="no run is live in this directory"):
        find_run(None)
    connect("dead", "ipc:///nowhere")
    with pytest.raises(SilenceError, match=r"dead: .* is dead; `disbatch TASKFILE -r dead_status.txt`"):
        find_run(None)
    Path("torn_connect.json").write_text("{")
    one = run_here("one")
    assert find_run(None).prefix == "one"
    connect("far", "tcp://far:7", host="far")
    with pytest.raises(UsageError, match=r"several runs are live here, .*: far, one$"):
        find_run(None)
    os.close(one)
    assert find_run(None).prefix == "far"
    os.unlink("far_connect.json")
    with pytest.raises(UsageError, match="drivers of these runs are dead, resume them: dead, one"):
        find_run(None)


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("file", "`disbatch --takeover P` goes on with it; or `dbutil finish"),
        ("", "`disbatch --takeover P` goes on with it; or `dbutil finish"),
        ("submitted", "`disbatch --takeover P` goes on with it; or `dbutil finish"),
        ("stream", "`cat SAME_TASKS | disbatch --takeover P -` goes on with it; or `"),
        ("program", "its tasks came from a program: `dbutil finish --run P` ends it; "),
    ],
)
def test_what_a_dead_driver_leaves(here: Path, source: SourceKind, advice: str) -> None:
    connect("P", "ipc:///nowhere")
    asked = Asked("0", [], b"/", "7", "Tasks", b"/log", None, None, 600.0, [], source)
    JournalFile.create(here / "P_run.json", asked)
    with pytest.raises(SilenceError) as caught:
        find_run("P")
    assert f"is dead; {advice}" in str(caught.value)


@pytest.mark.parametrize("verb", ["finish", "pause"])
def test_a_driver_that_takes_the_run_over_is_waited_for(
    verb: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the status file, and does not listen yet."""
    descriptor = run_here("one")
    assert find_run("one").is_starting
    assert main([verb, "--run", "one", "--timeout", "0.2"]) == 3
    said = capsys.readouterr().err
    assert (
        said
        == "dbutil: one: a driver has taken the run over, but did not listen within 0.2 s: ask it again\n"
    )
    os.close(descriptor)


def test_a_named_run(here: Path) -> None:
    os.mkdir("sub")
    descriptor = run_here("sub/my run")
    for name in (
        "sub/my run",
        "sub/my run_status.txt",
        f"{here}/sub/my run_connect.json",
        "sub/my run_dbUtil.sh",
    ):
        assert find_run(name).connect.pid == 7
    os.close(descriptor)
    with pytest.raises(SilenceError, match=r"-r 'sub/my run_status.txt'`"):
        find_run("sub/my run")
    os.unlink("sub/my run_connect.json")
    with pytest.raises(UsageError, match="this run is over"):
        find_run("sub/my run")
    with pytest.raises(UsageError, match=r"there is no such run: no file other_connect.json"):
        find_run("other")
    Path("torn_connect.json").write_text("{")
    with pytest.raises(UsageError, match="not a connect file"):
        find_run("torn")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("drain", "required: NODE"),
        ("stop", "required: NODE"),
        ("cancel", "required: TASKID"),
        ("cancel 1 two", "two: give the ids"),
        ("pause now", "unrecognized arguments: now"),
        ("finish --timeout 0", "--timeout: 0: give seconds"),
        ("finish --timeout nan", "give seconds"),
        ("drain a\x07", "not a valid node name"),
        ("drain " + "n" * 256, "not a valid node name"),
        ("drain " + " ".join(f"n{i}" for i in range(1025)), "at most 1,024 per command"),
        ("cancel " + " ".join(str(2 * i) for i in range(8193)), "at most 8,192 per command"),
        ("explode", "invalid choice"),
        ("", "required: VERB"),
    ],
)
def test_words_that_mean_nothing(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split(" ") if words else []) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("dbutil: ") and said in err


def test_a_run_that_ends_while_it_is_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its driver took the connection, and answered no more."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here / "driver"))
        listener.listen()
        connect("P", f"ipc://{here}/driver")
        (here / "P_status.txt").touch()

        def end() -> None:
            taken, _ = listener.accept()
            (here / "P_connect.json").unlink()
            taken.close()

        ending = threading.Thread(target=end)
        ending.start()
        assert main(["pause", "--run", "P", "--timeout", "0.5"]) == 2
        ending.join()
    assert capsys.readouterr().err == "dbutil: P: this run is over: there is no P_connect.json any more\n"
