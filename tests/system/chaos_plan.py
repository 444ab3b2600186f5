"""What a seed means: the tasks of a run, its options, and what is done to it, in which order."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass, field

TASKS = 200
QUICK = ["--heartbeat", "0.5", "--patience", "2.5", "--grace", "1"]
TUNNEL = "--tunnel"
ORPHAN_PATIENCE = 6.0
"""Long enough for a driver to be replaced on a slow machine, short enough to wait for."""


class Flavour(enum.Enum):
    """Where the engines are."""

    LOCAL = "local"
    SSH = "ssh"


class Deed(enum.Enum):
    """What is done. Whom it befalls is chosen, by `Step.pick`, among those that are there at that moment."""

    KILL_DRIVER = enum.auto()
    HALT_DRIVER = enum.auto()
    KILL_ENGINE = enum.auto()
    HALT_ENGINE = enum.auto()
    TERMINATE_ENGINE = enum.auto()
    KILL_KEEPER = enum.auto()
    HALT_KEEPER = enum.auto()
    KILL_TASK = enum.auto()
    HALT_TASK = enum.auto()
    KILL_ATTACH = enum.auto()
    HALT_ATTACH = enum.auto()
    INTERRUPT_ATTACH = enum.auto()
    KILL_NODE = enum.auto()
    """All that an engine has there at once, as when a computer loses power."""
    RELEASE = enum.auto()
    """SIGCONT for what was halted first."""
    CUT = enum.auto()
    HEAL = enum.auto()
    RESET = enum.auto()
    """All connections to a host break, with what was on its way in them."""
    ATTACH = enum.auto()
    ATTACH_FROM_NODE = enum.auto()
    """By a command on that node, to a driver that is on the head."""
    DRAIN = enum.auto()
    STOP = enum.auto()
    PAUSE = enum.auto()
    UNPAUSE = enum.auto()
    CANCEL = enum.auto()
    FINISH = enum.auto()
    SECOND_DRIVER = enum.auto()
    """Which must be refused."""
    TAKE_OVER = enum.auto()
    RESUME = enum.auto()
    """-r instead of taking the run over."""


class Until(enum.Enum):
    """What a step waits for, as long as anything happens at all."""

    STARTS = enum.auto()
    """So many more tasks have started: `Step.count`."""
    LOST = enum.auto()
    """The driver has given up an engine."""
    GONE = enum.auto()
    """No engine is left."""


@dataclass(frozen=True)
class Step:
    """Wait, then do it. `pick` in [0, 1) chooses whom; `words` are for a command."""

    deed: Deed
    until: Until
    count: int
    pick: float
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        when = f"{self.count} starts" if self.until is Until.STARTS else self.until.name.lower()
        return f"after {when}: {self.deed.name.lower()} {' '.join(self.words)}({self.pick:.3f})"


@dataclass(frozen=True)
class Plan:
    """`options`: of the whole run; `contexts`: where its first and each later life takes its slots."""

    flavour: Flavour
    seed: int
    lines: list[str]
    options: list[str]
    contexts: list[list[str]]
    steps: list[Step] = field(default_factory=list)

    @property
    def barriers(self) -> list[int]:
        """The ids that are barriers."""
        directives = ("#DISBATCH PREFIX", "#DISBATCH SUFFIX", "#DISBATCH PERENGINE")
        counted = [line for line in self.lines if not line.startswith(directives)]
        return [id for id, line in enumerate(counted) if line.startswith("#DISBATCH BARRIER")]

    @property
    def first_line(self) -> int:
        """Of the task file, that has an id."""
        return len(COMMANDS) + 1

    @property
    def tunnel(self) -> list[str]:
        """What goes with nodes that are added: the driver may have no port."""
        return [TUNNEL] if TUNNEL in self.options else []

    @property
    def ids(self) -> int:
        """Of tasks and barriers."""
        return TASKS + len(self.barriers)


# How often what happens, and what follows it a few steps later.
_COMMON = {
    Deed.KILL_DRIVER: 9,
    Deed.HALT_DRIVER: 2,
    Deed.KILL_ENGINE: 5,
    Deed.HALT_ENGINE: 3,
    Deed.TERMINATE_ENGINE: 2,
    Deed.KILL_KEEPER: 3,
    Deed.HALT_KEEPER: 1,
    Deed.KILL_TASK: 4,
    Deed.HALT_TASK: 2,
    Deed.KILL_ATTACH: 2,
    Deed.HALT_ATTACH: 1,
    Deed.INTERRUPT_ATTACH: 2,
    Deed.KILL_NODE: 2,
    Deed.ATTACH: 9,
    Deed.DRAIN: 2,
    Deed.STOP: 4,
    Deed.PAUSE: 2,
    Deed.CANCEL: 4,
    Deed.FINISH: 1,
    Deed.SECOND_DRIVER: 2,
}
WEIGHTS = {
    Flavour.LOCAL: _COMMON,
    Flavour.SSH: _COMMON | {Deed.CUT: 9, Deed.RESET: 4, Deed.ATTACH_FROM_NODE: 3},
}
FOLLOWED = {
    Deed.HALT_DRIVER: Deed.RELEASE,
    Deed.HALT_ENGINE: Deed.RELEASE,
    Deed.HALT_KEEPER: Deed.RELEASE,
    Deed.HALT_TASK: Deed.RELEASE,
    Deed.HALT_ATTACH: Deed.RELEASE,
    Deed.CUT: Deed.HEAL,
    Deed.PAUSE: Deed.UNPAUSE,
}
CONTEXTS = {
    Flavour.LOCAL: [["localhost:4"], ["localhost:2", "HERE:2"], ["localhost:3", "HERE:1"]],
    Flavour.SSH: [
        ["nodeA:2", "nodeB:2"],
        ["nodeA:3", "nodeB:1", "localhost:1"],
        ["nodeA:2", "nodeB:1", "nodeC:2"],
    ],
}
ATTACHED = {
    Flavour.LOCAL: [["localhost:2"], ["HERE:1"], ["localhost:1", "HERE:1"]],
    Flavour.SSH: [
        ["nodeC:2"],
        ["nodeC:1", "nodeD:2"],
        ["localhost:2"],
        ["nodeA:1"],
        ["nodeD:2", "localhost:1"],
    ],
}

# Each task says in one write that it starts, and in another one that it has come to its end.
SAY = 'echo "{} $DISBATCH_TASKID $DISBATCH_ENGINE $HOSTNAME $$ $EPOCHREALTIME" >> lines'
STARTS, ENDS = SAY.format("S"), SAY.format("E")
COMMANDS = [f"#DISBATCH PERENGINE START {SAY.format('A')}", f"#DISBATCH PERENGINE STOP {SAY.format('Z')}"]


def make_plan(flavour: Flavour, seed: int, here: str) -> Plan:
    """The plan of a seed; `here` is this machine's name."""
    chance = random.Random(f"{flavour.value} {seed}")
    contexts = [_context(chance, CONTEXTS[flavour], here) for _ in range(20)]
    options = [*QUICK, "--orphan-patience", f"{ORPHAN_PATIENCE:g}"]
    options += ["--max-losses", str(chance.choice([1, 3, 30, 30, 30]))]
    if chance.random() < 0.3:
        options += ["--wait-for-engines", "20"]
    if flavour is Flavour.SSH and chance.random() < 0.3:
        options.append(TUNNEL)
    plan = Plan(flavour, seed, _lines(chance), options, contexts)
    plan.steps.extend(_steps(chance, plan, here))
    if chance.random() < 0.15 and not plan.tunnel:
        contexts[0][:] = ["-S"]
        plan.steps.insert(0, Step(Deed.ATTACH, Until.STARTS, 0, 0.0, _attach(chance, plan, here)))
    return plan


