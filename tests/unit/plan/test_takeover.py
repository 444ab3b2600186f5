"""A plan that takes a run over, in random worlds: whenever the driver is killed, whoever comes back and when,
each task is recorded once, and what runs on an engine that came in time is not given to another."""

from __future__ import annotations

from random import Random

import pytest
from plan_world import ATTEMPTS, World, barrier, outcome, task

from disbatch.model.task import Ending, PerEngine, Phase, Task
from disbatch.plan.capacity import Capacity
from disbatch.plan.events import (
    Action,
    Assign,
    AssignPerEngine,
    Conclusion,
    CountRecorded,
    End,
    Finish,
    Finished,
    Heard,
    Hold,
    Interrupt,
    Joined,
    Left,
    Lost,
    Past,
    Read,
    Recorded,
    RecordPerEngine,
    RecordTask,
    Release,
    Resume,
    Returned,
    SourceEnded,
    Verdict,
)
from disbatch.plan.plan import Mode, Plan


def some_life(world: World, random: Random, steps: int) -> None:
    for _ in range(steps):
        names = list(world.engines)
        name = random.choice(names)
        move = random.choice(["to", "from", "to", "from", "finish", "all"])
        if move == "to":
            world.deliver_to(name)
        elif move == "from":
            world.deliver_from(name)
        elif move == "finish":
            world.finish_some(name, random.randint(1, 2), int(random.random() < 0.2))
        else:
            world.deliver_all()


@pytest.mark.parametrize("seed", range(200))
def test_random_restarts(seed: int) -> None:
    random = Random(seed)
    world = World(Plan())
    world.offer(*random.choices(["start", "stop"], k=random.randrange(3)))
    for _ in range(random.randint(1, 4)):
        world.join(random.randint(1, 3))
    for _ in range(random.randint(1, 5)):
        world.offer(*["task"] * random.randint(1, 6), *random.choice([[], ["barrier"], ["succeeded"]]))
    world.ended = random.random() < 0.5
    world.pump()
    for _ in range(1, random.randint(2, 4)):
        some_life(world, random, random.randrange(60))
        if world.finish is not None:
            return
        late = {name for name in world.engines if random.random() < 0.25}
        world.restart(late)
        for name in late:
            some_life(world, random, random.randrange(6))
            if world.engines[name].alive and not world.engines[name].connected:
                world.come_back(name)
    some_life(world, random, 30)
    world.run_to_end()
    assert world.done == world.all_tasks


def next_plan() -> Plan:
    plan = Plan(first_attempt=ATTEMPTS)
    plan.handle(Hold())
    return plan


def come(plan: Plan, engine: str, tasks: dict[int, int], slots: int = 2) -> list[Action]:
    return plan.handle(Joined(engine, Capacity(slots), list(tasks), past=Past(tasks, {})))


def read(plan: Plan, *items: Task | Recorded) -> list[Action]:
    return plan.handle(Resume()) + plan.handle(Read(list(items)))


def test_result_waits_for_its_task() -> None:
    plan = next_plan()
    come(plan, "e", {7: 0})
    assert plan.handle(Finished("e", [outcome(7)])) == []
    assert plan.keeps("e")
    assert read(plan, task(0)) == [RecordTask("e", task(0), outcome(7), Verdict.COUNTS)]
    assert not plan.keeps("e")


def test_result_that_is_recorded_already() -> None:
    plan = next_plan()
    come(plan, "e", {7: 0})
    plan.handle(Finished("e", [outcome(7)]))
    done = Recorded(task(0), False, None)
    assert read(plan, done) == [CountRecorded(done)]
    assert not plan.keeps("e") and plan.live == 0


def test_of_two_claims_the_later_attempt_is_valid() -> None:
    plan = next_plan()
    assert come(plan, "new", {9: 0}) == []
    assert come(plan, "old", {7: 0}) == [End("old", [7])]
    assert read(plan, task(0)) == []
    assert plan.engines["new"].assigned == {9: task(0)}

    plan = next_plan()
    assert come(plan, "old", {7: 0}) == []
    assert come(plan, "new", {9: 0}) == [End("old", [7])]
    assert read(plan, task(0)) == []
    assert plan.engines["new"].assigned == {9: task(0)} and not plan.engines["old"].assigned


