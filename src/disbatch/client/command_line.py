"""The options of the `disbatch` command: names, values and help, and the words for keyword arguments.

Programs give options by keyword: `fail_fast=True` is --fail-fast.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from disbatch.model.output import DEFAULT_LIMIT, LEAST_LIMIT, MOST_LIMIT
from disbatch.model.version import VERSION

LONGEST_LABEL = 255
"""Characters, which fit into a request."""
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")


def _whole(least: int) -> type[int]:
    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or value > 10**9:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return value

    return whole  # type: ignore[return-value]


def _number(least: float, *, more: bool = False) -> type[float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < least or (more and value == least):
            raise argparse.ArgumentTypeError(
                f"must be a number {'of more than' if more else 'of at least'} {least:g}, not {text!r}"
            )
        return value

    return number  # type: ignore[return-value]


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", text.upper())
    size = int(found[1]) << 10 * " KMGT".index(found[2] or " ") if found else 0
    if not LEAST_LIMIT <= size <= MOST_LIMIT:
        most = f"{MOST_LIMIT >> 40}T"
        raise argparse.ArgumentTypeError(f"must be a number of bytes, from 1K to {most}, not {text!r}")
    return size


def _web_address(text: str) -> tuple[str, int]:
    host, port = text, 0
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:]*):([0-9]{1,5})", text)
    if found is not None:
        host, port = found[1], int(found[2])
    host = host.removeprefix("[").removesuffix("]")
    plain = re.fullmatch(r"[A-Za-z0-9._%-]+|[0-9A-Fa-f:.%]*:[0-9A-Fa-f:.%]*:[0-9A-Za-z:.%]*", host)
    if plain is None or port > 65535:
        raise argparse.ArgumentTypeError(f"must be HOST or HOST:PORT, not {text!r}")
    return host, port


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) or text.startswith("DISBATCH_"):
        raise argparse.ArgumentTypeError(f"must be the name of an environment variable, not {text!r}")
    return text


def _label(text: str) -> str:
    if len(text) > LONGEST_LABEL:
        raise argparse.ArgumentTypeError(f"a label has at most {LONGEST_LABEL} characters")
    if text and not (text.isprintable() and text.strip()):
        raise argparse.ArgumentTypeError(f"must be printable and not blank, not {text!r}")
    return text


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare all of them, and the task file."""
    add = parser.add_argument
    add("taskfile", nargs="?", metavar="TASKFILE", help='tasks, one a line ("-": standard input)')
    add("--version", action="version", version=f"disbatch {VERSION}")
    add_where(parser.add_argument_group("where tasks run"))
    _add_pool(parser.add_argument_group("nodes and tasks that are added later (dbutil attach, submit)"))
    _add_resume(parser.add_argument_group("resuming, and ending"))
    _add_files(parser.add_argument_group("files"))
    _add_network(parser.add_argument_group("engines and network"))
    _add_programs(parser.add_argument_group("tasks from programs"))
    _add_notices(parser.add_argument_group("watching, and notifications"))


def add_where(group: argparse._ArgumentGroup, label: tuple[str, ...] = ("--label",)) -> None:
    """The options of a context: which nodes, how they are divided, and when they are released."""
    add = group.add_argument
    add("-s", "--ssh-node", action="append", default=[], metavar="HOST:CORES[,...]",
        help="use these hosts through ssh (localhost without it); 'node[01-12]:8' names twelve; repeatable; "
        "default: DISBATCH_SSH_NODELIST, else the Slurm job that this is in, else the cores that another "
        "scheduler's job has on this machine, or all its cores")  # fmt: skip
    add("-c", "--cpusPerTask", dest="cores_per_task", type=_number(0, more=True), metavar="N",
        help="cores per task; may be fractional (default 1; in a Slurm job what it asked for)")  # fmt: skip
    add("-t", "--tasksPerNode", dest="tasks_per_node", type=_whole(1), metavar="N",
        help="at most N tasks at once on a node, and never more than cores / -c")  # fmt: skip
    add("--fill", action="store_true",
        help="in a scheduler's job: use all cores that it has on each node, not only those that it asked "
        "for")  # fmt: skip
    add("-g", "--gpu", action="store_true",
        help="divide each node's GPUs among its slots, whole devices only")  # fmt: skip
    add("-E", "--env-resource", action="append", default=[], metavar="VAR", type=_variable,
        help="divide the list in the variable VAR of each node among its slots; repeatable")  # fmt: skip
    add("--bind", choices=("cores", "none"), metavar="HOW",
        help="cores: bind each slot's tasks to cores of their own; none: do not (default none; in a Slurm "
        "job that owns whole cores: cores)")  # fmt: skip
    add("-C", "--context-task-limit", dest="task_limit", type=_whole(0), default=0, metavar="N",
        help="leave after N tasks (default 0: no limit)")  # fmt: skip
    add(
        *label,
        dest="label",
        type=_label,
        default="",
        metavar="NAME",
        help="a name for these nodes, for dbutil",
    )
    add("-k", "--retire-cmd", dest="retire_command", metavar="COMMAND",
        help="run COMMAND when a node is no longer needed, with NODE, RETCODE, ACTIVE, RETIRED, DRIVER_NODE "
        "in its environment (default in a Slurm job: give the node back)")  # fmt: skip
    add("-K", "--no-retire", action="store_true",
        help="run no such command; in a Slurm job: keep all nodes to the end")  # fmt: skip
    add("--time-limit-margin", type=_number(0), metavar="S",
        help="in a Slurm job: start no task in the last S seconds of the allocation (default: when running "
        "tasks could no longer be recorded)")  # fmt: skip


