"""Engines started as steps of a real Slurm job, and all the ways in which a step can end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from processes import children
from slurm_lab import SlurmLab

from deadline import DEADLINE
from disbatch.contexts.launcher import Launcher
from disbatch.contexts.nodes import Node
from disbatch.contexts.slurm.context import SlurmJob
from disbatch.contexts.slurm.job import Allocation
from disbatch.contexts.slurm.srun import SrunOptions
from disbatch.model.errors import LaunchError
from disbatch.model.task import Ending, Outcome, Way
from disbatch.wire.connect import RunKeys
from disbatch.wire.driver_socket import Hub, Peer
from disbatch.wire.engine_protocol import (
    PROTOCOL,
    READY_MARK,
    Bootstrap,
    Finished,
    Hello,
    Leave,
    Order,
    Pulse,
    Start,
    Welcome,
)

MISLEADING = {
    "SLURM_NTASKS": "8",
    "SLURM_NPROCS": "8",
    "SLURM_NNODES": "4",
    "SLURM_HINT": "nomultithread",
    "SLURM_MEM_PER_CPU": "500",
    "SLURM_CPUS_PER_TASK": "2",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURM_STDOUTMODE": "none",
    "SLURM_LABELIO": "1",
    "SLURM_DISTRIBUTION": "plane=1",
}
"""What a job's environment may hold, and srun would take for its options."""
PLAIN = f"unset {' '.join(MISLEADING)}"


class Job:
    """An allocation without a shell; a driver on the head, in this process, that says nothing by itself."""

    def __init__(self, lab: SlurmLab, folder: Path, options: str) -> None:
        said = subprocess.run(
            ["salloc", "--no-shell", *options.split()],
            env=lab.env,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        ).stderr
        match = re.search(r"Granted job allocation (\d+)", said)
        assert match is not None, said
        self.lab = lab
        self.folder = folder
        self.id = int(match[1])
        self.seen: list[tuple[Any, ...]] = []
        self.outcomes: dict[int, Outcome] = {}
        self.peers: dict[str, Peer] = {}
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def driver(self, srun: SrunOptions | None = None, timeout: float = DEADLINE) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        self.keys = RunKeys.generate()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.hub = Hub(
            loop, context, self.keys, hello=self._hello, receive=self._receive, bad=self._note("bad")
        )
        port = self.hub.bind("tcp://127.0.0.1:*").rpartition(":")[2]
        self.addresses = [f"ipc://{self.folder}/nobody", f"tcp://@client:{port}"]
        nobody = Allocation(str(self.id), [], "", frozenset(), None, None, (22, 5))
        job = self.context = SlurmJob(nobody, srun)
        self.launcher = Launcher(
            loop,
            job,
            on_started=self._note("started"),
            on_failed=self._note("failed"),
            on_exit=self._note("exit"),
            on_trouble=self._note("trouble"),
            timeout=timeout,
        )
        try:
            yield
        finally:
            await self.launcher.close(0)
            self.hub.close()
            context.term()

    def start(self, *names: str, grace: float = 5.0, **changes: Any) -> None:
        self._grace = grace
        for name in names:
            fields: dict[str, Any] = {
                "protocol": PROTOCOL,
                "engine": name,
                "node": name,
                "slots": 4,
                "cores_per_task": 1.0,
                "directory": os.fsencode(self.folder),
                "log": os.fsencode(self.folder / f"{name}_engine.txt"),
                "addresses": self.addresses,
                "server_key": self.keys.server_key,
                "client_key": self.keys.client_key,
                "client_secret": self.keys.client_secret,
                "environment": dict(os.environb),
                "way": Way.STEP,
                "step": self.context.variables,
            }
            node = Node(name, 4, 4, Way.STEP, gpus=changes.pop("gpus", 0))
            self.launcher.start(node, Bootstrap(**(fields | changes)))

    def post(self, name: str, *commands: str, first: int = 1) -> None:
        orders = [Order(n, n, n, -1, text.encode()) for n, text in enumerate(commands, first)]
        self.hub.post(name, Start(orders))

    async def said(self, name: str, command: str) -> list[str]:
        """What a task's command prints on that node, in words."""
        attempt = 1000 + len(self.outcomes)
        self.post(name, command, first=attempt)
        await self.until(lambda: attempt in self.outcomes, f"the end of {command}")
        assert self.outcomes[attempt].err_snippet == b""
        return self.outcomes[attempt].out_snippet.decode().split()

    def _note(self, kind: str) -> Callable[..., None]:
        def note(*what: Any) -> None:
            self.seen.append((kind, *what))
            self._changed.set()

        return note

    def _hello(self, peer: Peer, hello: Hello) -> None:
        self.peers[peer.name] = peer
        welcome = Welcome(
            1, "7", b"T", 0.2, 5.0, 60.0, self._grace, peer.session.seen, peer.session.next_number
        )
        self.hub.welcome(peer, welcome, hello.orders_seen)
        self._note("hello")(peer.name, hello)

    def _receive(self, peer: Peer, number: int, message: Any) -> None:
        if number:
            peer.session.acknowledge(number)
            peer.session.tell(Pulse())
        if isinstance(message, Finished):
            self.outcomes |= {outcome.attempt: outcome for outcome in message.outcomes}
        self._note(type(message).__name__)(peer.name, message)

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pytest.fail(f"waited for {what}; seen: {[e[:2] for e in self.seen if e[0] != 'Beat']}")

    def of(self, kind: str) -> dict[str, Any]:
        """What was noted of that kind, by engine."""
        return {event[1]: event[-1] for event in self.seen if event[0] == kind}

    async def joined(self, *names: str) -> None:
        await self.until(
            lambda: set(names) <= set(self.of("hello")) & set(self.of("started")) or self.of("failed"),
            "engines",
        )
        assert not self.of("failed")

    async def exits(self, *names: str) -> None:
        await self.until(lambda: set(names) <= set(self.of("exit")), "exits")

    async def files(self, count: int, pattern: str) -> list[Path]:
        """Files of tasks, once there are so many; looked at with each heartbeat of an engine."""
        await self.until(lambda: len(list(self.folder.glob(pattern))) >= count, pattern)
        return list(self.folder.glob(pattern))

    def steps(self) -> list[str]:
        """The names of the job's steps."""
        return self.lab.call("squeue", "-h", "-s", "-j", str(self.id), "-o", "%j").split()

    async def no_steps(self) -> None:
        """Slurm tells nobody when it has cleaned up after one: it may be a moment after its srun ended."""
        async with asyncio.timeout(DEADLINE):
            while await asyncio.to_thread(self.steps):
                await asyncio.sleep(0.1)


