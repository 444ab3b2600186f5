"""Hosts that cannot be used, for each reason one line; how launches find Python and the driver."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ssh_run import DISBATCH, HELD, TELL, Run

FOUR = ["nodeA", "nodeB", "nodeC", "nodeD"]
TASKS = f"#DISBATCH REPEAT 6 {TELL}"


def _line_of(run: Run, host: str) -> str:
    """The one line about a host."""
    (line,) = [line for line in run.stderr.splitlines() if line.startswith(f"disbatch: {host}: ")]
    return line.removeprefix(f"disbatch: {host}: ")


def _script(run: Run, name: str, text: str) -> str:
    path = run.directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@contextlib.contextmanager
def _mounted(run: Run, host: str, path: Path) -> Iterator[None]:
    """On this host, `path` is another, empty directory."""
    assert run.lab.inside(host, ["mount", "-t", "tmpfs", "empty", str(path)]).returncode == 0
    try:
        yield
    finally:
        assert run.lab.inside(host, ["umount", str(path)]).returncode == 0


def test_one_line_for_each_host_that_cannot_be_used(ssh_run: Run) -> None:
    work = ssh_run.directory / "work"
    work.mkdir()
    for name in ("told", "gate"):
        (work / name).symlink_to(f"../{name}")
    ssh_run.directory = work
    ssh_run.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    # An address that nobody has, one with no way to it, a port that nobody listens at, a name that is none.
    hosts = "nodeA:2,10.77.0.99:1,192.0.2.1:1,10.77.0.1:1,nowhere.invalid:1,nodeC:2"
    with _mounted(ssh_run, "nodeC", work.parent):
        ssh_run.start("-s", hosts, "Tasks")
        ssh_run.until(lambda: ssh_run.stderr.count("\n") == 5, "5 lines")
    ssh_run.until_told(2)
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    ssh_run.check_each_once(6)
    assert {told.host for told in ssh_run.told} == {"nodeA"}
    assert _line_of(ssh_run, "10.77.0.99").startswith("unreachable (")
    assert _line_of(ssh_run, "192.0.2.1").startswith("unreachable (")
    assert _line_of(ssh_run, "10.77.0.1").startswith("it refuses ssh connections (")
    assert _line_of(ssh_run, "nowhere.invalid").startswith("no such host (")
    assert _line_of(ssh_run, "nodeC") == f"working directory {work} does not exist on nodeC"
    assert "of 2 slots on 1 node" in ssh_run.stderr
    assert "Traceback" not in ssh_run.stderr


@contextlib.contextmanager
def _only_the_link(run: Run, host: str, physical: Path, link: Path) -> Iterator[None]:
    """On this host, what is `physical` here has only the name `link`, as with an automounter."""
    commands = [
        f"mount -t tmpfs names {link.parent}",
        f"mkdir {link}",
        f"mount --bind {physical} {link}",
        f"mount -t tmpfs empty {physical.parent}",
    ]
    for command in commands:
        done = run.lab.inside(host, command.split())
        assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        for path in (physical.parent, link, link.parent):
            assert run.lab.inside(host, ["umount", str(path)]).returncode == 0


@pytest.mark.parametrize("prefix", [[], ["-p", "own"]], ids=["", "-p"])
def test_a_directory_that_has_another_name_there(ssh_run: Run, prefix: list[str]) -> None:
    physical, link = ssh_run.directory / "volume" / "work", ssh_run.directory / "home" / "work"
    physical.mkdir(parents=True)
    link.parent.mkdir()
    link.symlink_to("../volume/work")
    ssh_run.directory = link
    dbutil = Path(DISBATCH).with_name("dbutil")
    ssh_run.tasks(f"pwd > where; {dbutil} put key value && ./*_dbUtil.sh view key > value")
    ssh_run.environment = {"PWD": str(link)}
    with _only_the_link(ssh_run, "nodeA", physical, link):
        ssh_run.start("-s", "nodeA:1", *prefix, "--output", "kept", "Tasks")
        assert ssh_run.end() == 0, str(ssh_run)
    (record,) = ssh_run.check_each_once(1)
    assert (record.node, record.return_code) == ("nodeA", 0), str(ssh_run)
    assert [(physical / name).read_text() for name in ("where", "value")] == [f"{link}\n", "value\n"]
    assert list(physical.glob("*_nodeA_engine.txt")) and (physical / "kept").is_dir()


def test_no_host_can_be_used(ssh_run: Run) -> None:
    ssh_run.tasks(TASKS)
    ssh_run.start("-s", "10.77.0.1:1,nowhere.invalid:1", "Tasks")
    assert ssh_run.end() == 3
    assert "disbatch: no engine could start: " in ssh_run.stderr
    assert _line_of(ssh_run, "10.77.0.1").startswith("it refuses ssh connections (")
    assert _line_of(ssh_run, "nowhere.invalid").startswith("no such host (")
    assert f"Tasks -r {ssh_run.status_file.name}" in ssh_run.stderr
    assert ssh_run.records() == []


def test_a_host_that_does_not_let_us_in(ssh_run: Run, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    config = (ssh_run.lab.directory / "ssh_config").read_text()
    (tmp_path / "config").write_text(config.replace(f"{ssh_run.lab.directory}/keys/user", f"{tmp_path}/key"))
    ssh_run.tasks(TASKS)
    (tmp_path / "bin").mkdir()
    _script(ssh_run, "bin/ssh", f'exec /usr/bin/ssh -F {tmp_path}/config "$@"')
    ssh_run.environment = {"PATH": f"{tmp_path}/bin:{ssh_run.lab.env['PATH']}"}
    ssh_run.start("-s", "nodeA:1", "Tasks")
    assert ssh_run.end() == 3
    assert _line_of(ssh_run, "nodeA").startswith("ssh was not let in: ")


@pytest.mark.parametrize("tunnel", [[], ["--tunnel"]], ids=["", "tunnel"])
def test_what_a_person_set_for_logging_in_does_not_hinder(
    ssh_run: Run, tmp_path: Path, tunnel: list[str]
) -> None:
    usual = (ssh_run.lab.directory / "ssh_config").read_text()
    lines = [
        *("RemoteCommand tmux attach", "StdinNull yes", "ForkAfterAuthentication yes", "SessionType none"),
        *("RequestTTY force", "LogLevel QUIET", "VisualHostKey yes", "UnheardOf yes"),
    ]
    own = "".join(f"Host {host}\n  {line}\n" for host, line in zip(FOUR * 2, lines, strict=True))
    (tmp_path / "config").write_text(f"IgnoreUnknown Unheard*\n{own}{usual}")
    (ssh_run.directory / "bin").mkdir()
    _script(ssh_run, "bin/ssh", f'exec /usr/bin/ssh -F {tmp_path}/config "$@"')
    ssh_run.environment = {"PATH": f"{ssh_run.directory}/bin:{ssh_run.lab.env['PATH']}"}
    ssh_run.tasks(f"#DISBATCH REPEAT 8 {HELD}")
    ssh_run.start("-s", ",".join(f"{host}:1" for host in FOUR), *tunnel, "Tasks")
    assert {told.host for told in ssh_run.until_told(4)} == set(FOUR)
    ssh_run.open_gate()
    assert ssh_run.end() == 0, str(ssh_run)
    ssh_run.check_each_once(8)


@pytest.mark.parametrize(
    ("python", "says"),
    [
        ("/not/there", "/not/there cannot be run there (not found)"),
        ("/etc/passwd", "/etc/passwd cannot be run there (not executable)"),
        (
            "OLD",
            "Python 3.9.1 is too old there, disbatch needs 3.11: name a newer one with --ssh-python PATH",
        ),
        ("BARE", "its Python has no "),
        (
            "LOADER",
            "cannot run there (/py: error while loading shared libraries: libx.so: no such file): set what",
        ),
    ],
)
def test_pythons_of_no_use(ssh_run: Run, python: str, says: str) -> None:
    old = 'import sys\nsys.version_info = (3, 9, 1)\nsys.version = "3.9.1 (main)"\nexec(sys.argv[2])'
    if python == "OLD":
        python = _script(ssh_run, "old", f"exec python3 -c '{old}' \"$@\"")
    if python == "LOADER":
        line = "/py: error while loading shared libraries: libx.so: no such file"
        python = _script(ssh_run, "unloadable", f"echo '{line}' >&2; exit 127")
        says = f"{python} {says}"
    if python == "BARE":
        python = _script(ssh_run, "bare", 'exec python3 -S -I "$@"')
    ssh_run.tasks(TASKS)
    ssh_run.start("-s", "nodeA:1", "--ssh-python", python, "Tasks")
    assert ssh_run.end() == 3
    assert _line_of(ssh_run, "nodeA").startswith(says)


def test_paths_that_are_fixed_are_used(ssh_run: Run) -> None:
    """--fix-paths writes the user's configuration; launches obey it, unless --ssh-python says otherwise."""
    config = ssh_run.directory / "config" / "disbatch" / "config.toml"
    ssh_run.environment = {"XDG_CONFIG_HOME": str(config.parent.parent)}
    printed = subprocess.run(
        [DISBATCH, "--fix-paths"],
        check=True,
        env={**ssh_run.lab.env, **ssh_run.environment},
        capture_output=True,
        text=True,
    ).stdout
    assert str(config) in printed
    text = config.read_text()
    assert all(line.split(" = ")[1].strip('"') in printed for line in text.splitlines())
    marked = _script(ssh_run, "marked", f'touch {ssh_run.directory}/used; exec {_python(text)} "$@"')
    ssh_run.tasks(TASKS)
    config.write_text(text.replace(_python(text), marked))
    ssh_run.start("-s", "nodeA:1", "Tasks")
    assert ssh_run.end() == 0, ssh_run.stderr
    assert (ssh_run.directory / "used").exists()
    (ssh_run.directory / "used").unlink()
    ssh_run.start("-s", "nodeA:1", "--ssh-python", _python(text), "-p", "second", "Tasks")
    assert ssh_run.end() == 0, ssh_run.stderr
    assert not (ssh_run.directory / "used").exists()