def _add_pool(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-S", "--startup-only", action="store_true",
        help="start without nodes, and wait until some are attached")  # fmt: skip
    add("--keep-open", action="store_true",
        help="accept tasks from dbutil submit until dbutil close, with or without a TASKFILE")  # fmt: skip
    add("--owned", action="store_true",
        help="with --keep-open: print the prefix of the run's files when it accepts tasks; accept no more "
        "when standard input ends")  # fmt: skip
    add("--wait-for-engines", type=_number(0), metavar="S",
        help="when no node is left, wait S seconds for others to be attached (default 0; with -S: no "
        "limit)")  # fmt: skip


def _add_resume(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-r", "--resume-from", action="append", default=[], metavar="STATUSFILE",
        help="skip the tasks that this status file records as completed; repeatable")  # fmt: skip
    add("-R", "--retry", action="store_true", help="with -r: run failed tasks again")
    add("--force-resume", action="store_true",
        help="with -r: match tasks by number, even if their commands differ")  # fmt: skip
    add("--resume-by", choices=("number", "command"), metavar="HOW",
        help="with -r: match tasks by number (default), or, for an edited list, by command")  # fmt: skip
    add("--takeover", metavar="PREFIX",
        help="continue the run whose files begin with PREFIX and whose driver was killed")  # fmt: skip
    add("--force", action="store_true",
        help="with --takeover: even if its driver was on another host, or the task file has "
        "changed")  # fmt: skip
    add("-e", "--exit-code", action="store_true", help="exit with 1 if a task failed")
    add(
        "-f", "--fail-fast", action="store_true", help="end the run at the first failed task, and exit with 1"
    )


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-p", "--prefix", metavar="PATH",
        help="begin the names of all files with PATH (default ./TASKFILE_JOBID)")  # fmt: skip
    add("-l", "--logfile", metavar="FILE", help="the driver's log (default disBatch_JOBID_driver.txt)")
    add("--loglevel", type=str.lower, choices=LOG_LEVELS, default="info", metavar="LEVEL",
        help="critical, error, warning, info or debug (default info)")  # fmt: skip
    add("--status-header", action="store_true", help="begin the status file with a line of field names")
    add("--output", metavar="DIR",
        help="keep what each task prints, in DIR/000/013/000013999.out and .err; `dbutil cat` shows "
        "it")  # fmt: skip
    add("--output-pack", action="store_true",
        help="with --output: in one compressed file for each node instead")  # fmt: skip
    add("--output-limit", type=_size, metavar="BYTES",
        help="with --output: keep at most BYTES of each task's stdout, and of its stderr; also 10K, 64M, 1G "
        f"(default {DEFAULT_LIMIT >> 20}M)")  # fmt: skip


def add_reach(group: argparse._ArgumentGroup) -> None:
    """How engines on other hosts are started, and reach the driver."""
    add = group.add_argument
    add("--ssh-python", metavar="PATH", help="the Python interpreter on other hosts")
    add("--tunnel", action="store_true",
        help="carry the connections inside ssh, if other hosts cannot reach this machine")  # fmt: skip


