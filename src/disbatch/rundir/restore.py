"""Write the files of a run again when they are removed while it goes on.

Without them nobody finds the run, and nobody can take it over or resume it. The thread that writes the status
file checks its name and theirs, since a file system may block the check.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from disbatch.model.errors import DisbatchError
from disbatch.rundir.journal import RenamedFiles
from disbatch.rundir.paths import Renamed, RunFiles
from disbatch.wire.renamed_files import Sight, is_gone

log = logging.getLogger(__name__)


class FileRestorer:
    """`files` are the present names. `say` gets lines for the user; `note` records what a takeover must know,
    and returns whether that was written. `script` tells later commands where the record is."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        files: RunFiles,
        *,
        say: Callable[[str], None],
        note: Callable[[RenamedFiles], bool],
        script: Callable[[RunFiles], object],
    ) -> None:
        self.files = files
        self._loop = loop
        self._say = say
        self._note = note
        self._script = script
        self._makers: dict[Path, Callable[[], object]] = {}

    def keep(self, path: Path, make: Callable[[], object]) -> None:
        """Keep this file in place as long as the run goes on; `make` writes it again."""
        self._makers[path] = make

    def close(self) -> None:
        """From now on files are removed on purpose."""
        self._makers.clear()

    def look(self) -> None:
        """Check whether a file is missing. May be called from any thread."""
        missing = [path for path in list(self._makers) if is_gone(path)]
        if missing:
            self._loop.call_soon_threadsafe(self._make_again, missing)

    def _make_again(self, missing: list[Path]) -> None:
        made = []
        for path in missing:
            make = self._makers.get(path)
            if make is None:
                continue
            try:
                make()
            except (OSError, DisbatchError) as error:
                log.warning("%s: was removed, and cannot be written again: %s", path, error)
            else:
                made.append(path.name)
        if made:
            self._say(f"{', '.join(made)}: removed while the run goes on; written again")

    def note_status(self, path: Path) -> None:
        """The status file is about to get this name. OSError if that cannot be recorded."""
        names = self.files.renamed._replace(status=path)
        self._note_names(names)
        try:
            self._script(replace(self.files, renamed=names))
        except DisbatchError as error:
            log.warning("%s", error)

    def note_submitted(self, path: Path) -> None:
        """The same for the submitted tasks."""
        self._note_names(self.files.renamed._replace(submitted=path))

    def _note_names(self, names: Renamed) -> None:
        status, submitted = names
        if not self._note(RenamedFiles(bytes(status or b""), bytes(submitted or b""))):
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} (the run file)", str(self.files.run))

    def status_renamed(self, sight: Sight, path: Path) -> None:
        """The text of the status file was written again, at this path."""
        former = self.files.status
        self.files = replace(self.files, renamed=self.files.renamed._replace(status=path))
        if sight is Sight.OVERWRITTEN:
            self._say(
                f"{former}: it was overwritten: its former content is lost; the record continues in {path}"
            )
        else:
            self._tell(former, sight, path, "the record of the run")

    def submitted_renamed(self, sight: Sight, path: Path) -> None:
        """The same for the submitted tasks."""
        former = self.files.submitted
        self.files = replace(self.files, renamed=self.files.renamed._replace(submitted=path))
        self._tell(former, sight, path, "the list of submitted tasks")

    def _tell(self, former: Path, sight: Sight, path: Path, what: str) -> None:
        if path == former:
            self._say(f"{former}: removed while the run goes on; written again")
            return
        why = "is another file now" if sight is Sight.ANOTHER else "cannot be written again"
        self._say(f"{former}: {why}; {what} is {path}")
