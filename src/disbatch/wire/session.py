"""A numbered, acknowledged stream of messages in each direction that outlives the connection beneath it.

Theory of operation
-------------------
An envelope is (number, acknowledged, body). A *posted* message gets the next number and is kept until the
peer acknowledges it; a *told* message has number 0 and is not kept. The receiver processes only the number
that follows the last one that it processed. Everything else is dropped: a lower number is a repeat; a higher
one overtook, on a new connection, messages that an old connection lost, and all of them will be resent.

The peers synchronise after each (re)connection: the engine's Hello tells what it has seen, the driver's
Welcome likewise, and each calls `resend(seen)`. A driver that has given an engine up calls `forget_posted`:
its unacknowledged messages will never be sent again, and Welcome's `next_order` makes the engine skip their
numbers.

`acknowledge` is separate from receiving: the driver acknowledges a result when it is in the status file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from disbatch.model.errors import ProtocolError
from disbatch.model.text import valid

Received = TypeVar("Received")


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A message on the wire: `number` is 0 for a told message; `acknowledged` is the last number that was
    processed."""

    number: int
    acknowledged: int
    body: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_envelopes = msgspec.msgpack.Decoder(Envelope)


def encode(message: object) -> bytes:
    """The body of a message, encoded."""
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:  # the name of a file, in a line for display
        return _encoder.encode(_valid(msgspec.to_builtins(message, builtin_types=(bytes,))))


def _valid(value: Any) -> Any:
    """The content of a message, with valid text."""
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, dict):
        return {_valid(key): _valid(each) for key, each in value.items()}
    return [_valid(each) for each in value] if isinstance(value, list) else value


class Session(Generic[Received]):
    """One end of the stream. `transmit` puts bytes on the connection, or drops them if there is none.

    `decode` turns a body into a message and raises `msgspec.DecodeError` for an invalid one.
    """

    def __init__(self, transmit: Callable[[bytes], Any], decode: Callable[[bytes], Received]) -> None:
        self._transmit = transmit
        self._decode = decode
        self._posted: deque[tuple[int, bytes]] = deque()
        self._next = 1
        self.seen = 0
        """The last number that was processed."""
        self._acknowledged = 0
        self._told = 0

    @property
    def owes(self) -> bool:
        """True if the peer has not been told yet of everything that is acknowledged."""
        return self._told < self._acknowledged

    @property
    def next_number(self) -> int:
        """The number of the next posted message, or of the oldest one that is kept."""
        return self._posted[0][0] if self._posted else self._next

    @property
    def unacknowledged(self) -> int:
        """The number of posted messages that the peer has not acknowledged."""
        return len(self._posted)

    def post(self, message: object) -> None:
        """Send a message that must arrive, exactly once and in order."""
        body = encode(message)
        number = self._next
        self._next = number + 1
        self._posted.append((number, body))
        self._send(number, body)

    def tell(self, message: object) -> None:
        """Send a message that matters only now."""
        self._send(0, encode(message))

    def _send(self, number: int, body: bytes) -> None:
        self._told = self._acknowledged
        self._transmit(_encoder.encode(Envelope(number, self._acknowledged, msgspec.Raw(body))))

    def acknowledge(self, number: int) -> bool:
        """Let the peer forget everything up to `number`; sent with the next message. True if that is new."""
        if number <= self._acknowledged:
            return False
        self._acknowledged = min(number, self.seen)
        return True

    def receive(self, data: bytes) -> tuple[int, Received] | None:
        """The message in `data` with its number, or None for one that must not be processed.

        Raises ProtocolError for anything that is not a message; the state is then unchanged.
        """
        try:
            envelope = _envelopes.decode(data)
            number = envelope.number
            message = self._decode(envelope.body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ProtocolError(f"not a message: {error}") from error
        self._forget(envelope.acknowledged)
        if number == 0:
            return 0, message
        if number != self.seen + 1:
            return None
        self.seen = number
        return number, message

    def peek(self, data: bytes) -> Received:
        """The message in `data`, without processing its numbers. Raises ProtocolError."""
        try:
            return self._decode(_envelopes.decode(data).body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ProtocolError(f"not a message: {error}") from error

    def _forget(self, acknowledged: int) -> None:
        posted = self._posted
        while posted and posted[0][0] <= acknowledged:
            posted.popleft()

    def resend(self, seen: int) -> None:
        """The peer has seen everything up to `seen`: resend what follows."""
        for number, body in self._posted:
            if number > seen:
                self._send(number, body)

    def forget_posted(self) -> None:
        """Never resend what was posted and not acknowledged; its numbers stay used."""
        self._posted.clear()

    def post_from(self, number: int) -> None:
        """The first posted message gets this number, because the peer has seen those of our predecessor
        before it. Nothing was posted yet."""
        self._next = max(self._next, number)

    def skip_to(self, next_number: int) -> None:
        """The peer's next message has the number `next_number`; those before it were given up there."""
        self.seen = max(self.seen, next_number - 1)
