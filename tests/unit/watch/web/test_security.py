"""watch/web/security.py: who is let in, and that everybody else is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from disbatch.watch.web.security import HEADERS, MOST_SESSIONS, Guard

HOST = "127.0.0.1:4000"
ORIGIN = f"http://{HOST}"


class World:
    """A guard before an app that answers `in`."""

    def __init__(self) -> None:
        self.renewed: list[str] = []
        self.guard = Guard(
            PlainTextResponse("in"),
            hosts=["Node1", "node1.example.org"],
            token="secret",
            renew=self.renewed.append,
            port=4000,
            file="P_url.txt",
        )

    def ask(
        self, path: str = "/", *, method: str = "GET", host: str | None = HOST, **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        """Status, body and headers of the answer."""
        path, _, query = path.partition("?")
        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if host is not None:
            given.append((b"host", host.encode()))
        scope: dict[str, Any] = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": given,
        }  # fmt: skip
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        asyncio.run(self.guard(scope, receive, send))
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:]).decode(), found

    def enter(self, token: str = "secret") -> str:
        """The cookie."""
        status, _, headers = self.ask(f"/?token={token}")
        assert status == 200
        return headers["set-cookie"].partition(";")[0]


def test_a_token_is_good_once_and_another_one_is_given_out() -> None:
    world = World()
    status, body, headers = world.ask("/?token=secret")
    assert status == 200 and 'url=/"' in body and "secret" not in body
    cookie = headers["set-cookie"]
    assert cookie.startswith("disbatch_4000=") and "secret" not in cookie
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert world.ask("/?token=secret")[0] == 403
    (token,) = world.renewed
    assert token != "secret" and len(token) > 40
    assert world.enter(token) != cookie.partition(";")[0]


def test_with_the_cookie_and_without() -> None:
    world = World()
    cookie = world.enter()
    assert world.ask("/", cookie=cookie)[:2] == (200, "in")
    assert world.ask("/?token=secret", cookie=cookie)[0] == 200
    for wrong in ("", "disbatch_4000=", "disbatch_4000=x", cookie[:-1], cookie.replace("4000", "4001")):
        for path in (
            "/",
            "/events",
            "/static/page.js",
            "/search?q=x",
            "/nowhere",
            "/?token=",
            "/?x=1",
            "/?a=1&b=2&c=3&d=4&e=5",
        ):
            status, body, _ = world.ask(path, cookie=wrong)
            assert status == 403 and "P_url.txt" in body, (path, wrong)
        assert world.ask("/order", method="POST", origin=ORIGIN, cookie=wrong)[0] == 403


@pytest.mark.parametrize(
    "host", ["localhost:9", "127.0.0.1", "[::1]:4000", "node1:4000", "NODE1.example.org", "10.1.2.3:80"]
)
def test_hosts(host: str) -> None:
    world = World()
    assert world.ask("/", host=host, cookie=world.enter())[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example.org",
        "evil.example.org:4000",
        "node1.evil.org",
        "127.0.0.1.evil.org",
        "[x",
        "@",
    ],
)
def test_foreign_hosts(host: str | None) -> None:
    world = World()
    cookie = world.enter()
    assert world.ask("/", host=host, cookie=cookie)[0] == 421
    assert world.ask("/?token=secret", host=host)[0] == 421
    assert world.ask("/order", method="POST", host=host, origin=f"http://{host}", cookie=cookie)[0] == 421


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.org", "https://127.0.0.1:4000", "http://127.0.0.1:4001"]
)
def test_foreign_origins(origin: str | None) -> None:
    world = World()
    cookie = world.enter()
    given = {} if origin is None else {"origin": origin}
    assert world.ask("/order", method="POST", cookie=cookie, **given)[0] == 403
    if origin is not None:
        assert world.ask("/events", cookie=cookie, **given)[0] == 403
    assert world.ask("/order", method="POST", cookie=cookie, origin=ORIGIN)[:2] == (200, "in")


def test_what_the_browser_says_of_who_asks() -> None:
    world = World()
    cookie = world.enter()
    assert world.ask("/events", cookie=cookie, sec_fetch_site="cross-site")[0] == 403
    assert world.ask("/events", cookie=cookie, sec_fetch_site="same-site")[0] == 403
    assert world.ask("/events", cookie=cookie, sec_fetch_site="same-origin")[0] == 200
    # a link somewhere else may lead here
    assert world.ask("/", cookie=cookie, sec_fetch_site="cross-site", sec_fetch_mode="navigate")[0] == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "OPTIONS", "DELETE", "CONNECT"])
def test_other_methods(method: str) -> None:
    world = World()
    assert world.ask("/?token=secret", method=method)[0] == 405
    assert world.enter()


def test_every_answer_has_the_headers() -> None:
    world = World()
    for path, host in (("/?token=secret", HOST), ("/", HOST), ("/", "evil.org")):
        headers = world.ask(path, host=host)[2]
        assert headers.items() >= HEADERS.items()
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy


def test_sessions_are_bounded() -> None:
    world = World()
    first = world.enter()
    for _ in range(MOST_SESSIONS):
        world.enter(world.renewed[-1])
    assert world.ask("/", cookie=first)[0] == 403
