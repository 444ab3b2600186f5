"""Send mail about a run: after every N completed tasks, with their lines of the status file, and at its end.

DISBATCH_SMTP names the mail server:

| part | meaning |
|---|---|
| `smtp://` | plain TCP, then TLS if the server offers it; without TLS, a password is sent to this host only |
| `smtps://` | TLS from the beginning |
| `user:password@` | percent-encoded where they hold `@ : / ? #` or `%` |
| `:PORT` | 25 by default, with `smtps` 465 |
| `?ssl_ca_certs=FILE` | trust the authorities in FILE, besides the system's |

Certificates are verified for `smtps` and wherever a password is sent.

Theory of operation
-------------------
One mail is sent at a time, in a thread of its own, so that a mail server that does not answer blocks nothing.
Others wait, in order; if more than MOST_WAITING wait, the last ones are merged into one. A mail that was not
accepted is tried again with the next one, but not before RETRY seconds; the failure is reported once.
"""

from __future__ import annotations

import asyncio
import re
import smtplib
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from urllib.parse import parse_qsl, unquote, urlsplit

from disbatch.model.errors import UsageError
from disbatch.model.text import counted, printable
from disbatch.model.view import EndedTask, RunView

VARIABLE = "DISBATCH_SMTP"
TIMEOUT = 20.0
"""Seconds that the server has for each answer."""
LONGEST_WORDS = 200
_PORTS = {"smtp": 25, "smtps": 465}
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_FORMS = f"{VARIABLE}: write smtp://HOST:PORT or smtps://USER:PASSWORD@HOST:PORT"


@dataclass(frozen=True)
class MailServer:
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
        """True if it is on this machine."""
        return _LOOPBACK.fullmatch(self.host) is not None


def parse_mail_server(text: str) -> MailServer:
    """Parse DISBATCH_SMTP; empty: the server on this machine. UsageError, which never contains a password."""
    if not text:
        return MailServer()
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
    return MailServer(host, port or _PORTS[scheme], scheme == "smtps", user, password, ca)


def deliver(server: MailServer, message: EmailMessage) -> str:
    """Deliver the mail; returns an empty string, or a few words that say why it was not accepted for every
    recipient."""
    try:
        with _connected(server) as connection:
            refused = connection.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
    except (smtplib.SMTPException, OSError, ValueError) as error:
        return _tidy(_reason(error), server)
    words = [f"{who} was refused ({_text(code, text)})" for who, (code, text) in refused.items()]
    return _tidy("; ".join(words), server)


def _connected(server: MailServer) -> smtplib.SMTP:
    """A connection that is ready to accept mail."""
    connection: smtplib.SMTP
    if server.tls:
        connection = smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT, context=_trust(server))
    else:
        connection = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT)
    try:
        connection.ehlo_or_helo_if_needed()
        if not server.tls and connection.has_extn("starttls") and not (server.is_here and not server.ca):
            connection.starttls(context=_trust(server) if server.user or server.ca else _any_trust())
            connection.ehlo()
        elif not server.tls and server.user and not server.is_here:
            raise smtplib.SMTPException("it offers no TLS, so the password is not sent; write smtps://")
        if server.user:
            connection.login(server.user, server.password)
    except BaseException:
        connection.close()
        raise
    return connection


def _trust(server: MailServer) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if server.ca:
        context.load_verify_locations(server.ca)
    return context


def _any_trust() -> ssl.SSLContext:
    """Protects only against eavesdroppers: there is no password, and the alternative is no TLS at all."""
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


def _tidy(words: str, server: MailServer) -> str:
    """One printable line of bounded length, without the password, which a server may repeat."""
    if server.password:
        words = words.replace(server.password, "***")
    line = " ".join(printable(" ".join(words.splitlines())).split())
    return line if len(line) <= LONGEST_WORDS else line[: LONGEST_WORDS - 3] + "..."


PATIENCE = 120.0
"""Seconds that a mail may take while the run goes on."""
LAST_PATIENCE = 15.0
"""Seconds that the end of a run waits for its mails."""
RETRY = 60.0
MOST_BYTES = 1 << 20
"""The most bytes of status lines in one mail; the oldest are left out."""
MOST_WAITING = 10
MANY_MAILS = 1000
"""A warning is shown if there will be more mails."""
_OF_A_TASK = ord(" ")
_CANCELLED = ord("X")

Deliver = Callable[[MailServer, EmailMessage], str]


class _Window:
    """The latest lines of tasks that completed since the last mail; of `count` tasks, `failed` failed and
    `cancelled` were cancelled."""

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque()
        self.count = 0
        self.failed = 0
        self.cancelled = 0
        self._bytes = 0

    def add(self, line: bytes) -> None:
        self.count += 1
        cancelled = line[4] == _CANCELLED
        self.failed += line.startswith(b"R") and not cancelled
        self.cancelled += cancelled
        self.lines.append(line)
        self._bytes += len(line)
        while self._bytes > MOST_BYTES and len(self.lines) > 1:
            self._bytes -= len(self.lines.popleft())

    def extend(self, other: _Window) -> None:
        counts = (self.count + other.count, self.failed + other.failed, self.cancelled + other.cancelled)
        for line in other.lines:
            self.add(line)
        self.count, self.failed, self.cancelled = counts

    def text(self) -> str:
        """Worded as in the original."""
        left_out = self.count - len(self.lines)
        more = f"(the first {counted(left_out, 'is', 'are')} left out here)\n\n" if left_out else ""
        lines = b"".join(self.lines)[-2 * MOST_BYTES :]
        return f"Last {self.count}:\n\n{more}{lines.decode('utf-8', 'replace')}"