def _context(chance: random.Random, choices: list[list[str]], here: str) -> list[str]:
    words = ["-s", ",".join(chance.choice(choices)).replace("HERE", here)]
    if chance.random() < 0.15:
        words += ["-C", str(chance.randint(5, 100))]
    if chance.random() < 0.3:
        words += ["--label", "first"]
    return words


def _lines(chance: random.Random) -> list[str]:
    lines = [_task(chance) for _ in range(TASKS)]
    for _ in range(chance.choice([0, 1, 2])):
        lines.insert(chance.randrange(1, len(lines)), "#DISBATCH BARRIER")
    return [*COMMANDS, *lines]


def _task(chance: random.Random) -> str:
    seconds = (
        chance.choice([0.01, 0.03, 0.05, 0.1, 0.1, 0.2])
        if chance.random() < 0.95
        else chance.uniform(0.6, 2.2)
    )
    before = {0: "trap '' TERM; ", 1: "sleep 900 & ", 2: "setsid sleep 900 & "}.get(chance.randrange(40), "")
    return f"{before}{STARTS}; sleep {seconds:.2f}; {ENDS}"


def _attach(chance: random.Random, plan: Plan, here: str) -> tuple[str, ...]:
    words = ["-s", ",".join(chance.choice(ATTACHED[plan.flavour])).replace("HERE", here), *plan.tunnel]
    if chance.random() < 0.4:
        words += ["-C", str(chance.randint(1, 20))]
    if chance.random() < 0.6:
        words += ["--label", chance.choice(["x", "y"])]
    return tuple(words)


