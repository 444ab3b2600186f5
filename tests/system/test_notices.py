"""Mails through a real SMTP server, and the user's commands at the end and at the first failure."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from command import DBUTIL, DEADLINE, Running, disbatch, gone, processes, status_file, write
from mail_server import PASSWORD, USER, MailServer
from redis_server import certificates

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH:UserWarning")
"""aiosmtpd does not count TLS from the beginning."""
SLOT = ("-s", "localhost:1")
MAIL = (*SLOT, "--mailTo", "me@example.org,you@example.org")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("tls"))


def at(server: MailServer) -> dict[str, str]:
    return {"DISBATCH_SMTP": f"smtp://127.0.0.1:{server.port}"}


# ---- mail ----


def test_every_n_completions_and_at_the_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    lines = [*["true"] * 3, "#DISBATCH BARRIER", "cat gate", "echo oh; exit 3", "true", "true"]
    write(tmp_path / "Tasks", lines)
    with MailServer() as server, Running(tmp_path, *MAIL, "--mailFreq", "3", "Tasks", env=at(server)) as run:
        first = server.next()
        (tmp_path / "gate").write_text("")
        assert run.ended() == 0, run.err
        second, last = server.next(), server.next()
        assert server.subjects() == [] and server.recipients == [["me@example.org", "you@example.org"]] * 3
    name = status_file(tmp_path).name.removesuffix("_status.txt")
    assert first["Subject"] == f"{name} has completed 3 tasks"
    assert second["Subject"] == f"{name} has completed 6 tasks (1 failed)"
    assert last["Subject"] == f"{name}: complete (7 done, 1 failed)"
    lines = [line for line in status_file(tmp_path).read_text().splitlines() if "BARRIER" not in line]
    assert str(first.get_content()).splitlines() == ["Last 3:", "", *lines[:3]]
    assert str(second.get_content()).splitlines() == ["Last 3:", "", *lines[3:6]]
    closing = str(last.get_content())
    assert "6 succeeded, 1 failed" in closing and ": exit 3: oh" in closing
    assert "disbatch: --mailTo" not in run.err


@pytest.mark.parametrize("at_once", [True, False])
def test_with_tls_and_a_login(tmp_path: Path, tls: Path, at_once: bool) -> None:
    write(tmp_path / "Tasks", ["env > env.$DISBATCH_TASKID"])
    scheme = "smtps" if at_once else "smtp"
    with MailServer(tls, at_once=at_once, login=True) as server:
        who = f"{USER.replace('@', '%40')}:{PASSWORD.replace('/', '%2F')}"
        url = f"{scheme}://{who}@localhost:{server.port}?ssl_ca_certs={tls / 'ca.pem'}"
        done = disbatch(tmp_path, *MAIL, "--loglevel", "debug", "Tasks", env={"DISBATCH_SMTP": url})
        assert done.returncode == 0 and "--mailTo" not in done.stderr, done.stderr
        assert len(server.subjects()) == 2
    for path in tmp_path.iterdir():
        assert "cret" not in path.read_text() and "DISBATCH_SMTP" not in path.read_text(), path


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path, tls: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    with MailServer(tls, at_once=True, login=True) as server:
        url = f"smtps://me:secret@localhost:{server.port}"
        done = disbatch(tmp_path, *MAIL, "Tasks", env={"DISBATCH_SMTP": url})
        assert server.subjects() == []
    assert done.returncode == 0
    assert done.stderr.count("its certificate is not trusted") == 1, done.stderr


def test_a_wrong_password(tmp_path: Path, tls: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    with MailServer(tls, at_once=True, login=True) as server:
        url = f"smtps://me:secret@localhost:{server.port}?ssl_ca_certs={tls / 'ca.pem'}"
        done = disbatch(tmp_path, *MAIL, "Tasks", env={"DISBATCH_SMTP": url})
    assert done.returncode == 0
    assert done.stderr.count("--mailTo: localhost:") == 1 and "535" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("answer", ["451 later", "554 never"])
def test_a_server_that_takes_nothing(tmp_path: Path, answer: str) -> None:
    write(tmp_path / "Tasks", ["true"] * 5)
    with MailServer(answer=answer) as server:
        done = disbatch(tmp_path, *MAIL, "Tasks", env=at(server))
    assert done.returncode == 0
    assert done.stderr.count("--mailTo") == 1 and f"{answer}; the run goes on" in done.stderr


def test_one_of_two_recipients_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    with MailServer() as server:
        server.refused = {"you@example.org"}
        done = disbatch(tmp_path, *MAIL, "--mailFreq", "9", "Tasks", env=at(server))
        assert server.next()["Subject"].endswith("complete (1 done)")
    assert "you@example.org was refused (550 no such user)" in done.stderr


def test_no_server(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"] * 3)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"smtp://127.0.0.1:{nobody.getsockname()[1]}"
        done = disbatch(tmp_path, *MAIL, "Tasks", env={"DISBATCH_SMTP": url})
    assert done.returncode == 0 and "3 succeeded" in done.stderr
    assert done.stderr.count("--mailTo") == 1 and "Connection refused" in done.stderr


def test_a_server_that_does_not_answer_delays_no_task(tmp_path: Path) -> None:
    """Its end waits a little for the last mail; a signal ends that."""
    write(tmp_path / "Tasks", ["touch ran.$DISBATCH_TASKID"] * 20)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"DISBATCH_SMTP": f"smtp://127.0.0.1:{silent.getsockname()[1]}"}
        with Running(tmp_path, *MAIL, "Tasks", env=env) as run:
            run.until_said("20 succeeded")
            run.signal(signal.SIGINT)
            assert run.ended(10) == 0
        assert "not waiting for the last mail" in run.err


def test_an_interrupted_run_mails_its_end(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["touch up; sleep 1000", "true"])
    with MailServer() as server, Running(tmp_path, *MAIL, "Tasks", env=at(server)) as run:
        run.until((tmp_path / "up").exists, "the task")
        run.signal(signal.SIGTERM)
        assert run.ended() == 143
        last = server.next()
    assert last["Subject"].endswith(": interrupted (0 done)") and "resume" in str(last.get_content())


def test_a_run_that_could_not_be_completed_mails_its_end(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    with MailServer() as server:
        done = disbatch(
            tmp_path, "-s", "nobody.invalid:1", "--mailTo", "me", "--on-failure", "touch failed", "Tasks",
            env=at(server),
        )  # fmt: skip
        assert done.returncode == 3
        assert server.next()["Subject"].endswith(": no engine could start (0 done)")
    assert (tmp_path / "failed").exists()


# ---- commands ----


def test_the_commands_find_the_numbers(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true", "exit 3", "test -e failure || exit 4"])
    record = 'env > "$DISBATCH_EVENT"; echo told'
    done = disbatch(
        tmp_path, *SLOT, "--on-finish", record, "--on-failure", record, "-e", "Tasks",
        env={"DISBATCH_SMTP": "smtp://me:secret@h"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    status = status_file(tmp_path)
    found = {}
    for event in ("failure", "finish"):
        lines = (tmp_path / event).read_text().splitlines()
        found[event] = dict(line.split("=", 1) for line in lines if "=" in line)
        assert found[event]["DISBATCH_STATUS_FILE"] == str(status)
        assert found[event]["DISBATCH_NAMETASKS"] == "Tasks"
        assert "DISBATCH_SMTP" not in found[event]
    failure, finish = found["failure"], found["finish"]
    assert (failure["DISBATCH_FAILED_TASKID"], failure["DISBATCH_FAILED_RETURN_CODE"]) == ("1", "3")
    assert failure["DISBATCH_DONE"] == "2"
    assert (finish["DISBATCH_DONE"], finish["DISBATCH_TOTAL"], finish["DISBATCH_EXIT_CODE"]) == (
        "3",
        "3",
        "1",
    )
    assert "--on-finish: told" in done.stderr and "--on-failure: told" in done.stderr


def test_the_first_failure_is_told_while_the_run_goes_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    write(tmp_path / "Tasks", ["exit 3", "cat gate", "exit 4"])
    with Running(tmp_path, *SLOT, "--on-failure", "echo x >> told; echo > gate", "Tasks") as run:
        assert run.ended() == 0, run.err
    assert (tmp_path / "told").read_text() == "x\n"


def test_how_a_command_ended_is_shown_if_not_with_0(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    done = disbatch(tmp_path, *SLOT, "--on-finish", "echo so it is >&2; exit 7", "Tasks")
    assert done.returncode == 0
    assert "--on-finish: exit code 7: so it is" in done.stderr
    assert disbatch(tmp_path, *SLOT, "--on-finish", "true", "Tasks").stderr.count("on-finish") == 0


def test_a_signal_ends_a_command_that_takes_long(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    command = "touch up; sleep 1000"
    with Running(tmp_path, *SLOT, "--on-finish", command, "Tasks", env={"HOOK_TEST": tmp_path.name}) as run:
        run.until((tmp_path / "up").exists, "the command")
        run.signal(signal.SIGINT)
        assert run.ended() == 0
    gone(lambda: processes(f"HOOK_TEST={tmp_path.name}"), "what the command started")


def test_a_wrong_task_file_runs_nothing(tmp_path: Path) -> None:
    write(tmp_path / "Wrong", ["#DISBATCH NONSENSE"])
    done = disbatch(tmp_path, *SLOT, "--on-finish", "touch ran", "--on-failure", "touch ran", "Wrong")
    assert done.returncode == 2 and not (tmp_path / "ran").exists()


def test_a_cancelled_task_is_no_failure(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["touch up; sleep 1000", "true"])
    with Running(tmp_path, *SLOT, "--on-failure", "touch failed", "Tasks") as run:
        run.until((tmp_path / "up").exists, "the task")
        dbutil = [DBUTIL, "--run", status_file(tmp_path), "cancel", "0"]
        subprocess.run(dbutil, check=True, timeout=DEADLINE, stdout=subprocess.DEVNULL)
        assert run.ended() == 0
    assert "1 cancelled" in run.err and not (tmp_path / "failed").exists()
