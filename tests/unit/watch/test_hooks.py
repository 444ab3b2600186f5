"""watch/hooks.py: when the user's commands are run, what they find, and what is shown of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from disbatch.contexts.command import Answer, run
from disbatch.model.view import EndedTask, RunView, Summary
from disbatch.watch.hooks import Commands, Hooks
from views import view

TASK = EndedTask(7, 12, "n1", 3, 0.5, b"a\0b \xff", b"")
RUN = view([], seconds=2.5, total=10, done=4, failed=1, skipped=2, lost=1)
SUMMARY = Summary(RUN, "complete", 0, 0.5, 1, 1, [], "T_status.txt", "disbatch T -r x")
BOTH = Commands("finish", "failure")


class Shell:
    """Writes down what would be run."""

    def __init__(self, problem: str | None = None, out: str = "") -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.answer = Answer(problem, out)
        self.said: list[str] = []

    async def run(
        self, argv: list[str], environment: Mapping[str, str] | None = None, timeout: float = 60.0
    ) -> Answer:
        assert argv[:2] == ["/bin/sh", "-c"] and environment is not None and timeout == 300.0
        self.calls.append((argv[2], dict(environment)))
        return self.answer

    def hooks(self, commands: Commands = BOTH, run: RunView = RUN, *, again: bool = False) -> Hooks:
        known = {"HOME": "/h"}
        status = "P-2_status.txt"
        hooks = Hooks(commands, known, self.said.append, again, self.run, status_file=lambda: status)
        hooks.start(lambda: run)
        return hooks

    @property
    def names(self) -> list[str]:
        return [command for command, _ in self.calls]


async def story(hooks: Hooks, failures: int, exit_code: int) -> None:
    for _ in range(failures):
        hooks.failed(TASK)
    await hooks.close(SUMMARY, exit_code)


@pytest.mark.parametrize(
    ("commands", "failures", "exit_code", "names"),
    [
        (BOTH, 0, 0, ["finish"]),
        (BOTH, 3, 0, ["failure", "finish"]),
        (BOTH, 3, 1, ["failure", "finish"]),
        (BOTH, 0, 3, ["failure", "finish"]),
        (Commands(on_finish="finish"), 3, 3, ["finish"]),
        (Commands(on_failure="failure"), 3, 3, ["failure"]),
        (Commands(on_failure="failure"), 0, 0, []),
    ],
)
def test_when(commands: Commands, failures: int, exit_code: int, names: list[str]) -> None:
    shell = Shell()
    asyncio.run(story(shell.hooks(commands), failures, exit_code))
    assert shell.names == names and shell.said == []


def test_not_again_after_a_takeover() -> None:
    shell = Shell()
    asyncio.run(story(shell.hooks(run=msgspec.structs.replace(RUN, failed=2), again=True), 1, 1))
    assert shell.names == ["finish"]
    asyncio.run(story(shell.hooks(run=RUN, again=True), 1, 1))
    assert shell.names == ["finish", "failure", "finish"]
    cancelled = msgspec.structs.replace(RUN, failed=2, cancelled=1)
    asyncio.run(story(shell.hooks(run=cancelled, again=True), 1, 1))
    assert shell.names[3:] == ["failure", "finish"], "what was cancelled before was no failure"


def test_what_they_find() -> None:
    shell = Shell()
    asyncio.run(story(shell.hooks(), 1, 1))
    (_, failure), (_, finish) = shell.calls
    counts = {
        "HOME": "/h", "DISBATCH_DONE": "4", "DISBATCH_SUCCEEDED": "3", "DISBATCH_FAILED": "1",
        "DISBATCH_CANCELLED": "0", "DISBATCH_SKIPPED": "2", "DISBATCH_TOTAL": "10",
        "DISBATCH_SECONDS": "2.500",
    }  # fmt: skip
    assert failure == counts | {
        "DISBATCH_EVENT": "failure", "DISBATCH_STATUS_FILE": "P-2_status.txt",
        "DISBATCH_FAILED_TASKID": "7", "DISBATCH_FAILED_LINE": "12",
        "DISBATCH_FAILED_NODE": "n1", "DISBATCH_FAILED_RETURN_CODE": "3", "DISBATCH_FAILED_REASON": "",
        "DISBATCH_FAILED_COMMAND": "ab \udcff",
    }  # fmt: skip
    assert finish == counts | {
        "DISBATCH_EVENT": "finish", "DISBATCH_EXIT_CODE": "1", "DISBATCH_CONCLUSION": "complete",
        "DISBATCH_LOST": "1", "DISBATCH_NOT_RUN": "0", "DISBATCH_UTILISATION": "0.5000",
        "DISBATCH_RESUME": "disbatch T -r x", "DISBATCH_STATUS_FILE": "T_status.txt",
    }  # fmt: skip


def test_what_is_shown() -> None:
    shell = Shell("exit 3: no", "".join(f"line {n}\n" for n in range(12)))
    asyncio.run(story(shell.hooks(Commands("finish")), 0, 0))
    assert shell.said == [
        *(f"--on-finish: line {n}" for n in range(10)),
        "--on-finish: ... and 2 lines more",
        "--on-finish: exit 3: no",
    ]


def test_it_is_killed_with_what_it_started_when_its_time_is_over() -> None:
    said: list[str] = []

    async def late() -> None:
        commands = Commands("echo begun; sleep 1000 & sleep 1000")
        hooks = Hooks(commands, {}, said.append, run=run, patience=0.1)
        hooks.start(lambda: RUN)
        await hooks.close(SUMMARY, 0)

    asyncio.run(late())
    assert said == ["--on-finish: not done after 0.1 s"]
