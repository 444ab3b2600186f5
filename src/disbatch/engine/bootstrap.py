"""Turn a new process into an engine: read the Bootstrap, check the node, choose the driver's address, detach.

ZeroMQ must not be imported here: a library that starts threads must not come before the fork.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from disbatch.engine.environment import merge, merge_step
from disbatch.engine.resources import Division, divide, variables_of_run
from disbatch.engine.spawn import SHELL
from disbatch.model.errors import LaunchError
from disbatch.model.task import Way
from disbatch.wire.engine_protocol import ERROR_MARK, PROTOCOL, READY_MARK, Bootstrap, StepVariables
from disbatch.wire.ownfile import open_own

LONGEST_BOOTSTRAP = 64 << 20
PROBE_TIMEOUT = 3.0
CLIENT = "@client"

_TCP = re.compile(r"tcp://(\[[^\]]+\]|[^:\[\]]+):([0-9]{1,5})")


class Ready(NamedTuple):
    """The result of checking a Bootstrap. `log` is open for appending; `log_path` is its intended path;
    `troubles` are messages for the user."""

    bootstrap: Bootstrap
    address: str
    environment: dict[bytes, bytes]
    log: BinaryIO
    log_path: Path
    troubles: list[str]
    division: Division


def read_bootstrap(descriptor: int) -> Bootstrap:
    """Read one Bootstrap, and not one byte more. Raises LaunchError for anything else."""
    here = socket.gethostname()
    length = int.from_bytes(_read_exactly(descriptor, 4, here), "big")
    if length > LONGEST_BOOTSTRAP:
        raise LaunchError(here, "standard input does not hold orders for an engine")
    data = _read_exactly(descriptor, length, here)
    try:
        # The protocol first: a Bootstrap of another protocol may not even decode.
        number = msgspec.msgpack.decode(data, type=_Protocol).protocol
    except msgspec.DecodeError as error:
        raise LaunchError(here, "standard input does not hold orders for an engine") from error
    if number != PROTOCOL:
        raise LaunchError(
            here,
            f"the disbatch installed here speaks protocol {PROTOCOL}, the driver {number}: install the same",
        )
    try:
        return msgspec.msgpack.decode(data, type=Bootstrap)
    except msgspec.DecodeError as error:
        raise LaunchError(here, f"cannot read the driver's orders: {error}") from error


def read_bootstrap_file(path: str) -> Bootstrap:
    """The same from a file, which is removed: it holds the keys of the run."""
    try:
        descriptor = open_own(path, os.O_RDONLY)
    except OSError as error:
        why = f"cannot read the driver's orders, {path}: {error.strerror or error}"
        raise LaunchError(socket.gethostname(), why) from error
    try:
        return read_bootstrap(descriptor)
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - its like above


class _Protocol(msgspec.Struct, tag="Bootstrap"):
    protocol: int


def _read_exactly(descriptor: int, size: int, here: str) -> bytes:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise LaunchError(here, "standard input ended before the driver's orders were complete")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def check(bootstrap: Bootstrap, environment: Mapping[bytes, bytes]) -> Ready:
    """Change to the working directory, choose an address, open the log. `environment` is that of this
    process.

    Raises LaunchError with one line for the user if this node cannot run tasks.
    """
    node = bootstrap.node
    if bootstrap.slots < 1:
        raise LaunchError(node, "no slots")
    if not os.access(SHELL, os.X_OK):
        raise LaunchError(node, f"there is no {SHELL.decode()}")
    directory = os.fsdecode(bootstrap.directory)
    try:
        os.chdir(bootstrap.directory)
    except FileNotFoundError as error:
        raise LaunchError(node, f"working directory {directory} does not exist on {node}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LaunchError(
            node, f"working directory {directory} cannot be used on {node}: {reason}"
        ) from error
    if bootstrap.output:
        _prepare_output(bootstrap)
    step = bootstrap.step or StepVariables()
    client = launched_from(environment, bootstrap.way, step)
    address = choose_address(bootstrap.addresses, client, node, bootstrap.way)
    tasks = dict(bootstrap.environment)
    if bootstrap.way is not Way.CHILD:
        run = variables_of_run(bootstrap, environment)
        tasks = merge(run, environment) if bootstrap.way is Way.SSH else merge_step(run, environment, step)
        # PWD tells a shell the user's name of the directory, if that contains symbolic links.
        tasks[b"PWD"] = bootstrap.directory
    division = divide(bootstrap, tasks)
    log, path, troubles = open_log(Path(os.fsdecode(bootstrap.log)))
    return Ready(bootstrap, address, tasks, log, path, troubles + division.troubles, division)


def _prepare_output(bootstrap: Bootstrap) -> None:
    """Create the directory for what tasks print. LaunchError if nothing can be written there: tasks that ran
    all the same would lose their output."""
    from disbatch.engine.output_files import prepare

    try:
        prepare(bootstrap.output, bootstrap.engine)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        problem = f"--output {os.fsdecode(bootstrap.output)} cannot be written on {bootstrap.node}: {reason}"
        raise LaunchError(bootstrap.node, problem) from error


def launched_from(environment: Mapping[bytes, bytes], way: Way, step: StepVariables) -> str:
    """The address, as seen from here, of the computer that this engine was launched from; "" if unknown: the
    client's in SSH_CONNECTION, or what the scheduler reports in a step."""
    for name in [b"SSH_CONNECTION"] if way is Way.SSH else step.launched_from:
        words = environment.get(name, b"").split()
        if words:
            return os.fsdecode(words[0]).strip("[]")
    return ""


