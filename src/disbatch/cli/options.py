"""The command line of `disbatch`: the original's options, checked, with one clear line for what is wrong."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from typing import Any

from disbatch.cli.parser import Parser
from disbatch.model.errors import UsageError
from disbatch.model.output import DEFAULT_LIMIT, LEAST_LIMIT, MOST_LIMIT
from disbatch.model.version import VERSION

LONGEST_LABEL = 255
"""Characters, which fit into a request."""
DESCRIPTION = "Run a file of shell commands, one a line, as many at a time as there are slots."
EPILOG = """\
examples:
  disbatch Tasks  on this machine, a task a core
  disbatch -s ws1:8,ws2:16 Tasks  on two workstations, through ssh
  sbatch -n 20 disbatch Tasks  on 20 cores of a Slurm cluster
  disbatch -c 4 Tasks  each task uses four cores
  disbatch -r Tasks_JOBID_status.txt Tasks  go on where a former run ended
  generator | disbatch -  tasks as they come

exit status:
  0  the run is complete, even if tasks failed
  1  the same with -e, -f or a failed BARRIER CHECK
  2  bad usage or input, nothing was run
  3  the run could not be completed
  128 + N  ended by signal N
"""

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
        raise argparse.ArgumentTypeError(f"must be a name to be typed, not {text!r}")
    return text


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = Parser(
        prog="disbatch",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        usage="disbatch [options] TASKFILE",
    )
    add = parser.add_argument
    add("taskfile", nargs="?", metavar="TASKFILE", help='tasks, one a line ("-" for standard input)')
    add("--version", action="version", version=f"disbatch {VERSION}")
    add_where(parser.add_argument_group("where tasks run"))
    _add_pool(parser.add_argument_group("engines and tasks that come later (see dbutil attach, submit)"))
    _add_resume(parser.add_argument_group("going on from a former run, and when to end"))
    _add_files(parser.add_argument_group("files"))
    _add_network(parser.add_argument_group("engines and network"))
    _add_programs(parser.add_argument_group("tasks from programs"))
    _add_notices(parser.add_argument_group("watching, and being told"))
    return parser


def add_where(group: argparse._ArgumentGroup, label: tuple[str, ...] = ("--label",)) -> None:
    """The options of a context: which nodes, how they are divided, and when they are let go."""
    add = group.add_argument
    add("-s", "--ssh-node", action="append", default=[], metavar="HOST:CORES[,...]",
        help="use these hosts, through ssh (localhost without); 'node[01-12]:8' is twelve; repeatable; "
        "default: DISBATCH_SSH_NODELIST, else the Slurm job we are in, else all cores of this "
        "machine, or those that another scheduler's job has of it")  # fmt: skip
    add("-c", "--cpusPerTask", dest="cores_per_task", type=_number(0, more=True), metavar="N",
        help="cores a task uses; may be fractional (default 1; under Slurm what the job "
        "asked for)")  # fmt: skip
    add("-t", "--tasksPerNode", dest="tasks_per_node", type=_whole(1), metavar="N",
        help="at most N tasks at once on a node, within cores / N of -c")  # fmt: skip
    add("--fill", action="store_true",
        help="under a scheduler: use all cores that it gave us on each node, not just "
        "those asked for")  # fmt: skip
    add("-g", "--gpu", action="store_true", help="split each node's GPUs among its slots, whole devices each")
    add("-E", "--env-resource", action="append", default=[], metavar="VAR", type=_variable,
        help="split what the variable VAR lists on each node among its slots; repeatable")  # fmt: skip
    add("--bind", choices=("cores", "none"), metavar="HOW",
        help="cores: bind each slot's tasks to cores of their own; none: leave them to the system (default: "
        "none; under Slurm cores, if the job owns whole cores)")  # fmt: skip
    add("-C", "--context-task-limit", dest="task_limit", type=_whole(0), default=0, metavar="N",
        help="leave after N tasks (default 0: no limit)")  # fmt: skip
    add(*label, dest="label", type=_label, default="", metavar="NAME",
        help="a name for these nodes, for dbutil")  # fmt: skip
    add("-k", "--retire-cmd", dest="retire_command", metavar="COMMAND",
        help="run this when a node is no longer needed; finds NODE, RETCODE, ACTIVE, RETIRED, "
        "DRIVER_NODE in its environment (default under Slurm: give the node back)")  # fmt: skip
    add("-K", "--no-retire", action="store_true",
        help="run nothing then; under Slurm: keep all nodes to the end")  # fmt: skip
    add("--time-limit-margin", type=_number(0), metavar="S",
        help="under Slurm: start no task in the last S seconds of the allocation (default: when what runs "
        "could not be recorded any more)")  # fmt: skip


def _add_pool(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-S", "--startup-only", action="store_true",
        help="start with no engines, and wait for some to be attached")  # fmt: skip
    add("--keep-open", action="store_true",
        help="take tasks from dbutil submit, without a TASKFILE or when it has ended; "
        "until dbutil close")  # fmt: skip
    add("--owned", action="store_true",
        help="with --keep-open: write what the run's files begin with to standard output when it takes "
        "tasks, and take no more when standard input ends")  # fmt: skip
    add("--wait-for-engines", type=_number(0), metavar="S",
        help="with no engine left, wait S seconds for some to be attached, then give up (default: 0; "
        "with -S: as long as it takes)")  # fmt: skip


def _add_resume(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-r", "--resume-from", action="append", default=[], metavar="STATUSFILE",
        help="skip the tasks that this status file has as completed; repeatable")  # fmt: skip
    add("-R", "--retry", action="store_true", help="with -r: run those that failed again")
    add(
        "--force-resume",
        action="store_true",
        help="with -r: go by the task's number, even if the command differs",
    )
    add("--resume-by", choices=("number", "command"), metavar="HOW",
        help="with -r: which former task a task is: by number (the default), or, for a list that was edited, "
        "by command")  # fmt: skip
    add("--takeover", metavar="PREFIX",
        help="go on with the run whose files begin with PREFIX and whose driver was killed")  # fmt: skip
    add("--force", action="store_true",
        help="with --takeover: although its driver was on another host, or the task file has "
        "changed")  # fmt: skip
    add("-e", "--exit-code", action="store_true", help="exit 1 if a task failed")
    add("-f", "--fail-fast", action="store_true", help="end the run at the first task that fails; exit 1")


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-p", "--prefix", metavar="PATH", help="begin all files with PATH (default ./TASKFILE_JOBID)")
    add("-l", "--logfile", metavar="FILE", help="log here (default disBatch_JOBID_driver.txt)")
    add("--loglevel", type=str.lower, choices=LOG_LEVELS, default="info", metavar="LEVEL",
        help="what the log holds: critical, error, warning, info or debug (default info)")  # fmt: skip
    add("--status-header", action="store_true", help="begin the status file with the names of its fields")
    add("--output", metavar="DIR",
        help="keep what each task prints, in DIR/000/013/000013999.out and .err; `dbutil cat` shows "
        "it")  # fmt: skip
    add("--output-pack", action="store_true",
        help="with --output: in one file for each node, compressed, not in two for each task")  # fmt: skip
    add("--output-limit", type=_size, metavar="BYTES",
        help="with --output: keep at most BYTES of each task's stdout, and of its stderr; also 10K, 64M, 1G "
        f"(default {DEFAULT_LIMIT >> 20}M)")  # fmt: skip


def add_reach(group: argparse._ArgumentGroup) -> None:
    """How engines on other hosts are started, and reach the driver."""
    add = group.add_argument
    add("--ssh-python", metavar="PATH", help="the Python to use on the other hosts")
    add("--tunnel", action="store_true",
        help="carry the connections inside ssh: for a machine that the hosts cannot reach")  # fmt: skip


def _add_network(group: argparse._ArgumentGroup) -> None:
    add_reach(group)
    add = group.add_argument
    add("--use-address", metavar="HOST:PORT", help="where the engines find this machine")
    add("--fix-paths", action="store_true",
        help="write the paths that launches shall use to your configuration, and exit")  # fmt: skip
    add(
        "--heartbeat",
        type=_number(0.1),
        default=3.0,
        metavar="S",
        help="seconds between signs of life (default 3)",
    )
    add("--patience", type=_number(0.5), default=15.0, metavar="S",
        help="an engine not heard for S seconds is lost; its tasks run elsewhere (default 15)")  # fmt: skip
    add("--orphan-patience", type=_number(1), default=600.0, metavar="S",
        help="an engine that does not hear the driver for S seconds ends its tasks "
        "(default 600)")  # fmt: skip
    add("--max-losses", type=_whole(0), default=3, metavar="N",
        help="run a task again at most N times because its node was lost (default 3)")  # fmt: skip
    add("--grace", type=_number(0), metavar="S",
        help="seconds between SIGTERM and SIGKILL when tasks are ended (default 5; less where Slurm "
        "waits less)")  # fmt: skip


def _add_programs(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--kvsserver", nargs="?", const="", metavar="HOST:PORT",
        help="use this Redis-protocol server as key store; redis://..., rediss://USER:PASSWORD@HOST:PORT; "
        "without a name the one in DISBATCH_KVS_URL (default: a store in the driver)")  # fmt: skip
    add("--taskserver", nargs="?", const="", metavar="HOST:PORT",
        help="tasks come through the key store, from a program that signs in there; with a name: and that "
        "is the key store, as with --kvsserver")  # fmt: skip
    add("--taskcommand", metavar="COMMAND",
        help="the same, from this command, which is started with the key store's address in its "
        "environment")  # fmt: skip


def _add_notices(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-w", "--web", action="store_true",
        help="serve a page that shows the run, at an address that is printed then; to this machine "
        "alone")  # fmt: skip
    add("--web-address", metavar="HOST[:PORT]", type=_web_address,
        help="with -w: serve it at this address of this machine; 0.0.0.0: at all (default 127.0.0.1, any "
        "port)")  # fmt: skip
    add("--mailTo", dest="mail_to", metavar="ADDR[,ADDR]",
        help="mail these as tasks complete, and when the run has ended; through localhost:25, or the server "
        "in DISBATCH_SMTP: smtps://USER:PASSWORD@HOST:PORT, smtp://...")  # fmt: skip
    add("--mailFreq", dest="mail_freq", type=_whole(1), metavar="N",
        help="with --mailTo: a mail every N completions (default 1)")  # fmt: skip
    add("--on-finish", metavar="COMMAND",
        help="run this when the run has ended, however it did; finds DISBATCH_DONE, DISBATCH_FAILED, "
        "DISBATCH_EXIT_CODE, ... in its environment")  # fmt: skip
    add("--on-failure", metavar="COMMAND",
        help="run this once: as soon as a task has failed, or when the run ended without being "
        "complete")  # fmt: skip


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Options, checked against each other. UsageError for what cannot work."""
    options, rest = build_parser().parse_known_args(argv)
    if rest:
        wrong = next((word for word in rest if word.startswith("-")), None)
        raise UsageError(
            f"unknown option {wrong}; see disbatch --help"
            if wrong
            else f"one task file only: {rest[0]} is one too many; see disbatch --help"
        )
    if options.fix_paths:
        return options
    if options.takeover is not None:
        if options.takeover == "" or options.taskfile not in (None, "-"):
            what = "the name is empty" if not options.takeover else "name no task file, the run has its own"
            raise UsageError(f"--takeover: {what}")
        _refuse_settled(options)
        return options
    if options.force:
        raise UsageError("--force works with --takeover only")
    _check_together(options)
    _refuse_empty(options)
    options.listen = None if options.use_address is None else parse_address(options.use_address)
    return options