@pytest.fixture
def allocate(slurm_lab: SlurmLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    jobs: list[Job] = []

    def allocate(options: str) -> Job:
        job = Job(slurm_lab, tmp_path, options)
        jobs.append(job)
        for name, value in {**MISLEADING, "SLURM_CONF": slurm_lab.env["SLURM_CONF"]}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SLURM_JOB_ID", str(job.id))
        return job

    yield allocate
    for job in jobs:
        subprocess.run(["scancel", str(job.id)], env=slurm_lab.env, check=False, timeout=DEADLINE)
        if slurm_lab.whole:
            slurm_lab.ended(job.id)


def _run(work: Any) -> None:
    asyncio.run(work)


def test_steps_start_work_and_leave(allocate: Any, slurm_lab: SlurmLab) -> None:
    job = allocate("-N4 -n9 --gres=gpu:2")
    nodes = slurm_lab.nodes

    async def play() -> None:
        async with job.driver():
            job.start(*nodes)
            await job.joined(*nodes)
            assert {name: job.of("hello")[name].host for name in nodes} == {name: name for name in nodes}
            await asyncio.to_thread(lambda: sorted(job.steps()) == ["disbatch"] * 4)
            cpus = [await job.said(name, "echo $SLURM_CPUS_ON_NODE") for name in nodes]
            assert sum(int(count) for (count,) in cpus) == 9
            assert await job.said("node2", "echo $CUDA_VISIBLE_DEVICES") == ["0,1"]
            assert await job.said("node2", "echo $SLURM_NTASKS $SLURMD_NODENAME $SLURM_MEM_PER_CPU") == [
                *("8", "node2", "500")
            ]
            assert await job.said("node3", "echo x$SLURM_STEP_ID$SLURM_CPU_BIND") == ["x"]
            assert await job.said("node3", f"{PLAIN}; srun -Q -N1 -n1 --overlap -w node4 hostname") == [
                "node4"
            ]
            for name in nodes:
                job.hub.post(name, Leave())
            await job.until(lambda: len(job.of("Goodbye")) == 4, "goodbyes")
            for name in nodes:
                job.launcher.end(name)
            await job.exits(*nodes)
            assert {event[2] for event in job.seen if event[0] == "exit"} == {0}
        await job.no_steps()
        assert not {"failed", "trouble", "bad"} & {event[0] for event in job.seen}

    _run(play())


def test_two_runs_in_one_job_and_a_step_of_a_task_do_not_wait_for_one_another(allocate: Any) -> None:
    job = allocate("-N1 -n4 -w node1")

    async def play() -> None:
        async with job.driver():
            job.start("node1", engine="first")
            job.start("node1", engine="second")
            await job.joined("first", "second")
            assert await job.said("first", f"{PLAIN}; srun -Q -n1 hostname") == ["node1"]
            assert await job.said("second", "echo $SLURM_CPUS_ON_NODE") == ["4"]

    _run(play())


def test_orders_that_are_longer_than_any_buffer(allocate: Any) -> None:
    job = allocate("-N1 -n1 -w node1")
    large = {f"SLURM_LARGE_{n}".encode(): b"x" * 100_000 for n in range(10)}

    async def play() -> None:
        async with job.driver():
            job.start("node1", environment=dict(os.environb) | large)
            await job.joined("node1")
            assert await job.said("node1", "echo ${#SLURM_LARGE_9}") == ["100000"]

    _run(play())


def test_gpus_that_a_job_asked_for_as_a_whole(allocate: Any) -> None:
    job = allocate("-N1 -n1 --gpus=3 -w node1")

    async def play() -> None:
        async with job.driver():
            job.start("node1", gpus=3)
            await job.joined("node1")
            assert await job.said("node1", "echo $CUDA_VISIBLE_DEVICES") == ["0,1,2"]

    _run(play())


SIGNALLED = (
    "touch $DISBATCH_TASKID.here; exec sleep 1000",
    "touch $DISBATCH_TASKID.here; sleep 1000; echo after",
    "trap 'echo saved; exit 9' TERM; touch $DISBATCH_TASKID.here; while :; do sleep 0.05; done",
    "trap 'sleep 0.1; echo saved; exit 0' TERM; touch $DISBATCH_TASKID.here; while :; do sleep 0.05; done",
)


@pytest.mark.parametrize("wait", ["cancelled", "signalled"])
def test_job_that_is_ended_ends_no_task_by_its_own(allocate: Any, wait: str) -> None:
    """All processes of a step are signalled at once: no task that dies of it was completed, or has failed."""
    job = allocate("-N2 -n8 -w node1,node2")

    async def play() -> None:
        async with job.driver():
            job.start("node1", "node2", grace=2.0)
            await job.joined("node1", "node2")
            job.post("node1", *SIGNALLED, "exit 7")
            job.post("node2", *SIGNALLED, first=11)
            await job.files(8, "*.here")
            how = ["--signal=TERM"] if wait == "signalled" else []
            await asyncio.to_thread(job.lab.call, "scancel", *how, str(job.id))
            await job.exits("node1", "node2")
        assert [job.outcomes[n].ending for n in (1, 2, 3, 4, 11, 12, 13, 14)] == [Ending.ORDERED] * 8
        assert job.outcomes[3].out_snippet == job.outcomes[4].out_snippet == b"saved\n"
        assert all("SIGTERM" in job.of("Goodbye")[name].reason for name in ("node1", "node2"))

    _run(play())


def test_srun_that_is_killed_is_not_the_end_of_its_engine(allocate: Any) -> None:
    job = allocate("-N1 -n2 -w node1")

    async def play() -> None:
        async with job.driver():
            job.start("node1")
            await job.joined("node1")
            (srun,) = [p for p in children(os.getpid()) if Path(f"/proc/{p}/comm").read_text() == "srun\n"]
            # It has a child which has the step ended if srun is killed alone.
            for pid in (*children(srun), srun):
                os.kill(pid, signal.SIGKILL)
            await job.until(lambda: any(event[0] == "trouble" for event in job.seen), "a word about it")
            (text,) = [event[1] for event in job.seen if event[0] == "trouble"]
            assert (
                text == "node1: srun was ended by signal 9; its engine is given up unless it is heard again"
            )
            assert await job.said("node1", "hostname") == ["node1"]
            assert not job.of("exit")
            job.hub.post("node1", Leave())
            await job.until(lambda: job.of("Goodbye"), "goodbye")

    _run(play())


def test_node_that_is_powered_off(allocate: Any, slurm_lab: SlurmLab) -> None:
    job = allocate("-N2 -n2 --no-kill -w node1,node2")

    async def play() -> None:
        async with job.driver():
            job.start("node1", "node2")
            await job.joined("node1", "node2")
            slurm_lab.poweroff("node2")
            await job.exits("node2")
            assert await job.said("node1", "hostname") == ["node1"]
            ((code, words),) = [event[2:] for event in job.seen if event[0] == "exit"]
            assert code >= 0
            assert words.startswith("Slurm lost the node"), words

    _run(play())


def test_node_that_is_off_already(allocate: Any, slurm_lab: SlurmLab) -> None:
    job = allocate("-N2 -n2 --no-kill -w node1,node2")
    slurm_lab.poweroff("node2")
    error = _failure(job, "node2")
    assert str(error).startswith("node2: the node does not answer to Slurm"), error


def test_engine_that_does_not_leave_is_ended_with_its_step(allocate: Any) -> None:
    job = allocate("-N1 -n2 -w node1")

    async def play() -> None:
        async with job.driver():
            job.start("node1")
            await job.joined("node1")
            job.post("node1", "touch here; sleep 1000")
            await job.files(1, "here")
            await job.launcher.close(0)
            assert job.of("exit")
        await job.no_steps()

    _run(play())


def _failure(job: Job, name: str, options: SrunOptions | None = None, **changes: Any) -> LaunchError:
    failures: list[LaunchError] = []
    timeout = changes.pop("timeout", DEADLINE)

    async def play() -> None:
        async with job.driver(options, timeout):
            job.start(name, **changes)
            await job.until(lambda: job.seen, "a failure")
        ((kind, engine, error),) = job.seen
        assert (kind, engine) == ("failed", name)
        failures.append(error)

    _run(play())
    return failures[0]


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_node_that_is_not_in_the_job(allocate: Any) -> None:
    error = _failure(allocate("-N1 -n1 -w node1"), "node3")
    assert str(error) == (
        "node3: Slurm cannot start a step there (Unable to create step for job "
        f"{os.environ['SLURM_JOB_ID']}: Requested node configuration is not available): "
        "is it still one of the job's nodes?"
    )


def test_node_that_nobody_knows(allocate: Any) -> None:
    error = _failure(allocate("-N1 -n1 -w node1"), "nowhere")
    assert str(error).startswith("nowhere: Slurm cannot start a step there (")


def test_python_that_is_not_there(allocate: Any, tmp_path: Path) -> None:
    job = allocate("-N1 -n1 -w node1")
    error = _failure(job, "node1", SrunOptions(python=str(tmp_path / "python")))
    assert str(error).startswith(f"node1: there is no {tmp_path}/python there: run disbatch from")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (f'exec {sys.executable} -S -I "$@"', "its Python has no "),
        ("echo 'OSError: no room' >&2; exit 1", "its step ended with exit code 1: OSError: no room"),
        ("kill -9 $$", "its step ended with signal 9"),
        (f"echo '{READY_MARK} x'; exit 3", "its step ended with exit code 3"),
    ],
)
def test_python_that_is_of_no_use(allocate: Any, tmp_path: Path, script: str, says: str) -> None:
    python = _script(tmp_path / "python", script)
    job = allocate("-N1 -n1 -w node1")
    error = _failure(job, "node1", SrunOptions(python=python, package="/not/there"))
    assert str(error).startswith(f"node1: {says}")


