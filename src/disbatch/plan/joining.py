"""Engines join, are lost, come back, and leave."""

from __future__ import annotations

from collections.abc import Iterable

from disbatch.model.task import Phase, Task
from disbatch.plan.attempts import may_rerun, run_again
from disbatch.plan.departure import activate, drain, recall_answered, release_if_stopped, run_per_engine
from disbatch.plan.engine import Engine, State
from disbatch.plan.events import End, Heard, Joined, Left, Limit, Lost
from disbatch.plan.state import Board, Mode
from disbatch.plan.takeover import inherit, inherit_command


def on_heard(board: Board, event: Heard) -> None:
    board.unheard = False


def on_limit(board: Board, event: Limit) -> None:
    board.rotation.limit(event.context, event.tasks)


def on_joined(board: Board, event: Joined) -> None:
    engine = board.engines.get(event.engine)
    if engine is not None and engine.state is not State.LOST:
        return  # it has only connected again
    if engine is None:
        engine = board.engines[event.engine] = Engine(event.engine, event.capacity, event.context)
        unwanted = _welcome(board, engine, event)
    else:
        board.lost -= 1
        unwanted = _take_back(board, engine, event.holding)
    if unwanted:
        board.actions.append(End(engine.id, unwanted, board.at_once or engine.at_once))
    if engine.retired:
        board.rotation.move(engine, State.STOPPING)
        release_if_stopped(board, engine)
    elif engine.per_engine:
        board.rotation.move(engine, State.STARTING)
    else:
        activate(board, engine)


def _welcome(board: Board, engine: Engine, event: Joined) -> list[int]:
    """The engine joins for the first time. Returns the attempts that it is to end."""
    unwanted = event.holding if event.past is None else inherit(board, engine, event.past)
    known = [command for phase in Phase for command in board.commands[phase]]
    news = [command for command in known if not inherit_command(board, engine, command)]
    if event.leaving:
        drain(board, engine)
    if board.mode is not Mode.RUNNING or (event.leaving and event.past is None):
        if event.past is None:
            engine.retired = True  # nothing ran on it, so no STOP commands are needed
        commands = {} if event.past is None else event.past.commands
        stops = [attempt for (phase, _), attempt in commands.items() if phase is Phase.STOP]
        return [attempt for attempt in event.holding if board.at_once or attempt not in stops]
    for command in news:
        if command.phase is Phase.START and not event.leaving:
            run_per_engine(board, engine, command)
    return unwanted


def _take_back(board: Board, engine: Engine, holding: Iterable[int]) -> list[int]:
    """A lost engine is heard again. While the run goes on, and unless the engine was stopped, its attempts
    are valid again if their tasks were not assigned to others. Returns the attempts that it is to end."""
    adrift, commands, unwanted = engine.take_adrift(), engine.per_engine, []
    engine.per_engine = {}
    running = board.mode is Mode.RUNNING and not engine.stopped
    at_once = board.at_once or engine.at_once
    stops = [held for (phase, _), held in engine.commands.items() if phase is Phase.STOP]
    taken: set[int] = set()
    for attempt in sorted(holding):  # in the order in which they start
        if attempt in engine.claims or attempt in engine.commands.values():
            if not running and (at_once or attempt not in stops):
                unwanted.append(attempt)
            continue
        task = adrift.get(attempt)
        command = commands.pop(attempt, None)
        if command is not None:
            engine.per_engine[attempt] = command
            if at_once or not (running or engine.retired):
                unwanted.append(attempt)
        elif running and task is not None and task.id in board.backlog.again and task.id not in taken:
            taken.add(task.id)
            engine.inherit(attempt, task)
            board.rotation.spend(engine, 1)
            board.live += 1
        else:
            unwanted.append(attempt)
            if task is not None:
                engine.set_adrift(attempt, task)
    if taken:
        board.backlog.remove_all(taken)
    if running or (engine.retired and not at_once):
        for command in commands.values():  # these did not reach it
            run_per_engine(board, engine, command)
    return unwanted


def on_lost(board: Board, event: Lost) -> None:
    engine = board.engines.get(event.engine)
    if engine is None or engine.state is State.LOST:
        return
    running, queued = _strip(board, engine)
    board.lost += 1
    board.rotation.move(engine, State.LOST)
    again = [task for task in running if task.id in board.cancelled or may_rerun(board, engine, task)]
    run_again(board, again + queued)


def reruns_if_lost(board: Board, engine: Engine) -> int:
    """The number of its tasks that would run again."""
    cancelled, losses = board.cancelled, board.losses
    again = [task for task in engine.running.values() if losses.get(task.id, 0) < board.max_losses]
    return sum(task.id not in cancelled for task in [*again, *engine.queued.values()])


def on_left(board: Board, event: Left) -> None:
    engine = board.engines.get(event.engine)
    if engine is None:
        return
    if engine.state is State.LOST:
        board.lost -= 1
    running, queued = _strip(board, engine)
    for id in engine.claims.values():
        del board.claims[id]
    board.rotation.spend(engine, -len(engine.claims))
    engine.claims = {}
    board.rotation.move(engine, State.LEAVING)
    del board.engines[engine.id]
    run_again(board, running + queued)


def _strip(board: Board, engine: Engine) -> tuple[list[Task], list[Task]]:
    """Make all its attempts invalid. Returns its running and its queued tasks."""
    running, queued = engine.lose()
    count = len(running) + len(queued)
    board.live -= count
    board.rotation.spend(engine, -count)
    recall_answered(board, engine)
    return running, queued