def _check_together(options: argparse.Namespace) -> None:
    """Options that exclude each other, or need each other."""
    if options.owned and not options.keep_open:
        raise UsageError("--owned works with --keep-open only")
    _check_source(options)
    for option, value in {
        "-R": options.retry, "--force-resume": options.force_resume, "--resume-by": options.resume_by,
    }.items():  # fmt: skip
        if value and not options.resume_from:
            raise UsageError(f"{option} works with -r STATUSFILE only")
    if options.force_resume and options.resume_by == "command":
        raise UsageError("--resume-by command compares no numbers: leave --force-resume out")
    _refuse_without_output(options)
    if options.web_address is not None and not options.web:
        raise UsageError("--web-address works with -w only")
    if options.mail_freq is not None and options.mail_to is None:
        raise UsageError("--mailFreq works with --mailTo ADDR only")
    if options.heartbeat * 2 > options.patience:
        raise UsageError("--patience must be at least twice --heartbeat")
    if options.tunnel and options.use_address:
        raise UsageError("--tunnel and --use-address exclude each other")
    if options.startup_only:
        _refuse_nodes(options)


def _check_source(options: argparse.Namespace) -> None:
    """Tasks come from one place."""
    given = {
        "a task file": options.taskfile,
        "--taskserver": options.taskserver,
        "--taskcommand": options.taskcommand,
    }
    named = [what for what, value in given.items() if value is not None]
    if not named and options.kvsserver and ":" not in options.kvsserver:
        word = options.kvsserver
        raise UsageError(f"--kvsserver {word}: no HOST:PORT; for a task file write --kvsserver= {word}")
    if not named and not (options.startup_only or options.keep_open):
        raise UsageError('no task file: name one, or "-" for standard input; see disbatch --help')
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)}: tasks come from one of them only")
    if options.keep_open and named and options.taskfile is None:
        raise UsageError(f"--keep-open: with {named[0]} a program says when the last task has come")
    if options.taskcommand is not None and not options.taskcommand.strip():
        raise UsageError("--taskcommand: the command is empty")


