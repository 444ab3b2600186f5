"""Runs in jobs of a real Grid Engine: what they have on this host, and no more."""

from __future__ import annotations

import pytest
from command import DISBATCH, status_file, tasks
from grid_engine_lab import GridEngineLab
from ssh_run import most_at_once

pytestmark = pytest.mark.xdist_group("grid-engine")


def test_a_job_uses_its_slots(grid_engine: GridEngineLab) -> None:
    (grid_engine.jobs / "Tasks").write_text("#DISBATCH REPEAT 12 sleep 0.05\n")
    for number, (options, arguments, slots, says) in enumerate(
        [
            ("", "", 1, "using the 1 core that it has on this host (NSLOTS)"),
            ("-pe smp 3", "", 3, "using the 3 cores that it has on this host (PE_HOSTFILE)"),
            ("-pe mpi 3", "-s localhost:2", 2, ""),
        ],
        1,
    ):
        code, said = grid_engine.run(options, f"{DISBATCH} -p run{number} {arguments} Tasks")
        assert code == 0, said
        assert f"of {slots} slot{'' if slots == 1 else 's'} on 1 node" in said
        (line,) = [line for line in said.splitlines() if "Grid Engine" in line] or [""]
        assert says in line and (line == "") == (says == "")
        records = tasks(status_file(grid_engine.jobs, f"run{number}_status.txt"))
        assert len(records) == 12 and most_at_once(list(records.values())) <= slots
