"""A task runs again only when its former copy has ended, whichever of the processes above it were killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command import Running, records, status_file, write
from processes import children

from disbatch.model.status import Mark

STUBBORN = (
    "trap '' TERM; echo $$ >> pids; while [ $(wc -l < pids) -eq 1 ]; do sleep 1000; done; "
    "grep -l 'State:.[^ZX]' $(head -n -1 pids | sed 's|.*|/proc/&/status|') 2> /dev/null > beside; true"
)
"""Its first copy ends by SIGKILL only; its second one ends at once and looks for the first."""


@pytest.mark.parametrize("victims", [("engine",), ("keeper",), ("keeper", "engine"), ("engine", "keeper")])
def test_tasks_of_a_killed_engine_start_elsewhere_when_their_copies_have_ended(
    tmp_path: Path, victims: tuple[str, ...]
) -> None:
    write(tmp_path / "Tasks", [STUBBORN])
    nodes = f"localhost:1,{os.uname().nodename}:1"
    pids = tmp_path / "pids"
    with Running(tmp_path, "-s", nodes, "--grace", "1", "Tasks") as run:
        (task,) = run.until(lambda: pids.exists() and pids.read_text().split(), "the task")
        engine = int(Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()[1])
        keeper = int(Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[1])
        assert engine in children(keeper) and keeper in children(run.pid)
        for victim in victims:
            os.kill({"engine": engine, "keeper": keeper}[victim], signal.SIGKILL)
        assert run.ended() == 0
    assert len(pids.read_text().split()) == 2
    assert (tmp_path / "beside").read_text() == ""
    assert [record.return_code for record in records(status_file(tmp_path)) if record.mark is Mark.TASK] == [
        0
    ]
