"""The settings of a run, and the interfaces of its observers and listeners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from disbatch.contexts.machine import this_machine
from disbatch.contexts.pool import Pool
from disbatch.engine import keeper
from disbatch.keystore.address import Address
from disbatch.model.view import EndedTask, RunView
from disbatch.rundir.journal import Asked, JournalState
from disbatch.rundir.output_manifest import Output
from disbatch.rundir.paths import ClaimedFiles, RunFiles
from disbatch.wire.connect import ConnectFile
from disbatch.wire.sockets import RECONNECT_MOST


@dataclass(frozen=True)
class Takeover:
    """The run of a killed driver: its addresses and keys (`connect`), and its journal (`told`), to which our
    own takeover has been added. `asides`: hashes of the lines of its status file that do not count. `ended`:
    engines that are known to have ended. `finish`: the run is only taken over to be ended. `readable`: its
    tasks can be read again."""

    connect: ConnectFile
    told: JournalState
    asides: set[int]
    ended: frozenset[str] = frozenset()
    finish: bool = False
    readable: bool = True


@dataclass(frozen=True)
class Settings:
    """The settings of one run. Times are in seconds.

    `source_name`: the task file in messages; `task_name`: the task file in the names of the run's files and
    in DISBATCH_NAMETASKS. `pool`: the first nodes. `cores_per_task`: -c, if given. `listen`: HOST:PORT of
    --use-address, if given. `on_network`: engines on other hosts may join, so a port is opened at once.
    `waits`: how long a run without engines waits for some to be attached; None: without limit. `asked`: the
    command line, for a driver that takes this run over. `takeover`: the run that this driver takes over.
    `grace`: of --grace, as far as the scheduler allows it (`contexts.walltime.grace_within`). `keystore`: the
    server of the key store; None: the driver's own. `key_prefix`: the prefix of its keys, if given.
    `resume_hint`: the command that resumes the run; `resume_hint_with_submitted`: the same after tasks were
    submitted. `output`: --output; None: not given. `script` writes PREFIX_dbUtil.sh (UsageError), `makers`
    restore other files that were removed during the run. `moved`: the user's shell is not in `directory`.
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
        """The patience with engines on other hosts, whose end the driver cannot see: at least the time in
        which the keeper of a killed engine ends its tasks."""
        return max(self.patience, keeper.OVER)

    def patience_with(self, told: JournalState) -> float:
        """The patience with the engines of a former driver, before others replace them: at least twice the
        time from one of their tries to connect to the next."""
        here = this_machine().hostname
        afar = any(engine.pid and engine.host != here for engine in told.engines.values())
        return max(self.patience_afar if afar else self.patience, 2 * RECONNECT_MOST)

    @property
    def number(self) -> int:
        """The number of this driver within the run; the first is 0."""
        return 0 if self.takeover is None else self.takeover.told.number


class Observer(Protocol):
    """Displays a run. Called on the driver's loop; `say` also before `start` and after `stop`."""

    def start(self, view: Callable[[], RunView]) -> None:
        """The run begins; `view` returns its counts at that moment, and no rows."""

    def say(self, text: str) -> None:
        """Show this line to the user."""

    def stop(self) -> None:
        """The run has ended."""


class Listener(Protocol):
    """Notified of each task that is done. Called on the driver's loop; must not block."""

    def start(self, view: Callable[[], RunView]) -> None:
        """The run begins; `view` as for `Observer`."""

    def ended(self, id: int, line: bytes) -> None:
        """This line of the status file records the task or barrier with that id."""

    def failed(self, task: EndedTask) -> None:
        """The task failed or was given up, and was not cancelled by the user."""
