"""Nodes that cannot be attached: one clear line each, and nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command import DEADLINE, environment, in_copy
from pool_run import HELD, RAN, Pool

from disbatch.cli.dbutil import main

HERE = socket.gethostname()
DBUTIL = str(Path(sys.executable).with_name("dbutil"))
WAITS = "no engines are there; waiting for some"


def refused(pool: Pool, *words: str, code: int = 2) -> str:
    """What `dbutil --run P WORDS` complains of, in one line."""
    run = ["--run", str(pool.directory / "P")]
    got, out, said = in_copy(main, pool.directory, *run, *words, env=pool.env)
    assert got == code and not out and said.count("\n") == 1 and said.startswith("dbutil: "), said
    return said


WRONG: list[tuple[list[str], str]] = [
    (["-s", "localhost"], "how many cores"),
    (["-s", "localhost:0"], "at least 1 core"),
    (
        ["-s", "localhost:2", "-c", "4"],
        "no node has room for a task: localhost: left out: it has 2 cores",
    ),
    (["-s", "localhost:1", "-l", "x" * 256], "-l/--label: a label has at most 255 characters"),
    (["-s", "localhost:1", "-l", "a\nb"], "-l/--label: must be printable and not blank, not 'a\\nb'"),
    (["-s", "localhost:1", "-l", " "], "-l/--label: must be printable and not blank, not ' '"),
    (["-s", "localhost:1", "-l", "\udcff"], "-l/--label: must be printable and not blank, not '\\udcff'"),
    (["-s", "localhost:1", "-C", "-1"], "must be a whole number of at least 0"),
    (["-s", "localhost:1", "Tasks"], "unrecognized arguments: Tasks; see dbutil attach --help"),
    (["--nonsense"], "unrecognized arguments: --nonsense; see dbutil attach --help"),
    (["-c", "0"], "must be a number of more than 0, not '0'; see dbutil attach --help"),
    (["drain"], "the following arguments are required: NODE; see dbutil drain --help"),
    (["pause", "now"], "unrecognized arguments: now; see dbutil pause --help"),
    (["drain", "nodeA"], "no node or label nodeA; there are none yet"),
    (["-s", "nodeA:1", "--use-address", "localhost:0"], "unrecognized arguments: --use-address"),
]


def test_wrong_words(pool: Pool) -> None:
    pool.tasks(RAN)
    with pool.start("-S") as run:
        run.until_said(WAITS)
        for words, complaint in WRONG:
            assert complaint in refused(pool, *words), words
        words, complaint = WRONG[0]
        code, said = pool.asked(*words)
        assert code == 2 and complaint in said and said.count("\n") == 1
        assert "attached" not in run.err


def test_a_run_that_is_over(pool: Pool) -> None:
    pool.tasks(RAN)
    with pool.start("-s", "localhost:1") as run:
        assert run.ended() == 0
    over = f"{pool.directory}/P: this run is over: there is no P_connect.json any more"
    assert over in refused(pool, "-s", "localhost:1")


def test_a_run_that_is_ending(pool: Pool) -> None:
    pool.tasks(f"trap '' TERM; {HELD}")
    with pool.start("-s", "localhost:1", "--grace", "1000") as run:
        pool.until_ran(1)
        run.signal(signal.SIGINT)
        run.until_said("SIGINT: ending")
        assert f"{pool.directory}/P: the run is ending already" in refused(pool, "-s", "localhost:1")


def test_a_run_whose_driver_is_dead(pool: Pool) -> None:
    pool.tasks(HELD)
    with pool.start("-S") as run:
        run.until_said(WAITS)
        run.signal(signal.SIGKILL)
        assert run.ended() == -signal.SIGKILL
    said = refused(pool, "-s", "localhost:1", code=3)
    assert f"the driver (pid {run.pid}) on {HERE} is dead; `disbatch --takeover {pool.directory}/P`" in said


def test_another_protocol(pool: Pool) -> None:
    pool.tasks(HELD)
    with pool.start("-S") as run:
        run.until_said(WAITS)
        connect = pool.directory / "P_connect.json"
        written = connect.read_text()
        connect.write_text(json.dumps(json.loads(written) | {"protocol": 1}))
        assert "the run speaks protocol 1, this dbutil, " in refused(pool, "-s", "localhost:1")


def test_somebody_elses_run(pool: Pool) -> None:
    """Who may not read the connect file, as nobody here."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    pool.tasks(HELD)
    with pool.start("-S") as run:
        run.until_said(WAITS)
        for folder in (pool.directory, *pool.directory.parents):
            if folder.owner() == "root" and folder.parent != folder:
                folder.chmod(folder.stat().st_mode | 0o055)
        program = (
            "import os, sys, disbatch.attach.agent, disbatch.cli.context, disbatch.cli.context, "
            "disbatch.cli.output, disbatch.client.find; from disbatch.cli.dbutil import main; "
            "os.setgid(65534); os.setuid(65534); "
            f"sys.exit(main(['attach', '--run', {str(pool.directory / 'P')!r}, '-s', 'localhost:1']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=DEADLINE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        2,
        f"dbutil: {pool.directory}/P_connect.json: Permission denied\n",
    )


def test_a_driver_without_a_port(pool: Pool) -> None:
    pool.tasks(HELD)
    with pool.start("-S", "--use-address", "localhost:0") as run:
        run.until_said(WAITS)
        no_port = "the driver has no port for other hosts: attach them with --tunnel"
        assert no_port in refused(pool, "-s", "elsewhere:1")
        addresses = json.loads((pool.directory / "P_connect.json").read_text())["addresses"]
        (port,) = [a.rpartition(":")[2] for a in addresses if a.startswith("tcp://127.0.0.1:")]
        assert _listening(int(port)) == {"0100007F", "0000000000000000FFFF00000100007F"} & _listening(
            int(port)
        )


def _listening(port: int) -> set[str]:
    """The addresses, as /proc writes them, at which somebody listens at that port."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if int(number, 16) == port and state == "0A":
                found.add(address)
    assert found
    return found


def test_a_driver_that_stands_still(pool: Pool) -> None:
    """Nothing came of it when it goes on."""
    pool.tasks(HELD)
    with pool.start("-S") as run:
        run.until_said(WAITS)
        run.signal(signal.SIGSTOP)
        said = refused(pool, "-s", "localhost:1", code=3)
        assert "is it suspended, or busy? Nothing was done" in said
        run.signal(signal.SIGCONT)
    assert "attached" not in run.err


def test_over_while_it_is_launching(pool: Pool, tmp_path: Path) -> None:
    pool.tasks(HELD)
    os.mkfifo(tmp_path / "never")
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f"#!/bin/sh\necho called >> {tmp_path}/called; exec cat {tmp_path}/never\n")
    ssh.chmod(0o755)
    pool.env["PATH"] = f"{ssh.parent}:{os.environ['PATH']}"
    with pool.start("-s", "localhost:1") as run, pool.attach("-s", "elsewhere:1") as attach:
        run.until((tmp_path / "called").exists, "a launch")
        pool.open_gate()
        assert run.ended() == 0
        assert attach.ended() == 0
        assert attach.said == ["dbutil: the run is over"]
    pool.until_gone()
