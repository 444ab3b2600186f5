"""Launch engines, several at once, and end them: the one launcher of all contexts.

Theory of operation
-------------------
How an engine starts depends on its node (`Node.way`). The context decides which command that takes, how its
errors are worded, and how orders and lifeline reach the engine (`Context.launch`, `Context.ended`).

A local engine is a child: it gets its Bootstrap on stdin, which then stays open as its lifeline. Its end is
reported when all of its tasks have ended, too: its keeper ends them, or we do if the keeper was killed. An
ssh engine detaches itself and survives its ssh connection: the launch is over when it reports that it is in
the background; from then on it is known only by its messages.

A step is started by a command of the scheduler (Slurm: srun) that runs as long as the engine. The launch is
over when the engine reports that it is ready, or, where its output does not come back, when the command runs.
When the command exits later, the step is over, and the engine with it, whether the scheduler ended it or the
engine left by itself (the exit code does not tell: it may be 0 for a job that was cancelled or a node that
was lost). If the command is killed, its step usually ends with it (Slurm: srun has a child that has the step
ended); if not, the engine continues, and only its messages, or their absence, tell. SIGTERM to the command
ends a step that is half-started, or does not leave; a command that ignores it for `Launch.grace` is killed.

For each engine that `start` was called for, exactly one of `on_started` and `on_failed` is called. After
`on_started`, `on_exit` is called once for a local engine, and for a step when its command exits; but if the
command was killed, only `on_trouble` is called, and nothing if `end` or `close` had to have it killed. None
of them is called after `close` or `end` cut the launch short, and none from within `start`. An ssh launch
that took too long is reported as failed, though its engine may still say Hello.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import Any

import msgspec

from disbatch.contexts.child import UNKNOWN_EXIT, Child, EngineChild
from disbatch.contexts.context import Context, Delivery, Launch, Lifeline
from disbatch.contexts.hosts import Hosts
from disbatch.contexts.launch_errors import not_started
from disbatch.contexts.nodes import Node
from disbatch.contexts.spawn import Spawned, spawn
from disbatch.contexts.ssh import SshOptions, Tunnel, new_place
from disbatch.engine.remains import end_remains
from disbatch.model.errors import LaunchError
from disbatch.model.task import Way
from disbatch.wire.engine_protocol import ERROR_MARK, READY_MARK, Bootstrap
from disbatch.wire.session import encode

FAN_OUT = 16
"""Launches through ssh at the same time."""
STEP_FAN_OUT = 64
"""Launches of steps at the same time: their commands stay anyway, and nobody is asked for a login."""
TIMEOUT = 60.0
"""Seconds that one launch may take: connecting, logging in, starting Python from a slow disk."""
LET_GO = 5.0
"""Seconds that ssh has to leave after its engine went to the background, or its tunnel's engine left; and
the command of a step after its engine said Goodbye, since the scheduler has a step to clean up then."""
_READY = re.compile(READY_MARK.encode() + rb" +\d+\r?\n")
_ANSWER = re.compile(_READY.pattern + b"|" + ERROR_MARK.encode() + rb"[^\n]*\n")


def orders(bootstrap: Bootstrap, launch: Launch) -> bytes:
    """The Bootstrap as an engine reads it: four bytes of length (big endian), then msgpack."""
    lifeline = launch.lifeline is Lifeline.STDIN
    body = encode(msgspec.structs.replace(bootstrap, lifeline=lifeline))
    return len(body).to_bytes(4, "big") + body


@contextlib.contextmanager
def orders_file(bootstrap: Bootstrap, launch: Launch) -> Iterator[list[str]]:
    """The arguments that a command gets besides its own: the path of its engine's orders, if they are
    delivered as a file. It has mode 0600 and lies beside the engine's log, where the node finds it; it is
    removed in the end, if the engine has not done that. LaunchError if it cannot be written."""
    if launch.delivery is Delivery.STDIN:
        yield []
        return
    path = f"{os.fsdecode(bootstrap.log)}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orders(bootstrap, launch))
    except OSError as error:
        why = f"its orders cannot be written to {path}: {error.strerror or error}"
        raise LaunchError(bootstrap.node, why) from error
    try:
        yield [path]
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - its like above


class Launcher:
    """All launches of a driver.

    `context` says which commands start engines. `on_started(engine)`; `on_failed(engine, error)`: it will not
    come; `on_exit(engine, returncode, words)`: a local engine ended, or a step and its command, and `words`
    is a line for the user that matters if that was unexpected; `on_trouble(text)`: a line for the user.
    `engine` is `Bootstrap.engine`. `tunnel_to`: path of the driver's own ipc socket, to which every ssh
    engine shall connect through a tunnel (--tunnel), which `ssh` says how to make; None: no tunnels.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context | None = None,
        *,
        on_started: Callable[[str], None],
        on_failed: Callable[[str, LaunchError], None],
        on_exit: Callable[[str, int, str], None],
        on_trouble: Callable[[str], None],
        ssh: SshOptions | None = None,
        tunnel_to: str | None = None,
        fan_out: int = FAN_OUT,
        step_fan_out: int = STEP_FAN_OUT,
        timeout: float = TIMEOUT,
    ) -> None:
        self._loop = loop
        self._context = context or Hosts()
        self._on_started = on_started
        self._on_failed = on_failed
        self._on_exit = on_exit
        self._on_trouble = on_trouble
        self._ssh = ssh or SshOptions()
        self._tunnel_to = tunnel_to
        self._timeout = timeout
        self._room = asyncio.Semaphore(fan_out)
        self._room_for_steps = asyncio.Semaphore(step_fan_out)
        self._spare: Child | None = None
        self._locals: dict[str, Child] = {}
        self._steps: dict[str, tuple[Child, Launch]] = {}
        self._ended_steps: set[str] = set()
        self._launches: dict[str, asyncio.Task[None]] = {}
        self._tunnels: dict[str, Tunnel] = {}
        self._rest: set[asyncio.Task[None]] = set()

    def adopt(self, spawned: Spawned) -> None:
        """Take a local engine that was started early (`local.spawn_local`); the first local node gets it."""
        self._spare = EngineChild(self._loop, spawned)

    def start(self, node: Node, bootstrap: Bootstrap, place: str = "") -> None:
        """Start an engine on `node`; returns at once. With a tunnel `bootstrap.addresses` are set here;
        the tunnel's remote end is `place` (see `ssh.new_place`)."""
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

    # ---- launches ----

    async def _run_local(self, node: Node, bootstrap: Bootstrap) -> None:
        engine, launch = bootstrap.engine, self._context.launch(node)
        try:
            child, self._spare = self._spare or self._spawn(node, launch, kind=EngineChild), None
            self._locals[engine] = child
            await self._until_ready(child, node, launch, bootstrap)
        except LaunchError as error:
            self._locals.pop(engine, None)
            self._on_failed(engine, error)
            return
        self._on_started(engine)
        code = await asyncio.shield(child.exited)
        if code < 0 or code == UNKNOWN_EXIT:
            await end_remains(self._loop, [engine], self._on_trouble)
        del self._locals[engine]
        self._on_exit(engine, code, self._context.ended(node, code, child.out, child.err))

    async def _run_ssh(self, node: Node, bootstrap: Bootstrap) -> None:
        engine, launch = bootstrap.engine, self._context.launch(node)
        try:
            async with self._room:
                if (tunnel := self._tunnels.get(engine)) is not None:
                    await tunnel.open()
                    bootstrap = msgspec.structs.replace(bootstrap, addresses=[tunnel.address])
                child = self._spawn(node, launch)
                await self._until_ready(child, node, launch, bootstrap)
        except LaunchError as error:
            await self._close_tunnel(engine)
            self._on_failed(engine, error)
            return
        self._later(child.dismiss(LET_GO))
        self._on_started(engine)

    async def _run_step(self, node: Node, bootstrap: Bootstrap) -> None:
        engine, launch = bootstrap.engine, self._context.launch(node)
        try:
            with orders_file(bootstrap, launch) as arguments:
                async with self._room_for_steps:
                    child = self._spawn(node, launch, *arguments)
                    await self._until_ready(child, node, launch, bootstrap)
                self._steps[engine] = (child, launch)
                self._on_started(engine)
                code = await asyncio.shield(child.exited)
        except LaunchError as error:
            self._on_failed(engine, error)
            return
        del self._steps[engine]
        how = self._context.ended(node, code, child.out, child.err)
        if code >= 0:
            self._on_exit(engine, code, how)
        elif engine not in self._ended_steps:
            self._on_trouble(f"{node.name}: {how}; its engine is given up unless it is heard again")
        self._ended_steps.discard(engine)

    def _spawn(self, node: Node, launch: Launch, *more: str, kind: type[Child] = Child) -> Child:
        argv = [*launch.argv, *more]
        try:
            return kind(self._loop, spawn(argv, launch.environment, merged=launch.merged))
        except OSError as error:
            raise LaunchError(node.name, not_started(argv, error)) from error

    async def _until_ready(self, child: Child, node: Node, launch: Launch, bootstrap: Bootstrap) -> None:
        """Wait until the engine that `child` starts is ready, or, if it does not answer, until it has its
        Bootstrap. LaunchError if it will not be ready; then the child is ended."""
        ready = False
        try:
            async with asyncio.timeout(self._timeout):
                started = launch.delivery is not Delivery.STDIN or await child.feed(orders(bootstrap, launch))
                if launch.lifeline is Lifeline.CONNECTION:
                    child.close_stdin()
                if launch.answers:
                    answer = await child.until(_ANSWER)
                    started = answer is not None and _READY.match(answer[0]) is not None
                if not started:
                    child.close_stdin()  # it may wait for that, so that its error is not lost
                    code = await asyncio.shield(child.exited)
                    raise LaunchError(node.name, self._context.ended(node, code, child.out, child.err))
            ready = True
        except TimeoutError:
            said = self._context.waits_for(child.err)
            problem = f"no engine within {self._timeout:g} s; waited for {launch.argv[0]} to start one there"
            raise LaunchError(node.name, f"{problem}{f' ({said})' if said else ''}") from None
        finally:
            if not ready:
                self._later(child.dismiss(0, launch.grace))

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

    def _end_step(self, engine: str, patience: float, *, lost: bool = False) -> None:
        self._ended_steps.add(engine)
        child, launch = self._steps[engine]
        self._later(child.dismiss(patience, launch.grace_lost if lost else launch.grace))

    async def close(self, patience: float = 5.0, lost: Collection[str] = ()) -> None:
        """End everything: launches that go on, at once; tunnels, local engines and steps have `patience`
        seconds to leave by themselves, then their stdin is closed and they are terminated, then killed (an
        engine's keeper ends its tasks). There is no patience with the steps of `lost` engines: the scheduler
        is told to end them; their commands would wait for a node that is gone. Engines behind ssh are told by
        message only."""
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
            self._end_step(engine, 0 if engine in lost else patience, lost=engine in lost)
        while self._rest or self._launches:
            # A launch that is cut short leaves its ssh to `_rest`, hence the loop.
            going = [*self._rest, *self._launches.values()]
            await asyncio.wait(going)
