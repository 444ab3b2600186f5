"""Keyword arguments are the long options of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from disbatch.api.run import DisBatch
from disbatch.cli.options import build_parser, parse
from disbatch.client.command_line import OURS, _known, option_words


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"nodes": "localhost:4"}, ["--ssh-node=localhost:4"]),
        ({"nodes": ["a:1", "b:2"]}, ["--ssh-node=a:1", "--ssh-node=b:2"]),
        ({"nodes": None, "prefix": None}, []),
        ({"cpus_per_task": 2, "tasks_per_node": 3}, ["--cpusPerTask=2", "--tasksPerNode=3"]),
        ({"fail_fast": True, "exit_code": False}, ["--fail-fast"]),
        ({"prefix": Path("/a b/P")}, ["--prefix=/a b/P"]),
        (
            {"resume_from": ["one", "two"], "retry": True},
            ["--resume-from=one", "--resume-from=two", "--retry"],
        ),
        ({"resume_from": "one"}, ["--resume-from=one"]),
        ({"retire_cmd": "-x"}, ["--retire-cmd=-x"]),
        ({"grace": 0.5}, ["--grace=0.5"]),
    ],
)
def test_options(named: dict[str, Any], words: list[str]) -> None:
    assert option_words(named) == words
    parse(["--keep-open", *words])


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ({"node": "a:1"}, "no option of disbatch is called 'node'; there are: bind"),
        ({"keep_open": True}, "keep_open"),
        ({"fail_fast": 1}, "True or False, not 1"),
        ({"prefix": True}, "prefix: needs a value"),
        ({"prefix": ["a"]}, "prefix: one value"),
        ({"grace": object()}, "text or a number"),
        ({"nodes": [1.5, None]}, "text or a number"),
    ],
)
def test_what_is_no_option(named: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        option_words(named)


def test_every_long_option_has_a_name() -> None:
    longs = [o for a in build_parser()._actions for o in a.option_strings if o.startswith("--")]
    assert len(_known()) + len(OURS) == len(longs)


@pytest.mark.parametrize(
    ("count", "named"), [(3.5, {}), ("prog", {}), (None, {}), (3, {"start": 0.5}), (3, {"step": "1"})]
)
def test_a_command_is_repeated_a_whole_number_of_times(count: Any, named: dict[str, Any]) -> None:
    run = DisBatch.__new__(DisBatch)  # no run is needed to refuse it, and none is held up by it
    with pytest.raises(TypeError, match="whole number"):
        run.repeat(count, "prog", **named)