@dataclass
class _Letter:
    """A waiting mail: its content, and how many tasks were done, had failed or were cancelled by then."""

    window: _Window
    done: int
    failed: int
    cancelled: int

    def extend(self, window: _Window) -> None:
        self.window.extend(window)
        self.done += window.count
        self.failed += window.failed
        self.cancelled += window.cancelled

    def subject(self, name: str) -> str:
        """Worded as in the original, except for cancelled tasks."""
        words = f"{name} has completed {counted(self.done, 'task')}"
        numbers = ((self.failed, "failed"), (self.cancelled, "cancelled"))
        ended = ", ".join(f"{number} {how}" for number, how in numbers if number)
        return f"{words} ({ended})" if ended else words


class Mailer:
    """A `Listener` that mails `recipients` through `server` after every so many completions of the run called
    `name`. `notify_user` gets a line for the user; `deliver` delivers a mail, and blocks."""

    def __init__(
        self,
        server: MailServer,
        recipients: Sequence[str],
        every: int,
        *,
        name: str,
        notify_user: Callable[[str], None],
        deliver: Deliver = deliver,
    ) -> None:
        self._server = server
        self._recipients = recipients
        self._every = every
        self._name = printable(name)
        self._notify_user = notify_user
        self._deliver = deliver
        self._window = _Window()
        self._letters: deque[_Letter] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._trouble = ""

    def start(self, view: Callable[[], RunView]) -> None:
        """The run begins."""
        self._loop = asyncio.get_running_loop()
        self._view = view
        total = view().total or 0
        if total > MANY_MAILS * self._every:
            each = "each task" if self._every == 1 else f"every {self._every:,} tasks"
            mails = f"a mail for {each}, {total // self._every:,} in all"
            self._notify_user(f"--mailTo: {mails}; --mailFreq N sends fewer")

    def ended(self, id: int, line: bytes) -> None:
        """A task is done; there are no mails about barriers and tasks that were done before."""
        if line[3] == _OF_A_TASK:
            self._window.add(line)
            if self._window.count >= self._every:
                self._post_window()

    def failed(self, task: EndedTask) -> None:
        """Nothing to do: its line follows."""

    def _post_window(self) -> None:
        window, self._window = self._window, _Window()
        if len(self._letters) < MOST_WAITING:
            run = self._view()
            self._letters.append(_Letter(window, run.done, run.failed - run.cancelled, run.cancelled))
        else:
            self._letters[-1].extend(window)
        if self._sending is None and self._loop.time() >= self._not_before:
            self._sending = self._loop.create_task(self._send_all())

    async def _send_all(self) -> None:
        """Send all waiting mails, until one is not accepted."""
        while self._letters:
            letter = self._letters[0]
            if not await self._mail(letter.subject(self._name), letter.window.text(), PATIENCE):
                self._not_before = self._loop.time() + RETRY
                break
            self._letters.popleft()
        self._sending = None

    async def close(self, words: str, text: str) -> None:
        """The run is over: send the last mail, after the one that is being sent. `words` for its subject."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_PATIENCE):
                if self._sending is not None:
                    await asyncio.wait([self._sending])
                await self._mail(f"{self._name}: {words}", text, LAST_PATIENCE)
                return
        self._report_trouble(f"no answer within {LAST_PATIENCE:g} s")

    async def _mail(self, subject: str, text: str, patience: float) -> bool:
        """True if it was accepted."""
        over: asyncio.Future[str] = self._loop.create_future()
        message = self._message(subject, text)

        def carry() -> None:
            problem = self._deliver(self._server, message)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(arrive, problem)

        def arrive(problem: str) -> None:
            if not over.done():
                over.set_result(problem)

        # Not one of the loop's own threads, as the interpreter would wait for its end.
        threading.Thread(target=carry, name="mail", daemon=True).start()
        await asyncio.wait([over], timeout=patience)
        self._report_trouble(over.result() if over.done() else f"no answer within {patience:g} s")
        return over.done() and not over.result()

    def _message(self, subject: str, text: str) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = subject
        message["From"] = self._recipients[0]
        message["To"] = ", ".join(self._recipients)
        message["Date"] = formatdate(localtime=True)
        message["Message-ID"] = make_msgid(domain="disbatch.invalid")
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return message

    def _report_trouble(self, problem: str) -> None:
        """Report the failure once, until a mail was accepted again."""
        if problem and not self._trouble:
            self._notify_user(f"--mailTo: {self._server}: {problem}; the run goes on")
        self._trouble = problem
