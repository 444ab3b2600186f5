"""Real hosts behind real sshd's, and a real Slurm, for the tests that need them; see tests/lab."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from grid_engine_lab import GridEngineLab
from held_run import Held
from pool_run import Pool
from ports import free_port
from processes import until_ended
from slurm_lab import LAB, SlurmLab
from slurm_run import SlurmRun
from ssh_run import Run

from session_files import remove_session_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTS = ["nodeA", "nodeB", "nodeC", "nodeD"]
LABS = {
    "slurm_lab": "slurm",
    "slurm_run_with_real_cores": "slurm",
    "ssh_lab": "ssh",
    "sixteen_hosts": "ssh",
    "ssh_lab_netns": "netns",
    "browser": "browser",
}
"""What is brought up once for many tests, by fixture."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a module that need the same lab run one after another on one worker, so that few workers
    have to bring it up. Each worker has labs of its own."""
    for item in items:
        for fixture, lab in LABS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(f"{lab}:{item.path.stem}"))
                break


class SshLab:
    """Several hosts, nodeA to nodeD unless told otherwise. `env` is an environment whose `ssh` reaches them;
    `head(argv)` the command that runs `argv` where the hosts can reach it (matters for `ssh_lab_netns`)."""

    def __init__(self, directory: Path, *, netns: bool, hosts: list[str] | None = None) -> None:
        self.directory = directory
        self.hosts = list(hosts or HOSTS)
        self.netns = netns
        self.whole = False
        self._was_whole = False
        self._cut: set[str] = set()
        self.env = {**os.environ, "PATH": f"{directory}/bin:{os.environ['PATH']}"}

    def up(self) -> None:
        """Bring up fresh hosts."""
        self.down()
        port = 22 if self.netns else free_port()
        settings = {"LAB_NETNS": "1" if self.netns else "0", "LAB_PORT": str(port)}
        done = subprocess.run(
            [LAB / "ssh-up", self.directory, *self.hosts],
            check=False,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        self.whole = True

    def down(self) -> None:
        self.whole = self._was_whole = False
        self._cut.clear()
        subprocess.run([LAB / "ssh-down", self.directory], check=True, capture_output=True)

    def _do(self, what: str, host: str) -> None:
        subprocess.run([self.directory / what, host], check=True)

    def poweroff(self, host: str) -> None:
        """End every process of a host at once, as a power cut would. The next test gets fresh hosts."""
        self.whole = self._was_whole = False
        with until_ended(int((self.directory / "run" / f"{host}.init").read_text())):
            self._do("poweroff", host)

    def cut(self, host: str) -> None:
        """Take a host off the network: packets vanish, nobody is told. Only in `ssh_lab_netns`."""
        self._was_whole, self.whole = self.whole or self._was_whole, False
        self._cut.add(host)
        self._do("cut", host)

    def heal(self, host: str) -> None:
        """Bring a host that was cut back to the network. When all are, the hosts serve the next test, too."""
        self._do("heal", host)
        self._cut.discard(host)
        if not self._cut:
            self.whole, self._was_whole = self._was_whole, False

    def reset_connections(self, host: str) -> None:
        """Forget all TCP connections to a host on the head, with what was on its way in them."""
        self.on_head(["ss", "-K", "dst", f"10.77.0.{self.hosts.index(host) + 2}"])

    def on_head(self, argv: list[str]) -> str:
        """What a command says that is run on the head."""
        done = subprocess.run(self.head(argv), check=True, capture_output=True, text=True)
        return done.stdout

    def space(self, host: str) -> str:
        """The host's processes are those whose /proc/PID/ns/pid reads so."""
        pid = (self.directory / "run" / f"{host}.init").read_text().strip()
        return os.readlink(f"/proc/{pid}/ns/pid")

    def head(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` on the head: in its network namespace, knowing the hosts' names."""
        return [str(self.directory / "head"), *argv]

    def inside(self, host: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command among a host's processes, without ssh."""
        pid = (self.directory / "run" / f"{host}.init").read_text().strip()
        return subprocess.run(
            ["nsenter", "-t", pid, "-p", "-m", "-u", "-n", *argv],
            check=False,
            capture_output=True,
            text=True,
        )


def _lab(factory: pytest.TempPathFactory, *, netns: bool, hosts: list[str] | None = None) -> Iterator[SshLab]:
    missing = [name for name in ("sshd", "ip", "unshare", "nsenter") if not _which(name)]
    why = f"no {', '.join(missing)}" if missing else "not root" if os.geteuid() else None
    if why and os.environ.get("CI") == "true":
        pytest.fail(f"the ssh lab cannot be brought up: {why}")
    if why:
        pytest.skip(f"the ssh lab needs root, openssh-server and iproute2: {why}")
    lab = SshLab(factory.mktemp("lab"), netns=netns, hosts=hosts)
    yield lab
    lab.down()


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@pytest.fixture(scope="session")
def _ssh_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshLab]:
    yield from _lab(tmp_path_factory, netns=False)


@pytest.fixture(scope="session")
def _ssh_lab_netns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshLab]:
    yield from _lab(tmp_path_factory, netns=True)


@pytest.fixture
def ssh_lab(_ssh_lab: SshLab) -> SshLab:
    """Four hosts on loopback addresses."""
    if not _ssh_lab.whole:
        _ssh_lab.up()
    return _ssh_lab


@pytest.fixture
def ssh_lab_netns(_ssh_lab_netns: SshLab) -> SshLab:
    """Four hosts in network namespaces, which can be cut off and healed."""
    if not _ssh_lab_netns.whole:
        _ssh_lab_netns.up()
    return _ssh_lab_netns


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    from browser import chromium

    with chromium() as found:
        yield found


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    """A run on this machine that another driver takes over."""
    held = Held(tmp_path)
    yield held
    held.close()


@pytest.fixture
def ssh_run(ssh_lab_netns: SshLab, tmp_path: Path) -> Iterator[Run]:
    """A run in its own directory, whose driver is on the head of the hosts in network namespaces."""
    run = Run(ssh_lab_netns, tmp_path)
    yield run
    run.close()


@pytest.fixture
def sixteen_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshLab]:
    """n1 to n16, on loopback addresses."""
    for lab in _lab(tmp_path_factory, netns=False, hosts=[f"n{number}" for number in range(1, 17)]):
        lab.up()
        yield lab


def _slurm(**settings: int | str) -> Iterator[SlurmLab]:
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "salloc", "srun", "scontrol", "unshare", "setpriv")
    missing = [name for name in programs if not _which(name)]
    why = f"no {', '.join(missing)}" if missing else "not root" if os.geteuid() else None
    if why and os.environ.get("CI") == "true":
        pytest.fail(f"the Slurm lab cannot be brought up: {why}")
    if why:
        pytest.skip(f"the Slurm lab needs root, slurm-wlm and munge: {why}")
    # Not below pytest's own directories, which other users cannot enter.
    directory = Path(tempfile.mkdtemp(prefix="disbatch-slurm-", dir="/tmp"))
    directory.chmod(0o755)
    lab = SlurmLab(directory, **settings)
    yield lab
    lab.down()
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def _slurm_lab() -> Iterator[SlurmLab]:
    yield from _slurm()


@pytest.fixture
def slurm_lab(_slurm_lab: SlurmLab) -> SlurmLab:
    """A Slurm of four nodes with four CPUs and four GPUs each, none of which is real."""
    if not _slurm_lab.whole:
        _slurm_lab.up()
    return _slurm_lab


def _slurm_run(lab: SlurmLab, name: str, user: str) -> Iterator[SlurmRun]:
    jobs = lab.directory / "jobs"
    jobs.mkdir(exist_ok=True)
    # Tests of two modules may have the same name, and the one lab.
    directory = Path(tempfile.mkdtemp(prefix=re.sub(r"\W+", "-", name) + "-", dir=jobs))
    directory.chmod(0o755)
    run = SlurmRun(lab, directory, user)
    yield run
    run.close()
    remove_session_files(directory)


@pytest.fixture
def slurm_run(slurm_lab: SlurmLab, request: pytest.FixtureRequest) -> Iterator[SlurmRun]:
    """Jobs of root's in a directory of their own."""
    yield from _slurm_run(slurm_lab, request.node.name, "root")


@pytest.fixture(params=["root", "nobody"])
def users_slurm_run(slurm_lab: SlurmLab, request: pytest.FixtureRequest) -> Iterator[SlurmRun]:
    """The same for root and for an ordinary user."""
    yield from _slurm_run(slurm_lab, request.node.name, request.param)


@pytest.fixture
def slurm_run_with_real_cores() -> Iterator[SlurmRun]:
    """Jobs on two nodes with as many CPUs as this machine has, to which Slurm binds what it starts."""
    for lab in _slurm(LAB_NODES=1, LAB_CPUS=len(os.sched_getaffinity(0)), LAB_GPUS=0, LAB_TASK="affinity"):
        lab.up()
        yield from _slurm_run(lab, "real-cores", "root")


@pytest.fixture
def grid_engine() -> Iterator[GridEngineLab]:
    """A Grid Engine of one host, this machine, with eight slots."""
    programs = ("sge_qmaster", "sge_execd", "qsub", "qconf")
    missing = [name for name in programs if not _which(name)]
    why = f"no {', '.join(missing)}" if missing else "not root" if os.geteuid() else None
    if why and os.environ.get("CI") == "true":
        pytest.fail(f"Grid Engine cannot be brought up: {why}")
    if why:
        pytest.skip(f"Grid Engine needs root, gridengine-master, -exec and -client: {why}")
    lab = GridEngineLab(Path(tempfile.mkdtemp(prefix="disbatch-grid-engine-", dir="/tmp")))
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """A run on this machine to which nodes are attached."""
    pool = Pool(tmp_path)
    yield pool
    pool.close()
