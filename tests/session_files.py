"""Removes what killed engines of a test leave in /tmp."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from disbatch.engine.session_file import path_of


def remove_session_files(directory: Path) -> None:
    """An engine that is killed together with its keeper leaves its session file to the next driver of the
    run, which not every test has. Engines are named in their logs, which are in the test's directory."""
    for log in filter(Path.is_file, directory.rglob("*_engine.txt*")):
        with suppress(OSError):
            for engine in re.findall(r" INFO engine (\S+) on ", log.read_text(errors="replace")):
                Path(path_of(engine)).unlink(missing_ok=True)
