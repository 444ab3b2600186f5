"""Two sessions over a channel that breaks, loses and comes back: what is posted arrives once and in order."""

from __future__ import annotations

from collections import deque

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.model.errors import ProtocolError
from disbatch.wire.client_protocol import Answer, Request
from disbatch.wire.engine_protocol import Order, Start, Trouble
from disbatch.wire.session import Envelope, Session, encode
from disbatch.wire.verbs import Cancel

_decode = msgspec.msgpack.Decoder(int).decode


class Side:
    """A session, what it has put on the present connection, and what it acted upon."""

    def __init__(self) -> None:
        self.connected = True
        self.sent: deque[bytes] = deque()
        self.got: list[int] = []
        self.session: Session[int] = Session(self.transmit, _decode)

    def transmit(self, data: bytes) -> None:
        if self.connected:
            self.sent.append(data)

    def take(self, data: bytes, *, acknowledge: bool = True) -> None:
        received = self.session.receive(data)
        if received is not None and received[0]:
            self.got.append(received[1])
            if acknowledge:
                self.session.acknowledge(received[0])


class Pair:
    """Two sides of one connection; on each new one both send again what the other has not seen."""

    def __init__(self) -> None:
        self.sides = (Side(), Side())
        self.posted: tuple[list[int], list[int]] = ([], [])

    def post(self, who: int, number: int) -> None:
        self.posted[who].append(number)
        self.sides[who].session.post(number)

    def deliver(self, who: int, *, acknowledge: bool = True) -> None:
        if self.sides[who].sent:
            self.sides[1 - who].take(self.sides[who].sent.popleft(), acknowledge=acknowledge)

    def cut(self) -> None:
        for side in self.sides:
            side.connected = False
            side.sent.clear()

    def reconnect(self) -> None:
        self.cut()
        for side in self.sides:
            side.connected = True
        for side, other in (self.sides, self.sides[::-1]):
            side.session.resend(other.session.seen)

    def flush(self) -> None:
        while any(side.sent for side in self.sides):
            self.deliver(0)
            self.deliver(1)


steps = st.lists(
    st.tuples(
        st.sampled_from(["post", "post", "deliver", "deliver", "read", "tell", "cut", "reconnect"]),
        st.booleans(),
    )
)


@given(steps)
def test_each_posted_message_is_acted_upon_once_and_in_order(history: list[tuple[str, bool]]) -> None:
    pair = Pair()
    for number, (what, second) in enumerate(history):
        who = int(second)
        if what == "post":
            pair.post(who, number)
        elif what in ("deliver", "read"):
            pair.deliver(who, acknowledge=what == "deliver")
        elif what == "tell":
            pair.sides[who].session.tell(number)
        elif what == "cut":
            pair.cut()
        else:
            pair.reconnect()
        for me, side in enumerate(pair.sides):
            assert pair.posted[1 - me][: len(side.got)] == side.got
    pair.reconnect()
    pair.flush()
    for me, side in enumerate(pair.sides):
        assert side.got == pair.posted[1 - me]
        side.session.acknowledge(side.session.seen)
        side.session.tell(0)
    pair.flush()
    assert [side.session.unacknowledged for side in pair.sides] == [0, 0]


@given(st.lists(st.integers(0, 9), max_size=30))
def test_numbers_out_of_turn_are_dropped(order: list[int]) -> None:
    sender, receiver = Side(), Side()
    for number in range(10):
        sender.session.post(100 + number)
    frames = list(sender.sent)
    expected = 0
    for index in order:
        receiver.take(frames[index])
        expected += index == expected
        assert receiver.got == [100 + number for number in range(expected)]


@given(st.binary(max_size=60))
def test_garbage_changes_nothing(data: bytes) -> None:
    side = Side()
    side.session.post(1)
    try:
        msgspec.msgpack.decode(data, type=Envelope)
        msgspec.msgpack.decode(msgspec.msgpack.decode(data, type=Envelope).body, type=int)
    except (msgspec.DecodeError, RecursionError):
        with pytest.raises(ProtocolError):
            side.session.receive(data)
        assert (side.session.seen, side.session.unacknowledged) == (0, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x01",
        msgspec.msgpack.encode([1, 1, "text where a number belongs"]),
        msgspec.msgpack.encode(["1", 1, 5]),
        msgspec.msgpack.encode([1, 1]),
        b"\x91" * 100_000,
    ],
    ids=["empty", "never used", "cut short", "wrong body", "wrong number", "no body", "deep"],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    side = Side()
    side.session.post(1)
    with pytest.raises(ProtocolError):
        side.session.receive(data)
    assert (side.session.seen, side.session.unacknowledged) == (0, 1)


def test_a_told_message_has_no_number_and_is_not_kept() -> None:
    side, other = Side(), Side()
    side.session.tell(7)
    assert other.session.receive(side.sent.popleft()) == (0, 7)
    assert (side.session.unacknowledged, other.session.seen, other.got) == (0, 0, [])


def test_what_was_not_acted_upon_cannot_be_acknowledged() -> None:
    side, other = Side(), Side()
    side.session.post(7)
    other.session.acknowledge(5)
    other.session.tell(0)
    side.session.receive(other.sent.popleft())
    assert side.session.unacknowledged == 1


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_a_peer_that_was_given_up_skips_what_it_never_got(before: int, lost: int, after: int) -> None:
    """The driver gives an engine up, forgets what it had posted, and the engine comes back."""
    pair = Pair()
    driver, engine = pair.sides
    for number in range(before):
        pair.post(0, number)
    pair.flush()
    pair.cut()
    for number in range(before, before + lost):
        driver.session.post(number)
    driver.session.forget_posted()
    assert driver.session.unacknowledged == 0
    for side in pair.sides:
        side.connected = True
    engine.session.skip_to(driver.session.next_number)
    driver.session.resend(engine.session.seen)
    for number in range(100, 100 + after):
        pair.post(0, number)
    pair.flush()
    assert engine.got == [*range(before), *range(100, 100 + after)]


def test_skipping_never_goes_back() -> None:
    side, other = Side(), Side()
    for number in range(3):
        side.session.post(number)
        other.take(side.sent.popleft())
    other.session.skip_to(2)
    assert other.session.seen == 3


def test_what_is_not_acknowledged_is_kept() -> None:
    pair = Pair()
    for number in range(4):
        pair.post(0, number)
    pair.deliver(0)
    pair.deliver(0)
    pair.sides[1].session.tell(0)
    pair.deliver(1)
    assert pair.sides[0].session.unacknowledged == 2
    assert pair.sides[0].session.next_number == 3


@pytest.mark.parametrize(
    "message, text",
    [
        (Answer("i" * 16, True, ["Tasks\udce9: done", "and more"]), "Tasks\\xe9: done"),
        (Trouble("/tmp/\udcff: full"), "/tmp/\\xff: full"),
        (Request(1, "i" * 16, "v\udcfe", Cancel([(1, 2)])), "v\\xfe"),
    ],
)
def test_a_name_of_a_file_in_a_message_reads_with_its_bytes_told(message: msgspec.Struct, text: str) -> None:
    told = msgspec.msgpack.decode(encode(message), type=type(message))
    assert text in str(told).replace("\\\\", "\\")


def test_other_messages_are_as_they_are() -> None:
    message = Start([Order(1, 2, 3, -1, b"echo \xff")])
    assert encode(message) == msgspec.msgpack.encode(message)
