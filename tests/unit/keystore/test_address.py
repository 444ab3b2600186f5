"""keystore/address.py: where a server is, and that nobody reads its password."""

from __future__ import annotations

from dataclasses import replace

import pytest

from disbatch.keystore.address import Address, parse_address
from disbatch.model.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:7000", Address("host", 7000)),
        ("127.0.0.1:1", Address("127.0.0.1", 1)),
        ("[::1]:7000", Address("::1", 7000)),
        ("redis://host", Address("host")),
        ("redis://host:7000/3", Address("host", 7000, database=3)),
        ("valkey://[::1]:7000/", Address("::1", 7000)),
        ("REDISS://Host", Address("host", tls=True)),
        ("rediss://ann:p%40s%3As@host", Address("host", tls=True, user="ann", password="p@s:s")),
        ("redis://:secret@host:1", Address("host", 1, password="secret")),
        ("valkeys://h?ssl_ca_certs=/a/ca.pem", Address("h", tls=True, ca="/a/ca.pem")),
        (
            "rediss://h/1?ssl_certfile=c&ssl_keyfile=k",
            Address("h", tls=True, database=1, certificate="c", key="k"),
        ),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text, "--kvsserver") == address
    again = parse_address(address.url, "again")
    assert replace(again, user="" if again.user == "default" else again.user) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("host", "--kvsserver host: write HOST:PORT"),
        ("", "write HOST:PORT"),
        (":6379", "write HOST:PORT"),
        ("host:0", "the port must be a number from 1 to 65535"),
        ("host:65536", "the port must be a number"),
        ("host:x", "the port must be a number"),
        ("redis://host:x", "the port must be a number"),
        ("http://host", "cannot begin with http://"),
        ("redis://", "invalid host"),
        ("redis://ho st", "invalid host"),
        ("redis://host/name", "must be the number of a database"),
        ("redis://host?ssl_ca_certs=x", "ssl_ca_certs is for rediss:// only"),
        ("rediss://host?ssl_cert_reqs=none", "unknown parameter 'ssl_cert_reqs'"),
        ("rediss://host?ssl_certfile=c", "must be given together"),
        ("redis://[::1", "invalid URL"),
        ("redis://u:geheim#geheim@host", "percent-encode"),
        ("redis://u:geheim/geheim@host:7", "percent-encode|port|database"),
        ("u:geheim@host:7", "write HOST:PORT"),
    ],
)
def test_what_is_none(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        parse_address(text, "--kvsserver")
    assert "geheim" not in str(raised.value)


def test_a_password_is_in_the_url_alone() -> None:
    address = parse_address("rediss://ann:geheim@host:7/2?ssl_ca_certs=ca.pem", "x")
    assert str(address) == "rediss://host:7/2?ssl_ca_certs=ca.pem"
    assert "geheim" not in repr(address)
    assert address.url == "rediss://ann:geheim@host:7/2?ssl_ca_certs=ca.pem"


def test_a_url_with_a_password_names_its_user() -> None:
    # `redis-cli -u redis://:geheim@host` of Redis 7.0 signs in as a user without a name, and is refused.
    assert parse_address("redis://:geheim@host", "x").url == "redis://default:geheim@host:6379/0"
