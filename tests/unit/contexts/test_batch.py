"""What jobs of schedulers other than Slurm have on this host: environments as these schedulers make them."""

from __future__ import annotations

import pytest

from disbatch.contexts.batch import share_of_job
from disbatch.contexts.context import Choice, Scheduler
from disbatch.contexts.discovery import Entry, choose_nodes
from disbatch.contexts.nodes import Machine, Node, SlotRules
from disbatch.contexts.slurm.context import Slurm
from disbatch.contexts.slurm.hetjob import JobFacts
from disbatch.model.task import Way

HERE = Machine("node1.cluster.org", 64, lambda: pytest.fail("no name server is needed"))
FILES = {
    "/ge/one": "node1 4 all.q@node1 UNDEFINED\n",
    "/ge/three": "node1.cluster.org 4 all.q@node1 UNDEFINED\nnode2.cluster.org 8 all.q@node2 UNDEFINED\n"
    "node1.cluster.org 2 long.q@node1 UNDEFINED\nnode3.cluster.org 1 all.q@node3 <NULL>\n",
    "/ge/alias": "ib-node1 3 all.q@x UNDEFINED\nib-node2 5 all.q@x UNDEFINED\n",
    "/ge/wrong": "\nnode1\nnode1 many all.q\n",
    "/pbs/mpi": "node1\nnode1\nnode2\nnode2\n",
    "/pbs/torque": "node1\n" * 6 + "node2\n" * 8,
    "/lsf/hosts": "node2\nnode1\nnode1\nnode1\n",
    "/oar/cores": "node1.cluster.org\n" * 12 + "node7.cluster.org\n" * 12,
    "/condor/ad": 'Machine = "slot1@node1"\nTotalCpus = 64.0\nCpus = 7\nMemory = 100\n',
    "/cobalt/nodes": "node1\nnode2\n",
}
GE = {
    "JOB_ID": "7", "SGE_ROOT": "/opt/sge", "SGE_TASK_ID": "undefined", "NHOSTS": "1", "NSLOTS": "1",
    "NQUEUES": "1", "QUEUE": "all.q", "RESTARTED": "0",
}  # fmt: skip
PE = {**GE, "PE": "mpi", "NHOSTS": "3", "NSLOTS": "15"}
PBS = {"PBS_JOBID": "123.head", "PBS_ENVIRONMENT": "PBS_BATCH", "PBS_O_WORKDIR": "/home/me"}
TORQUE = {**PBS, "PBS_VERSION": "TORQUE-6.1.2", "PBS_NUM_NODES": "1", "PBS_NUM_PPN": "6", "PBS_NP": "6"}
LSF = {"LSB_JOBID": "55", "LSB_JOBINDEX": "0", "LSB_DJOB_NUMPROC": "12"}

