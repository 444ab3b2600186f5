"""The cores, on this host, of a job whose scheduler has no context, from its environment. Pure but for
`read`.

The job's other hosts are not used. A variable with the slots of all hosts together (NSLOTS, LSB_DJOB_NUMPROC)
is of no use if there are several hosts. The lines of PBS Pro's PBS_NODEFILE are MPI processes, not cores.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from disbatch.contexts.nodes import MAX_CORES, Machine, whole
from disbatch.model.text import counted, in_short

_CONDOR_CPUS = re.compile(r"^Cpus\s*=\s*([0-9]{1,9})\s*$", re.MULTILINE | re.IGNORECASE)


class Share(NamedTuple):
    """`cores` that `job` (scheduler and number) has on this host, from the variable `source`; None: not
    known. `others`: its other hosts, as far as known."""

    job: str
    cores: int | None
    source: str = ""
    others: int = 0

    def words(self) -> str:
        """The message for the user."""
        if self.cores is None:
            return (
                f"{self.job}: how many cores it has on this host is not known: using 1; if it has more, use "
                f"-s localhost:CORES{self._unused()}"
            )
        cores = counted(self.cores, "core")
        return f"{self.job}: using the {cores} that it has on this host ({self.source}){self._unused()}"

    def _unused(self) -> str:
        if not self.others:
            return ""
        hosts = counted(self.others, "other host is", "other hosts are")
        them, more = ("it", "") if self.others == 1 else ("them", "[,HOST:CORES...]")
        return f"; its {hosts} not used: name {them} with -s HOST:CORES{more}"


class _Job:
    """The environment of a job on `machine`, and the files that it names."""

    def __init__(self, environ: Mapping[str, str], machine: Machine, read: Callable[[str], str]) -> None:
        self._environ = environ
        self._read = read
        self.machine = machine

    def has(self, *names: str) -> bool:
        """One of these variables is there."""
        return any(self._environ.get(name) for name in names)

    def words(self, name: str) -> list[str]:
        """The words in the variable."""
        return self._environ.get(name, "").split()

    def whole(self, name: str) -> int | None:
        """The variable's number, from 1 to MAX_CORES."""
        return whole(self._environ.get(name, ""), MAX_CORES)

    def file(self, name: str) -> str:
        """The text of the file that the variable names; "" if there is none."""
        path = self._environ.get(name)
        return self._read(path) if path else ""

    def called(self, scheduler: str, *names: str) -> str:
        """Scheduler and number."""
        number = next((value for name in names if (value := self._environ.get(name))), "")
        return f"{scheduler} job {in_short(number)}".rstrip()

    def here(self, job: str, slots: Mapping[str, int], source: str) -> Share:
        """This host's share, if the slots of each host are known. If none has our name, this is the first
        one, on which the job's script runs."""
        ours = next((host for host in slots if self._is_this_host(host)), next(iter(slots)))
        return Share(job, slots[ours], source, len(slots) - 1)

    def _is_this_host(self, host: str) -> bool:
        short = self.machine.hostname.partition(".")[0].lower()
        return host.partition(".")[0].lower() == short


def share_of_job(environ: Mapping[str, str], machine: Machine, read: Callable[[str], str]) -> Share | None:
    """The share of the job that we are in; None: we are in none. `read(path)`: the text of a file, or ""."""
    job = _Job(environ, machine, read)
    if job.has("JOB_ID") and job.has("SGE_ROOT", "SGE_TASK_ID", "NSLOTS"):
        return _of_grid_engine(job)
    if job.has("LSB_JOBID"):
        return _of_lsf(job)
    if job.has("PBS_JOBID", "PBS_ENVIRONMENT"):
        return _of_pbs(job)
    if job.has("OAR_JOB_ID", "OAR_NODEFILE"):
        name = job.called("OAR", "OAR_JOB_ID")
        slots = Counter(job.file("OAR_NODEFILE").split())
        return job.here(name, slots, "OAR_NODEFILE") if slots else Share(name, None)
    if job.has("_CONDOR_MACHINE_AD"):
        found = _CONDOR_CPUS.search(job.file("_CONDOR_MACHINE_AD"))
        return Share("HTCondor job", whole(found[1], MAX_CORES) if found else None, "_CONDOR_MACHINE_AD")
    if job.has("FLUX_JOB_ID", "FLUX_ENCLOSING_ID"):
        name = job.called("Flux", "FLUX_JOB_ID", "FLUX_ENCLOSING_ID")
        others = (job.whole("FLUX_JOB_NNODES") or 1) - 1
        return Share(name, machine.cores, "those that we are bound to", others)
    if job.has("COBALT_JOBID"):
        name = job.called("Cobalt", "COBALT_JOBID")
        hosts = len(set(job.file("COBALT_NODEFILE").split())) or 1
        return Share(name, machine.cores, "it has whole hosts", hosts - 1)
    return None


def _of_grid_engine(job: _Job) -> Share:
    """A line of PE_HOSTFILE is `HOST SLOTS QUEUE PROCESSORS`; a host may have a line for each queue. Without
    a parallel environment there is no such file, and one slot."""
    name = job.called("Grid Engine", "JOB_ID")
    slots: Counter[str] = Counter()
    for line in job.file("PE_HOSTFILE").splitlines():
        words = line.split()
        if len(words) > 1 and (count := whole(words[1], MAX_CORES)):
            slots[words[0]] += count
    if slots:
        return job.here(name, slots, "PE_HOSTFILE")
    hosts, total = job.whole("NHOSTS"), job.whole("NSLOTS")
    return Share(name, total if 1 in (hosts, total) else None, "NSLOTS", (hosts or 1) - 1)


def _of_lsf(job: _Job) -> Share:
    """LSB_MCPU_HOSTS is `HOST SLOTS HOST SLOTS ...`; other variables name a host once for each slot."""
    name = job.called("LSF", "LSB_JOBID")
    words = job.words("LSB_MCPU_HOSTS")
    slots: Counter[str] = Counter()
    for host, count in zip(words[::2], words[1::2], strict=False):
        slots[host] += whole(count, MAX_CORES) or 0
    if slots.total():
        return job.here(name, +slots, "LSB_MCPU_HOSTS")
    named = {"LSB_DJOB_HOSTFILE": job.file("LSB_DJOB_HOSTFILE").split(), "LSB_HOSTS": job.words("LSB_HOSTS")}
    for source, hosts in named.items():
        if hosts:
            return job.here(name, Counter(hosts), source)
    return Share(name, 1 if job.whole("LSB_DJOB_NUMPROC") == 1 else None, "LSB_DJOB_NUMPROC")


def _of_pbs(job: _Job) -> Share:
    """In Torque, PBS_NODEFILE has a line for each core. In PBS Pro and OpenPBS, NCPUS is the number of cores
    on the job's first host."""
    name = job.called("PBS", "PBS_JOBID")
    lines = Counter(job.file("PBS_NODEFILE").split())
    others = max(len(lines) - 1, 0)
    if job.has("PBS_NUM_PPN") or any(word.startswith("TORQUE") for word in job.words("PBS_VERSION")):
        if lines:
            return job.here(name, lines, "PBS_NODEFILE")
        return Share(name, job.whole("PBS_NUM_PPN"), "PBS_NUM_PPN")
    return Share(name, job.whole("NCPUS"), "NCPUS", others)
