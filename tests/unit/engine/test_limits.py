"""engine/limits.py on a clock of the test's own; cli/limits.py."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any, cast

import pytest

from disbatch.cli.limits import check_processes
from disbatch.engine.limits import PATIENCE, Shortage
from disbatch.model.errors import UsageError

SHORT = OSError(errno.EAGAIN, "Resource temporarily unavailable")


class Clock:
    """As much of a loop as it needs."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> Any:
        return asyncio.TimerHandle(self.now + delay, call, (), cast(asyncio.AbstractEventLoop, self))

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: object) -> None: ...


def test_tasks_that_find_no_room_have_not_failed() -> None:
    clock, said, hopeless = Clock(), list[str](), list[str]()
    loop = cast(asyncio.AbstractEventLoop, clock)
    shortage = Shortage(loop, lambda: None, said.append, hopeless.append)
    assert shortage.waits_for(SHORT, idle=True) and shortage.waits
    clock.now = PATIENCE + 1
    assert shortage.waits_for(SHORT, idle=False) and not hopeless, "what runs will make room"
    assert shortage.waits_for(SHORT, idle=True)
    assert hopeless == ["no room for a task (Resource temporarily unavailable)"] and len(said) == 1
    shortage.over()
    clock.now += PATIENCE
    assert shortage.waits_for(SHORT, idle=True) and len(hopeless) == 1
    assert not shortage.waits_for(OSError(errno.E2BIG, "Argument list too long"), idle=True)
    assert not shortage.waits_for(ValueError("embedded null byte"), idle=True)


def test_room_for_processes() -> None:
    check_processes(60, 40)
    with pytest.raises(UsageError, match=r"^ulimit -u 7: .* 3 of yours are running$"):
        check_processes(7, 3)