def _of_nodes(options: argparse.Namespace) -> dict[str, Any]:
    """What is given that says which nodes there are, and how they are divided."""
    return {
        "-s": options.ssh_node, "-c": options.cores_per_task, "-t": options.tasks_per_node,
        "--fill": options.fill, "-g": options.gpu, "-E": options.env_resource, "--bind": options.bind,
        "-C": options.task_limit, "--label": options.label,
    }  # fmt: skip


def _refuse_nodes(options: argparse.Namespace) -> None:
    """-S has no nodes of its own."""
    given = _of_nodes(options) | {
        "-k": options.retire_command, "-K": options.no_retire,
        "--time-limit-margin": options.time_limit_margin,
        "--tunnel": options.tunnel, "--ssh-python": options.ssh_python,
    }  # fmt: skip
    for option, value in given.items():
        if value:
            raise UsageError(f"{option} is about nodes, and -S starts with none: give it to dbutil attach")


def _refuse_settled(options: argparse.Namespace) -> None:
    """A run that is taken over has its nodes, which are there already, and its files."""
    for option, value in (_of_nodes(options) | {"-S": options.startup_only}).items():
        if value:
            more = "dbutil attach adds others, and --wait-for-engines S leaves time for that"
            raise UsageError(f"{option}: a run that is taken over keeps its nodes; {more}")
    for option, value in {"-p": options.prefix, "-l": options.logfile}.items():
        if value is not None:
            raise UsageError(f"{option}: a run that is taken over keeps its files")
    if options.resume_by:
        raise UsageError("--resume-by: a run that is taken over goes on as it began")
    if options.resume_from:
        raise UsageError("--takeover goes on with a run, -r begins another one: give one of them")


