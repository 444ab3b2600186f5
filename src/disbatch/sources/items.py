"""Lines waiting to be parsed, and the items that come out of them one by one: the inner part of a source."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from disbatch.model.errors import TaskFileError
from disbatch.model.task import Item
from disbatch.model.taskfile import TaskParser


class ItemQueue:
    """Batches of lines go in, items come out in order; lines are parsed as items are needed.

    One item is always parsed ahead if there is one, so that `empty` knows the truth about lines that
    become nothing. The first wrong line ends it: `error` is set once all items before it are out, and
    what follows is dropped. `parser`: one that goes on counting from another input; else a new one.
    """

    def __init__(self, name: str, parser: TaskParser | None = None) -> None:
        self.error: TaskFileError | None = None
        self.waiting_bytes = 0
        """Size of the lines whose parsing has not begun."""
        self._parser = parser or TaskParser(name)
        self._batches: deque[tuple[int, list[bytes], int]] = deque()
        self._inserted: deque[Iterable[Item]] = deque()
        self._items: Iterator[Item] = iter(())
        self._next: Item | None = None

    @property
    def empty(self) -> bool:
        """True if no item can be taken now."""
        return self._next is None

    def add(self, number: int, lines: list[bytes]) -> None:
        """Append lines without their ends; `number` is that of the first."""
        if lines and self.error is None:
            size = sum(map(len, lines))
            self._batches.append((number, lines, size))
            self.waiting_bytes += size
            if self._next is None:
                self._look_ahead()

    def rename(self, name: str) -> None:
        """What errors call the source from now on."""
        self._parser.source_name = name

    @property
    def next_id(self) -> int:
        """The id of the first item of what is to be parsed next."""
        return self._parser.next_id

    def insert(self, items: Iterable[Item], ids: int) -> None:
        """These items, which have so many ids, from `next_id` on, come before all that is not parsed yet."""
        self._parser.next_id += ids
        self._inserted.append(items)
        if self._next is None:
            self._look_ahead()

    def take(self, most: int) -> list[Item]:
        """At most `most` items, in order."""
        if self._next is None or most <= 0:
            return []
        taken = [self._next]
        self._next = None
        while True:
            taken += islice(self._items, most - len(taken))
            if len(taken) == most or not self._begin_batch():
                break
        self._look_ahead()
        return taken

    def _look_ahead(self) -> None:
        while True:
            self._next = next(self._items, None)
            if self._next is not None or not self._begin_batch():
                return

    def _begin_batch(self) -> bool:
        if self._inserted:
            self._items = self._take_inserted()
            return True
        if not self._batches:
            return False
        number, lines, size = self._batches.popleft()
        self.waiting_bytes -= size
        self._items = self._parse(number, lines)
        return True

    def _take_inserted(self) -> Iterator[Item]:
        while self._inserted:
            yield from self._inserted.popleft()

    def _parse(self, first: int, lines: list[bytes]) -> Iterator[Item]:
        parse = self._parser.parse
        try:
            for number, line in enumerate(lines, first):
                if self._inserted:
                    yield from self._take_inserted()
                yield from parse(number, line)
        except TaskFileError as error:
            self.error = error
            self._batches.clear()
            self.waiting_bytes = 0
