"""What a run was asked to do, after the command line was checked; and the interfaces of its observers and
listeners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from disbatch.contexts.machine import this_machine
from disbatch.contexts.pool import Pool
from disbatch.engine import keeper
from disbatch.keystore.address import Address
from disbatch.model.view import RunView, TaskView
from disbatch.rundir.journal import Asked, JournalState
from disbatch.rundir.output_manifest import Output
from disbatch.rundir.paths import ClaimedFiles, RunFiles
from disbatch.wire.connect import ConnectFile


@dataclass(frozen=True)
class Takeover:
    """The run of a driver that was killed: where it listened and with which keys, and what it `told`; the
    last line of that is ours. `asides`: hashes of the lines of its status file that are about no task that is
    done. `ended`: engines that are known to have ended. `finish`: the run is only taken over to be ended;
    `readable`: its tasks can be read again."""

    connect: ConnectFile
    told: JournalState
    asides: set[int]
    ended: frozenset[str] = frozenset()
    finish: bool = False
    readable: bool = True


@dataclass(frozen=True)
class Settings:
    """One run. Times in seconds.

    `source_name` is how messages name the task file, `task_name` what the files of the run and
    DISBATCH_NAMETASKS are called after. `pool`: its first nodes. `cores_per_task`: -c, if given.
    `listen`: HOST:PORT of --use-address as (host, port), if given; `on_network`: others may join from other
    hosts, so that a port is opened at once. `waits`: how long a run without any engine waits for some to be
    attached; None: for ever. `asked` is for a driver that takes this run over,
    `takeover` what this one takes over. `grace` is what tasks can have: see `walltime.grace_within`.
    `keystore`: the server whose key store is used, None for the driver's own; `key_prefix`: what keys shall
    begin with there, if the user said so. `resume_hint`: the command that goes on from here; the other one,
    if tasks were handed in. `output`: --output and what belongs to it; None: nothing is kept. `script` writes
    PREFIX_dbUtil.sh, which tells where the record is; UsageError. `makers` make other
    files of the run again that somebody removed. `moved`: the user is not in `directory`.
    """

    source_name: str
    task_name: str
    jobid: str
    claimed: ClaimedFiles
    pool: Pool
    directory: bytes
    environment: dict[bytes, bytes]
    cores_per_task: float | None = None
    fail_fast: bool = False
    exit_code: bool = False
    status_header: bool = False
    listen: tuple[str, int] | None = None
    on_network: bool = False
    waits: float | None = 0.0
    heartbeat: float = 3.0
    patience: float = 15.0
    orphan_patience: float = 600.0
    max_losses: int = 3
    grace: float = 5.0
    moved: bool = False
    resume_hint: Callable[[RunFiles], str] = lambda files: ""
    resume_hint_with_submitted: Callable[[RunFiles], str] = lambda files: ""
    script: Callable[[RunFiles], object] = lambda files: None
    makers: Mapping[Path, Callable[[], object]] = field(default_factory=dict)
    asked: Asked | None = None
    takeover: Takeover | None = None
    keystore: Address | None = None
    key_prefix: str = ""
    output: Output | None = None

    @property
    def patience_afar(self) -> float:
        """The patience with an engine whose end we do not see, as it is on another host: if it was killed,
        its keeper ends its tasks during the silence."""
        return max(self.patience, keeper.OVER)

    def patience_with(self, told: JournalState) -> float:
        """That with the engines of a former driver, until others are started for them."""
        here = this_machine().hostname
        afar = any(engine.pid and engine.host != here for engine in told.engines.values())
        return self.patience_afar if afar else self.patience

    @property
    def number(self) -> int:
        """Which driver of the run this one is; the first is 0."""
        return 0 if self.takeover is None else self.takeover.told.number


class Observer(Protocol):
    """Shows a run. All calls come from the driver's loop; `say` may come before `start` and after `stop`."""

    def start(self, view: Callable[[], RunView]) -> None:
        """The run begins; `view` returns its counts at that moment, and no rows."""

    def say(self, text: str) -> None:
        """One line that the user should see now."""

    def stop(self) -> None:
        """Nothing more will move."""


class Listener(Protocol):
    """Hears of each task that is done. All calls come from the driver's loop, and must return at once."""

    def start(self, view: Callable[[], RunView]) -> None:
        """The run begins; `view` as for `Observer`."""

    def ended(self, id: int, line: bytes) -> None:
        """The task or barrier of that id got this line in the status file."""

    def failed(self, task: TaskView) -> None:
        """This task failed, or was given up; not because the user cancelled it."""