def _add_network(group: argparse._ArgumentGroup) -> None:
    add_reach(group)
    add = group.add_argument
    add("--use-address", metavar="HOST:PORT", help="where engines on other hosts connect to the driver")
    add("--fix-paths", action="store_true",
        help="write this installation's paths to your configuration, for launches on other hosts, and "
        "exit")  # fmt: skip
    add("--heartbeat", type=_number(0.1), default=3.0, metavar="S",
        help="seconds between heartbeats (default 3)")  # fmt: skip
    add("--patience", type=_number(0.5), default=15.0, metavar="S",
        help="a node silent for S seconds is lost; its tasks run elsewhere (default 15)")  # fmt: skip
    add("--orphan-patience", type=_number(1), default=600.0, metavar="S",
        help="an engine that has not heard the driver for S seconds ends its tasks (default "
        "600)")  # fmt: skip
    add("--max-losses", type=_whole(0), default=3, metavar="N",
        help="run a task again at most N times because its node was lost (default 3)")  # fmt: skip
    add("--grace", type=_number(0), metavar="S",
        help="seconds between SIGTERM and SIGKILL when tasks are ended (default 5; less where Slurm waits "
        "less)")  # fmt: skip


def _add_programs(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--kvsserver", nargs="?", const="", metavar="HOST:PORT",
        help="use this Redis-protocol server as key store; also redis://..., "
        "rediss://USER:PASSWORD@HOST:PORT; without an address the server in DISBATCH_KVS_URL (default: a key "
        "store in the driver)")  # fmt: skip
    add("--taskserver", nargs="?", const="", metavar="HOST:PORT",
        help="tasks come from a program through the key store; an address names the key store, as with "
        "--kvsserver")  # fmt: skip
    add("--taskcommand", metavar="COMMAND",
        help="tasks come from COMMAND, which is started with the key store's address in its "
        "environment")  # fmt: skip


def _add_notices(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-w", "--web", action="store_true",
        help="serve a page that shows the run, to this machine only, and print its address")  # fmt: skip
    add("--web-address", metavar="HOST[:PORT]", type=_web_address,
        help="with -w: serve it at this address of this machine; 0.0.0.0: at all addresses (default "
        "127.0.0.1, any port)")  # fmt: skip
    add("--mailTo", dest="mail_to", metavar="ADDR[,ADDR]",
        help="send mail as tasks complete, and at the end of the run, through localhost:25, or the server in "
        "DISBATCH_SMTP: smtps://USER:PASSWORD@HOST:PORT, smtp://...")  # fmt: skip
    add("--mailFreq", dest="mail_freq", type=_whole(1), metavar="N",
        help="with --mailTo: a mail every N completions (default 1)")  # fmt: skip
    add("--on-finish", metavar="COMMAND",
        help="run COMMAND at the end of the run, however it ended, with DISBATCH_DONE, DISBATCH_FAILED, "
        "DISBATCH_EXIT_CODE, ... in its environment")  # fmt: skip
    add("--on-failure", metavar="COMMAND",
        help="run COMMAND once: at the first failed task, or when the run ends incomplete")  # fmt: skip


OURS = (
    "help", "version", "keep_open", "owned", "takeover", "force", "taskserver", "taskcommand", "fix_paths",
)  # fmt: skip
"""Options that keyword arguments cannot give: they make no sense there, or are always given."""


def option_words(named: Mapping[str, Any]) -> list[str]:
    """The options of these names: those of the long options, in lower case with underscores. True gives an
    option that takes no value, None and False leave it out; a list gives it again and again. TypeError for a
    name or a value that fits none."""
    known = _known()
    words: list[str] = []
    for name, value in named.items():
        action = known.get(name)
        if action is None:
            raise TypeError(
                f"no option of disbatch is called {name!r}; there are: {', '.join(sorted(known))}"
            )
        if value is not None and value is not False:
            words += _words(name, action, value)
    return words


def _known() -> dict[str, argparse.Action]:
    found = {}
    parser = argparse.ArgumentParser()
    add_options(parser)
    for action in parser._actions:
        for option in action.option_strings:
            if option.startswith("--") and (name := _name(option)) not in OURS:
                found[name] = action
    found["nodes"] = found.pop("ssh_node")
    return found


def _name(option: str) -> str:
    """--cpusPerTask is cpus_per_task."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", option.removeprefix("--")).replace("-", "_").lower()


def _words(name: str, action: argparse.Action, value: Any) -> Iterable[str]:
    option = next(option for option in action.option_strings if option.startswith("--"))
    if action.nargs == 0:
        if value is not True:
            raise TypeError(f"{name}: True or False, not {value!r}")
        return [option]
    if value is True:
        if action.nargs != "?":
            raise TypeError(f"{name}: needs a value")
        return [option]
    listed = isinstance(value, Iterable) and not isinstance(value, str | bytes | os.PathLike)
    if listed and not isinstance(action, argparse._AppendAction):
        raise TypeError(f"{name}: one value, not {value!r}")
    return [f"{option}={_text(name, one)}" for one in (value if listed else [value])]


def _text(name: str, value: Any) -> str:
    if isinstance(value, str | bytes | os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{name}: text or a number, not {value!r}")
