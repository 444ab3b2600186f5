"""A real Chromium without a window, for the tests of the web page, and a page's server that shows what a test
makes up."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from ports import free_port
from redis_server import need

from deadline import DEADLINE
from disbatch.model.view import RunView
from disbatch.watch.web import server
from disbatch.watch.web.security import Guard
from disbatch.watch.web.state import Picture
from disbatch.wire.client_protocol import Verb

PICTURES = os.environ.get("WEB_PICTURES", "")
"""Where pictures of the page are put, if anywhere: docs/pictures are made so."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser."""
    need("chromium")
    expect.set_options(timeout=1000 * DEADLINE)  # its own is 5 s
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Tab:
    """A page that minds each error: `close` fails the test if there was one, or if anything was asked of
    another server."""

    def __init__(
        self, browser: Browser, address: str, context: BrowserContext | None = None, **how: Any
    ) -> None:
        self.errors: list[str] = []
        self.context = context or browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **how})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(1000 * DEADLINE)
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url, address))
        self.page.goto(address)
        self.page.wait_for_url("**/")

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "ERR_CONNECTION_REFUSED" not in text:
            self.errors.append(f"{kind}: {text}")

    def _asked(self, url: str, address: str) -> None:
        if url.split("/")[2] != address.split("/")[2]:
            self.errors.append(f"asked for {url}")

    def picture(self, name: str, *, whole: bool = True) -> None:
        """Keep how it looks, if somebody wants that."""
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=whole)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.context.close()
        if error is None:
            assert not self.errors, self.errors


class Shown:
    """A page's server in a thread of its own, which shows the views that it is given; `orders` are the verbs
    that somebody ordered."""

    def __init__(self, status: Path) -> None:
        self.port = free_port()
        self.orders: list[Verb] = []
        self.renewed: list[str] = []
        self._status = status
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _order(self, verb: Verb) -> tuple[bool, list[str]]:
        self.orders.append(verb)
        return True, [f"{type(verb).__name__.lower()}: done"]

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.picture = Picture()
        self.shown = server.Page(self.picture, str(self._status).removesuffix("_status.txt"), self._order)
        guard = Guard(
            self.shown.app,
            hosts=["node1"],
            token="open",
            renew=self.renewed.append,
            port=self.port,
            file="P_url.txt",
        )
        config = uvicorn.Config(
            guard, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", self.port))
        self._ready.set()
        await self.server.serve([listening])

    def do(self, act: Callable[[Picture], None]) -> None:
        """Act upon the picture, in its own thread."""

        async def acted() -> None:
            act(self.picture)

        asyncio.run_coroutine_threadsafe(acted(), self._loop).result(DEADLINE)

    def take(self, view: RunView, *, over: bool = False) -> None:
        self.do(lambda picture: picture.take(view, over=over))

    @property
    def address(self) -> str:
        token = self.renewed[-1] if self.renewed else "open"
        return f"http://127.0.0.1:{self.port}/?token={token}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(DEADLINE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.should_exit = True
        self._thread.join(DEADLINE)