CASES = {
    "GE, no parallel environment": (
        GE,
        1,
        "Grid Engine job 7: using the 1 core that it has on this host (NSLOTS)",
    ),
    "GE, one host": ({**PE, "NHOSTS": "1", "NSLOTS": "4", "PE_HOSTFILE": "/ge/one"}, 4, "(PE_HOSTFILE)"),
    "GE, several hosts and queues": (
        {**PE, "PE_HOSTFILE": "/ge/three"},
        6,
        "6 cores that it has on this host (PE_HOSTFILE); its 2 other hosts are not used: name them with -s",
    ),
    "GE, names that are not ours": (
        {**PE, "PE_HOSTFILE": "/ge/alias"},
        3,
        "its 1 other host is not used: name it with -s",
    ),
    "GE, one host, no file": ({**GE, "NSLOTS": "4"}, 4, "(NSLOTS)"),
    "GE, several hosts, no file": (
        PE,
        None,
        "how many cores it has on this host is not known: using 1; if it has more, use -s localhost:CORES",
    ),
    "GE, a file that is none": ({**PE, "PE_HOSTFILE": "/ge/wrong"}, None, "using 1"),
    "GE, no number of hosts": ({**GE, "NHOSTS": "", "NSLOTS": "4"}, None, "using 1"),
    "PBS, lines are no cores": (
        {**PBS, "PBS_NODEFILE": "/pbs/mpi", "NCPUS": "16"},
        16,
        "(NCPUS); its 1 other",
    ),
    "PBS, one chunk": (
        {**PBS, "NCPUS": "1", "OMP_NUM_THREADS": "1"},
        1,
        "PBS job 123.head: using the 1 core",
    ),
    "PBS, no number": ({**PBS, "PBS_NODEFILE": "/pbs/mpi"}, None, "using 1"),
    "PBS, a wrong number": ({**PBS, "NCPUS": "lots"}, None, "using 1"),
    "Torque, lines are cores": ({**TORQUE, "PBS_NODEFILE": "/pbs/torque"}, 6, "(PBS_NODEFILE); its 1 other"),
    "Torque, no file": (TORQUE, 6, "(PBS_NUM_PPN)"),
    "LSF": ({**LSF, "LSB_MCPU_HOSTS": "node2 8 node1 4"}, 4, "LSF job 55: using the 4 cores that it has"),
    "LSF, a host twice": ({**LSF, "LSB_MCPU_HOSTS": "node1 2 node2 8 node1 2"}, 4, "its 1 other host"),
    "LSF, a file": ({**LSF, "LSB_DJOB_HOSTFILE": "/lsf/hosts"}, 3, "(LSB_DJOB_HOSTFILE)"),
    "LSF, names": ({**LSF, "LSB_HOSTS": "node1 node1"}, 2, "(LSB_HOSTS)"),
    "LSF, all hosts' slots together": (LSF, None, "using 1"),
    "LSF, one slot": ({**LSF, "LSB_DJOB_NUMPROC": "1"}, 1, "(LSB_DJOB_NUMPROC)"),
    "OAR": ({"OAR_JOB_ID": "3", "OAR_NODEFILE": "/oar/cores"}, 12, "OAR job 3: using the 12 cores"),
    "HTCondor": ({"_CONDOR_MACHINE_AD": "/condor/ad"}, 7, "HTCondor job: using the 7 cores"),
    "Flux": ({"FLUX_JOB_ID": "f2x", "FLUX_JOB_NNODES": "2"}, 64, "Flux job f2x: using the 64 cores"),
    "Cobalt": ({"COBALT_JOBID": "9", "COBALT_NODEFILE": "/cobalt/nodes"}, 64, "its 1 other host"),
}


def read(path: str) -> str:
    return FILES.get(path, "")


@pytest.mark.parametrize(("environ", "cores", "words"), CASES.values(), ids=list(CASES))
def test_this_hosts_share(environ: dict[str, str], cores: int | None, words: str) -> None:
    share = share_of_job(environ, HERE, read)
    assert share is not None and share.cores == cores
    assert words in share.words() and share.words().isprintable()


@pytest.mark.parametrize(
    "environ",
    [{}, {"SGE_ROOT": "/opt/sge"}, {"JOB_ID": "7"}, {"NCPUS": "2", "NSLOTS": "3"}, {"LSB_HOSTS": "a"}],
)
def test_no_job(environ: dict[str, str]) -> None:
    assert share_of_job(environ, HERE, read) is None


def chosen(
    lists: list[str], environ: dict[str, str], each: float | None = None, most: int | None = None
) -> Choice:
    return choose_nodes(
        lists, environ, HERE, SlotRules(each, most), read=read, schedulers=[Entry(("SLURM_JOB_ID",), slurm)]
    )


def slurm() -> Scheduler:
    return Slurm(lambda job: JobFacts(nodes=["node1"], cpus={"node1": 2}))


def test_the_share_is_divided_as_any_machine_is() -> None:
    ge = {**PE, "PE_HOSTFILE": "/ge/three"}
    choice = chosen([], ge)
    assert choice.nodes == [Node("localhost", 6, 6, Way.CHILD, 1.0)]
    (line,) = choice.warnings
    assert line.startswith("Grid Engine job 7: using the 6 cores")
    assert chosen([], ge, each=2.0).nodes == [Node("localhost", 6, 3, Way.CHILD, 2.0)]
    assert chosen([], ge, most=2).nodes == [Node("localhost", 6, 2, Way.CHILD, 1.0)]
    assert chosen([], PE).nodes == [Node("localhost", 1, 1, Way.CHILD, 1.0)]


def test_what_the_user_names_counts_instead() -> None:
    ge = {**PE, "PE_HOSTFILE": "/ge/three"}
    assert chosen(["localhost:8"], ge) == Choice([Node("localhost", 8, 8, Way.CHILD)], [])
    assert chosen([], {**ge, "DISBATCH_SSH_NODELIST": "a:1"}) == Choice([Node("a", 1, 1, Way.SSH)], [])


def test_a_job_of_slurms_counts_before_what_it_imitates() -> None:
    choice = chosen([], {**PBS, "NCPUS": "4", "SLURM_JOB_ID": "7"})
    assert (choice.nodes, choice.warnings) == ([Node("node1", 2, 2, Way.STEP, 1.0)], [])
