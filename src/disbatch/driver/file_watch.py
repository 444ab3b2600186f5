"""Create the files by which others find the run, and watch all its files while it goes on."""

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
from disbatch.driver.status_writer import Record
from disbatch.rundir.paths import RunFiles
from disbatch.rundir.restore import FileRestorer
from disbatch.sources.submitted import SubmittedFile
from disbatch.wire.connect import RunKeys
from disbatch.wire.renamed_files import Sight

LOOK_INTERVAL = 5.0
"""Seconds between two looks whether the run's files have their names while nothing is written; each write,
and the end, looks by itself."""
LIFE_SIGN_INTERVAL = 15.0
"""Seconds between two signs of life that a later command can see: the status file's time."""


class Timer:
    """Calls back every `interval` seconds, from `start` to `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, call: Callable[[], None]) -> None:
        self._loop = loop
        self._interval = interval
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The first call comes after one interval."""
        self._handle = self._loop.call_later(self._interval, self._due)

    def _due(self) -> None:
        self._call()
        self.start()

    def close(self) -> None:
        """Call no more."""
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
        record: Record,
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
        """Somebody wrote over the status file."""

    @property
    def names(self) -> RunFiles:
        """The files' names as they are now."""
        return self._restorer.files

    # ---- the course of a run ----

    def start(self) -> None:
        """Watch."""
        for timer in self._timers:
            timer.start()

    def create(self) -> None:
        """From now on others find the driver, and its successors what they need. UsageError.

        A driver that takes a run over begins in the same turn of the loop: an engine that was heard before it
        is known what the former driver left would be taken for a stranger, and its tasks would be ended.
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
        """Watch this file, too; `make` makes it again."""
        self._restorer.keep(path, make)

    def keep_submitted(self, file: SubmittedFile) -> None:
        """Watch the file of the tasks that are handed in, too."""
        file.renamed = self._restorer.submitted_renamed
        file.note = self._restorer.note_submitted
        self.keep(file.path, file.see_to_name)

    def close(self) -> None:
        """From now on files are missing on purpose."""
        for timer in self._timers:
            timer.close()
        self._restorer.close()

    def _show_life(self) -> None:
        self._record.touch()
        self._collector.note()

    # ---- what the record reports ----

    def is_taken_over(self) -> bool:
        """Another driver has the run; or had, and has ended it: then the run file is gone. Asked by the
        record's thread. OSError if that cannot be said now."""
        return self._journal.is_taken_over() or (self._journal.are_gone and self._record.is_continued())

    def note_status(self, path: Path) -> None:
        """The status file is about to get this name. Called by the record's thread. OSError."""

        async def note() -> None:
            self._restorer.note_status(path)

        asyncio.run_coroutine_threadsafe(note(), self._loop).result()

    def status_renamed(self, sight: Sight, path: Path) -> None:
        """The status file has this name now."""
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
        """It can be written again."""
        self._notify_user("the status file can be written again; going on")
        self._holds.remove(Reason.DISK)
