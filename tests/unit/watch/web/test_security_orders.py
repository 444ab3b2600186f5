"""watch/web/security.py: what the page may order, and nothing else."""

from __future__ import annotations

import pytest

from disbatch.model.errors import UsageError
from disbatch.watch.web.security import parse_order
from disbatch.wire.client_protocol import Verb
from disbatch.wire.verbs import Cancel, Drain, Finish, Pause, Stop, Unpause


@pytest.mark.parametrize(
    ("body", "verb"),
    [
        ('{"verb": "drain", "nodes": ["n1", "n2"]}', Drain(["n1", "n2"])),
        ('{"verb": "stop", "nodes": ["n1"]}', Stop(["n1"])),
        ('{"verb": "cancel", "tasks": [[1, 1], [5, 9]]}', Cancel([(1, 1), (5, 9)])),
        ('{"verb": "pause"}', Pause()),
        ('{"verb": "resume"}', Unpause()),
        ('{"verb": "finish"}', Finish()),
    ],
)
def test_orders(body: str, verb: Verb) -> None:
    assert parse_order(body.encode()) == verb


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xff", b"[]", b"null", b"{}", b'{"verb": "submit"}', b'{"verb": "drain"}',
        b'{"verb": "drain", "nodes": []}', b'{"verb": "drain", "nodes": [""]}',
        b'{"verb": "stop", "nodes": ["a\\n"]}', b'{"verb": "cancel"}',
        b'{"verb": "cancel", "tasks": [[2, 1]]}', b'{"verb": "cancel", "tasks": [[-1, 1]]}',
        b'{"verb": "cancel", "tasks": [[1, 9223372036854775808]]}', b'{"verb": "pause", "more": 1}',
        b'{"verb": "drain", "nodes": ["' + b"x" * 300 + b'"]}',
        b'{"verb": "cancel", "tasks": [' + b"[1,1]," * 2000 + b"[1,1]]}",
    ],
)  # fmt: skip
def test_what_is_no_order(body: bytes) -> None:
    with pytest.raises(UsageError):
        parse_order(body)
