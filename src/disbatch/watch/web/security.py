"""Who may see the page and act on the run: tokens, cookies, origins, limits on connections, and the orders
that are allowed.

Theory of operation
-------------------
The printed address holds a token, which is valid once: it is exchanged for a cookie, which no script can read
and no other site can make a browser send. The file PREFIX_url.txt then gets another address, so a user who
can read that file can always log in. Every other request without the cookie is refused.

A page of another site may make a browser send requests here. Such a request has no cookie (SameSite=Strict)
and the wrong Origin, and if the site made a name of its own point here (DNS rebinding), the wrong Host. Ports
are not compared there: tunnels change them.

Anybody on this host can connect. A connection counts as a stranger's until a request on it has brought the
token or the cookie. There are at most MOST_STRANGERS such connections: a new one replaces the oldest. None
lasts longer than PATIENCE, whatever it sends, and each is closed after its first answer. A browser sends its
whole request in the first packet, so its connection is a stranger's for a moment only.

An order of the page is JSON, and becomes a request to the driver like one of `dbutil`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
from collections.abc import Callable, Collection
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from disbatch.model.errors import UsageError
from disbatch.model.verbs import RUN_VERBS, Target
from disbatch.wire.descriptors import limit
from disbatch.wire.engine_protocol import Count
from disbatch.wire.verbs import RunRequest, run_request

MOST_BYTES = 1 << 16
_Node = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class _Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    verb: str
    nodes: Annotated[list[_Node], msgspec.Meta(max_length=1024)] = []
    tasks: Annotated[list[tuple[Count, Count]], msgspec.Meta(max_length=1024)] = []


def parse_order(body: bytes) -> RunRequest:
    """The request in a body. UsageError."""
    try:
        order = msgspec.json.decode(body, type=_Order)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"no order: {error}") from error
    verb = RUN_VERBS.get(order.verb)
    if verb is None or not verb.on_page:
        raise UsageError(f"invalid request: {order.verb!r:.80} is not available on the web page")
    if verb.target is Target.RUN:
        return run_request(verb)
    if verb.target is Target.TASKS:
        if not order.tasks or any(last < first for first, last in order.tasks):
            raise UsageError(f"{verb.name}: no task is named")
        return run_request(verb, order.tasks)
    if not order.nodes or not all(node.isprintable() for node in order.nodes):
        raise UsageError(f"{verb.name}: no node is named")
    return run_request(verb, order.nodes)


PATIENCE = 10.0
"""Seconds."""
MOST_STRANGERS = 1024
ADMIT = "admit"
"""The key in a request's state under which it finds the function to call when it is authorised."""


