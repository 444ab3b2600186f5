"""The command line: letters of the original, long names, and what excludes what."""

from __future__ import annotations

import pytest

from disbatch.cli.options import parse, parse_address, parse_run
from disbatch.cli.run_options import FixPaths, NoticeOptions, TakeoverOptions
from disbatch.model.errors import UsageError


def test_defaults() -> None:
    options = parse_run(["Tasks"])
    context, limits, notices = options.context, options.limits, options.notices
    assert (options.source.taskfile, context.cores_per_task, context.tasks_per_node) == ("Tasks", None, None)
    assert (options.pool.listen, options.resume.resume_from, context.ssh_node) == (None, [], [])
    assert (limits.heartbeat, limits.patience, limits.grace, limits.max_losses) == (3.0, 15.0, None, 3)
    assert (options.output, options.pool.waits) == (None, 0.0)
    assert notices == NoticeOptions(web=None, mail=None, on_finish="", on_failure="")


def test_letters() -> None:
    words = "-p P -l L -c 0.5 -t 3 -C 9 -k K -r a -r b -R -e -f -s x:1 -s y:2 Tasks"
    options = parse_run(words.split())
    context, limits = options.context, options.limits
    assert (options.record.prefix, options.record.logfile) == ("P", "L")
    assert (context.cores_per_task, context.tasks_per_node) == (0.5, 3)
    assert (context.task_limit, context.retire_command) == (9, "K")
    assert (options.resume.resume_from, context.ssh_node) == (["a", "b"], ["x:1", "y:2"])
    assert options.resume.retry and limits.exit_code and limits.fail_fast


def test_long_names() -> None:
    words = (
        "--prefix P --logfile L --cpusPerTask 2 --tasksPerNode 3 --context-task-limit 9 --retire-cmd K "
        "--no-retire --resume-from a --retry --force-resume --exit-code --fail-fast --ssh-node x:1 --fill "
        "--label n --loglevel DEBUG --status-header --use-address [::1]:50 Tasks"
    )
    options = parse_run(words.split())
    context, record = options.context, options.record
    assert options.pool.listen == ("::1", 50) and record.loglevel == "debug" and context.no_retire
    assert options.resume.force and record.status_header and context.fill and context.label == "n"


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
    words = ["--patience", "60", "--wait-for-engines", "9", "-k", "K"]
    assert parse(["--takeover", "P", *words, "--force"]) == TakeoverOptions("P", force=True, feeds=False)
    assert parse(["--takeover", "P", "-"]) == TakeoverOptions("P", force=False, feeds=True)
    options = parse_run([*words, "Tasks"])
    assert (options.limits.patience, options.pool.waits, options.context.retire_command) == (60.0, 9.0, "K")


def test_fixing_paths_needs_nothing_else() -> None:
    assert parse(["--fix-paths", "--force"]) == FixPaths()


@pytest.mark.parametrize(("words", "waits"), [("T", 0.0), ("-S T", None), ("-S --wait-for-engines 5 T", 5.0)])
def test_how_long_a_run_waits_for_engines(words: str, waits: float | None) -> None:
    assert parse_run(words.split()).pool.waits == waits


@pytest.mark.parametrize(
    ("words", "address"), [("-w T", ("127.0.0.1", 0)), ("-w --web-address h:5 T", ("h", 5)), ("T", None)]
)
def test_where_the_page_is_served(words: str, address: tuple[str, int] | None) -> None:
    assert parse_run(words.split()).notices.web == address
