"""The plan under random histories: whatever happens in whatever order, the rules of `World` hold."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from plan_world import FakeEngine, World

from disbatch.model.task import Ending, Phase
from disbatch.plan.events import Cancel, Drain, Finished, Hold, Interrupt, Resume, Stop
from disbatch.plan.plan import Mode, Plan

pick = st.integers(0, 99)
kinds = st.lists(
    st.sampled_from(["task"] * 10 + ["wide"] * 3 + ["barrier", "check", "failed", "succeeded"]),
    min_size=1,
    max_size=14,
)
MOVES = ["to", "from", "to", "from", "both", "both", "finish", "finish", "finish", "finish", "short"]
MOVES_AND_FAILURES = [*MOVES, "fail"]
NETWORK = ["cut", "lose", "lose", "lose", "die", "come back", "come back", "come back", "come back"]
ODDITIES = ["unstarted", "unstarted", "repeat", "straggle", "drain", "stop", "stop at once", "evict"]
USER = ["hold", "resume", "resume", "cancel", "cancel", "end", "broken", "interrupt", "kill"]
moves = st.lists(st.tuples(st.sampled_from(MOVES_AND_FAILURES), pick), max_size=10)
"""What goes on all the time: messages arrive, tasks end. Every rule ends with some of it."""


class PlanMachine(RuleBasedStateMachine):
    """Each rule is something that can happen to a run; `teardown` heals the world and runs it to its end."""

    world: World
    harmless: bool
    """No engine was lost, or made to leave but by being given back when it was spare."""

    @initialize(
        max_losses=st.integers(0, 2),
        fail_fast=st.sampled_from([False, False, False, True]),
        limit=st.sampled_from([None, None, 0, 1, 4]),
        first=st.lists(st.sampled_from(["start", "stop"]), max_size=2),
        slots=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        items=st.just([]) | st.integers(1, 12).map(lambda n: ["task"] * n),
    )
    def begin(
        self,
        max_losses: int,
        fail_fast: bool,
        limit: int | None,
        first: list[str],
        slots: list[int],
        items: list[str],
    ) -> None:
        self.harmless = bool(slots)
        limits = {} if limit is None else {"limited": limit}
        plan = Plan(max_losses=max_losses, fail_fast=fail_fast, limits=limits)
        self.world = World(plan, max_losses=max_losses)
        self.world.offer(*first)
        for count in slots:
            self.world.join(count)
        self.world.offer(*items)
        self.world.pump()
        self.world.deliver_all()

    def one(self, number: int, *, connected: bool | None = None) -> FakeEngine | None:
        """One of the engines that live."""
        fitting = [
            e
            for e in self.world.engines.values()
            if e.alive and (connected is None or e.connected == connected)
        ]
        return fitting[number % len(fitting)] if fitting else None

    def live(self, steps: list[tuple[str, int]]) -> None:
        """Perform such `moves`."""
        world = self.world
        for what, number in steps:
            names = list(world.engines)
            if not names:
                return
            name = names[number % len(names)]
            if what in ("to", "both"):
                world.deliver_to(name)
            if what in ("from", "both"):
                world.deliver_from(name)
            if what in ("finish", "fail"):
                world.finish_some(name, 1 + number % 2, int(what == "fail"))
            if what == "short" and name in world.plan.engines:  # it learns to queue
                engine = world.plan.engines[name]
                engine.learn(0.05)
                world.plan.board.rotation.touch(engine)

    # ---- what can happen ----

    @rule(steps=moves)
    def go_on(self, steps: list[tuple[str, int]]) -> None:
        self.live(steps)

    @rule()
    def all_arrives(self) -> None:
        self.world.deliver_all()

    @rule(items=kinds | st.sampled_from([["start"], ["stop"]]), steps=moves)
    def more(self, items: list[str], steps: list[tuple[str, int]]) -> None:
        command = items[0] in ("start", "stop")  # these stand before all else
        self.harmless &= "wide" not in items  # an engine of one slot is not enough for these
        if not self.world.ended and not (command and self.world.next_id):
            self.world.offer(*items)
            self.world.pump()
        self.live(steps)

    @rule(slots=st.integers(1, 3), context=st.sampled_from(["", "", "limited"]), steps=moves)
    def join(self, slots: int, context: str, steps: list[tuple[str, int]]) -> None:
        if len(self.world.engines) < 6:
            self.world.join(slots, context)
        self.live(steps)

    @rule(what=st.sampled_from(NETWORK), number=pick, steps=moves)
    def network(self, what: str, number: int, steps: list[tuple[str, int]]) -> None:
        world = self.world
        if what == "cut" and (engine := self.one(number, connected=True)):
            engine.connected = False
        if what in ("lose", "die") and (engine := self.one(number)):
            self.harmless = False
            engine.alive = what == "lose"
            world.lose(engine.name)
        self.live(steps)
        if what == "come back" and (engine := self.one(number, connected=False)):
            world.come_back(engine.name)

    @rule(number=pick, steps=moves)
    def give_back(self, number: int, steps: list[tuple[str, int]]) -> None:
        spare = self.world.plan.spare
        if spare:
            self.world.feed(Drain(spare[number % len(spare)]))
        self.live(steps)

    @rule(what=st.sampled_from(ODDITIES), number=pick, steps=moves)
    def oddity(self, what: str, number: int, steps: list[tuple[str, int]]) -> None:
        world = self.world
        engine = self.one(number)
        if engine is None:
            return
        name = engine.name
        self.harmless &= what not in ("drain", "stop", "stop at once", "evict")
        if what == "unstarted" and engine.running and not engine.stopping:
            engine.finish(engine.running[-1], -1, Ending.UNSTARTED)
        elif what == "repeat" and engine.told and engine.connected:
            world.feed(Finished(name, engine.told[-3:]))
        elif what == "straggle" and engine.outbox and isinstance(engine.outbox[0], Finished):
            engine.connected, was = name in world.plan.engines, engine.connected
            world.deliver_from(name)  # lost or not, it was on its way
            engine.connected = was
        elif what == "drain":
            world.feed(Drain(name))
        elif what in ("stop", "stop at once"):
            world.feed(Stop(name, at_once=what == "stop at once"))
        elif what == "evict":
            engine.evicted = True
            engine.stop()
        self.live(steps)

    @rule(what=st.sampled_from(USER), sure=pick, steps=moves)
    def user(self, what: str, sure: int, steps: list[tuple[str, int]]) -> None:
        world = self.world
        if what in ("hold", "resume"):
            world.feed(Hold() if what == "hold" else Resume())
        elif what == "cancel":
            world.feed(Cancel([(sure % (world.next_id + 2), sure % (world.next_id + 2) + sure % 3)]))
        elif sure < 80 and world.plan.mode is Mode.RUNNING:
            pass  # most runs shall go on
        elif what in ("interrupt", "kill"):
            world.feed(Interrupt(at_once=what == "kill"))
        elif world.engines and not world.ended:
            world.ended = True
            world.broken = what == "broken"
            world.pump()
        self.live(steps)

    @rule(late=st.sets(pick, max_size=2), sure=pick, steps=moves)
    def kill_driver(self, late: set[int], sure: int, steps: list[tuple[str, int]]) -> None:
        """... and another one takes the run over, in the middle of whatever."""
        world = self.world
        if sure % 3 == 0 and world.finish is None and world.generation < 4:
            names = list(world.engines)
            apart = {names[number % len(names)] for number in late if names}
            self.harmless &= not apart and world.plan.mode is Mode.RUNNING
            world.restart(apart)
        self.live(steps)

    # ---- what holds ----

    @invariant()
    def no_slot_idles(self) -> None:
        if hasattr(self, "world"):
            self.world.check_busy()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.run_to_end()
        assert world.finish is world.log[-1]
        assert world.plan.mode is Mode.OVER
        assert not (self.harmless and world.added), "an engine was given back that was needed"
        for name, engine in world.engines.items():
            if engine.evicted or name in world.ever_lost or world.at_once or name not in world.released:
                continue
            if name in world.stopped_at_once:
                continue
            stops = {i for phase, i in world.commands_done.get(name, []) if phase is Phase.STOP}
            assert stops == world.stops_due[name]


TestPlan = PlanMachine.TestCase
TestPlan.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def long_history(seed: int, steps: int, kinds: list[str]) -> PlanMachine:
    """One long run with the same rules, each as likely as it is in a bad week; tasks are of these kinds."""
    random = Random(seed)
    machine = PlanMachine()
    usual_moves = random.choice([MOVES, MOVES_AND_FAILURES])

    def some_moves(most: int) -> list[tuple[str, int]]:
        return [(random.choice(usual_moves), random.randrange(100)) for _ in range(random.randrange(most))]

    machine.begin(
        max_losses=random.choice([0, 1, 3]),
        fail_fast=random.random() < 0.1,
        limit=random.choice([None, 1, 4]),
        first=random.choices(["start", "stop"], k=random.randrange(3)),
        slots=[random.randint(1, 3) for _ in range(random.randint(0, 3))],
        items=[] if random.random() < 0.2 else ["task"] * random.randint(1, 12),
    )
    for _ in range(steps):
        number, what = random.randrange(100), random.random()
        if what < 0.45:
            machine.go_on(some_moves(12))
        elif what < 0.52:
            machine.all_arrives()
        elif what < 0.64:
            last = random.choice([[], [], ["barrier"], ["barrier"], ["succeeded"], ["check"]])
            usual = random.choices(kinds, k=random.randint(1, 9)) + last
            machine.more(random.choice([usual, usual, usual, ["start"]]), some_moves(4))
        elif what < 0.69:
            machine.join(random.randint(1, 3), random.choice(["", "limited"]), some_moves(4))
        elif what < 0.83:
            machine.network(random.choice(NETWORK), number, some_moves(6))
        elif what < 0.86:
            machine.kill_driver(set(random.choices(range(100), k=random.randrange(3))), number, some_moves(6))
        elif what < 0.95:
            machine.oddity(random.choice(ODDITIES), number, some_moves(4))
            machine.give_back(number, some_moves(2))
        else:
            machine.user(random.choice(["hold", "resume", "resume", *USER]), number, some_moves(4))
        machine.no_slot_idles()
    machine.teardown()
    return machine


@pytest.mark.parametrize("seed", range(150))
def test_long_histories(seed: int) -> None:
    machine = long_history(seed, 80, ["task"])
    assert machine.world.finish is not None


@pytest.mark.parametrize("seed", range(150))
def test_long_histories_with_two_classes_of_demand(seed: int) -> None:
    machine = long_history(seed, 80, ["task", "task", "wide"])
    assert machine.world.finish is not None


@pytest.mark.parametrize("seed", range(40))
def test_the_rest_is_enough_when_spare_engines_are_given_back(seed: int) -> None:
    """Whenever spare engines go, and however many: what is left runs all that there is."""
    random = Random(seed)
    machine = PlanMachine()
    machine.begin(
        max_losses=1,
        fail_fast=False,
        limit=None,
        first=[],
        slots=[random.randint(1, 3) for _ in range(random.randint(2, 5))],
        items=["task"] * random.randint(1, 12) + ["barrier", "task", "task"] * random.randrange(2),
    )
    world = machine.world
    world.ended = random.random() < 0.8
    world.pump()
    before = len(world.plan.engines)
    for _ in range(60):
        machine.go_on([(random.choice([*MOVES, "fail"]), random.randrange(100)) for _ in range(3)])
        machine.give_back(random.randrange(100), [])
        machine.no_slot_idles()
    assert machine.harmless
    machine.teardown()
    assert world.added == 0 and len(world.engines) == before
