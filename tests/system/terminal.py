"""A real terminal for a command: what it shows, keys, and how many bytes came."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import pyte
from command import DEADLINE, environment


class Terminal:
    """A command on a terminal of `columns` x `lines`; ended when the `with` block is left."""

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        *,
        columns: int = 80,
        lines: int = 24,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        """All that came."""
        self._end, theirs = pty.openpty()
        _resize(self._end, columns, lines)
        # A session of its own, whose terminal this is: so its end is heard.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            cwd=directory,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment(env), "TERM": "xterm-256color"},
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._end)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def shown(self) -> str:
        return "\n".join(self.lines)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until what is shown fulfils it."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._end], [], [], left)[0]
            assert ready and self._read(), f"no {what}; shown:\n{self.shown}"

    def until_shown(self, words: str) -> None:
        self.until(lambda: words in self.shown, repr(words))

    def until_gone(self, words: str) -> None:
        self.until(lambda: words not in self.shown, f"end of {words!r}")

    def _read(self) -> bool:
        try:
            data = os.read(self._end, 1 << 16)
        except OSError:  # nobody has the terminal any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def press(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        _resize(self._end, columns, lines)
        self.process.send_signal(signal.SIGWINCH)

    def hang_up(self) -> None:
        """Nobody looks any more: the terminal was closed."""
        os.close(self._end)
        self._end = os.open(os.devnull, os.O_RDONLY)

    def ended(self) -> int:
        """Read on to the end of the command; its exit status."""
        while self._read():
            pass
        return self.process.wait(DEADLINE)


def _resize(descriptor: int, columns: int, lines: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
