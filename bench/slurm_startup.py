"""How soon a job of many nodes works: 64 nodes with 4 slots each, all of them simulated on this machine.

    python bench/slurm_startup.py [--nodes N]      (as root; see tests/lab/slurm-up for what it needs)

Brings up a real Slurm, and in one job over all of its nodes takes times, each from the start of its command:

    ours     until the last engine has joined, and until a task runs in every slot at the same time
    srun     as many bare `srun true` steps, one a node, as many at once as disbatch starts
    python   the same steps with no more than the imports of an engine: what no engine can do without
    cpu      the CPU time of these imports alone, without Slurm, on the cores of this machine

A real cluster has a machine for each node, so the ratio to `python` says more than the seconds do.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from disbatch.contexts.launcher import STEP_FAN_OUT

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "tests" / "lab"
DISBATCH = Path(sys.executable).with_name("disbatch")
SLOTS = 4
IMPORTS = "import asyncio, msgspec, zmq"
PATIENCE = 300.0
STEP = "srun --overlap -N1 -n1 -w NODE --mem=0 --cpu-bind=none"


class Lab:
    """The nodes, and one job at a time over all of them."""

    def __init__(self, directory: Path, nodes: int) -> None:
        self.directory = directory
        self.nodes = nodes
        others = ("SLURM", "DISBATCH")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        self.environment = {**ours, "SLURM_CONF": str(directory / "slurm.conf")}

    def up(self) -> None:
        """Bring the nodes up, or end with what slurm-up says."""
        knobs = {"LAB_NODES": str(self.nodes), "LAB_CPUS": str(SLOTS), "LAB_GPUS": "0", "LAB_PORT": "free"}
        done = subprocess.run(
            [LAB / "slurm-up", self.directory],
            env={**self.environment, **knobs},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.returncode)

    def down(self) -> None:
        """End all of it."""
        subprocess.run([LAB / "slurm-down", self.directory], stdout=subprocess.DEVNULL, check=False)

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Run a line of bash in a job over all nodes; `begun` says when Slurm had granted the job."""
        job = ["salloc", "-Q", f"-N{self.nodes}", f"--ntasks-per-node={SLOTS}"]
        return subprocess.Popen(
            [*job, "bash", "-c", f"date +%s.%N > begun; {command}"],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
        )

    def begun(self) -> float:
        """When the command of the last job began, since the epoch."""
        return float((self.directory / "begun").read_text())


def ours(lab: Lab) -> tuple[float, float]:
    """Seconds until all engines joined, and until every slot runs a task."""
    slots = lab.nodes * SLOTS
    for name in ("told", "gate"):
        os.mkfifo(lab.directory / name)
    (lab.directory / "Tasks").write_text(f"#DISBATCH REPEAT {slots} echo > told; : < gate\n")
    reader = os.open(lab.directory / "told", os.O_RDWR)
    process = lab.start(f"exec {DISBATCH} Tasks")
    ended = os.pidfd_open(process.pid)
    told = 0
    while told < slots:
        ready = select.select([reader, ended], [], [], PATIENCE)[0]
        if reader not in ready:
            raise SystemExit(f"only {told} of {slots} tasks started")
        told += os.read(reader, 65536).count(b"\n")
    full = time.time()
    gate = os.open(lab.directory / "gate", os.O_RDWR)
    if process.wait():
        raise SystemExit(f"disbatch ended with {process.returncode}")
    os.close(gate)
    (log,) = lab.directory.glob("disBatch_*_driver.txt")
    stamps = re.findall(r"^(\S+ \S+) .*engine joined", log.read_text(), re.MULTILINE)
    if len(stamps) != lab.nodes:
        raise SystemExit(f"{len(stamps)} of {lab.nodes} engines joined")
    joined = datetime.strptime(stamps[-1], "%Y-%m-%d %H:%M:%S,%f").timestamp()
    return joined - lab.begun(), full - lab.begun()


def steps(lab: Lab, command: str) -> float:
    """Seconds that a step of this command on each node takes."""
    each = f"xargs -P {STEP_FAN_OUT} -I NODE {STEP} {command}"
    process = lab.start(f"scontrol show hostnames | {each} 2>/dev/null")
    if process.wait():
        raise SystemExit(f"the steps of {command!r} ended with {process.returncode}")
    return time.time() - lab.begun()


def cpu(lab: Lab) -> float:
    """CPU seconds of the imports of all engines."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(lab.nodes):
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description="How soon a Slurm job of many nodes works.")
    parser.add_argument("--nodes", type=int, default=64)
    nodes = parser.parse_args().nodes
    if os.geteuid() or not shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
        raise SystemExit("a Slurm of one's own needs root, slurm-wlm and munge (scripts/require tests)")
    with tempfile.TemporaryDirectory(prefix="disbatch-bench-") as directory:
        lab = Lab(Path(directory), nodes)
        try:
            lab.up()
            joined, full = ours(lab)
            bare = steps(lab, "true")
            python = steps(lab, f"{sys.executable} -c '{IMPORTS}'")
        finally:
            lab.down()
        work = cpu(lab)
    cores = len(os.sched_getaffinity(0))
    print(f"{nodes} nodes x {SLOTS} slots on {cores} cores of one machine, {STEP_FAN_OUT} steps at once")
    print(f"  ours    {joined:6.2f} s until the last engine joined  ({joined / python:.2f} x python)")
    print(f"          {full:6.2f} s until a task ran in every slot ({full / python:.2f} x python)")
    print(f"  srun    {bare:6.2f} s for a step with `true` on each node")
    print(f"  python  {python:6.2f} s for a step with an engine's imports on each node")
    print(f"  cpu     {work:6.2f} s of CPU for these imports, {work / cores:.2f} s on {cores} cores")


if __name__ == "__main__":
    main()
