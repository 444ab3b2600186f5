"""The web server of the page: the page and its parts, the event stream that keeps it up to date, searches,
and orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from disbatch.model.errors import UsageError
from disbatch.model.text import printable_json
from disbatch.rundir.runscript import status_file
from disbatch.watch.web.page import LONGEST_QUERY, Search, as_json, render, search
from disbatch.watch.web.security import MOST_BYTES, parse_order
from disbatch.watch.web.state import Order, Picture

STATIC = Path(__file__).with_name("static")
SCRIPTS = ("page.js", "charts.js", "slotmap.js", "tables.js", "orders.js", "words.js", "vendor/uplot.js")
STYLES = ("page.css", "vendor/uplot.css")
PARTS = {
    **dict.fromkeys(SCRIPTS, "text/javascript; charset=utf-8"),
    **dict.fromkeys(STYLES, "text/css; charset=utf-8"),
    "icon.svg": "image/svg+xml",
}
MOST_BROWSERS = 32
"""The most browsers that are kept up to date at a time."""
ALIVE = 15.0
"""Seconds after which an empty event tells both ends that the connection lives."""


class Page:
    """The application; `picture` is the state that the page shows, `prefix` the prefix of the run's files,
    `order` carries orders out."""

    def __init__(self, picture: Picture, prefix: str, order: Order) -> None:
        self._picture = picture
        self._prefix = prefix
        self._order = order
        self._browsers = 0
        self._searching = asyncio.Semaphore(2)
        self.all_told = asyncio.Event()
        """Set while no browser waits for the last event."""
        self.all_told.set()
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/events", self._events),
                Route("/search", self._search),
                Route("/order", self._do, methods=["POST"]),
                *(Route(f"/static/{name}", self._part) for name in PARTS),
            ]
        )

    async def _page(self, request: Request) -> Response:
        return Response(render(self._picture), media_type="text/html; charset=utf-8")

    async def _part(self, request: Request) -> Response:
        name = request.url.path.removeprefix("/static/")
        return FileResponse(STATIC / name, media_type=PARTS[name])

    async def _events(self, request: Request) -> Response:
        if self._browsers >= MOST_BROWSERS:
            return PlainTextResponse("Too many pages of this run are open.\n", 503)
        return StreamingResponse(self._news(), media_type="text/event-stream")

    async def _news(self) -> AsyncIterator[bytes]:
        """An event with everything new, whenever something is new, until the run is over."""
        picture, known = self._picture, 0
        self._browsers += 1
        self.all_told.clear()
        try:
            while True:
                changed = picture.changed
                if picture.version > known:
                    news = printable_json(msgspec.json.encode(picture.news(known)))
                    known = picture.version
                    yield b"data: " + news + b"\n\n"
                    if picture.over:
                        return
                try:
                    async with asyncio.timeout(ALIVE):
                        await changed.wait()
                except TimeoutError:
                    yield b": \n\n"
        finally:
            self._browsers -= 1
            if not self._browsers:
                self.all_told.set()

    async def _search(self, request: Request) -> Response:
        query = request.query_params.get("q", "")[:LONGEST_QUERY]
        failed = request.query_params.get("failed") == "1"
        place = request.query_params.get("before", "")
        before = int(place) if place.isascii() and place.isdecimal() and len(place) < 19 else None
        async with self._searching:
            result = await run_in_threadpool(self._find, query, failed, before)
        return _json(as_json(result))

    def _find(self, query: str, failed: bool, before: int | None) -> Search:
        return search(status_file(self._prefix), query, failed=failed, before=before)

    async def _do(self, request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":
            return _json({"ok": False, "lines": ["an order must be JSON"]}, 415)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return _json({"ok": False, "lines": ["the order is too long"]}, 413)
        try:
            verb = parse_order(body)
        except UsageError as error:
            return _json({"ok": False, "lines": [str(error)]}, 400)
        ok, lines = await self._order(verb)
        return _json({"ok": ok, "lines": lines})


def _json(value: object, code: int = 200) -> Response:
    return Response(printable_json(msgspec.json.encode(value)), code, media_type="application/json")
