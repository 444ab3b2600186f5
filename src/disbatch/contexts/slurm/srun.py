"""srun: the arguments and environment that start an engine as a step of a job, and its errors as one line for
the user. Pure but for the options file.

There is one step for each node, because a step is ended on all of its nodes when one is lost. The step has
all resources of the job on its node, and shares them with other steps: those of another run in the same job,
or of an `srun` in a task.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from disbatch.contexts.launch_errors import ended_how, engine_said, lines, telling
from disbatch.contexts.local import step_argv
from disbatch.contexts.nodes import Node
from disbatch.contexts.slurm.hetjob import SIZE_VARIABLES
from disbatch.model.errors import UsageError
from disbatch.wire.engine_protocol import SECRET_VARIABLES

OPTIONS_FILE = "DISBATCH_SLURM_SRUN_OPTIONS_FILE"
LONGEST_OPTIONS = 64 << 10
"""Bytes of an options file, which must fit into an environment."""
OVERLAP_SINCE = (20, 11)
"""The first version of Slurm with --overlap; in older ones steps share cores by default."""
GPUS_SINCE = (19, 5)
HET_GROUP_SINCE = (20, 2)
"""Before it the option was called --pack-group."""

_OF_SLURM = ("SLURM_", "SRUN_", "SBATCH_", "SALLOC_")
_FINDS_THE_JOB = frozenset(
    {
        *("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JWT"),
        *("SLURM_CLUSTER_NAME", "SLURM_WORKING_CLUSTER", "SLURM_NODE_ALIASES", "SLURM_STEPMGR"),
        *SIZE_VARIABLES,
    }
)
"""The variables by which srun finds the cluster and the job."""
_INSTEAD_OF = {
    "--cpu-bind=": ("SLURM_CPU_BIND", "SLURM_CPU_BIND_TYPE"),
    "--export=": ("SLURM_EXPORT_ENV",),
    "--gpus=": ("SLURM_GPUS", "SLURM_GPUS_PER_NODE", "SLURM_GPUS_PER_TASK"),
    "--mem=": ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU"),
    "--mpi=": ("SLURM_MPI_TYPE",),
    "--overlap": ("SLURM_OVERLAP", "SLURM_EXACT", "SLURM_EXCLUSIVE"),
}
"""Arguments override variables in srun; an argument of ours is left out if the user's file has its
variable."""
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


@dataclass(frozen=True)
class SrunOptions:
    """`version` of Slurm, as (22, 5); None: unknown, treated as recent. `variables`: more for srun's
    environment, from the options file. `python`: the interpreter on the nodes; None: ours. `package`: the
    directory of the package there; None: the path of ours."""

    version: tuple[int, int] | None = None
    variables: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    package: str | None = None


def srun_argv(node: Node, options: SrunOptions) -> list[str]:
    """The command that starts an engine on `node` as the only process of a step."""
    recent = options.version is None
    wishes = [
        "--cpu-bind=none",
        "--mem=0",  # all of the job's there
        "--mpi=none",
        "--export=ALL",
    ]
    if recent or (options.version or ()) >= OVERLAP_SINCE:
        wishes.append("--overlap")
    if node.gpus and (recent or (options.version or ()) >= GPUS_SINCE):
        wishes.append(f"--gpus={node.gpus}")
    place = []
    if node.component is not None:
        option = "--het-group" if recent or (options.version or ()) >= HET_GROUP_SINCE else "--pack-group"
        place.append(f"{option}={node.component}")
    return [
        *("srun", "--nodes=1", "--ntasks=1", f"--nodelist={node.name}", "--job-name=disbatch"),
        *place,
        *(wish for wish in wishes if not _is_given(wish, options.variables)),
        "--",
        *step_argv(options.python, options.package),
    ]


def _is_given(wish: str, variables: Mapping[str, str]) -> bool:
    name = wish[: wish.find("=") + 1] or wish
    return any(variable in variables for variable in _INSTEAD_OF[name])


def srun_environment(environ: Mapping[str, str], options: SrunOptions) -> dict[str, str]:
    """The environment of srun, which it passes on to the engine: `environ` without variables that srun reads
    as options.

    Nearly all variables of Slurm are: SLURM_NTASKS, SLURM_HINT or SLURM_MEM_PER_CPU of a batch script would
    change the step that `srun_argv` describes.
    """
    secret = {os.fsdecode(name) for name in SECRET_VARIABLES}
    kept = {
        name: value
        for name, value in environ.items()
        if name not in secret and (name in _FINDS_THE_JOB or not name.startswith(_OF_SLURM))
    }
    return kept | options.variables


def read_options_file(path: Path) -> dict[str, str]:
    """The variables of a file of VAR=VALUE lines (DISBATCH_SLURM_SRUN_OPTIONS_FILE).

    Blank lines and lines that begin with # are skipped; `export VAR=VALUE` is taken, and quotes around a
    whole value are taken off. Nothing is expanded. UsageError, with the line, for anything else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_OPTIONS + 1)
    except OSError as error:
        raise UsageError(f"{OPTIONS_FILE}: cannot read {path}: {error.strerror or error}") from error
    if len(data) > LONGEST_OPTIONS:
        raise UsageError(f"{OPTIONS_FILE}: {path} is longer than {LONGEST_OPTIONS >> 10} KiB")
    variables: dict[str, str] = {}
    for number, line in enumerate(os.fsdecode(data).split("\n"), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            name, value = _parse_option(text, f"{path}:{number}")
            variables[name] = value
    return variables


def _parse_option(text: str, where: str) -> tuple[str, str]:
    match = _LINE.fullmatch(text)
    if match is None or "\0" in text:
        raise UsageError(f"{where}: not VAR=VALUE")
    name, value = match[1], match[2].strip()
    quote = value[:1]
    if quote in ("'", '"') and quote:
        if len(value) < 2 or value[-1] != quote or quote in value[1:-1]:
            raise UsageError(f"{where}: {name}: a quote is not closed, or not around the whole value")
        value = value[1:-1]
    return name, value


_SHARE = "run disbatch from an installation that all nodes of the job see at the same path"
_SRUN_PREFIX = re.compile(r"(?:(?:srun|slurmstepd|slurmd)[\w.-]*: )+(?:(?:error|fatal|warning|info): )?")
_SRUN_NOISE = re.compile(
    r"lacks support for cpu binding|^Job step aborted: Waiting up to|^Force Terminated|"
    r"^forcing job termination|^Terminating (?:job step|StepId)|got SIG(?:CONT|TERM)|^Step created for|"
    r"^Cancelled pending job step|^Check SLURM_JOB_ID|pmix|PMIx|pmi/|couldn't chdir to|"
    r"^Timed out waiting for job step|task 0: (?:Exited with|Killed|Terminated)|"
    r"^(?:\S+: )?tasks? 0: running$|^Try .srun --help"
)
"""Lines of srun that do not tell the cause of an error."""
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


def srun_words(returncode: int, out: bytes, err: bytes) -> str:
    """Why an engine in a step did not start, or ended, from the output of its srun."""
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
    why = telling(matters or told)
    how = f"srun was ended by {ended_how(returncode)}"
    if returncode >= 0:
        how = f"its step ended with {ended_how(128 - returncode if returncode > 128 else returncode)}"
    return f"{how}: {why}" if why else how


def srun_waits_for(err: bytes) -> str:
    """What an srun waits for that has not started its step; "" if it does not say."""
    told = [_SRUN_PREFIX.sub("", line, count=1) for line in lines(err)]
    return next((line for line in reversed(told) if not _SRUN_NOISE.search(line)), "")
