"""Start a slot's tasks on the slot's own CPUs.

A child begins where its parent may run, and `posix_spawn` has no say in it. Binding the child afterwards
would be too late for what it has started by then. So the engine's thread itself goes to the slot's CPUs,
which idle since the slot is free, starts the child there and comes back. The affinity is the thread's own:
ZeroMQ's threads stay where they are.

Going and coming back costs the engine 30 us of CPU a task (measured), and nothing where slots are not bound.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType

from disbatch.engine.division import Share

ANY_CPU = range(1 << 13)
"""All that a kernel can have; it takes those that there are."""


class Binding:
    """Entered after `at(slot)`, holds this thread on the slot's CPUs; does nothing for slots without any.

    A kernel that refuses (the CPUs were taken from us meanwhile) is reported to `trouble` once, and tasks
    start unbound. `own`: where the thread goes back to, if that is not where it may be now.
    """

    def __init__(
        self, shares: Sequence[Share], trouble: Callable[[str], None], own: set[int] | None = None
    ) -> None:
        self._cpus = [share.cpus for share in shares]
        self._trouble = trouble
        self._told = False
        self._own = own or (os.sched_getaffinity(0) if any(self._cpus) else set())
        self._wanted: frozenset[int] | None = None
        self._bound = False

    def at(self, slot: int) -> Binding:
        """Choose the slot; -1 is none."""
        self._wanted = self._cpus[slot] if slot >= 0 else None
        return self

    def __enter__(self) -> None:
        if self._wanted:
            try:
                os.sched_setaffinity(0, self._wanted)
                self._bound = True
            except OSError as error:
                self._tell(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bound:
            self._bound = False
            try:
                os.sched_setaffinity(0, self._own)
            except OSError as refused:
                self._tell(refused)
                self._go_anywhere()

    def _go_anywhere(self) -> None:
        try:
            os.sched_setaffinity(0, ANY_CPU)
            self._own = os.sched_getaffinity(0)
        except OSError as refused:
            self._tell(refused)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._trouble(f"tasks cannot be bound to their cores ({error.strerror}): they start unbound")