def _refuse_without_output(options: argparse.Namespace) -> None:
    for name, given in (("-pack", options.output_pack), ("-limit", options.output_limit is not None)):
        if given and options.output is None:
            raise UsageError(f"--output{name} works with --output DIR only")


def _refuse_empty(options: argparse.Namespace) -> None:
    """A shell variable that is not set makes an empty word; it would mean the working directory."""
    named = {"-p": options.prefix, "-l": options.logfile, "--ssh-python": options.ssh_python}
    named |= {"--output": options.output, "--mailTo": options.mail_to}
    for option, value in named.items():
        if value == "":
            raise UsageError(f"{option}: the name is empty")
    for option, command in (("--on-finish", options.on_finish), ("--on-failure", options.on_failure)):
        if command is not None and not command.strip():
            raise UsageError(f"{option}: the command is empty")
    if "" in options.resume_from:
        raise UsageError("-r: the name of the status file is empty")
    if options.taskfile == "":
        raise UsageError("the name of the task file is empty")


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT of --use-address."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    plain = all(letter.isalnum() or letter in "._-:%" for letter in host)
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    if not host or not plain or not 0 <= number < 65536:
        raise UsageError(f"--use-address {text}: write HOST:PORT, e.g. login1.example.org:5000 (0: any port)")
    return host, number
