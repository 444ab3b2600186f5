"""A line to a driver that answers when a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from disbatch.wire.client_protocol import Answer, Request
from disbatch.wire.connect import ConnectFile


class DriverLine:
    """As `client.run_client.Line`. `asked`: the requests without an answer yet, oldest first."""

    proven = ""

    def __init__(self, connect: ConnectFile, lost: Callable[[], None]) -> None:
        self.connect = connect
        self.lost = lost
        self.closed = False
        self.asked: dict[str, Request] = {}
        self._answers: dict[str, asyncio.Future[Answer]] = {}

    async def call(self, request: Request) -> Answer:
        self.asked[request.id] = request
        answer = self._answers[request.id] = asyncio.get_running_loop().create_future()
        try:
            return await answer
        finally:
            del self.asked[request.id], self._answers[request.id]

    def silence(self, patience: float) -> str:
        return f"no answer within {patience:g} s"

    def answer(self, *answers: Answer) -> None:
        """Answer each request; without these, all that are open, with a yes."""
        for answer in answers or [Answer(id, True, []) for id in self.asked]:
            self._answers[answer.id].set_result(answer)

    def close(self) -> None:
        self.closed = True
