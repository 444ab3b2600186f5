"""What a process that could not start an engine has left behind, as one line for the user. Pure."""

from __future__ import annotations

import re

from disbatch.wire.messages import ERROR_MARK

LONGEST = 300
_INSTALL = "install it there as here, or name an interpreter that has it with --ssh-python PATH"
_NO_MODULE = re.compile(r"(?:ModuleNotFound|Import)Error: No module named '?([\w.]+)'?")
_OURS = ("disbatch", "zmq", "msgspec")

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


def tidy(text: str) -> str:
    """One line, printable, of bounded length: it comes from another machine and goes to a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def lines(data: bytes) -> list[str]:
    """The lines of output that are not blank, tidied."""
    return [line for line in map(tidy, re.split(r"[\r\n]+", data.decode(errors="replace"))) if line]


def ended_how(returncode: int) -> str:
    """`exit code 3` or `signal 9`."""
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"


def engine_said(out: bytes, err: bytes) -> str | None:
    """Why an engine, or the interpreter that should have become one, gave up; None if it did not say."""
    for text in reversed(lines(out) + lines(err)):
        _, mark, rest = text.partition(ERROR_MARK)
        if mark:
            return rest.strip() + (" name a newer one with --ssh-python PATH" if rest.endswith(":") else "")
        missing = _NO_MODULE.search(text)
        if missing and missing[1].split(".")[0] in _OURS:
            return f"its Python has no {missing[1]}: {_INSTALL}"
    return None


def local_words(returncode: int, out: bytes, err: bytes) -> str:
    """Why a local engine ended, in one line."""
    said = engine_said(out, err)
    if said is None:
        said = next(reversed(lines(err)), "")
    return f"{said} ({ended_how(returncode)})" if said else f"it ended with {ended_how(returncode)}"


def ssh_words(host: str, python: str | None, returncode: int, out: bytes, err: bytes) -> str:
    """Why an engine did not start through ssh. `python` is the interpreter asked for by name, or None."""
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
            return f"ssh failed without a word, or what it started was killed; try `ssh {host} true` by hand"
        return f"ssh failed: {errors[-1]}; try `ssh {host} true` by hand"
    if returncode in (126, 127):
        if python is None:
            return f"there is no python3 there: {_INSTALL}"
        return f"{python} cannot be run there ({'not found' if returncode == 127 else 'not executable'})"
    if returncode < 0:
        return f"ssh was ended by {ended_how(returncode)}"
    why = next(reversed(errors), "") or next(reversed(lines(out)), "")
    how = f"the command there failed ({ended_how(returncode)})"
    return f"{how}: {why}" if why else how


def tunnel_words(host: str, returncode: int, out: bytes, err: bytes) -> str:
    """Why a tunnel is not there, or is there no more."""
    if returncode != 255 and b"port forwarding failed" in err:
        return "its sshd does not allow the tunnel (see AllowStreamLocalForwarding there)"
    return ssh_words(host, None, returncode, out, err)
