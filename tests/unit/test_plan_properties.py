"""The plan under random histories: whatever happens in whatever order, the rules of `World` hold."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from disbatch.model.outcome import Ending
from disbatch.model.task import Phase
from disbatch.plan.events import Drain, Finished, Hold, Interrupt, Resume
from disbatch.plan.plan import Mode, Plan
from plan_world import FakeEngine, World

pick = st.integers(0, 99)
item_kinds = st.lists(
    st.sampled_from(["task"] * 12 + ["barrier", "check", "failed", "succeeded"]), min_size=1, max_size=14
)


class PlanMachine(RuleBasedStateMachine):
    """Each rule is something that can happen to a run; `teardown` heals the world and runs it to its end."""

    world: World

    @initialize(
        max_losses=st.integers(0, 2),
        fail_fast=st.sampled_from([False, False, True]),
        give_back=st.booleans(),
        limit=st.sampled_from([None, None, 0, 1, 4]),
        commands=st.lists(st.sampled_from(["start", "stop"]), max_size=3),
        first=st.just([]) | item_kinds,
    )
    def begin(
        self,
        max_losses: int,
        fail_fast: bool,
        give_back: bool,
        limit: int | None,
        commands: list[str],
        first: list[str],
    ) -> None:
        limits = {} if limit is None else {"limited": limit}
        plan = Plan(max_losses=max_losses, fail_fast=fail_fast, give_back=give_back, limits=limits)
        self.world = World(plan, max_losses=max_losses)
        self.world.offer(*commands, *first)

    def one(self, number: int, *, alive: bool = True, connected: bool | None = None) -> FakeEngine | None:
        """One of the engines that are as asked for."""
        fitting = [
            e
            for e in self.world.engines.values()
            if e.alive == alive and (connected is None or e.connected == connected)
        ]
        return fitting[number % len(fitting)] if fitting else None

    # ---- the source ----

    @rule(kinds=item_kinds)
    def more(self, kinds: list[str]) -> None:
        if not self.world.ended:
            self.world.offer(*kinds)
            self.world.pump()

    @rule(kind=st.sampled_from(["start", "stop"]))
    def a_command(self, kind: str) -> None:
        """PERENGINE commands stand before all else; engines may be there already."""
        if self.world.next_id == 0 and not self.world.ended:
            self.world.offer(kind)
            self.world.pump()

    @rule(broken=st.sampled_from([False, False, False, True]))
    def source_ends(self, broken: bool) -> None:
        if self.world.engines and not self.world.ended:
            self.world.ended = True
            self.world.broken = broken
            self.world.pump()

    # ---- engines ----

    @rule(slots=st.integers(1, 3), context=st.sampled_from(["", "", "limited"]))
    def join(self, slots: int, context: str) -> None:
        if len(self.world.engines) < 6:
            self.world.join(slots, context)

    @rule(number=pick, count=st.integers(1, 4))
    def deliver_to(self, number: int, count: int) -> None:
        if engine := self.one(number):
            for _ in range(count):
                self.world.deliver_to(engine.name)

    @rule(number=pick, count=st.integers(1, 4))
    def deliver_from(self, number: int, count: int) -> None:
        if engine := self.one(number, alive=number % 5 != 0, connected=True):
            for _ in range(count):
                self.world.deliver_from(engine.name)

    @rule()
    def deliver_all(self) -> None:
        self.world.deliver_all()

    @rule(number=pick, count=st.integers(1, 3), code=st.sampled_from([0, 0, 0, 0, 1]))
    def some_finish(self, number: int, count: int, code: int) -> None:
        if engine := self.one(number):
            self.world.finish_some(engine.name, count, code)

    @rule(number=pick)
    def short_tasks(self, number: int) -> None:
        """The plan learns that tasks are short: queues from now on."""
        if (engine := self.one(number)) and engine.name in self.world.plan.engines:
            known = self.world.plan.engines[engine.name]
            known.learn(0.05)
            self.world.plan._touch(known)

    @rule(number=pick)
    def unstarted(self, number: int) -> None:
        engine = self.one(number)
        if engine and engine.running and not engine.stopping:
            engine.finish(engine.running[-1], -1, Ending.UNSTARTED)

    @rule(number=pick)
    def repeat(self, number: int) -> None:
        """What was delivered is delivered again."""
        engine = self.one(number, connected=True)
        if engine and engine.told:
            self.world.feed(Finished(engine.name, engine.told[-3:]))

    @rule(number=pick)
    def drain(self, number: int) -> None:
        if engine := self.one(number):
            self.world.may_leave_early.add(engine.name)
            self.world.feed(Drain(engine.name))

    @rule(number=pick)
    def node_stops_it(self, number: int) -> None:
        if engine := self.one(number):
            engine.evicted = True
            engine.stop()

    @rule(number=pick)
    def cut(self, number: int) -> None:
        if engine := self.one(number, connected=True):
            engine.connected = False

    @rule(number=pick, dies=st.booleans())
    def lose(self, number: int, dies: bool) -> None:
        if engine := self.one(number):
            engine.alive = not dies
            self.world.lose(engine.name)

    @rule(number=pick)
    def come_back(self, number: int) -> None:
        if engine := self.one(number, connected=False):
            self.world.come_back(engine.name)

    # ---- the user ----

    @rule(held=st.booleans())
    def hold(self, held: bool) -> None:
        self.world.feed(Hold() if held else Resume())

    @rule(number=pick, at_once=st.booleans())
    def interrupt(self, number: int, at_once: bool) -> None:
        if number % 4 == 0:
            self.world.feed(Interrupt(at_once))

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
        for name, engine in world.engines.items():
            if engine.evicted or name in world.ever_lost or world.at_once or name not in world.released:
                continue
            stops = {i for phase, i in world.commands_done.get(name, []) if phase is Phase.STOP}
            assert stops == world.stops_due[name]


TestPlan = PlanMachine.TestCase
TestPlan.settings = settings(
    max_examples=400, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
