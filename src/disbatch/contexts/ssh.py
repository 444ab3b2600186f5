"""How an engine, or a tunnel, is started on another host: the arguments of the user's own ssh. Pure.

The command goes through whatever login shell the user has over there, so it is written to mean the same to
sh, csh and fish: words in single quotes, no backslash, no `!`, no newline. Nothing secret is in it.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass

from disbatch.contexts.local import BOOT
from disbatch.contexts.words import TUNNEL_MARK
from disbatch.engine.search_path import package_path
from disbatch.model.errors import UsageError

FAREWELL = b"bye\n"
"""Written to a tunnel's stdin when it is no longer needed, so that its directory is removed."""
_HOST_PORT = re.compile(r"(\[[0-9A-Za-z:.%]+\]|[0-9A-Za-z._-]+):[0-9]{1,5}")
_NOT_QUOTABLE = frozenset("!\\\n\r\0")


@dataclass(frozen=True)
class SshOptions:
    """`connect_timeout` in seconds. `python`: exactly this interpreter on the other hosts (--ssh-python, or
    the user's configuration); None: ours if it is there under the same path, else python3. `package`: a
    directory where the package may lie there if it is not installed; None: where ours lies.
    `alive_interval`: seconds of silence after which a tunnel asks whether the other side is there; three
    questions without an answer and it is given up."""

    connect_timeout: int = 10
    alive_interval: int = 5
    python: str | None = None
    package: str | None = None

    def __post_init__(self) -> None:
        if self.connect_timeout < 1:
            raise UsageError(
                f"the timeout of an ssh connection must be at least 1 s, not {self.connect_timeout}"
            )
        for name in (self.python, self.package):
            if name is not None and (not name or not _quotable(name)):
                raise UsageError(
                    f"{name!r}: a path on another host must not be empty or hold '!', '\\' or a line end"
                )
        if self.python is not None and self.python.startswith("-"):
            raise UsageError(f"{self.python}: an interpreter's path cannot start with '-'")


def _quotable(text: str) -> bool:
    return _NOT_QUOTABLE.isdisjoint(text)


_OVERRIDES = (
    "-oIgnoreUnknown=*",
    "-oRemoteCommand=none",
    "-oSessionType=default",
    "-oStdinNull=no",
    "-oForkAfterAuthentication=no",
    "-oLogLevel=INFO",
)
"""Against what suits a person's login to that host and would keep our command from running, its stdin from
arriving, or its errors from us. An ssh that does not know one of them is told to pass over what it does not
know; the command line comes before the user's files, so that holds for all lines in these, too."""


def _ssh(options: SshOptions) -> list[str]:
    # -T -x -a: no terminal, no X11, no agent. ControlMaster=no: use a connection that the user has opened
    # (where logging in takes a token that may be the only way), but never become one, which would stay in the
    # background with our pipes. BatchMode: nobody is there to answer.
    return [
        "ssh",
        "-T",
        "-x",
        "-a",
        "-oBatchMode=yes",
        f"-oConnectTimeout={options.connect_timeout}",
        "-oControlMaster=no",
        *_OVERRIDES,
    ]


def _for_login_shell(script: str) -> str:
    return f"exec /bin/sh -c {shlex.quote(script)}"


def launch_argv(host: str, options: SshOptions) -> list[str]:
    """The ssh command that starts an engine on `host`; it expects a Bootstrap on stdin.

    The user's own forwardings are left out: another connection has them already, and they would fail.
    """
    package = options.package or package_path()
    words = [shlex.quote(BOOT)] + ([shlex.quote(package)] if _quotable(package) else [])
    if options.python is not None:
        script = f"exec {shlex.quote(options.python)} -c {' '.join(words)}"
    else:
        own = sys.executable if sys.executable and _quotable(sys.executable) else "python3"
        find = f'p={shlex.quote(own)}; test -x "$p" || p=python3; '
        script = f'{find}exec "$p" -c {" ".join(words)}'
    return [*_ssh(options), "-oClearAllForwardings=yes", "--", host, _for_login_shell(script)]


def tunnel_argv(host: str, options: SshOptions, place: str, attempt: str, local_socket: str) -> list[str]:
    """The ssh command that makes `place`/s on `host` lead to `local_socket` here, or to HOST:PORT as seen
    from here.

    sshd makes the new socket as `place`.ATTEMPT, a new name each time, for it cannot replace one that an
    earlier, broken connection left; the command moves it to where the engine looks, says TUNNEL_MARK, and
    stays until its stdin ends. A connection of its own (no ControlPath): a shared one would keep the
    forwarding, and would not notice a cut cable. ExitOnForwardFailure=no: a forwarding of the user's own that
    fails does no harm, and ours is seen by the missing socket.
    """
    if not _HOST_PORT.fullmatch(local_socket) and (":" in local_socket or not local_socket.startswith("/")):
        raise UsageError(f"{local_socket}: a tunnel needs a socket with an absolute path and no ':' in it")
    new = f"{place}.{attempt}"
    script = (
        f"mkdir -p -m 700 {place} && test -O {place} && mv -f {new} {place}/s || exit 3; echo {TUNNEL_MARK}; "
        f'read word; if test "$word" = bye; then rm -rf {place}; fi'
    )
    return [
        *_ssh(options),
        "-oControlPath=none",
        "-oExitOnForwardFailure=no",
        f"-oServerAliveInterval={options.alive_interval}",
        "-oServerAliveCountMax=3",
        "-R",
        f"{new}:{local_socket}",
        "--",
        host,
        _for_login_shell(script),
    ]
