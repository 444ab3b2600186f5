"""What the command line of `disbatch` asks for: checked, frozen values, one for each concern of a run."""

from __future__ import annotations

import msgspec


class ContextOptions(msgspec.Struct, frozen=True):
    """Which nodes, how they are divided and reached, and when they are released. None: not given."""

    ssh_node: list[str]
    cores_per_task: float | None
    tasks_per_node: int | None
    fill: bool
    gpu: bool
    env_resource: list[str]
    bind: str | None
    task_limit: int
    label: str
    retire_command: str | None
    no_retire: bool
    time_limit_margin: float | None
    ssh_python: str | None
    tunnel: bool


class PoolOptions(msgspec.Struct, frozen=True):
    """Nodes that are added later. `waits`: seconds that a run without any engine waits for some; None:
    without limit. `listen`: host and port of --use-address."""

    startup_only: bool
    waits: float | None
    listen: tuple[str, int] | None


class SourceOptions(msgspec.Struct, frozen=True):
    """Where the tasks come from, and the key store."""

    taskfile: str | None
    keep_open: bool
    owned: bool
    kvsserver: str | None
    taskserver: str | None
    taskcommand: str | None

    @property
    def is_program(self) -> bool:
        """The tasks come from a program, through the key store."""
        return self.taskserver is not None or self.taskcommand is not None


class ResumeOptions(msgspec.Struct, frozen=True):
    """-r: the status files to resume from, and how their tasks are found again."""

    resume_from: list[str]
    retry: bool
    force: bool
    by_command: bool


class RecordOptions(msgspec.Struct, frozen=True):
    """The names of the run's files, the log level, and the header of the status file."""

    prefix: str | None
    logfile: str | None
    loglevel: str
    status_header: bool


class OutputOptions(msgspec.Struct, frozen=True):
    """--output; `limit`: bytes of each stream of a task."""

    directory: str
    packed: bool
    limit: int


class LimitOptions(msgspec.Struct, frozen=True):
    """Time limits in seconds, and limits on failures and losses."""

    heartbeat: float
    patience: float
    orphan_patience: float
    grace: float | None
    max_losses: int
    fail_fast: bool
    exit_code: bool


class MailOptions(msgspec.Struct, frozen=True):
    """--mailTo, as given; a mail is sent every `every` completions."""

    to: str
    every: int


class NoticeOptions(msgspec.Struct, frozen=True):
    """The web page, mail and commands. `web`: host and port of the page; None: no page. Commands: "" if
    none."""

    web: tuple[str, int] | None
    mail: MailOptions | None
    on_finish: str
    on_failure: str


class RunOptions(msgspec.Struct, frozen=True):
    """The options of a run."""

    context: ContextOptions
    pool: PoolOptions
    source: SourceOptions
    resume: ResumeOptions
    record: RecordOptions
    output: OutputOptions | None
    limits: LimitOptions
    notices: NoticeOptions


class TakeoverOptions(msgspec.Struct, frozen=True):
    """--takeover; `feeds`: the tasks come from standard input once more. The run's own options are parsed
    when its journal has been read."""

    prefix: str
    force: bool
    feeds: bool


class FixPaths(msgspec.Struct, frozen=True):
    """--fix-paths."""
