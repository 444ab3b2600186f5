"""The page as HTML, without a browser."""

from __future__ import annotations

import asyncio
import re

import msgspec
import pytest
from monitor_run import VIEW

from disbatch.watch.web.page import render
from disbatch.watch.web.state import Picture


def page(**changes: object) -> str:
    async def drawn() -> str:
        picture = Picture()
        view = msgspec.structs.replace(VIEW, **changes)
        picture.take(view, over=view.mode == "over")
        return render(picture)

    return asyncio.run(drawn())


def fact(text: str, label: str) -> str:
    return re.findall(rf"<dt>{label}</dt><dd><b>([^<]*)", text)[0]


@pytest.mark.parametrize(
    ("changes", "waiting"),
    [
        ({}, "2,042"),
        ({"paused": True}, "2,042"),
        ({"skipped": 1000, "lost": 40, "not_run": 40}, "1,002"),
        ({"total": None}, "72"),
        ({"total": 1900}, "72"),
        ({"mode": "ending"}, "72"),
    ],
)
def test_what_waits_is_counted_of_the_whole_list(changes: dict[str, object], waiting: str) -> None:
    assert fact(page(**changes), "waiting") == waiting


@pytest.mark.parametrize(
    ("changes", "left", "elapsed"),
    [
        ({"remaining": 41.7, "seconds": 12.34}, "42 s", "12 s"),
        ({"remaining": 0.0, "seconds": 312.4}, "none", "5:12"),
        ({"remaining": None, "paused": True}, "–", "5:12"),
        ({"remaining": None, "mode": "over", "seconds": 0.52}, "–", "0.5 s"),
    ],
)
def test_times(changes: dict[str, object], left: str, elapsed: str) -> None:
    text = page(**changes)
    assert (fact(text, "time left"), fact(text, "elapsed")) == (left, elapsed)


def test_rates_of_nodes_have_the_unit_of_the_run() -> None:
    nodes = [msgspec.structs.replace(row, rate=0.25) for row in VIEW.engines]
    text = page(rate=6.1, engines=nodes)
    assert fact(text, "rate") == "6.1/s"
    assert text.count('<td class="n">0.25/s</td>') == len(nodes)
