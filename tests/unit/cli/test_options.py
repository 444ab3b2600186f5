"""The command line: letters of the original, long names, and what excludes what."""

from __future__ import annotations

import pytest

from disbatch.cli.options import parse, parse_address
from disbatch.model.errors import UsageError


def test_defaults() -> None:
    options = parse(["Tasks"])
    assert (options.taskfile, options.cores_per_task, options.tasks_per_node) == ("Tasks", None, None)
    assert (options.listen, options.resume_from, options.ssh_node) == (None, [], [])
    assert (options.heartbeat, options.patience, options.grace, options.max_losses) == (3.0, 15.0, None, 3)


def test_letters() -> None:
    words = "-p P -l L -c 0.5 -t 3 -C 9 -k K -r a -r b -R -e -f -s x:1 -s y:2 Tasks"
    options = parse(words.split())
    assert (options.prefix, options.logfile, options.cores_per_task, options.tasks_per_node) == (
        "P",
        "L",
        0.5,
        3,
    )
    assert (options.task_limit, options.retire_command) == (9, "K")
    assert (options.resume_from, options.ssh_node) == (["a", "b"], ["x:1", "y:2"])
    assert options.retry and options.exit_code and options.fail_fast


def test_long_names() -> None:
    words = (
        "--prefix P --logfile L --cpusPerTask 2 --tasksPerNode 3 --context-task-limit 9 --retire-cmd K "
        "--no-retire --resume-from a --retry --force-resume --exit-code --fail-fast --ssh-node x:1 --fill "
        "--label n --loglevel DEBUG --status-header --use-address [::1]:50 Tasks"
    )
    options = parse(words.split())
    assert options.listen == ("::1", 50) and options.loglevel == "debug" and options.no_retire
    assert options.force_resume and options.status_header and options.fill and options.label == "n"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:1", ("host", 1)),
        ("a.b-c:65535", ("a.b-c", 65535)),
        ("[::1]:5", ("::1", 5)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
    ],
)
def test_address(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", "host", "host:", ":1", "host:x", "host:65536", "host:-1", "h/x:1", "h:" + "9" * 5000]
)
def test_wrong_address(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize(
    "words", ["-R T", "--force-resume T", "--tunnel --use-address h:1 T", "--patience 5 T", "T T"]
)
def test_refused(words: str) -> None:
    with pytest.raises(UsageError):
        parse(words.split())


def test_numbers_of_endless_length_are_refused() -> None:
    for option in ("-c", "-t", "--grace"):
        with pytest.raises(UsageError):
            parse([option, "9" * 5000, "T"])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("-s localhost:5", "-s: .* keeps its nodes; dbutil attach adds others, and --wait-for-engines"),
        ("-c 2", "-c: .* keeps its nodes"),
        ("-C 7", "-C: .* keeps its nodes"),
        ("--label x", "--label: .* keeps its nodes"),
        ("-S", "-S: .* keeps its nodes"),
        ("-p Q", "-p: .* keeps its files"),
        ("-l log", "-l: .* keeps its files"),
        ("-r P_status.txt", "-r begins another one"),
    ],
)
def test_what_a_takeover_does_not_change(words: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse(["--takeover", "P", *words.split()])


def test_what_a_takeover_may_change() -> None:
    options = parse(["--takeover", "P", "--patience", "60", "--wait-for-engines", "9", "-k", "K", "--force"])
    assert (options.patience, options.wait_for_engines, options.retire_command) == (60.0, 9.0, "K")
