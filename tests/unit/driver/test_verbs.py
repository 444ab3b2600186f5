"""Every verb that changes a run: from its words to a request, an event, the journal, and the next driver."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from command_bench import Bench
from plan_world import task

from disbatch.cli.control import Order, request_of
from disbatch.cli.dbutil import build_parser
from disbatch.driver.result_feed import ResultFeed
from disbatch.model.errors import UsageError
from disbatch.model.verbs import (
    CANCEL,
    CLOSE,
    DRAIN,
    FINISH,
    PAUSE,
    RESUME,
    RUN_VERBS,
    STOP,
    RunVerb,
    Target,
)
from disbatch.rundir.journal import Asked, Here
from disbatch.rundir.journal_file import JournalFile, read
from disbatch.watch.web.security import parse_order
from disbatch.wire.client_protocol import Request
from disbatch.wire.engine_protocol import PROTOCOL
from disbatch.wire.verbs import RunRequest

WORDS = {Target.NODES: ["n2"], Target.TASKS: ["3-4"], Target.RUN: []}
ON_PAGE = {Target.NODES: {"nodes": ["n2"]}, Target.TASKS: {"tasks": [[3, 4]]}, Target.RUN: {}}
ASKED = Asked("0", [], b"/", "7", "Tasks", b"/log", 3, 4, 600.0, [])


class Source:
    """It takes tasks until it is closed."""

    closed = False

    def close_soon(self) -> None:
        self.closed = True


def world(*orders: RunVerb) -> Bench:
    """Two tasks run on each of three nodes, and tasks can be submitted; these orders were given."""
    bench = Bench(*(task(number) for number in range(9)))
    bench.submissions.begin(Source(), ResultFeed.__new__(ResultFeed))  # type: ignore[arg-type]
    for order in orders:
        bench.asked(from_command_line(order))
    return bench


def from_command_line(verb: RunVerb) -> RunRequest:
    given = build_parser().parse_args([verb.name, *WORDS[verb.target]])
    return request_of(Order(None, RUN_VERBS[given.verb], given.words, given.timeout))


def over_the_wire(request: RunRequest) -> RunRequest:
    sent = msgspec.msgpack.encode(Request(PROTOCOL, "0123456789abcdef", "0", request))
    received = msgspec.msgpack.decode(sent, type=Request).verb
    assert isinstance(received, RunRequest) and received == request
    return received


def state(bench: Bench) -> tuple[object, ...]:
    """What orders change."""
    engines = {name: (engine.draining, engine.stopped) for name, engine in bench.plan.engines.items()}
    return bench.plan.held, list(bench.plan.cancelled), engines, bench.submissions.is_closed


def taken_over(bench: Bench, path: Path) -> Bench:
    """The next driver has read the journal; its engines join."""
    file = JournalFile.create(path, ASKED)
    file.add(*(Here(name, name[2:], 0, 2, None, pid=4) for name in bench.entries), *bench.noted)
    file.close()
    following = Bench()
    following.submissions.begin(Source(), ResultFeed.__new__(ResultFeed))  # type: ignore[arg-type]
    following.control.restore(read(path))
    for entry in following.entries.values():
        following.departures.joined(entry)
    return following


@pytest.mark.parametrize("verb", RUN_VERBS.values(), ids=RUN_VERBS)
def test_a_verb_from_its_words_to_the_next_driver(verb: RunVerb, tmp_path: Path) -> None:
    bench = world(*[PAUSE] * (verb is RESUME))
    before = state(bench)
    assert bench.asked(over_the_wire(from_command_line(verb)))
    assert state(bench) != before or bench.finished_by is not None, "it has an effect"
    if bench.noted:
        assert state(taken_over(bench, tmp_path / "P_run.json")) == state(bench)
    else:
        assert verb is FINISH, "the next driver need not know that this run was to end"


@pytest.mark.parametrize("verb", RUN_VERBS.values(), ids=RUN_VERBS)
def test_an_order_of_the_page_is_the_same_request(verb: RunVerb) -> None:
    body = json.dumps({"verb": verb.name, **ON_PAGE[verb.target]}).encode()
    if verb.on_page:
        assert parse_order(body) == from_command_line(verb)
    else:
        with pytest.raises(UsageError, match="not available on the web page"):
            parse_order(body)


def test_what_was_ordered_twice_is_restored_once(tmp_path: Path) -> None:
    bench = world(DRAIN, STOP, PAUSE, RESUME, CANCEL, CANCEL, CLOSE, DRAIN)
    again = taken_over(bench, tmp_path / "P_run.json")
    assert not again.plan.held and list(again.plan.cancelled) == [(3, 4)]
    assert again.said == [
        "still in effect from before the takeover: "
        "tasks cancelled (3-4); no more tasks are taken; leaving: n2"
    ]


def test_every_verb_is_in_the_manual() -> None:
    page = (Path(__file__).parents[3] / "docs/dbutil.md").read_text()
    assert set(RUN_VERBS) <= set(re.findall(r"`([a-z]+)[^`]*`", page))
