"""Spawned processes on the event loop, with real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys

import pytest

from disbatch.contexts.child import KEPT, Child
from disbatch.contexts.spawn import spawn


def _start(*argv: str) -> Child:
    return Child(asyncio.get_running_loop(), spawn(list(argv)))


def _inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # the one that listed them
        return False


def test_output_and_return_code() -> None:
    async def play() -> None:
        child = _start("sh", "-c", "echo out; echo err >&2; exit 7")
        assert await child.exited == 7
        assert (child.out, child.err, child.returncode) == (b"out\n", b"err\n", 7)

    asyncio.run(play())


def test_it_has_a_session_and_nothing_of_ours_open() -> None:
    inherited = {int(number) for number in os.listdir("/proc/self/fd") if _inheritable(int(number))}

    async def play() -> None:
        child = _start("sh", "-c", "ls /proc/self/fd; cut -d' ' -f6 /proc/$$/stat")
        await child.exited
        *descriptors, session = child.out.split()
        meant = {0, 1, 2, 3} | inherited  # 3 is the directory that ls reads
        assert {int(number) for number in descriptors} == meant
        assert int(session) == child.pid

    asyncio.run(play())


def test_input_larger_than_a_pipe() -> None:
    async def play() -> None:
        child = _start("wc", "-c")
        assert await child.feed(b"x" * 1_000_000)
        child.close_stdin()
        assert await child.exited == 0
        assert int(child.out) == 1_000_000

    asyncio.run(play())


def test_input_that_nobody_takes() -> None:
    async def play() -> None:
        child = _start("sh", "-c", "exec <&-; exit 4")
        assert not await child.feed(b"x" * 1_000_000)
        assert await child.exited == 4

    asyncio.run(play())


def test_input_that_nobody_reads_and_then_dies() -> None:
    async def play() -> None:
        child = _start("sleep", "1000")
        feeding = asyncio.ensure_future(child.feed(b"x" * 1_000_000))
        await asyncio.sleep(0)
        child.signal(signal.SIGKILL)
        assert not await feeding
        assert await child.exited == -9

    asyncio.run(play())


def test_an_end_is_seen_though_somebody_holds_the_pipes() -> None:
    async def play() -> None:
        child = _start("sh", "-c", "sleep 1000 & echo $!")
        assert await child.exited == 0
        os.kill(int(child.out), signal.SIGKILL)

    asyncio.run(play())


def test_only_the_end_of_much_output_is_kept() -> None:
    async def play() -> None:
        child = _start("sh", "-c", "head -c 10000000 /dev/zero; echo mark")
        match = await child.until(re.compile(rb"mark\n"))
        assert match is not None
        assert len(child.out) == KEPT
        assert await child.exited == 0

    asyncio.run(play())


def test_until_gives_up_at_the_end() -> None:
    async def play() -> None:
        assert await _start("echo", "something").until(re.compile(rb"else")) is None

    asyncio.run(play())


@pytest.mark.parametrize(
    ("script", "code"),
    [("cat >/dev/null; exit 5", 5), ("exec sleep 1000", -15)],
)
def test_dismissed_politely(script: str, code: int) -> None:
    async def play() -> None:
        child = _start("sh", "-c", script)
        await child.dismiss(0)
        assert child.returncode in (code, -15)

    asyncio.run(play())


def test_dismissed_by_force() -> None:
    async def play() -> None:
        child = _start("sh", "-c", "trap '' TERM; echo ready; exec sleep 1000")
        await child.until(re.compile(rb"ready"))
        await child.dismiss(0)
        assert child.returncode == -9

    asyncio.run(play())


def test_no_such_command() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        spawn(["/nowhere/at/all"])
    assert len(os.listdir("/proc/self/fd")) == before


def test_spawning_without_standard_descriptors() -> None:
    program = (
        "import os, asyncio\n"
        "for n in (0, 1, 2): os.close(n)\n"
        "from disbatch.contexts.spawn import spawn\n"
        "from disbatch.contexts.child import Child\n"
        "async def play():\n"
        "    child = Child(asyncio.get_running_loop(), spawn(['sh', '-c', 'cat; echo err >&2']))\n"
        "    await child.feed(b'in'); child.close_stdin(); await child.exited\n"
        "    return 0 if (child.out, child.err) == (b'in', b'err\\n') else 1\n"
        "os._exit(asyncio.run(play()))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_early_part_imports_next_to_nothing() -> None:
    program = (
        "import sys; before = set(sys.modules); import disbatch.contexts.local;"
        "print(sorted(n for n in set(sys.modules) - before if not n.startswith('disbatch')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['__future__']"
