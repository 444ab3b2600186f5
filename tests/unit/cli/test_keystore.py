"""cli/keystore.py: which key store a run uses, and that passwords stay where they were."""

from __future__ import annotations

import pytest

from disbatch.cli.keystore import choose_store, without_passwords
from disbatch.cli.options import parse_run
from disbatch.keystore.address import Address
from disbatch.model.errors import UsageError

URL = {"DISBATCH_KVS_URL": "rediss://:secret@there"}
THERE = Address("there", tls=True, password="secret")


@pytest.mark.parametrize(
    ("arguments", "environment", "address"),
    [
        (["Tasks"], URL, None),
        (["--taskcommand", "x"], URL, None),
        (["--kvsserver", "h:1", "Tasks"], URL, Address("h", 1)),
        (["--kvsserver=", "Tasks"], URL, THERE),
        (["--taskcommand", "x", "--kvsserver"], URL, THERE),
        (["--taskserver"], {}, None),
        (["--taskserver"], URL, THERE),
        (["--taskserver", "h:1"], URL, Address("h", 1)),
        (["--taskserver", "--kvsserver", "h:1"], URL, Address("h", 1)),
        (["--taskserver", "h:1", "--kvsserver"], {}, Address("h", 1)),
        (["--taskserver", "h:1", "--kvsserver", "redis://h:1"], {}, Address("h", 1)),
    ],
)
def test_which_one(arguments: list[str], environment: dict[str, str], address: Address | None) -> None:
    assert choose_store(parse_run(arguments).source, environment) == (address, "")


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--kvsserver", "-", "Tasks"], {}, "write HOST:PORT"),
        (["Tasks", "--kvsserver"], {}, "--kvsserver: which one"),
        (["--taskserver", "a:1", "--kvsserver", "b:1"], {}, "two servers"),
        (["--taskserver"], {"DISBATCH_KVS_URL": "host"}, "DISBATCH_KVS_URL host: write"),
        (["--taskserver", "a:1"], {"DISBATCH_KVS_PREFIX": "a\n"}, "DISBATCH_KVS_PREFIX"),
        (["--taskserver", "a:1"], {"DISBATCH_KVS_PREFIX": "a" * 201}, "DISBATCH_KVS_PREFIX"),
    ],
)
def test_which_cannot_be(arguments: list[str], environment: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose_store(parse_run(arguments).source, environment)


def test_a_prefix_of_the_users_own() -> None:
    source = parse_run(["--taskserver", "a:1"]).source
    assert choose_store(source, {"DISBATCH_KVS_PREFIX": "mine:"}) == (Address("a", 1), "mine:")
    assert choose_store(parse_run(["Tasks"]).source, {"DISBATCH_KVS_PREFIX": "mine:"}) == (None, "")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-s", "h:1", "Tasks"], None),
        (["--kvsserver", "h:1", "Tasks"], None),
        (["--kvsserver", "redis://h:1", "", "Tasks"], None),
        (["--kvsserver", "redis://:x@h:1", "Tasks"], ["--kvsserver=", "Tasks"]),
        (["--kvsserver=redis://:x@h:1", "Tasks"], ["--kvsserver=", "Tasks"]),
        (["-p", "x", "--taskserver", "rediss://a:x@h"], ["-p", "x", "--taskserver="]),
        (["Tasks", "--kvsserver"], None),
    ],
)
def test_command_lines_without_passwords(arguments: list[str], shown: list[str] | None) -> None:
    assert without_passwords(arguments) == (arguments if shown is None else shown)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no task file"),
        (["--taskserver", "--taskcommand", "x"], "--taskserver and --taskcommand: tasks come from one"),
        (["--taskcommand", "x", "Tasks"], "a task file and --taskcommand"),
        (["--taskcommand", " "], "the command is empty"),
        (["--kvsserver", "Tasks"], "--kvsserver= Tasks"),
    ],
)
def test_tasks_come_from_one_place(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_run(arguments)