def test_engine_that_comes_late_has_its_task_back() -> None:
    plan = next_plan()
    come(plan, "there", {})
    assert read(plan, task(0)) == [Assign("there", [(ATTEMPTS, task(0))])]
    assert come(plan, "late", {7: 0}) == [End("there", [ATTEMPTS])]
    assert plan.handle(Finished("late", [outcome(7)])) == [
        RecordTask("late", task(0), outcome(7), Verdict.COUNTS)
    ]
    assert plan.handle(Finished("there", [outcome(ATTEMPTS)])) == [
        RecordTask("there", task(0), outcome(ATTEMPTS), Verdict.SUPERSEDED)
    ]


def test_engine_that_comes_late_with_what_is_done() -> None:
    plan = next_plan()
    come(plan, "there", {})
    read(plan, task(0))
    plan.handle(Finished("there", [outcome(ATTEMPTS)]))
    assert come(plan, "late", {7: 0}) == [End("late", [7])]
    assert plan.handle(Finished("late", [outcome(7)])) == []


def test_commands_of_a_former_driver_do_not_run_again() -> None:
    plan = next_plan()
    first, second = PerEngine(0, 1, Phase.START, b":"), PerEngine(1, 2, Phase.START, b":")
    past = Past({}, {(Phase.START, 0): None, (Phase.START, 1): 5})
    plan.handle(Joined("e", Capacity(1), [5], past=past))
    assert plan.handle(Resume()) + plan.handle(Read([first, second, task(0)])) == []
    assert plan.handle(Finished("e", [outcome(5)])) == [
        RecordPerEngine("e", second, outcome(5)),
        Assign("e", [(ATTEMPTS, task(0))]),
    ]


def test_claim_to_a_task_that_is_not_there() -> None:
    plan = next_plan()
    come(plan, "e", {7: 99})
    read(plan, task(0))
    assert plan.handle(SourceEnded()) == [End("e", [7])]


def test_engine_that_comes_late_with_two_attempts_of_a_task() -> None:
    """The first could not be started, and nobody acknowledged that."""
    plan = next_plan()
    read(plan, task(0))
    assert come(plan, "e", {7: 0, 9: 0}) == [End("e", [7])]
    assert plan.engines["e"].assigned == {9: task(0)}

    plan = next_plan()
    come(plan, "there", {}, slots=1)
    read(plan, task(0))
    assert come(plan, "e", {7: 0, 9: 0}) == [End("there", [ATTEMPTS]), End("e", [7])]
    assert plan.engines["e"].assigned == {9: task(0)}


def test_attempt_that_is_given_back_while_it_is_told_to_end() -> None:
    """The engine does not answer for it once more; so it takes no slot any longer."""
    plan = next_plan()
    come(plan, "there", {}, slots=1)
    read(plan, task(0))
    assert come(plan, "late", {7: 0}) == [End("there", [ATTEMPTS])]
    assert plan.handle(Returned("there", [ATTEMPTS])) == []
    assert plan.handle(Read([task(1), task(2)])) == [
        Assign("late", [(ATTEMPTS + 1, task(1))]),
        Assign("there", [(ATTEMPTS + 2, task(2))]),
    ]


def test_engine_that_comes_at_the_end_stops_in_order() -> None:
    plan = next_plan()
    come(plan, "there", {}, slots=1)
    stop = PerEngine(0, 1, Phase.STOP, b":")
    read(plan, stop)
    assert plan.handle(SourceEnded()) == [AssignPerEngine("there", ATTEMPTS, stop)]
    assert come(plan, "late", {}) == [AssignPerEngine("late", ATTEMPTS + 1, stop)]
    assert plan.handle(Joined("new", Capacity(1), [])) == [Release("new")]


