"""What a process that could not start an engine has left behind, as one line for the user. Pure."""

from __future__ import annotations

import re

from disbatch.model.text import printable
from disbatch.wire.engine_protocol import ERROR_MARK, READY_MARK

LONGEST = 300
_INSTALL = "install it there as here, or name an interpreter that has it with --ssh-python PATH"
_NEWER = "name a newer one with --ssh-python PATH"
_SHARE = "run disbatch from an installation that all nodes of the job see at the same path"
_NO_MODULE = re.compile(r"(?:ModuleNotFound|Import)Error: No module named '?([\w.]+)'?")
_OURS = ("disbatch", "zmq", "msgspec")
_LOADER = re.compile(
    r"error while loading shared libraries|[Ee]rror loading shared library|Library not loaded|"
    r"symbol lookup error|version .\S+' not found|cannot open shared object file|undefined symbol|"
    r"[Ee]xec format error|bad (?:ELF )?interpreter|required file not found"
)
"""What the dynamic loader, or the kernel through a shell, says of a program that is there and cannot run."""
_FATAL = re.compile(r"Fatal Python error")
"""More than a line of Python's follows on it, the last of which says nothing."""

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

_SRUN_PREFIX = re.compile(r"(?:(?:srun|slurmstepd|slurmd)[\w.-]*: )+(?:(?:error|fatal|warning|info): )?")
_SRUN_NOISE = re.compile(
    r"lacks support for cpu binding|^Job step aborted: Waiting up to|^Force Terminated|"
    r"^forcing job termination|^Terminating (?:job step|StepId)|got SIG(?:CONT|TERM)|^Step created for|"
    r"^Cancelled pending job step|^Check SLURM_JOB_ID|pmix|PMIx|pmi/|couldn't chdir to|"
    r"^Timed out waiting for job step|task 0: (?:Exited with|Killed|Terminated)|"
    r"^(?:\S+: )?tasks? 0: running$|^Try .srun --help"
)
"""What srun says besides, whatever the trouble."""
_SRUN_WAITS = re.compile(r"[Ss]tep creation (?:temporarily|still) disabled|retrying")
_SRUN_SAYS = (
    (r"execve\(\): (.*): No such file or directory", "there is no {0} there: " + _SHARE),
    (r"execve\(\): (.*): Permission denied", "{0} cannot be run there (permission denied): " + _SHARE),
    (
        r"(?i)(?:exceeded|beyond) .*memory limit|oom[-_ ]kill|out[-_ ]of[-_ ]memory",
        "Slurm ended its step, whose tasks took more memory than the job has there ({line}): ask for more "
        "(--mem), or run fewer at once (-t)",
    ),
    (r"CANCELLED AT \S+ DUE TO (.*?) \*\*\*", "Slurm ended its step ({0})"),
    (r"\*\*\* (?:JOB|STEP) .* CANCELLED AT", "its step was cancelled"),
    (r"[Nn]ode [Ff]ailure|NODE FAILURE", "Slurm lost the node ({line})"),
    (
        r"Requested node configuration is not available|Invalid node name|Requested nodes? .*not (?:in|part)",
        "Slurm cannot start a step there ({line}): is it still one of the job's nodes?",
    ),
    (
        r"Invalid job id|already completing or completed|Expired or invalid job|job \d+ has expired|"
        r"Job credential (?:revoked|expired)",
        "the Slurm job is over, or about to end ({line})",
    ),
    (
        r"Communication connection failure|No route to host|Connection refused|Unable to resolve|"
        r"Task launch .* failed|Zero Bytes were transmitted",
        "the node does not answer to Slurm ({line})",
    ),
    (r"GRES|generic resource|\(gres\)", "Slurm does not give a step the GPUs of the job ({line})"),
    (r"unrecognized option|[Ii]nvalid option", "this srun lacks an option that disbatch needs ({line})"),
    (r"slurm.? controller|slurmctld|slurm_load_ctl_conf", "Slurm's controller does not answer ({line})"),
)

TUNNEL_MARK = "disbatch-tunnel-ready"


def tidy(text: str) -> str:
    """One line, printable, of bounded length: it comes from another machine and goes to a terminal."""
    line = " ".join(printable(text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def lines(data: bytes) -> list[str]:
    """The lines of output that are for people, tidied."""
    found = map(tidy, re.split(r"[\r\n]+", data.decode(errors="replace")))
    return [line for line in found if line and not line.startswith((READY_MARK, TUNNEL_MARK))]


def ended_how(returncode: int) -> str:
    """`exit code 3` or `signal 9`."""
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"


def engine_said(out: bytes, err: bytes, install: str = _INSTALL, newer: str = _NEWER) -> str | None:
    """Why an engine, or the interpreter that should have become one, gave up; None if it did not say.

    `install`, `newer`: what can be done about a Python without our modules, and about one too old.
    """
    for text in reversed(lines(out) + lines(err)):
        _, mark, rest = text.partition(ERROR_MARK)
        if mark:
            return rest.strip() + (f" {newer}" if rest.endswith(":") else "")
        missing = _NO_MODULE.search(text)
        if missing and missing[1].split(".")[0] in _OURS:
            return f"its Python has no {missing[1]}: {install}"
    return None


def _telling(said: list[str]) -> str:
    """The line that tells most: the last one as a rule; "" if there is none."""
    return next(filter(_FATAL.search, said), "") or next(reversed(said), "")


def local_words(returncode: int, out: bytes, err: bytes) -> str:
    """Why a local engine ended, in one line."""
    said = engine_said(out, err)
    if said is None:
        said = _telling(lines(err))
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
    why = _telling(errors) or _telling(lines(out))
    how = f"the command there failed ({ended_how(returncode)})"
    return f"{how}: {why}" if why else how


def tunnel_words(host: str, returncode: int, out: bytes, err: bytes) -> str:
    """Why a tunnel is not there, or is there no more."""
    if returncode != 255 and b"port forwarding failed" in err:
        return "its sshd does not allow the tunnel (see AllowStreamLocalForwarding there)"
    return ssh_words(host, None, returncode, out, err)


def srun_words(returncode: int, out: bytes, err: bytes) -> str:
    """Why an engine that was to be a step of a Slurm job did not start, or ended, from what its srun said."""
    said = engine_said(out, err, _SHARE, _SHARE)
    if said is not None:
        return said
    told = [_SRUN_PREFIX.sub("", line, count=1) for line in lines(err)]
    told = [line for line in told if not _SRUN_NOISE.search(line)]
    matters = [line for line in told if not _SRUN_WAITS.search(line)]
    for pattern, words in _SRUN_SAYS:
        for line in reversed(matters):
            match = re.search(pattern, line)
            if match:
                return words.format(*match.groups(), line=line.rstrip("."))
    why = _telling(matters or told)
    how = f"srun was ended by {ended_how(returncode)}"
    if returncode >= 0:
        how = f"its step ended with {ended_how(128 - returncode if returncode > 128 else returncode)}"
    return f"{how}: {why}" if why else how


def srun_waits_for(err: bytes) -> str:
    """What an srun that starts no step says it waits for; "" if it does not say."""
    told = [_SRUN_PREFIX.sub("", line, count=1) for line in lines(err)]
    return next((line for line in reversed(told) if not _SRUN_NOISE.search(line)), "")
