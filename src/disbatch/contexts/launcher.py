"""Starts engines, here, through ssh and as Slurm's steps, several at once, and sees them off; the one
launcher of all contexts.

Theory of operation
-------------------
A local engine is a child: it gets its Bootstrap on stdin, which then stays open as its lifeline. Its end is
reported when all of its tasks have ended, too: its keeper sees to that, or we do if the keeper was killed. An
engine behind ssh detaches itself and survives its ssh connection: the launch is over when it says that it is
in the background; from then on it is known by its messages only.

An engine that is a step of a Slurm job lives in the foreground: its `srun` stays as long as the step, and
passes the end of its stdin on, which is a lifeline, too. The launch is over when the engine says that it is
ready; when srun exits later the step is over, and the engine with it, whether Slurm ended it or the engine
went by itself (srun's code does not tell: it may be 0 for a job that was cancelled or a node that was lost).
An srun that was killed takes its step with it as a rule: its shepherd, a child of its own, has it ended. If
that was killed, too, the engine goes on. Only its messages tell then, or their absence.
srun takes SIGTERM for an order to kill its step. That ends a step which is half-started, or does not leave;
only an srun that does not heed it within SRUN_TERM_GRACE is killed.

For each engine that `start` was called for, exactly one of `on_started` and `on_failed` is called. After
`on_started` of a local one comes `on_exit`, once; of a step's, too, when srun exits, but only a line to
`on_trouble` if srun was killed, and nothing if `end` or `close` had to have it killed. None of them is called
after `close` or `end` cut the launch short, and none from within `start`. An ssh launch that took too long is
reported as failed, though its engine may yet say Hello.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import msgspec

from disbatch.contexts.child import UNKNOWN_EXIT, Child, EngineChild
from disbatch.contexts.launch_errors import lines, local_words, ssh_words
from disbatch.contexts.local import spawn_local
from disbatch.contexts.nodes import Node
from disbatch.contexts.slurm.srun import SrunOptions, srun_argv, srun_environment, srun_waits_for, srun_words
from disbatch.contexts.spawn import Spawned, spawn
from disbatch.contexts.ssh import SshOptions, Tunnel, launch_argv, new_place
from disbatch.engine.remains import end_remains
from disbatch.model.errors import LaunchError
from disbatch.model.task import Way
from disbatch.wire.engine_protocol import ERROR_MARK, READY_MARK, Bootstrap
from disbatch.wire.session import encode

FAN_OUT = 16
"""Launches through ssh at the same time."""
STEP_FAN_OUT = 64
"""Launches through srun at the same time: each srun stays anyway, and nobody is asked for a login."""
TIMEOUT = 60.0
"""Seconds that one launch may take: connecting, logging in, starting Python from a slow disk."""
LET_GO = 5.0
"""Seconds that ssh has to leave after its engine went to the background, or its tunnel's engine left; and
srun after its engine said Goodbye, since Slurm has a step to clean up then."""
SRUN_TERM_GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL for srun. By then it has asked Slurm to end its step, and it waits for
a node that is gone longer than a person would (Slurm's KillWait, and 2 s)."""
LOST_GRACE = 1.0
"""The same, for the srun of an engine that is lost."""
_READY = re.compile(READY_MARK.encode() + rb" +\d+\r?\n")
_ANSWER = re.compile(_READY.pattern + b"|" + ERROR_MARK.encode() + rb"[^\n]*\n")


def framed(bootstrap: Bootstrap) -> bytes:
    """The Bootstrap as an engine reads it: four bytes of length (big endian), then msgpack."""
    body = encode(bootstrap)
    return len(body).to_bytes(4, "big") + body