def _steps(chance: random.Random, plan: Plan, here: str) -> list[Step]:
    """About a dozen deeds; some follow at once on the one before, others leave the run time."""
    deeds, weights = zip(*WEIGHTS[plan.flavour].items(), strict=True)
    steps: list[Step] = []
    later: list[tuple[int, Deed]] = []
    wanted = chance.randint(8, 14)
    while len(steps) < wanted or later:
        due = [each for each in later if each[0] <= len(steps)]
        if due:
            later.remove(due[0])
            deed = due[0][1]
        else:
            deed = chance.choices(deeds, weights)[0]
        steps.append(_step(chance, plan, deed, here))
        if deed is Deed.KILL_DRIVER:
            back = Deed.RESUME if chance.random() < 0.15 else Deed.TAKE_OVER
            later.append((len(steps) + chance.choice([0, 0, 1, 2]), back))
        elif deed in FOLLOWED:
            later.append((len(steps) + chance.choice([0, 1, 1, 2, 3]), FOLLOWED[deed]))
    return steps


def _step(chance: random.Random, plan: Plan, deed: Deed, here: str) -> Step:
    until, count = Until.STARTS, chance.choice([0, 1, 2, 5, 10, 20, 30])
    if deed in (Deed.RELEASE, Deed.HEAL) and chance.random() < 0.5:
        until = Until.LOST
    if deed in (Deed.TAKE_OVER, Deed.RESUME) and chance.random() < 0.15:
        until = Until.GONE
    return Step(deed, until, count, chance.random(), _words(chance, plan, deed, here))


def _words(chance: random.Random, plan: Plan, deed: Deed, here: str) -> tuple[str, ...]:
    makers: dict[Deed, Callable[[], tuple[str, ...]]] = {
        Deed.ATTACH: lambda: _attach(chance, plan, here),
        Deed.ATTACH_FROM_NODE: lambda: (chance.choice(["nodeC", "nodeD"]), "-s", "localhost:1", *plan.tunnel),
        Deed.CANCEL: lambda: _ids(chance, plan.ids),
        Deed.SECOND_DRIVER: lambda: (chance.choice(["--takeover", "-r"]),),
    }
    return makers[deed]() if deed in makers else ()


def _ids(chance: random.Random, ids: int) -> tuple[str, ...]:
    first = chance.randrange(ids)
    return (f"{first}-{min(ids - 1, first + chance.choice([0, 0, 2, 9]))}",)
