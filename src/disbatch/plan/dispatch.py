"""What follows from a change of the state: ready tasks go to engines, barriers complete, engines leave."""

from __future__ import annotations

from collections.abc import Iterable

from disbatch.model.task import Demand, Task
from disbatch.plan.classes import Ready
from disbatch.plan.departure import let_go, rebalance
from disbatch.plan.engine import Engine, State
from disbatch.plan.events import Assign
from disbatch.plan.reading import catch_up, complete_barrier
from disbatch.plan.rotation import Turns
from disbatch.plan.state import Board, Mode

_Given = dict[str, tuple[Engine, list[tuple[int, Task]]]]
"""The new attempts of each engine, by its name."""


def settle(board: Board) -> None:
    """Do everything that can be done now."""
    if board.mode is Mode.RUNNING:
        _dispatch(board)
        backlog = board.backlog
        while backlog.barrier is not None and not backlog.ready.count and not board.live:
            complete_barrier(board, backlog.barrier)
            _dispatch(board)
        if board.rotation.queued:
            rebalance(board)
    elif board.mode is Mode.ENDING:
        catch_up(board)
    if board.mode is not Mode.CLOSING and not board.live and _work_is_done(board):
        board.mode = Mode.CLOSING
    if board.rotation.going or board.mode is Mode.CLOSING:
        let_go(board)


def _dispatch(board: Board) -> None:
    """Assign ready tasks: as many as can start at once, then as many as fit into queues."""
    ready = board.backlog.ready
    if board.held or not ready.count or board.mode is not Mode.RUNNING:
        return
    given = _give_out(board, queue=False)
    if ready.count and board.rotation.room:
        for name, (engine, pairs) in _give_out(board, queue=True).items():
            given.setdefault(name, (engine, []))[1].extend(pairs)
    ready.new.clear()
    for name, (_, pairs) in given.items():
        board.actions.append(Assign(name, pairs))


def _give_out(board: Board, *, queue: bool) -> _Given:
    """Each engine in turn gets the first task that fits there, by priority and id: to be started at once, or
    for its queue. A task that fits nowhere does not keep the others waiting."""
    ready, rotation = board.backlog.ready, board.rotation
    turns = rotation.queueing if queue else rotation.idle
    given: _Given = {}
    cut_short = _reconsider(turns, ready, ready.new) if turns.passed else []
    _take_turns(board, turns, given, queue=queue)
    while cut_short:  # the engines that were found for a class may have taken others' tasks
        cut_short = _reconsider(turns, ready, cut_short)
        _take_turns(board, turns, given, queue=queue)
    if turns.passed and not turns.open:
        for demand in ready.new:
            turns.give_up(demand)
    for engine, _ in given.values():
        rotation.touch(engine)
    return given


def _reconsider(turns: Turns, ready: Ready, new: Iterable[Demand]) -> list[Demand]:
    """Look for engines for classes that had no ready tasks. Returns those for which there may be others."""
    return [each for each in new if each in ready.classes and turns.reconsider(each, ready.classes[each])]


def _take_turns(board: Board, turns: Turns, given: _Given, *, queue: bool) -> None:
    """Engines take tasks in turn, as long as there are tasks and engines."""
    ready, rotation = board.backlog.ready, board.rotation
    while ready.count and turns.open:
        engines = next(iter(turns.open.values()))
        engine = next(iter(engines.values()))
        demand = ready.first_fitting(engine.capacity, queue=queue)
        if demand is None:
            turns.pass_over(engine)
            continue
        pairs = given.setdefault(engine.id, (engine, []))[1]
        is_only = len(turns.open) == len(engines) == len(ready.classes) == 1 and not rotation.limits
        more = _give(board, engine, demand, pairs, queue=queue, one=not is_only)
        turns.end_turn(engine)
        if not more:
            rotation.take_out(engine, turns)
        if rotation.limits:
            rotation.spend(engine, 1)


def _give(
    board: Board, engine: Engine, demand: Demand, pairs: list[tuple[int, Task]], *, queue: bool, one: bool
) -> bool:
    """Give the engine tasks of that class: `one`, or as many as fit. Returns whether it has more room."""
    ready, again, capacity = board.backlog.ready, board.backlog.again, engine.capacity
    tasks = ready.classes[demand]
    first = attempt = board.next_attempt
    more = True
    while more and tasks:
        task = tasks.popleft()
        if again:
            again.discard(task.id)
        pairs.append((attempt, task))
        if queue:
            engine.queued[attempt] = task
            more = engine.queue_room > 0
        else:
            engine.running[attempt] = task
            capacity.take(demand)
            more = capacity.free > 0 if one else capacity.fits(demand)
        attempt += 1
        if one:
            break
    board.next_attempt = attempt
    board.live += attempt - first
    ready.take(demand, attempt - first)
    return more


def _work_is_done(board: Board) -> bool:
    if board.mode is Mode.ENDING and board.is_behind:
        return False
    if board.mode is not Mode.RUNNING:
        return not any(e.per_engine for e in board.engines.values() if e.state is State.STARTING)
    return board.backlog.is_done and not any(e.state is State.STARTING for e in board.engines.values())


def tail_is_short(board: Board) -> bool:
    """True if every task that will ever run is running, so that idle engines can be released."""
    return (
        board.mode is Mode.RUNNING
        and not board.held
        and board.backlog.is_done
        and not board.rotation.queued
        and not board.recalling
    )