class Launcher:
    """All launches of a driver.

    `on_started(engine)`; `on_failed(engine, error)`: it will not come; `on_exit(engine, returncode, words)`:
    a local engine ended, or an srun and its step, and `words` is a line for the user that matters if that was
    unexpected;
    `on_trouble(text)`: a line for the user. `engine` is `Bootstrap.engine`. `tunnel_to`: path of the driver's
    own ipc socket, to which every ssh engine shall connect through a tunnel (--tunnel); None: no tunnels.
    `ssh`, `srun`: how to call these. `local_argv`: the command of a local engine, instead of the usual one.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_started: Callable[[str], None],
        on_failed: Callable[[str, LaunchError], None],
        on_exit: Callable[[str, int, str], None],
        on_trouble: Callable[[str], None],
        ssh: SshOptions | None = None,
        srun: SrunOptions | None = None,
        tunnel_to: str | None = None,
        local_argv: list[str] | None = None,
        fan_out: int = FAN_OUT,
        step_fan_out: int = STEP_FAN_OUT,
        timeout: float = TIMEOUT,
    ) -> None:
        self._loop = loop
        self._on_started = on_started
        self._on_failed = on_failed
        self._on_exit = on_exit
        self._on_trouble = on_trouble
        self._ssh = ssh or SshOptions()
        self._srun = srun or SrunOptions()
        self._tunnel_to = tunnel_to
        self._local_argv = local_argv
        self._timeout = timeout
        self._room = asyncio.Semaphore(fan_out)
        self._room_for_steps = asyncio.Semaphore(step_fan_out)
        self._spare: EngineChild | None = None
        self._locals: dict[str, Child] = {}
        self._steps: dict[str, Child] = {}
        self._ended_steps: set[str] = set()
        self._launches: dict[str, asyncio.Task[None]] = {}
        self._tunnels: dict[str, Tunnel] = {}
        self._rest: set[asyncio.Task[None]] = set()

    def adopt(self, spawned: Spawned) -> None:
        """Take a local engine that was started early (`local.spawn_local`); the first local node gets it."""
        self._spare = EngineChild(self._loop, spawned)

    def start(self, node: Node, bootstrap: Bootstrap, place: str = "") -> None:
        """Start an engine on `node`; returns at once. With a tunnel `bootstrap.addresses` are set here; it
        ends at `place` over there (see `tunnel.new_place`)."""
        if node.way is Way.SSH and self._tunnel_to is not None:
            self._tunnels[bootstrap.engine] = self._tunnel(node, place or new_place(), self._tunnel_to)
        run = {Way.CHILD: self._run_local, Way.SSH: self._run_ssh, Way.STEP: self._run_step}[node.way]
        task = self._loop.create_task(run(node, bootstrap))
        self._launches[bootstrap.engine] = task
        task.add_done_callback(lambda _: self._launches.pop(bootstrap.engine, None))

    def _tunnel(self, node: Node, place: str, to: str) -> Tunnel:
        return Tunnel(
            *(self._loop, node.name, self._ssh, to, place), trouble=self._on_trouble, timeout=self._timeout
        )

    def reconnect(self, engine: str, node: Node, place: str) -> None:
        """Make the tunnel again of an engine that is on `node`, and whose driver was killed."""
        if self._tunnel_to is not None:
            tunnel = self._tunnels[engine] = self._tunnel(node, place, self._tunnel_to)
            tunnel.open_again(self._room)

    # ---- local ----

    async def _run_local(self, node: Node, bootstrap: Bootstrap) -> None:
        engine = bootstrap.engine
        try:
            child = await self._start_local(node, bootstrap)
        except LaunchError as error:
            self._locals.pop(engine, None)
            self._on_failed(engine, error)
            return
        self._on_started(engine)
        code = await asyncio.shield(child.exited)
        if code < 0 or code == UNKNOWN_EXIT:
            await end_remains(self._loop, [engine], self._on_trouble)
        del self._locals[engine]
        self._on_exit(engine, code, local_words(code, child.out, child.err))

    async def _start_local(self, node: Node, bootstrap: Bootstrap) -> EngineChild:
        child, self._spare = self._spare, None
        if child is None:
            try:
                child = EngineChild(self._loop, spawn_local(self._local_argv))
            except OSError as error:
                raise LaunchError(node.name, f"cannot start an engine: {error.strerror or error}") from error
        self._locals[bootstrap.engine] = child
        try:
            async with asyncio.timeout(self._timeout):
                if await child.feed(framed(bootstrap)):
                    return child
                code = await asyncio.shield(child.exited)
        except TimeoutError:
            await child.dismiss(0)
            raise LaunchError(
                node.name, f"no engine within {self._timeout:g} s; waited for it to read what to do"
            ) from None
        raise LaunchError(node.name, local_words(code, child.out, child.err))

    # ---- ssh ----

    async def _run_ssh(self, node: Node, bootstrap: Bootstrap) -> None:
        engine = bootstrap.engine
        try:
            async with self._room:
                await self._start_ssh(node, bootstrap)
        except LaunchError as error:
            await self._close_tunnel(engine)
            self._on_failed(engine, error)
        else:
            self._on_started(engine)

    async def _start_ssh(self, node: Node, bootstrap: Bootstrap) -> None:
        tunnel = self._tunnels.get(bootstrap.engine)
        if tunnel is not None:
            await tunnel.open()
            bootstrap = msgspec.structs.replace(bootstrap, addresses=[tunnel.address])
        child = self._spawn(node, launch_argv(node.name, self._ssh))
        try:
            code = await self._until_ready(child, framed(bootstrap), lifeline=False)
            if code is not None:
                words = ssh_words(node.name, self._ssh.python, code, child.out, child.err)
                raise LaunchError(node.name, words)
        except TimeoutError:
            child.signal(signal.SIGTERM)
            raise self._too_late(node, "ssh", next(reversed(lines(child.err)), "")) from None
        finally:
            self._later(self._let_go(child))

    def _spawn(
        self, node: Node, argv: list[str], environment: dict[str, str] | None = None, *, merged: bool = False
    ) -> Child:
        try:
            return Child(self._loop, spawn(argv, environment, merged=merged))
        except FileNotFoundError as error:
            raise LaunchError(node.name, f"there is no {argv[0]} command in PATH here") from error
        except OSError as error:
            raise LaunchError(node.name, f"cannot run {argv[0]}: {error.strerror or error}") from error

    async def _until_ready(self, child: Child, bootstrap: bytes, *, lifeline: bool) -> int | None:
        """Wait until the engine that `child` shall start is ready; if it will not be, `child`'s exit code.
        `lifeline`: its stdin stays open as long as we live. TimeoutError."""
        async with asyncio.timeout(self._timeout):
            if await child.feed(bootstrap) and not lifeline:
                child.close_stdin()
            answer = await child.until(_ANSWER)
            if answer is None or not _READY.match(answer[0]):
                return await asyncio.shield(child.exited)
        return None

    def _too_late(self, node: Node, command: str, said: str) -> LaunchError:
        problem = f"no engine within {self._timeout:g} s; waited for {command} to start one there"
        return LaunchError(node.name, f"{problem}{f' ({said})' if said else ''}")

    async def _let_go(self, child: Child) -> None:
        ready = _READY.search(child.out) is not None
        await child.dismiss(LET_GO if ready else 0)

    # ---- Slurm's steps ----

    async def _run_step(self, node: Node, bootstrap: Bootstrap) -> None:
        engine = bootstrap.engine
        try:
            async with self._room_for_steps:
                child = await self._start_step(node, bootstrap)
        except LaunchError as error:
            self._on_failed(engine, error)
            return
        self._steps[engine] = child
        self._on_started(engine)
        code = await asyncio.shield(child.exited)
        del self._steps[engine]
        if code >= 0:
            self._on_exit(engine, code, srun_words(code, child.out, child.err))
        elif engine not in self._ended_steps:
            how = srun_words(code, child.out, child.err)
            self._on_trouble(f"{node.name}: {how}; its engine is given up unless it is heard")
        self._ended_steps.discard(engine)

    async def _start_step(self, node: Node, bootstrap: Bootstrap) -> Child:
        environment = srun_environment(os.environ, self._srun)
        child = self._spawn(node, srun_argv(node, self._srun), environment, merged=True)
        ready = False
        try:
            code = await self._until_ready(child, framed(bootstrap), lifeline=True)
            ready = code is None
        except TimeoutError:
            raise self._too_late(node, "srun", srun_waits_for(child.err)) from None
        finally:
            if not ready:
                self._later(child.dismiss(0, SRUN_TERM_GRACE))
        if code is not None:
            raise LaunchError(node.name, srun_words(code, child.out, child.err))
        return child

    # ---- the end ----

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._rest.add(task)
        task.add_done_callback(self._rest.discard)

    async def _close_tunnel(self, engine: str, patience: float = LET_GO) -> None:
        tunnel = self._tunnels.pop(engine, None)
        if tunnel is not None:
            await tunnel.close(patience)

    def end(self, engine: str) -> None:
        """An engine is given up, or said Goodbye: end its process if it is local (`on_exit` follows), its
        step if that is not over soon (`on_exit` follows as a rule), its launch if that is still going on, its
        tunnel if it has one. Returns at once; may be called twice."""
        if engine in self._locals:
            self._later(self._locals[engine].dismiss(0))
        elif engine in self._steps:
            self._end_step(engine, LET_GO)
        elif engine in self._launches:
            self._launches[engine].cancel()
        self._later(self._close_tunnel(engine))

    def _end_step(self, engine: str, patience: float, grace: float = SRUN_TERM_GRACE) -> None:
        self._ended_steps.add(engine)
        self._later(self._steps[engine].dismiss(patience, grace))

    async def close(self, patience: float = 5.0, lost: Collection[str] = ()) -> None:
        """End everything: launches that go on, at once; tunnels, local engines and steps have `patience`
        seconds to leave by themselves, then their stdin is closed and they are terminated, then killed (an
        engine's keeper ends its tasks). There is no patience with the steps of `lost` engines: Slurm is told
        to end them; their srun would wait for a node that is gone. Engines behind ssh are told by message
        only."""
        here = [*self._locals, *self._steps]
        staying = [self._launches[engine] for engine in here if engine in self._launches]
        for task in set(self._launches.values()).difference(staying):
            task.cancel()
        for engine in list(self._tunnels):
            self._later(self._close_tunnel(engine, patience))
        if self._spare is not None:
            self._later(self._spare.dismiss(0))
        for child in self._locals.values():
            self._later(child.dismiss(patience))
        for engine in self._steps:
            if engine in lost:
                self._end_step(engine, 0, LOST_GRACE)
            else:
                self._end_step(engine, patience)
        while self._rest or self._launches:
            # A launch that is cut short leaves its ssh to `_rest`, hence the loop.
            going = [*self._rest, *self._launches.values()]
            await asyncio.wait(going)