def _python(config: str) -> str:
    (line,) = [line for line in config.splitlines() if line.startswith("python = ")]
    return line.removeprefix("python = ").strip('"')


def test_the_address_is_used_that_is_given(ssh_run: Run) -> None:
    ssh_run.tasks(TASKS)
    ssh_run.start("-s", "nodeA:1", "--use-address", "10.77.0.1:7411", "Tasks")
    assert ssh_run.end() == 0, ssh_run.stderr
    assert "connected to tcp://10.77.0.1:7411" in ssh_run.log("nodeA")


def test_an_address_that_leads_nowhere(ssh_run: Run) -> None:
    ssh_run.tasks(TASKS)
    ssh_run.start("-s", "nodeA:1", "--use-address", "10.77.0.99:7411", "Tasks")
    assert ssh_run.end() == 3
    assert _line_of(ssh_run, "nodeA").startswith(
        "the driver cannot be reached from nodeA at tcp://10.77.0.99:7411"
    )


def test_many_hosts_start_at_the_same_time(sixteen_hosts: Any, tmp_path: Path) -> None:
    """Shown, not asserted: how long it takes until every host has its first task."""
    for count in (1, 4, 16):
        directory = tmp_path / str(count)
        directory.mkdir()
        run = Run(sixteen_hosts, directory)
        try:
            hosts = sixteen_hosts.hosts[:count]
            run.tasks(f"#DISBATCH REPEAT {2 * count} {HELD}")
            begun = time.monotonic()
            run.start("-s", ",".join(f"{host}:1" for host in hosts), "Tasks")
            assert sorted(told.host for told in run.until_told(count)) == sorted(hosts)
            print(f"{count} hosts have their first task after {time.monotonic() - begun:.1f} s")
            run.open_gate()
            assert run.end() == 0
            run.check_each_once(2 * count)
        finally:
            run.close()
