"""Asks the driver how the run stands, again and again, and what to do when somebody at the page wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from disbatch.model.errors import DisbatchError, SilenceError
from disbatch.model.kinds import MOST_KINDS
from disbatch.model.snapshot import View
from disbatch.watch.web.state import MOST_KEPT, Picture
from disbatch.wire.follower import OverError
from disbatch.wire.requests import Answer, Verb
from disbatch.wire.watching import MOST_ENGINES, Seen, Wants, Watch

RUNNING = 100
"""Running tasks that the page shows."""
PATIENCE = 10.0
"""Seconds that the driver has to carry out an order."""
Order = Callable[[Verb], Awaitable[tuple[bool, list[str]]]]
"""Has a verb carried out: whether it was, and the lines that say what."""


class Driver(Protocol):
    """What `wire.follower.Follower` offers."""

    async def ask(self, verb: Verb) -> Answer:
        """What the driver of the run answers, whoever that is by then. OverError if the run is over,
        SilenceError if none is heard for long."""


class Watcher:
    """Lets `picture` show the run of `driver`."""

    def __init__(self, driver: Driver, picture: Picture) -> None:
        self._driver = driver
        self._picture = picture
        self._known = (0, 0)
        """Up to which numbers failures and lines of the log are known."""

    async def watch(self) -> None:
        """Until the run is over, or no driver is heard."""
        picture = self._picture
        try:
            while not picture.over:
                answer = await self._driver.ask(self._question())
                if not isinstance(answer.value, Seen):
                    picture.end(" ".join(answer.lines) or "the driver is of another version")
                    return
                self._take(answer.value.view, over=answer.value.over)
        except OverError:
            picture.end("the run is over")
        except SilenceError as error:
            picture.end(str(error))

    def _question(self) -> Watch:
        view = self._picture.view
        wants = Wants(MOST_ENGINES, RUNNING, MOST_KEPT, MOST_KEPT, *self._known, kinds=MOST_KINDS)
        if view is None:
            return Watch(msgspec.structs.replace(wants, course=True))
        return Watch(wants, view.number, view.driver)

    def _take(self, view: View, *, over: bool) -> None:
        before = self._picture.view
        failures, log = self._known if before is not None and before.driver == view.driver else (0, 0)
        # The numbers of one driver mean nothing to the next.
        self._known = (
            view.failures[-1].number if view.failures else failures,
            view.log[-1].number if view.log else log,
        )
        self._picture.take(view, over=over)

    async def order(self, verb: Verb) -> tuple[bool, list[str]]:
        """Have it done; whether it was, and the lines that say what."""
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._driver.ask(verb)
        except TimeoutError:
            return False, [f"the driver did not answer within {PATIENCE:g} s; it may do it yet"]
        except DisbatchError as error:
            return False, [str(error)]
        return answer.ok, answer.lines
