"""Asks the driver of a run on an asyncio loop, as often as one likes and for as long as it takes: for
programs that stay with a run. They outlive its driver: another one that takes the run over is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import zmq

from disbatch.model.errors import SilenceError
from disbatch.wire.control import check_protocol, request_for
from disbatch.wire.keys import ConnectFile
from disbatch.wire.line import Line
from disbatch.wire.reach import ways
from disbatch.wire.requests import Answer, Verb
from disbatch.wire.sockets import SocketReader

GIVEN_UP = "the line to the driver was given up"


class Caller:
    """A line to the driver of `connect` on a loop, to be closed. UsageError or SilenceError if there is no
    way to it from here; once there was one, only a call's own patience counts. `lost` is called whenever a
    connection could not be made, or was lost. `addresses`: try these, whether or not somebody is there.
    `by`: who asks, as in `Request`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        connect: ConnectFile,
        lost: Callable[[], None] = lambda: None,
        addresses: Sequence[str] = (),
        *,
        by: str = "",
    ) -> None:
        check_protocol(connect)
        found = list(addresses) or ways(connect)
        self._loop = loop
        self._by = by
        self._lost = lost
        self._closed = False
        self._calls: dict[str, asyncio.Future[Answer]] = {}
        self._line = line = Line(context, connect)
        self._readers = [SocketReader(loop, line.socket, self._read)]
        if line.monitor is not None:
            self._readers.append(SocketReader(loop, line.monitor, self._look))
        line.connect(found)

    @property
    def proven(self) -> str:
        """The address that was seen last to lead to the driver."""
        return self._line.proven

    async def call(self, verb: Verb, patience: float | None) -> Answer:
        """What the driver answers. SilenceError if it does not within `patience` seconds (None: wait for
        ever), or the line is closed."""
        if self._closed:
            raise SilenceError(GIVEN_UP)
        request = request_for(verb, self._by)
        call: asyncio.Future[Answer] = self._loop.create_future()
        self._calls[request.id] = call
        self._line.send(request)
        self._check()
        try:
            async with asyncio.timeout(patience):
                return await call
        except TimeoutError:
            raise SilenceError(self._line.silence(patience or 0.0)) from None
        finally:
            self._line.drop(request)
            del self._calls[request.id]

    def silence(self, patience: float) -> str:
        """Why there was no answer within so many seconds."""
        return self._line.silence(patience)

    def _look(self, frames: list[bytes]) -> None:
        # That nobody is there now does not say that nobody will be.
        try:
            self._line.look(frames)
            lost = not self._line.reached
        except SilenceError:
            lost = True
        self._check()
        if lost:
            self._lost()

    def _read(self, frames: list[bytes]) -> None:
        answer = self._line.read(frames)
        call = None if answer is None else self._calls.get(answer.id)
        if answer is not None and call is not None and not call.done():
            call.set_result(answer)

    def _check(self) -> None:
        for reader in self._readers:
            reader.check()

    def close(self) -> None:
        """Give the line up; calls that wait are not answered. May be called twice."""
        if self._closed:
            return
        self._closed = True
        for call in self._calls.values():
            if not call.done():
                call.set_exception(SilenceError(GIVEN_UP))
        for reader in self._readers:
            reader.close()
        self._line.close()
