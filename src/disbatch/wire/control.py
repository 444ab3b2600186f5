"""Asks the driver of a run to do something, and waits for its answer: `dbutil`'s end of the wire."""

from __future__ import annotations

import math
import secrets
import time

import zmq

from disbatch import __version__
from disbatch.model.errors import SilenceError, UsageError
from disbatch.wire.keys import ConnectFile
from disbatch.wire.line import Line
from disbatch.wire.messages import PROTOCOL
from disbatch.wire.reach import sockets, ways
from disbatch.wire.requests import Answer, Request, Verb

PATIENCE = 10.0
"""Seconds that a driver has to answer, unless told otherwise."""


def request_for(verb: Verb, by: str = "") -> Request:
    """A new request; `by` as there."""
    return Request(PROTOCOL, secrets.token_hex(16), __version__, verb, by)


def check_protocol(connect: ConnectFile) -> None:
    """UsageError if the driver does not speak ours."""
    if connect.protocol != PROTOCOL:
        theirs = f"the run speaks protocol {connect.protocol}"
        raise UsageError(f"{theirs}, this dbutil, {__version__}, {PROTOCOL}: use the dbutil of that version")


def ask(connect: ConnectFile, verb: Verb, *, patience: float = PATIENCE, is_starting: bool = False) -> Answer:
    """What the driver answers; `is_starting`: it is known to live, and will listen at its socket. Raises
    SilenceError if it does not answer within `patience` seconds, UsageError if it cannot be asked from here.
    """
    check_protocol(connect)
    addresses = sockets(connect) if is_starting else ways(connect)
    with zmq.Context() as context:
        line = Line(context, connect, is_starting=is_starting)
        try:
            line.connect(addresses)
            return _wait(line, request_for(verb), patience)
        finally:
            line.close()


def _wait(line: Line, request: Request, patience: float) -> Answer:
    deadline = time.monotonic() + patience
    poller = zmq.Poller()
    for readable in (line.socket, line.monitor):
        poller.register(readable, zmq.POLLIN)
    line.send(request)
    while (left := deadline - time.monotonic()) > 0:
        ready = dict(poller.poll(math.ceil(left * 1000)))
        ended = None
        if line.monitor is not None and line.monitor in ready:
            try:
                line.look(line.monitor.recv_multipart())
            except SilenceError as error:
                ended = error
        if (answer := _read(line)) is not None:
            return answer  # and then it ended
        if ended is not None:
            raise ended
    raise SilenceError(line.silence(patience))


def _read(line: Line) -> Answer | None:
    """The answer, if it is there."""
    while True:
        try:
            frames = line.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        answer = line.read(frames)
        if answer is not None:
            return answer