def most_strangers() -> int:
    """The most connections of strangers that there is room for. A few times as many may be accepted at once,
    before the first of them is closed."""
    return min(MOST_STRANGERS, max(8, limit() // 8))


class Strangers:
    """Closes the connections of strangers by calling what `add` was given: the oldest when there are more
    than `most`, and each after PATIENCE."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}

    def add(self, close: Callable[[], None]) -> None:
        """A stranger has connected."""
        while len(self._timers) >= self._most:
            self._close(next(iter(self._timers)))
        loop = asyncio.get_running_loop()
        self._timers[close] = loop.call_later(PATIENCE, self._close, close)

    def remove(self, close: Callable[[], None]) -> None:
        """The connection is no longer a stranger's, or is gone."""
        timer = self._timers.pop(close, None)
        if timer is not None:
            timer.cancel()

    def _close(self, close: Callable[[], None]) -> None:
        self.remove(close)
        close()


class Connection(H11Protocol):
    """One connection of the page's server."""

    def __init__(
        self,
        strangers: Strangers,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, ADMIT: self._admit}, _loop)
        self._strangers = strangers
        self._admitted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """From asyncio."""
        super().connection_made(transport)
        self._strangers.add(transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio."""
        self._strangers.remove(self.transport.abort)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """From uvicorn."""
        if not self._admitted:
            self.transport.close()
        super().on_response_complete()

    def _admit(self) -> None:
        self._admitted = True
        self._strangers.remove(self.transport.abort)


MOST_SESSIONS = 64
TOKEN_BYTES = 32
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_ENTER = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>disbatch</title>'
    '<link rel="icon" href="/static/icon.svg" type="image/svg+xml">'
    '<meta http-equiv="refresh" content="0; url=/"><p><a href="/">The run</a></p></html>'
)


class Guard:
    """Protects `app`. `hosts`: host names of the page. `token` opens it once; `renew` gets the next one.
    `port` distinguishes the cookie from those of other pages, since browsers ignore ports. `file` is the file
    with a valid address."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str],
        token: str,
        renew: Callable[[str], None],
        port: int,
        file: str,
    ) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts} | LOOPBACK
        self._token = token
        self._renew = renew
        self._cookie = f"disbatch_{port}"
        self._file = file
        self._sessions: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        answer: ASGIApp = self._refuse(Request(scope)) or self._app

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *given]
            await send(message)

        await answer(scope, receive, send_with_headers)

    def _refuse(self, request: Request) -> Response | None:
        """The answer to a request that is refused or redirected; None if it may continue."""
        host = _host(request)
        if host is None or not (host in self._hosts or _is_address(host)):
            return PlainTextResponse("This page has another host name.\n", 421)
        if request.method not in ("GET", "POST"):
            return PlainTextResponse("Only GET and POST are allowed.\n", 405, {"allow": "GET, POST"})
        if not _of_this_origin(request):
            return PlainTextResponse("This request comes from another site.\n", 403)
        if request.method == "GET" and request.url.path == "/" and request.url.query:
            return self._enter(request)
        if not self._has_session(request):
            return PlainTextResponse(
                "Open this page with the address that disbatch printed. Each address works once; the file "
                f"{self._file} has a new one.\n",
                403,
            )
        _admit(request)
        return None

    def _enter(self, request: Request) -> Response | None:
        given = _token(request.url.query)
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            # A user who goes back to the address, or has bookmarked it, is logged in already.
            return (
                HTMLResponse(_ENTER)
                if self._has_session(request)
                else PlainTextResponse(
                    f"This address has been used. The file {self._file} has a new one.\n", 403
                )
            )
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self._renew(self._token)
        _admit(request)
        session = secrets.token_urlsafe(TOKEN_BYTES)
        self._sessions = [*self._sessions, session][-MOST_SESSIONS:]
        # Not a redirection: if it began on another page, the browser would not send the cookie.
        answer = HTMLResponse(_ENTER)
        answer.set_cookie(self._cookie, session, httponly=True, samesite="strict", path="/")
        return answer

    def _has_session(self, request: HTTPConnection) -> bool:
        given = request.cookies.get(self._cookie, "").encode()
        return sum(hmac.compare_digest(given, session.encode()) for session in self._sessions) > 0


def _admit(request: Request) -> None:
    """Its connection is no longer a stranger's."""
    admit = request.scope.get("state", {}).get(ADMIT)
    if admit is not None:
        admit()


def _token(query: str) -> str:
    try:
        return parse_qs(query, max_num_fields=4).get("token", [""])[0]
    except ValueError:
        return ""


def _host(request: Request) -> str | None:
    """The name that the browser uses for us, without the port; None if there is none, or several."""
    given = request.headers.getlist("host")
    if len(given) != 1:
        return None
    try:
        return (urlsplit(f"//{given[0]}").hostname or "").lower()
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    """True if it is an IP address, which no other site can redirect here."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _of_this_origin(request: Request) -> bool:
    """True if it was not made by a page of another site; an order must prove that."""
    if request.method == "POST":
        return request.headers.get("origin") == f"http://{request.headers['host']}"
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{request.headers['host']}":
        return False
    site = request.headers.get("sec-fetch-site", "none")
    # A link on another page may lead here, and is of no use to that page.
    return site in ("none", "same-origin") or request.headers.get("sec-fetch-mode") == "navigate"
