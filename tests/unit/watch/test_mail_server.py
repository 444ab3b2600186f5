"""watch/mail.py: which mail server DISBATCH_SMTP names."""

from __future__ import annotations

import smtplib

import pytest

from disbatch.cli.notices import recipients
from disbatch.model.errors import UsageError
from disbatch.watch.mail import MailServer, parse_mail_server


@pytest.mark.parametrize(
    ("text", "post"),
    [
        ("", MailServer("localhost", 25)),
        ("smtp://mail.example.org", MailServer("mail.example.org", 25)),
        ("SMTP://mail.example.org:587", MailServer("mail.example.org", 587)),
        ("smtps://mail.example.org", MailServer("mail.example.org", 465, tls=True)),
        ("smtp://[::1]:2525/", MailServer("::1", 2525)),
        ("smtps://me%40x:a%2Fb@h:1", MailServer("h", 1, tls=True, user="me@x", password="a/b")),
        ("smtp://h?ssl_ca_certs=/ca.pem", MailServer("h", 25, ca="/ca.pem")),
    ],
)
def test_servers(text: str, post: MailServer) -> None:
    assert parse_mail_server(text) == post


@pytest.mark.parametrize(
    "text",
    [
        *("mail.example.org", "mail:25", "http://me:secret@h", "smtp://", "smtp://h:0", "smtp://h:x"),
        *("smtp://me:se/cret@h", "smtp://me:secret@h/path", "smtp://me:secret@h#x", "smtp://:secret@h"),
        *("smtp://h?x=1", "smtp://me:secret@h?ssl_ca_certs=", "smtp://me:secret@[h", "smtp://a b"),
    ],
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_mail_server(text)
    assert str(error.value).startswith("DISBATCH_SMTP: write smtp://")
    assert "secret" not in str(error.value) and "cret@" not in str(error.value)


def test_the_password_is_not_shown() -> None:
    post = MailServer("h", 1, user="me", password="secret")
    assert "secret" not in f"{post} {post!r}"
    assert str(MailServer("::1", 25)) == "[::1]:25"


@pytest.mark.parametrize("host", ["localhost", "127.0.1.1", "::1"])
def test_is_here(host: str) -> None:
    assert MailServer(host).is_here and not MailServer(f"{host}.example.org").is_here


def test_what_a_server_repeats_is_kept_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from disbatch.watch import mail as mail

    def refuse(server: MailServer) -> smtplib.SMTP:
        raise smtplib.SMTPAuthenticationError(535, b"wrong: secret\r\nsecond line")

    monkeypatch.setattr(mail, "_connected", refuse)
    from email.message import EmailMessage

    words = mail.deliver(MailServer("h", 1, user="me", password="secret"), EmailMessage())
    assert words == "535 wrong: *** second line"


def test_recipients() -> None:
    assert recipients("me") == ["me"]
    assert recipients("me@a.org, you@b.org") == ["me@a.org", "you@b.org"]
    for wrong in ("", ",", "me,", "a b", "<me@a>", "m\u00fc@a", "m\ne", "x" * 300, ",".join(["me"] * 51)):
        with pytest.raises(UsageError):
            recipients(wrong)
