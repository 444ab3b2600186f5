"""The srun that starts an engine: its arguments and environment, and what is made of its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from disbatch.contexts.local import step_argv
from disbatch.contexts.nodes import Node
from disbatch.contexts.slurm.srun import (
    LONGEST_OPTIONS,
    SrunOptions,
    read_options_file,
    srun_argv,
    srun_environment,
    srun_waits_for,
    srun_words,
)
from disbatch.model.errors import UsageError
from disbatch.model.task import Way
from disbatch.wire.engine_protocol import ERROR_MARK

ALWAYS = ["--nodes=1", "--ntasks=1", "--nodelist=n7", "--job-name=disbatch"]


@pytest.mark.parametrize(
    ("version", "gpus", "variables", "wishes"),
    [
        ((22, 5), 0, {}, ["--cpu-bind=none", "--mem=0", "--mpi=none", "--export=ALL", "--overlap"]),
        (None, 2, {}, ["--cpu-bind=none", "--mem=0", "--mpi=none", "--export=ALL", "--overlap", "--gpus=2"]),
        ((20, 11), 0, {}, ["--cpu-bind=none", "--mem=0", "--mpi=none", "--export=ALL", "--overlap"]),
        ((20, 2), 3, {}, ["--cpu-bind=none", "--mem=0", "--mpi=none", "--export=ALL", "--gpus=3"]),
        ((18, 8), 3, {}, ["--cpu-bind=none", "--mem=0", "--mpi=none", "--export=ALL"]),
        # What the user's file says, is not said by us.
        (
            (24, 5),
            4,
            {"SLURM_GPUS_PER_NODE": "1", "SLURM_MPI_TYPE": "pmix", "SLURM_MEM_PER_CPU": "1", "X": "y"},
            ["--cpu-bind=none", "--export=ALL", "--overlap"],
        ),
        (
            (24, 5),
            0,
            {"SLURM_EXACT": "1", "SLURM_CPU_BIND": "cores"},
            ["--mem=0", "--mpi=none", "--export=ALL"],
        ),
    ],
)
def test_arguments(
    version: tuple[int, int] | None, gpus: int, variables: dict[str, str], wishes: list[str]
) -> None:
    argv = srun_argv(Node("n7", 8, 2, Way.STEP, gpus=gpus), SrunOptions(version, variables, "/py", "/lib"))
    assert argv == ["srun", *ALWAYS, *wishes, "--", *step_argv("/py", "/lib")]


@pytest.mark.parametrize(("version", "option"), [((22, 5), "--het-group=1"), ((19, 5), "--pack-group=1")])
def test_a_component_of_a_heterogeneous_job(version: tuple[int, int], option: str) -> None:
    argv = srun_argv(Node("n7", 8, 2, Way.STEP, component=1), SrunOptions(version))
    assert argv[:6] == ["srun", *ALWAYS, option]
    environ = {"SLURM_JOB_ID": "7", "SLURM_HET_SIZE": "2", "SLURM_JOB_NODELIST_HET_GROUP_1": "n7"}
    assert srun_environment(environ, SrunOptions()) == {"SLURM_JOB_ID": "7", "SLURM_HET_SIZE": "2"}


def test_environment_is_ours_without_orders_for_srun() -> None:
    ours = {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "2",
        "SLURM_JOB_ID": "7",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_JWT": "token",
        "SLURM_NTASKS": "20",
        "SLURM_HINT": "nomultithread",
        "SBATCH_EXPORT": "NONE",
        "SALLOC_X": "1",
        "SRUN_CONTAINER": "x",
        "SLURMD_NODENAME": "n1",
        "_SLURM_SPANK_OPTION_x_y": "z",
        "DISBATCH_SMTP": "user:password@host",
    }
    names = {"PATH", "OMP_NUM_THREADS", "SLURM_JOB_ID", "SLURM_CONF", "SLURM_JWT", "SLURMD_NODENAME"}
    kept = {name: value for name, value in ours.items() if name in names | {"_SLURM_SPANK_OPTION_x_y"}}
    assert srun_environment(ours, SrunOptions()) == kept
    options = SrunOptions(variables={"SLURM_HINT": "multithread", "UCX_TLS": "tcp"})
    assert srun_environment(ours, options) == kept | {
        "SLURM_HINT": "multithread",
        "UCX_TLS": "tcp",
    }


def test_options_file(tmp_path: Path) -> None:
    path = tmp_path / "options"
    path.write_bytes(
        b"# for srun\n\n  SLURM_EXACT=1\r\nexport SLURM_HINT=nomultithread\nA='a b' \nB=\"\"\nC=x=y z\n"
        b"D=it's\nA=again # no comment\nE=\xff"
    )
    assert read_options_file(path) == {
        "SLURM_EXACT": "1",
        "SLURM_HINT": "nomultithread",
        "A": "again # no comment",
        "B": "",
        "C": "x=y z",
        "D": "it's",
        "E": "\udcff",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A=1\n--overlap\n", "{path}:2: not VAR=VALUE"),
        ("1A=1", "{path}:1: not VAR=VALUE"),
        ("A =1", "{path}:1: not VAR=VALUE"),
        ("export A", "{path}:1: not VAR=VALUE"),
        ("A=\0", "{path}:1: not VAR=VALUE"),
        ("A='x", "{path}:1: A: a quote is not closed, or not around the whole value"),
        ("A='", "{path}:1: A: a quote is not closed, or not around the whole value"),
        ("A='x' 'y'", "{path}:1: A: a quote is not closed, or not around the whole value"),
        ("A=" + "x" * LONGEST_OPTIONS, "DISBATCH_SLURM_SRUN_OPTIONS_FILE: {path} is longer than 64 KiB"),
    ],
)
def test_options_file_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "options"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_options_file(path)
    assert str(error.value) == says.format(path=path)


def test_options_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^DISBATCH_SLURM_SRUN_OPTIONS_FILE: cannot read .*: No such file"):
        read_options_file(tmp_path / "none")
    with pytest.raises(UsageError, match="Is a directory"):
        read_options_file(tmp_path)


NOISE = "srun: cluster configuration lacks support for cpu binding\n"
MEMORY = (
    "Slurm ended its step, whose tasks took more memory than the job has there ({}): ask for more (--mem), "
    "or run fewer at once (-t)"
)
SHARE = "run disbatch from an installation that all nodes of the job see at the same path"


@pytest.mark.parametrize(
    ("code", "err", "words"),
    [
        # As srun 22.05 says it.
        (
            1,
            "srun: error: Unable to create step for job 2: Requested node configuration is not available\n",
            "Slurm cannot start a step there (Unable to create step for job 2: Requested node configuration "
            "is not available): is it still one of the job's nodes?",
        ),
        (
            2,
            "srun: error: node2: task 0: Exited with exit code 2\n"
            "slurmstepd-node2: error: execve(): /no/py: No such file or directory\n",
            f"there is no /no/py there: {SHARE}",
        ),
        (
            13,
            "srun: error: node2: task 0: Exited with exit code 13\n"
            "slurmstepd-node2: error: execve(): /etc/passwd: Permission denied\n",
            f"/etc/passwd cannot be run there (permission denied): {SHARE}",
        ),
        (
            1,
            "srun: error: Step requested GRES but job doesn't have GRES\n"
            "srun: error: Unable to create step for job 2: Invalid generic resource (gres)\n",
            "Slurm does not give a step the GPUs of the job (Unable to create step for job 2: Invalid "
            "generic resource (gres))",
        ),
        (
            255,
            "srun: unrecognized option '--frob'\nTry \"srun --help\" for more information\n",
            "this srun lacks an option that disbatch needs (unrecognized option '--frob')",
        ),
        (
            137,
            "srun: error: node2: task 0: Killed\nsrun: Force Terminated StepId=2.4\n",
            "its step ended with signal 9",
        ),
        (7, "srun: error: node2: task 0: Exited with exit code 7\n", "its step ended with exit code 7"),
        (
            1,
            "srun: error: Unable to confirm allocation for job 99999: Invalid job id specified\n"
            "srun: Check SLURM_JOB_ID environment variable. Expired or invalid job 99999\n",
            "the Slurm job is over, or about to end (Unable to confirm allocation for job 99999: Invalid job "
            "id specified)",
        ),
        (
            1,
            "srun: error: Slurm job 10 has expired\n"
            "srun: Check SLURM_JOB_ID environment variable. Expired or invalid job 10\n",
            "the Slurm job is over, or about to end (Slurm job 10 has expired)",
        ),
        (
            1,
            "srun: Cancelled pending job step with signal 15\n"
            "srun: error: Unable to create step for job 2: Job/step already completing or completed\n",
            "the Slurm job is over, or about to end (Unable to create step for job 2: Job/step already "
            "completing or completed)",
        ),
        (
            137,
            "srun: forcing job termination\n"
            "srun: Job step aborted: Waiting up to 5 seconds for job step to finish.\n"
            "slurmstepd-node2: error: *** STEP 2.7 ON node2 CANCELLED AT 2026-11-22T12:59:49 ***\n"
            "srun: error: node2: task 0: Killed\n",
            "its step was cancelled",
        ),
        (
            137,
            "slurmstepd-node1: error: StepId=16.0 exceeded memory limit (455057408 > 157286400), being "
            "killed\n"
            "slurmstepd-node1: error: *** STEP 16.0 ON node1 CANCELLED AT 2026-11-28T10:49:13 ***\n"
            "srun: Job step aborted: Waiting up to 5 seconds for job step to finish.\n"
            "srun: error: node1: task 0: Killed\n",
            MEMORY.format("StepId=16.0 exceeded memory limit (455057408 > 157286400), being killed"),
        ),
        (
            137,
            "slurmstepd: error: Detected 1 oom_kill event in StepId=5.0. Some of the step tasks have been "
            "OOM Killed.\nsrun: error: node1: task 0: Out Of Memory\n",
            MEMORY.format("node1: task 0: Out Of Memory"),
        ),
        (
            0,
            "slurmstepd: error: *** STEP 2.7 ON node2 CANCELLED AT 2026-11-22 DUE TO TIME LIMIT ***\n",
            "Slurm ended its step (TIME LIMIT)",
        ),
        (
            1,
            "srun: error: slurm_receive_msg: Zero Bytes were transmitted or received\n",
            "the node does not answer to Slurm (slurm_receive_msg: Zero Bytes were transmitted or received)",
        ),
        # An engine's own words, or those of a Python without our modules, say more.
        (2, f"srun: error: n: task 0: Exited\n{ERROR_MARK} no slots\n", "no slots"),
        (
            1,
            "ModuleNotFoundError: No module named 'zmq'\nsrun: error: n: task 0: Exited with exit code 1\n",
            f"its Python has no zmq: {SHARE}",
        ),
        (
            1,
            "OSError: no room\nsrun: error: n: task 0: Exited with exit code 1\n",
            "its step ended with exit code 1: OSError: no room",
        ),
        (-9, "", "srun was ended by signal 9"),
        (
            -15,
            "srun: Job 5 step creation temporarily disabled, retrying (Requested nodes are busy)\n",
            "srun was ended by signal 15: Job 5 step creation temporarily disabled, retrying "
            "(Requested nodes are busy)",
        ),
    ],
)
def test_words(code: int, err: str, words: str) -> None:
    assert srun_words(code, b"", (NOISE + err).encode()) == words


@pytest.mark.parametrize(
    ("err", "words"),
    [
        ("", ""),
        (
            "srun: Job 5 step creation temporarily disabled, retrying (Requested nodes are busy)\n",
            "Job 5 step creation temporarily disabled, retrying (Requested nodes are busy)",
        ),
    ],
)
def test_what_it_waits_for(err: str, words: str) -> None:
    assert srun_waits_for((NOISE + err).encode()) == words
