"""Room for so many tasks at a time: first come, first served, and nobody is forgotten."""

from __future__ import annotations

from disbatch.api import backpressure as rooms
from disbatch.api.backpressure import Room


def test_as_many_as_there_is_room_for() -> None:
    room = Room(2)
    assert room.queue(1, 10) is None and room.queue(1, 10) is None
    third, fourth = room.queue(1, 10), room.queue(1, 10)
    assert third is not None and fourth is not None and not third.done()
    room.leave(1, 10)
    assert third.done() and not fourth.done()
    room.leave(1)
    assert fourth.done() and room.tasks == 2


def test_more_at_once_than_there_is_room_for() -> None:
    room = Room(10)
    assert room.queue(1000, 1) is None
    waiting = room.queue(1, 1)
    assert waiting is not None
    room.leave(990)
    assert not waiting.done()
    room.leave(1)
    assert waiting.done()


def test_many_bytes_that_are_not_sent() -> None:
    room = Room(100)
    assert room.queue(1, rooms.MOST_BYTES) is None
    waiting = room.queue(1, 1)
    assert waiting is not None
    room.leave(0, rooms.MOST_BYTES)
    assert waiting.done()


def test_who_gives_up_does_not_hold_others_up() -> None:
    room = Room(1)
    assert room.queue(1, 0) is None
    first, second = room.queue(1, 0), room.queue(1, 0)
    assert first is not None and second is not None and first.cancel()
    room.leave(1)
    assert second.done() and room.tasks == 1


def test_those_who_must_not_wait() -> None:
    room = Room(1)
    room.force(1, 0)
    room.force(1, 0)
    assert room.tasks == 2
    room.leave(1)
    waiting = room.queue(1, 0)
    assert waiting is not None
    room.leave(1)
    assert waiting.done()


def test_nothing_under_way() -> None:
    room = Room(5)
    assert room.idle().done()
    room.queue(2, 0)
    idle = room.idle()
    room.leave(1)
    assert not idle.done()
    room.leave(1)
    assert idle.done()


def test_shut() -> None:
    room = Room(1)
    room.queue(1, 0)
    waiting = room.queue(1, 0)
    room.shut()
    assert waiting is not None and waiting.done()
    assert room.queue(1, 0) is None