def test_driver_that_cannot_be_reached(allocate: Any) -> None:
    error = _failure(allocate("-N1 -n1 -w node1"), "node1", addresses=["tcp://@client:1"])
    assert str(error) == (
        "node1: the driver cannot be reached from node1 at tcp://127.0.0.1:1; try --use-address HOST:PORT"
    )


def test_job_that_is_over(allocate: Any, slurm_lab: SlurmLab) -> None:
    job = allocate("-N1 -n1 -w node1")
    slurm_lab.call("scancel", str(job.id))
    slurm_lab.ended(job.id)
    assert str(_failure(job, "node1")).startswith("node1: the Slurm job is over, or about to end")


def test_step_that_must_wait_for_another(allocate: Any) -> None:
    """As with a Slurm that knows no --overlap, or where somebody's options file forbids it."""
    job = allocate("-N1 -n2 -w node1")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    other = subprocess.Popen(
        ["srun", "-Q", "-n1", "-c2", "--exact", "sh", "-c", "echo here; exec sleep 1000"],
        env={**clean, "SLURM_CONF": os.environ["SLURM_CONF"], "SLURM_JOB_ID": str(job.id)},
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == b"here\n"
        error = _failure(job, "node1", SrunOptions((20, 2), {"SLURM_EXACT": "1"}), timeout=2.0)
        assert str(error).startswith("node1: no engine within 2 s; waited for srun to start one there")
        assert job.steps() == ["sh"], "the step that did not start is not left waiting"
    finally:
        other.terminate()
        other.communicate()


def test_no_srun(slurm_lab: SlurmLab, allocate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = allocate("-N1 -n1 -w node1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert str(_failure(job, "node1")) == "node1: there is no srun command in PATH here"


def test_closing_cuts_a_launch_short(allocate: Any, tmp_path: Path) -> None:
    python = _script(tmp_path / "python", f"touch {tmp_path}/here; exec sleep 1000")
    job = allocate("-N1 -n1 -w node1")

    async def play() -> None:
        async with job.driver(SrunOptions(python=python)):
            job.start("node1")
            await asyncio.to_thread(_until_there, tmp_path / "here")
            async with asyncio.timeout(DEADLINE):
                await job.launcher.close()
        assert job.seen == []
        await job.no_steps()

    _run(play())


def _until_there(path: Path) -> None:
    from command import until

    until(lambda: path.exists() or None, str(path), path.parent)
