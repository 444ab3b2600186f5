"""The address of a Redis-protocol server, with what it takes to log in: HOST:PORT, redis://..., rediss://...

| part | meaning |
|---|---|
| `redis`, `valkey` | plain TCP |
| `rediss`, `valkeys` | TLS; the server's certificate must be valid for the host |
| `user:password@` | percent-encoded where they hold `@ : / ? #` or `%`; `:password@` is the default user's |
| `:PORT` | 6379 by default |
| `/N` | the database, 0 by default |
| `?ssl_ca_certs=FILE` | trust the authorities in FILE, besides the system's; for TLS, as the next two |
| `ssl_certfile=FILE`, `ssl_keyfile=FILE` | the client's own certificate |
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from disbatch.model.errors import UsageError

URL = "DISBATCH_KVS_URL"
"""The variable that names the server, with its password."""
PREFIX = "DISBATCH_KVS_PREFIX"
"""The variable that says what keys begin with there."""
DEFAULT_PORT = 6379
DEFAULT_USER = "default"
"""The user of `:password@`, by the server's own name."""
_SCHEMES = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
_PARAMETERS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_FORMS = "write HOST:PORT, redis://HOST:PORT or rediss://USER:PASSWORD@HOST:PORT"


@dataclass(frozen=True)
class Address:
    """The address of a server. Its text never shows the password; `url` does, and is only for those who may
    know it."""

    host: str
    port: int = DEFAULT_PORT
    tls: bool = False
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    certificate: str = ""
    key: str = ""

    def __str__(self) -> str:
        return self._text("")

    @property
    def url(self) -> str:
        """The complete address with the password; with a password there is always a user, as `redis-cli -u`
        requires one."""
        if not self.user and not self.password:
            return self._text("")
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        return self._text(f"{quote(self.user or DEFAULT_USER, safe='')}{secret}@")

    def _text(self, who: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        files = zip(_PARAMETERS, (self.ca, self.certificate, self.key), strict=True)
        rest = "&".join(f"{name}={quote(file)}" for name, file in files if file)
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{who}{host}:{self.port}/{self.database}{'?' if rest else ''}{rest}"


def parse_address(text: str, what: str) -> Address:
    """Parse an address; `what` (an option, a variable) is its name in errors. UsageError, which never
    contains a password."""
    scheme, separator, _ = text.partition("://")
    if not separator:
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not _HOST.fullmatch(host):
            shown = f" {text}" if text.isprintable() and "@" not in text else ""
            raise UsageError(f"{what}{shown}: {_FORMS}")
        return Address(host, _port(port, what))
    if scheme.lower() not in _SCHEMES:
        raise UsageError(f"{what}: a key store's address cannot begin with {scheme[:20]}://: {_FORMS}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", _port_of(parts.netloc)
    except ValueError:
        raise UsageError(f"{what}: invalid URL: {_FORMS}") from None
    if not _HOST.fullmatch(host) or parts.fragment:
        raise UsageError(f"{what}: invalid host (percent-encode @ / ? # in a password): {_FORMS}")
    tls = _SCHEMES[scheme.lower()]
    files = _files(parts.query, tls, what)
    return Address(
        host=host,
        port=_port(port, what) if port else DEFAULT_PORT,
        tls=tls,
        database=_database(parts.path, what),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        ca=files.get("ssl_ca_certs", ""),
        certificate=files.get("ssl_certfile", ""),
        key=files.get("ssl_keyfile", ""),
    )


def _port_of(netloc: str) -> str:
    """The port as written; `urlsplit` would repeat a wrong one in its error."""
    place = netloc.rpartition("@")[2]
    return place.rpartition("]")[2].rpartition(":")[2] if ":" in place.rpartition("]")[2] else ""


def _port(text: str, what: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 0 < number < 65536:
        raise UsageError(f"{what}: the port must be a number from 1 to 65535: {_FORMS}")
    return number


def _database(path: str, what: str) -> int:
    text = path.strip("/")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise UsageError(f"{what}: the path after host and port must be the number of a database")
    return int(text)


def _files(query: str, tls: bool, what: str) -> dict[str, str]:
    files = dict(parse_qsl(query, keep_blank_values=True))
    for name in files:
        if name not in _PARAMETERS:
            known = ", ".join(_PARAMETERS)
            raise UsageError(f"{what}: unknown parameter {name[:40]!r}; there are {known}")
        if not tls:
            raise UsageError(f"{what}: {name} is for rediss:// only")
    if bool(files.get("ssl_certfile")) != bool(files.get("ssl_keyfile")):
        raise UsageError(f"{what}: ssl_certfile and ssl_keyfile must be given together")
    return files
