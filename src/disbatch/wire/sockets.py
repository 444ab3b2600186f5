"""ZeroMQ sockets on an asyncio loop: the options of every socket, and an edge-triggered reader.

A ZeroMQ socket's descriptor is edge-triggered: it becomes readable once when the socket's state changes. So
the state must be checked after every receive *and every send*; otherwise a message waits until something else
wakes the loop. `SocketReader.check` does that, and every sender calls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import zmq

MESSAGES_A_TURN = 64
"""Messages handled before the loop handles other work."""

HEARTBEAT_INTERVAL = 2.0
HEARTBEAT_TIMEOUT = 8.0
CONNECT_TIMEOUT = 3.0
RECONNECT_FIRST = 0.1
RECONNECT_MOST = 2.0
HANDSHAKE_TIMEOUT = 10.0


def tune(socket: zmq.Socket[bytes], largest: int) -> None:
    """Options of every socket that crosses hosts: limits, and a connection that is replaced when nothing
    comes back (an interrupted link is not reported)."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, largest)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.HEARTBEAT_IVL, int(HEARTBEAT_INTERVAL * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(HEARTBEAT_TIMEOUT * 1000))
    socket.setsockopt(zmq.CONNECT_TIMEOUT, int(CONNECT_TIMEOUT * 1000))
    socket.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_TIMEOUT * 1000))
    socket.setsockopt(zmq.RECONNECT_IVL, int(RECONNECT_FIRST * 1000))
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, int(RECONNECT_MOST * 1000))


class SocketReader:
    """Calls `receive` with the frames of every message that arrives at `socket`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[Any], receive: Callable[[list[bytes]], None]
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._receive = receive
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._scheduled = False
        self._closed = False
        loop.add_reader(self._descriptor, self._drain)
        self.check()

    def check(self) -> None:
        """Check for messages soon: call this after every send on the socket."""
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._drain()

    def _drain(self) -> None:
        for _ in range(MESSAGES_A_TURN):
            if self._closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._receive(frames)
        self.check()

    def close(self) -> None:
        """Stop reading; the caller closes the socket."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._descriptor)
