"""Why an engine did not start, as one line for the user, from what its command printed. Pure."""

from __future__ import annotations

import re

from disbatch.model.text import printable
from disbatch.wire.engine_protocol import ERROR_MARK, READY_MARK

LONGEST = 300
_INSTALL = "install it there as here, or name an interpreter that has it with --ssh-python PATH"
_NEWER = "name a newer one with --ssh-python PATH"
_NO_MODULE = re.compile(r"(?:ModuleNotFound|Import)Error: No module named '?([\w.]+)'?")
_OURS = ("disbatch", "zmq", "msgspec")
_LOADER = re.compile(
    r"error while loading shared libraries|[Ee]rror loading shared library|Library not loaded|"
    r"symbol lookup error|version .\S+' not found|cannot open shared object file|undefined symbol|"
    r"[Ee]xec format error|bad (?:ELF )?interpreter|required file not found"
)
"""Messages of the dynamic loader, and of shells, about a program that exists and cannot run."""
_FATAL = re.compile(r"Fatal Python error")
"""The first line of such an error of Python says more than its last one."""

_SSH_SAYS = (
    (
        "Host key verification failed",
        "ssh does not trust its host key (unknown, or changed): run `ssh {host}` once by hand",
    ),
    (
        "Permission denied",
        "ssh was not let in: {line}; set up a key that asks for nothing (`ssh-copy-id {host}`)",
    ),
    ("Too many authentication failures", "ssh was not let in: {line}; name one key in ~/.ssh/config"),
    ("Could not resolve hostname", "no such host ({line})"),
    ("Connection refused", "it refuses ssh connections ({line})"),
    ("not responding", "unreachable ({line})"),
    ("timed out", "unreachable ({line})"),
    ("No route to host", "unreachable ({line})"),
    ("Network is unreachable", "unreachable ({line})"),
    ("Connection closed", "it closed the ssh connection ({line})"),
    ("Connection reset", "it closed the ssh connection ({line})"),
)

TUNNEL_MARK = "disbatch-tunnel-ready"


def tidy(text: str) -> str:
    """Foreign text as one printable line of bounded length."""
    line = " ".join(printable(text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def lines(data: bytes) -> list[str]:
    """The lines of output without our own marks, tidied."""
    found = map(tidy, re.split(r"[\r\n]+", data.decode(errors="replace")))
    return [line for line in found if line and not line.startswith((READY_MARK, TUNNEL_MARK))]


def ended_how(returncode: int) -> str:
    """`exit code 3` or `signal 9`."""
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"


def not_started(argv: list[str], error: OSError) -> str:
    """Why a command could not be started."""
    if isinstance(error, FileNotFoundError):
        return f"there is no {argv[0]} command in PATH here"
    return f"cannot run {argv[0]}: {error.strerror or error}"


def engine_said(out: bytes, err: bytes, install: str = _INSTALL, newer: str = _NEWER) -> str | None:
    """Why an engine, or its interpreter, gave up; None if it did not say.

    `install`, `newer`: advice for a Python without our modules, and for one that is too old.
    """
    for text in reversed(lines(out) + lines(err)):
        missing = _NO_MODULE.search(text)
        if missing and missing[1].split(".")[0] in _OURS:
            return f"its Python has no {missing[1]}: {install}"
        _, mark, rest = text.partition(ERROR_MARK)
        if mark:
            return rest.strip() + (f" {newer}" if rest.endswith(":") else "")
    return None


def telling(said: list[str]) -> str:
    """The most informative line, usually the last one; "" if there is none."""
    return next(filter(_FATAL.search, said), "") or next(reversed(said), "")


def local_words(returncode: int, out: bytes, err: bytes) -> str:
    """Why a local engine ended, in one line."""
    said = engine_said(out, err)
    if said is None:
        said = telling(lines(err))
    return f"{said} ({ended_how(returncode)})" if said else f"it ended with {ended_how(returncode)}"


def ssh_words(host: str, python: str | None, returncode: int, out: bytes, err: bytes) -> str:
    """Why an engine did not start through ssh. `python`: the interpreter that the user named, or None."""
    said = engine_said(out, err)
    if said is not None:
        return said
    errors = lines(err)
    if returncode == 255:
        for line in reversed(errors):
            for sign, words in _SSH_SAYS:
                if sign in line:
                    return words.format(host=host, line=line.rstrip("."))
        if not errors:
            why = "ssh failed without a message, or its command was killed"
            return f"{why}; try `ssh {host} true` by hand"
        return f"ssh failed: {errors[-1]}; try `ssh {host} true` by hand"
    unloadable = next(filter(_LOADER.search, errors), None)
    if unloadable is not None:
        return (
            f"{python or 'its Python'} cannot run there ({unloadable}): set what it needs, such as "
            "LD_LIBRARY_PATH, where a command of ssh finds it, or name another with --ssh-python PATH"
        )
    if returncode in (126, 127):
        if python is None and returncode == 127:
            return f"there is no python3 there: {_INSTALL}"
        why = "not found" if returncode == 127 else "not executable"
        if returncode == 126 and errors and "Permission denied" not in errors[-1]:
            why += f": {errors[-1]}"
        return f"{python or 'python3'} cannot be run there ({why})"
    if returncode < 0:
        return f"ssh was ended by {ended_how(returncode)}"
    why = telling(errors) or telling(lines(out))
    how = f"the command there failed ({ended_how(returncode)})"
    return f"{how}: {why}" if why else how


def tunnel_words(host: str, returncode: int, out: bytes, err: bytes) -> str:
    """Why a tunnel could not be made, or broke."""
    if returncode != 255 and b"port forwarding failed" in err:
        return "its sshd does not allow the tunnel (see AllowStreamLocalForwarding there)"
    return ssh_words(host, None, returncode, out, err)
