"""Create the files by which clients and later drivers find the run, and watch all files of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from disbatch.driver.addresses import Addresses
from disbatch.driver.holds import Holds, Reason
from disbatch.driver.recorder import Journal
from disbatch.driver.result_feed import ResultFeed
from disbatch.driver.settings import Settings
from disbatch.driver.status_collector import StatusCollector
from disbatch.driver.status_writer import StatusWriter
from disbatch.rundir.paths import RunFiles
from disbatch.rundir.restore import FileRestorer
from disbatch.sources.submitted import SubmittedFile
from disbatch.wire.connect import RunKeys
from disbatch.wire.renamed_files import Sight

LOOK_INTERVAL = 5.0
"""Seconds between two checks that the run's files have their names, while nothing is written; each write
checks by itself, and so does the end of the run."""
LIFE_SIGN_INTERVAL = 15.0
"""Seconds between two updates of the status file's modification time, which shows that the driver lives."""


class Timer:
    """Calls back every `interval` seconds, from `start` to `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, call: Callable[[], None]) -> None:
        self._loop = loop
        self._interval = interval
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; the first call comes after one interval."""
        self._handle = self._loop.call_later(self._interval, self._due)

    def _due(self) -> None:
        self._call()
        self.start()

    def close(self) -> None:
        """Stop calling."""
        if self._handle is not None:
            self._handle.cancel()


class FileWatch:
    """`create` the files, then `start` to watch them, until `close`. `notify_user` gets a line for the
    user."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        keys: RunKeys,
        started: float,
        *,
        journal: Journal,
        addresses: Addresses,
        holds: Holds,
        record: StatusWriter,
        result_feed: ResultFeed,
        collector: StatusCollector,
        notify_user: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._keys = keys
        self._started = started
        self._journal = journal
        self._addresses = addresses
        self._holds = holds
        self._record = record
        self._result_feed = result_feed
        self._collector = collector
        self._notify_user = notify_user
        self._restorer = FileRestorer(
            loop, settings.claimed.files, say=notify_user, note=journal.add, script=settings.script
        )
        self._timers = (
            Timer(loop, LOOK_INTERVAL, lambda: self._record.look(self._restorer.look)),
            Timer(loop, LIFE_SIGN_INTERVAL, self._show_life),
        )
        self.is_damaged = False
        """Another process wrote into the status file."""

    @property
    def names(self) -> RunFiles:
        """The present names of the files."""
        return self._restorer.files

    # ---- the course of a run ----

    def start(self) -> None:
        """Begin to watch the files."""
        for timer in self._timers:
            timer.start()

    def create(self) -> None:
        """Listen, and create the connect file and the journal. UsageError.

        A driver that takes a run over must read the former journal in the same turn of the loop: an engine
        that says Hello before that would be refused, and would end its tasks.
        """
        self._addresses.listen()
        self._journal.begin(self._settings)
        self._publish()
        files = self._settings.claimed.files
        self.keep(files.run, self._journal.write_again)
        self.keep(files.connect, self._publish)
        self.keep(files.script, lambda: self._settings.script(self.names))
        for path, make in self._settings.makers.items():
            self.keep(path, make)

    def _publish(self) -> None:
        self._addresses.publish(self._keys, self._started)

    def keep(self, path: Path, make: Callable[[], object]) -> None:
        """Watch this file, too; `make` restores it."""
        self._restorer.keep(path, make)

    def keep_submitted(self, file: SubmittedFile) -> None:
        """Watch the file of submitted tasks, too."""
        file.renamed = self._restorer.submitted_renamed
        file.note = self._restorer.note_submitted
        self.keep(file.path, file.ensure_name)

    def close(self) -> None:
        """Stop watching: the files may be removed now."""
        for timer in self._timers:
            timer.close()
        self._restorer.close()

    def _show_life(self) -> None:
        self._record.touch()
        self._collector.note()

    # ---- what the record reports ----

    def is_taken_over(self) -> bool:
        """True if another driver has taken the run over, or has even ended it, so that the journal is gone.
        Called by the record's thread. OSError if that cannot be determined now."""
        return self._journal.is_taken_over() or (self._journal.is_gone and self._record.is_continued())

    def note_status(self, path: Path) -> None:
        """The status file is about to get this name. Called by the record's thread. OSError."""

        async def note() -> None:
            self._restorer.note_status(path)

        asyncio.run_coroutine_threadsafe(note(), self._loop).result()

    def status_renamed(self, sight: Sight, path: Path) -> None:
        """The status file has got this name."""
        if sight is Sight.OVERWRITTEN:
            self.is_damaged = True
        else:
            self._result_feed.follow(self._settings.claimed.status_descriptor)
        self._restorer.status_renamed(sight, path)

    def trouble(self, error: OSError) -> None:
        """The status file cannot be written."""
        words = f"{self.names.status}: {error.strerror}; no task starts until it can be written"
        self._notify_user(words)
        self._holds.add(Reason.DISK, words)

    def recovered(self) -> None:
        """The status file can be written again."""
        self._notify_user("the status file can be written again; going on")
        self._holds.remove(Reason.DISK)
