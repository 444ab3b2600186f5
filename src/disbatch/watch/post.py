"""Where mail is handed in: the server that DISBATCH_SMTP names, and what it takes to be heard there.

| part | |
|---|---|
| `smtp://` | plain TCP, then TLS if the server offers it; no password goes to another host without |
| `smtps://` | TLS from the beginning |
| `user:password@` | percent-encoded where they hold `@ : / ? #` or `%` |
| `:PORT` | 25, with `smtps` 465 |
| `?ssl_ca_certs=FILE` | trust what FILE signs, besides the system's authorities |

Certificates are verified for `smtps` and wherever a password is sent. All this blocks: call it in a thread.
"""

from __future__ import annotations

import re
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from urllib.parse import parse_qsl, unquote, urlsplit

from disbatch.model.errors import UsageError
from disbatch.model.text import printable

VARIABLE = "DISBATCH_SMTP"
TIMEOUT = 20.0
"""Seconds that the server has for each answer."""
LONGEST_WORDS = 200
_PORTS = {"smtp": 25, "smtps": 465}
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_FORMS = f"{VARIABLE}: write smtp://HOST:PORT or smtps://USER:PASSWORD@HOST:PORT"


@dataclass(frozen=True)
class Post:
    """A mail server. Its text never shows the password."""

    host: str = "localhost"
    port: int = 25
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def is_here(self) -> bool:
        """It is on this machine."""
        return _LOOPBACK.fullmatch(self.host) is not None


def parse_post(text: str) -> Post:
    """The server of DISBATCH_SMTP; without any, the one on this machine. UsageError, in which no password is
    repeated."""
    if not text:
        return Post()
    scheme = text.partition("://")[0].lower()
    if scheme not in _PORTS:
        raise UsageError(_FORMS)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError(f"{_FORMS}; no such host and port can be") from None
    if not _HOST.fullmatch(host) or parts.fragment or parts.path.strip("/") or port == 0:
        raise UsageError(f"{_FORMS}; percent-encode @ : / ? # in a password")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    ca = given.pop("ssl_ca_certs", "")
    if given or (parts.query and not ca):
        raise UsageError(f"{_FORMS}; the only parameter is ssl_ca_certs=FILE")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if password and not user:
        raise UsageError(f"{_FORMS}; there is a password, but no user")
    return Post(host, port or _PORTS[scheme], scheme == "smtps", user, password, ca)


def deliver(post: Post, message: EmailMessage) -> str:
    """Hand the mail in; empty, or a few words that say why it was not taken from all."""
    try:
        with _connected(post) as server:
            refused = server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
    except (smtplib.SMTPException, OSError, ValueError) as error:
        return _tidy(_reason(error), post)
    words = [f"{who} was refused ({_text(code, text)})" for who, (code, text) in refused.items()]
    return _tidy("; ".join(words), post)


def _connected(post: Post) -> smtplib.SMTP:
    """Ready to take mail from us."""
    server: smtplib.SMTP
    if post.tls:
        server = smtplib.SMTP_SSL(post.host, post.port, timeout=TIMEOUT, context=_trust(post))
    else:
        server = smtplib.SMTP(post.host, post.port, timeout=TIMEOUT)
    try:
        server.ehlo_or_helo_if_needed()
        if not post.tls and server.has_extn("starttls") and not (post.is_here and not post.ca):
            server.starttls(context=_trust(post) if post.user or post.ca else _any_trust())
            server.ehlo()
        elif not post.tls and post.user and not post.is_here:
            raise smtplib.SMTPException("it offers no TLS, so the password is not sent; write smtps://")
        if post.user:
            server.login(post.user, post.password)
    except BaseException:
        server.close()
        raise
    return server


def _trust(post: Post) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if post.ca:
        context.load_verify_locations(post.ca)
    return context


def _any_trust() -> ssl.SSLContext:
    """Against those who only listen: there is no password, and the alternative is no TLS at all."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return _text(error.smtp_code, error.smtp_error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "it closed the connection"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)


def _text(code: int, text: bytes | str) -> str:
    return f"{code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"


def _tidy(words: str, post: Post) -> str:
    """One printable line of bounded length, without the password, which a server may repeat."""
    if post.password:
        words = words.replace(post.password, "***")
    line = " ".join(printable(" ".join(words.splitlines())).split())
    return line if len(line) <= LONGEST_WORDS else line[: LONGEST_WORDS - 3] + "..."
