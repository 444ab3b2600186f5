"""An event loop whose clock does not wait: when nothing is left to do, it jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """Passes the time that it is told to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits, and nothing will happen any more"
            self.now += max(0.0, timeout)
        return ready


class ClockLoop(asyncio.SelectorEventLoop):
    """For what waits for timers alone: no processes or sockets, and what threads shall do is done at once."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # for whoever waits
            done.set_exception(error)
        return done

    def stand_still(self, seconds: float) -> None:
        """The process is stopped for so long."""
        self._clock.now += seconds


def run(play: Coroutine[Any, Any, Result]) -> Result:
    """As asyncio.run does, in no time."""
    with asyncio.Runner(loop_factory=ClockLoop) as runner:
        return runner.run(play)
