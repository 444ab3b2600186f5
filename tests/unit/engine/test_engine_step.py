"""An engine that is a scheduler's step: its foreground, its environment, signals to all of it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from engine_driver import EngineProcess, FakeDriver, alive, wait_until

from disbatch.contexts.slurm.context import VARIABLES
from disbatch.engine.environment import merge_step
from disbatch.model.task import Ending, Way
from disbatch.wire.engine_protocol import READY_MARK, Goodbye, Hello


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FakeDriver]:
    driver = FakeDriver(tmp_path)
    yield driver
    driver.close()


@pytest.fixture
def engine(driver: FakeDriver) -> Iterator[EngineProcess]:
    environment = dict(os.environ) | {"SLURM_NTASKS": "1", "SLURM_NODEID": "2", "TMPDIR": "/tmp"}
    run = {b"PATH": b"/bin", b"SLURM_NTASKS": b"20", b"TMPDIR": b"/run"}
    engine = EngineProcess(
        driver.bootstrap(way=Way.STEP, slots=4, environment=run, step=VARIABLES), environment
    )
    yield engine
    engine.finish()


def test_stays_in_the_foreground_and_writes_no_more(driver: FakeDriver, engine: EngineProcess) -> None:
    assert engine.process.stdout is not None and engine.process.stderr is not None
    assert engine.process.stdout.read().decode().split() == [READY_MARK, str(engine.pid)]
    assert engine.process.stderr.read() == b""
    assert driver.expect(Hello).pid == engine.pid
    said = driver.run('echo "$SLURM_NTASKS $SLURM_NODEID $TMPDIR $PWD"').out_snippet.decode()
    assert said.startswith("20 2 /tmp /")
    driver.leave()
    assert engine.wait() == 0


def test_the_end_of_its_stdin_is_not_the_end_of_its_tasks(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    """srun passes it on when the driver is killed, which another one may follow; or it was just srun."""
    driver.start("echo $$ >> pids; until [ -e go ]; do sleep 0.01; done")
    driver.pids(1)
    engine.close_lifeline()
    log = tmp_path / "run_here_engine.txt"
    wait_until(lambda: "standard input ended" in log.read_text(), "its word about that")
    (tmp_path / "go").touch()
    assert driver.outcome(1).ending is Ending.OWN
    driver.leave()
    assert engine.wait() == 0


def test_failed_task_comes_late_but_its_slot_is_free_at_once(
    driver: FakeDriver, engine: EngineProcess
) -> None:
    driver.start("exit 3", "kill -TERM $$", ":", "exit 4", ":")
    assert [(driver.outcome(n).return_code, driver.outcome(n).ending) for n in range(1, 6)] == [
        (code, Ending.OWN) for code in (3, -15, 0, 4, 0)
    ]
    assert driver.leave()
    assert engine.wait() == 0


def test_leave_waits_for_what_is_held(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.start("exit 3")
    driver.leave()
    assert driver.outcomes[1].return_code == 3
    assert engine.wait() == 0


SIGNALLED = (
    "echo $$ >> pids; exec sleep 1000",
    "trap 'exit 0' TERM; echo $$ >> pids; while :; do sleep 0.02; done",
    "trap 'exit 9' TERM; echo $$ >> pids; while :; do sleep 0.02; done",
)


@pytest.mark.parametrize("engine_first", [True, False])
def test_signal_to_all_of_the_step(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path, engine_first: bool
) -> None:
    driver.start(*SIGNALLED)
    pids = driver.pids(3)
    # One with a 0 that the engine sees before it is signalled itself is a result: it is signalled last.
    own = [engine.pid, engine.engine()]
    order = [*own, *pids] if engine_first else [pids[0], pids[2], *own, pids[1]]
    for pid in order:
        with suppress(ProcessLookupError):  # those signalled first may already have ended the others
            os.kill(pid, signal.SIGTERM)
    assert [driver.outcome(n).ending for n in (1, 2, 3)] == [Ending.ORDERED] * 3
    assert "SIGTERM" in driver.expect(Goodbye).reason
    assert engine.wait() == 128 + signal.SIGTERM
    assert not any(alive(pid) for pid in pids)
    log = (tmp_path / "run_here_engine.txt").read_text()
    # The tasks' ends may be seen before the loop comes round to the signal, whose handler has run by then.
    assert log.index("got SIGTERM") < log.index("going: ended by SIGTERM") < log.index("gone")
    assert log.index("attempt 1 (line 201) ended by order") < log.index("gone")


def test_a_child_in_a_job_is_signalled_with_its_tasks(driver: FakeDriver) -> None:
    """`disbatch -s localhost:4` in a batch script."""
    job = dict(os.environ) | {"SLURM_JOB_ID": "7"}
    engine = EngineProcess(driver.bootstrap(way=Way.CHILD, slots=4), job)
    try:
        driver.start("echo $$ >> pids; exec sleep 1000")
        for pid in [*driver.pids(1), engine.pid, engine.engine()]:
            os.kill(pid, signal.SIGTERM)
        assert driver.outcome(1).ending is Ending.ORDERED
        assert engine.wait() == 128 + signal.SIGTERM
    finally:
        engine.finish()


def test_tasks_have_their_grace_after_a_signal_to_all(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.welcome["grace"] = 1000.0
    driver.start("trap 'echo saved; exit 0' TERM; echo $$ >> pids; while :; do sleep 0.02; done", "exit 5")
    driver.pids(1)
    driver.outcome(2)
    for own in (engine.pid, engine.engine()):
        os.kill(own, signal.SIGTERM)
    assert driver.outcome(1).out_snippet == b"saved\n"
    assert driver.outcomes[2].ending is Ending.OWN, "it ended long before"
    assert engine.wait() == 128 + signal.SIGTERM


def test_signals_that_are_messages_to_the_tasks(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.start("trap 'exit 7' USR1; echo $$ >> pids; while :; do sleep 0.02; done")
    (pid,) = driver.pids(1)
    child = engine.engine()
    mask = (1 << signal.SIGUSR1 - 1) | (1 << signal.SIGUSR2 - 1)
    status = Path(f"/proc/{engine.pid}/status")

    def ready() -> bool:
        line = next(line for line in status.read_text().splitlines() if line.startswith("SigIgn"))
        return int(line.split()[1], 16) & mask == mask

    wait_until(ready, "a keeper that ignores signals")
    for number in (signal.SIGUSR2, signal.SIGUSR1):
        os.kill(engine.pid, number)
        os.kill(child, number)
    os.kill(pid, signal.SIGUSR1)
    assert (driver.outcome(1).return_code, driver.outcome(1).ending) == (7, Ending.OWN)
    driver.leave()
    assert engine.wait() == 0


@pytest.mark.parametrize(
    ("run", "step", "tasks"),
    [
        # What the node's Slurm says of where one is, and what a prolog changed, counts.
        ({"TMPDIR": "/tmp"}, {"TMPDIR": "/scratch/7"}, {"TMPDIR": "/scratch/7"}),
        (
            {"CUDA_VISIBLE_DEVICES": "0", "SLURM_NODEID": "0", "SLURMD_NODENAME": "a"},
            {"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_NODEID": "1", "SLURMD_NODENAME": "b"},
            {"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_NODEID": "1", "SLURMD_NODENAME": "b"},
        ),
        ({"SLURM_CPUS_ON_NODE": "4"}, {"SLURM_CPUS_ON_NODE": "2"}, {"SLURM_CPUS_ON_NODE": "2"}),
        # What it says of the step does not.
        ({"SLURM_NTASKS": "20"}, {"SLURM_NTASKS": "1", "SLURM_NPROCS": "1"}, {"SLURM_NTASKS": "20"}),
        ({"SLURM_MEM_PER_CPU": "500"}, {"SLURM_MEM_PER_NODE": "0"}, {"SLURM_MEM_PER_CPU": "500"}),
        ({}, {"SLURM_STEP_ID": "0", "SLURM_STEPID": "0", "SLURM_CPU_BIND": "quiet"}, {}),
        ({"SBATCH_EXPORT": "NONE"}, {"SRUN_DEBUG": "3"}, {"SBATCH_EXPORT": "NONE"}),
        # Variables for srun alone; a task has the run's, or none.
        (
            {"UCX_TLS": "tcp"},
            {"UCX_TLS": "ib", "FI_X": "1"},
            {"UCX_TLS": "tcp"},
        ),
        ({}, {"LC_CTYPE": "C.UTF-8"}, {}),
        ({"LC_CTYPE": "de_DE.UTF-8"}, {"LC_CTYPE": "C.UTF-8"}, {"LC_CTYPE": "de_DE.UTF-8"}),
        # A module unloaded by a prolog stays so; passwords stay where they are.
        ({"LOADED": "1"}, {}, {}),
        ({"DISBATCH_SMTP": "x"}, {"DISBATCH_SMTP": "x", "DISBATCH_KVS_URL": "y"}, {}),
    ],
)
def test_environment_of_tasks(run: dict[str, str], step: dict[str, str], tasks: dict[str, str]) -> None:
    def as_bytes(variables: dict[str, str]) -> dict[bytes, bytes]:
        return {name.encode(): value.encode() for name, value in variables.items()}

    variables = msgspec.structs.replace(VARIABLES, launcher=[b"UCX_TLS", b"FI_X", b"GONE"])
    assert merge_step(as_bytes(run), as_bytes(step), variables) == as_bytes(tasks)