def choose_address(addresses: list[str], client: str, node: str, way: Way = Way.SSH) -> str:
    """The first address that accepts a connection; `client` replaces CLIENT in the addresses, or is ""."""
    tried = []
    for offered in addresses:
        address = offered
        if CLIENT in offered:
            if not client:
                continue
            address = offered.replace(CLIENT, f"[{client}]" if ":" in client else client)
        if _answers(address):
            return address
        tried.append(address)
    else_ways = "--use-address HOST:PORT or --tunnel" if way is Way.SSH else "--use-address HOST:PORT"
    raise LaunchError(
        node,
        f"the driver cannot be reached from {node} at {' or '.join(tried) or 'any address'}; try {else_ways}",
    )


def _answers(address: str) -> bool:
    try:
        if address.startswith("ipc://"):
            return listens(address.removeprefix("ipc://"))
        parts = _TCP.fullmatch(address)
        if parts is None:
            return False
        socket.create_connection((parts[1].strip("[]"), int(parts[2])), PROBE_TIMEOUT).close()
    except (OSError, OverflowError, UnicodeError):
        return False
    return True


def listens(path: str) -> bool:
    """Whether a process of this computer listens there: a file of that name may be in a shared directory."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect("\0" + path[1:] if path.startswith("@") else path)
        except BlockingIOError:
            pass  # its queue of connections is full, so somebody listens
    return True


def remove_socket(address: str) -> None:
    """Remove the socket of a driver that was killed, with its directory, if nobody listens there."""
    path = Path(address.removeprefix("ipc://"))
    if address.startswith("ipc://") and path.parent.name.startswith("disbatch-"):
        with contextlib.suppress(OSError):
            listens(str(path))
            return  # somebody listens
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()


def open_log(path: Path) -> tuple[BinaryIO, Path, list[str]]:
    """The log, or one in the temporary directory with a message about it; its path if there was no
    problem."""
    troubles = []
    try:
        descriptor = open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        descriptor, place = _log_elsewhere()
        troubles = [f"the log {path} cannot be written ({reason}); {place}"]
    return os.fdopen(descriptor, "ab", buffering=0), path.absolute(), troubles


def _log_elsewhere() -> tuple[int, str]:
    """The log's file if it cannot be beside the run's files, and a message about it."""
    import tempfile

    try:
        descriptor, name = tempfile.mkstemp(prefix="disbatch_", suffix="_engine.txt")
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), "going on without it"
    return descriptor, f"it is in {name} instead"


def detach(log: BinaryIO) -> None:
    """Continue in the background, in a session of its own that does not end with ssh.

    The process that ssh waits for prints READY_MARK and the process id of the one that continues, and exits
    0.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        os.read(reading, 1)
        os.write(1, f"{READY_MARK} {pid}\n".encode())
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(log.fileno(), 2)
    os.close(null)
    os.close(reading)
    os.write(writing, b"!")
    os.close(writing)


def stay(log: BinaryIO) -> None:
    """Continue in the foreground, as the process of the step: print READY_MARK as a detached engine does,
    then write to the log, so that nobody waits for more from the pipes. Standard input stays open: its end
    means that the launcher has ended."""
    sys.stdout.flush()
    with contextlib.suppress(OSError):  # a launcher that is gone takes its step with it
        os.write(1, f"{READY_MARK} {os.getpid()}\n".encode())
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)


def complain(error: LaunchError) -> None:
    """Report the error in one line to the process that started this engine."""
    line = " ".join(error.problem.split())
    os.write(1, f"{ERROR_MARK} {line}\n".encode(errors="replace"))


def drain_input() -> None:
    """Read standard input until it ends. A scheduler may lose the last output of a step that ends at once;
    the launcher closes the input when it has read the error."""
    with contextlib.suppress(OSError):
        while os.read(0, 1 << 16):
            pass