def test_claims_take_their_part_of_a_limit_before_they_are_read() -> None:
    plan = Plan(first_attempt=ATTEMPTS, limits={"": 3})
    plan.handle(Hold())
    come(plan, "e", {7: 8, 9: 9}, slots=4)
    assert read(plan, task(0), task(1)) == [Assign("e", [(ATTEMPTS, task(0))])]
    plan.handle(Read([task(8), task(9)]))
    plan.handle(Finished("e", [outcome(7), outcome(ATTEMPTS)]))
    assert plan.handle(Finished("e", [outcome(9)])) == [
        RecordTask("e", task(9), outcome(9), Verdict.COUNTS),
        Release("e"),
    ]


def test_what_engines_completed_for_a_former_driver_counts_for_a_limit() -> None:
    """Two results were acknowledged, and two only recorded: one is read before the engine is heard."""
    plan = Plan(first_attempt=ATTEMPTS, limits={"": 5})
    plan.handle(Hold())
    plan.handle(Read([Recorded(task(0), False, None), Recorded(task(1), False, None)]))
    plan.handle(Read([Recorded(task(2), False, None)]))
    past = Past({3: 2, 4: 3}, {}, False, 2)
    assert plan.handle(Joined("e", Capacity(4), [3, 4], "", past)) == [End("e", [3])]
    plan.handle(Read([Recorded(task(3), False, None)]))
    plan.handle(Heard())
    actions = [*plan.handle(Resume()), *read(plan, task(4), task(5))]
    assert [pair for action in actions if isinstance(action, Assign) for pair in action.pairs] == [
        (ATTEMPTS, task(4))
    ]


def test_claim_that_is_ended_again_when_its_engine_comes_back() -> None:
    """It was told to end when the run was, and may not have heard that."""
    plan = next_plan()
    come(plan, "e", {7: 0})
    come(plan, "there", {8: 1})
    assert plan.handle(Interrupt()) == [End("e", [7]), End("there", [8])]
    plan.handle(Lost("e"))
    assert plan.handle(Joined("e", Capacity(2), [7])) == [End("e", [7])]


def interrupted() -> Plan:
    """It is ended before it has heard the engine, which runs task 1; task 0 has ended."""
    plan = next_plan()
    assert plan.handle(Interrupt()) == []
    assert come(plan, "e", {7: 0, 8: 1}) == [End("e", [7, 8])]
    assert plan.handle(Finished("e", [outcome(7), outcome(8, ending=Ending.ORDERED)])) == []
    assert plan.mode is Mode.ENDING
    return plan


def test_ended_before_the_engines_are_heard() -> None:
    """What they have is recorded, also behind a barrier; nothing starts; then they leave."""
    plan = interrupted()
    assert plan.handle(Heard()) == []
    assert plan.reads and plan.room
    done = Recorded(task(9), False, None)
    assert plan.handle(Read([done, task(5), barrier(6), task(0)])) == [
        CountRecorded(done),
        RecordTask("e", task(0), outcome(7), Verdict.COUNTS),
    ]
    assert plan.handle(Read([task(1), task(2)])) == [
        RecordTask("e", task(1), outcome(8, ending=Ending.ORDERED), Verdict.ENDED),
        Release("e"),
    ]
    assert not plan.reads and not plan.room
    assert plan.handle(Left("e")) == [Finish(Conclusion.INTERRUPTED)]


def test_ended_and_the_tasks_cannot_be_read() -> None:
    """The results are not acknowledged: the engine writes them down."""
    plan = interrupted()
    plan.handle(SourceEnded(broken=True))
    assert plan.handle(Heard()) == [Release("e")]
    assert not plan.reads and plan.keeps("e")


def test_ended_and_no_engine_comes() -> None:
    plan = next_plan()
    plan.handle(Interrupt())
    assert plan.handle(Heard()) == [] and plan.reads  # what an engine has to do at its end is not known
    assert plan.handle(Read([task(0)])) == [Finish(Conclusion.INTERRUPTED)]


def test_an_ended_takeover_runs_only_what_ends_an_engine() -> None:
    plan = next_plan()
    plan.handle(Interrupt())
    come(plan, "e", {})
    plan.handle(Heard())
    start, stop = (PerEngine(0, 1, phase, b":") for phase in (Phase.START, Phase.STOP))
    assert plan.handle(Read([start, stop, task(0)])) == [AssignPerEngine("e", ATTEMPTS, stop)]
