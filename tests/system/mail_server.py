"""A real SMTP server on a free port of the loopback, which keeps what it is given."""

from __future__ import annotations

import queue
import ssl
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from ports import free_port

from deadline import DEADLINE

USER, PASSWORD = "me@example.org", "se/cret"


class MailServer:
    """`tls`: the directory of its certificate: with TLS from the beginning if `at_once`, else offered.
    `login`: it wants one. `answer`: what it says to each mail. Use it in a `with` block."""

    def __init__(
        self, tls: Path | None = None, *, at_once: bool = False, login: bool = False, answer: str = "250 ok"
    ) -> None:
        self.mails: queue.SimpleQueue[EmailMessage] = queue.SimpleQueue()
        self.recipients: list[list[str]] = []
        self.answer = answer
        self.refused: set[str] = set()
        self.port = free_port()
        context = None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "server.pem", tls / "server.key")
        options: dict[str, Any] = {"authenticator": _let_in, "auth_required": True} if login else {}
        if login and context is None:
            options["auth_require_tls"] = False
        if at_once:
            options["auth_require_tls"] = False  # aiosmtpd does not count TLS from the beginning
            options["ssl_context"] = context
        elif context is not None:
            options |= {"tls_context": context, "require_starttls": True}
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, **options)

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.recipients.append(envelope.rcpt_tos)
            self.mails.put(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return self.answer

    def next(self) -> EmailMessage:
        """The next mail."""
        return self.mails.get(timeout=DEADLINE)

    def subjects(self) -> list[str]:
        """Of all mails that were not looked at yet."""
        found = []
        while not self.mails.empty():
            found.append(str(self.mails.get()["Subject"]))
        return found


def _let_in(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    good = (
        isinstance(data, LoginPassword) and data.login == USER.encode() and data.password == PASSWORD.encode()
    )
    return AuthResult(success=good, handled=False)
