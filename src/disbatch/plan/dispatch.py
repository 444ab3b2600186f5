"""What follows from how things stand: ready tasks go to engines, barriers complete, engines are let go."""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from disbatch.model.task import Task
from disbatch.plan.departure import let_go, rebalance
from disbatch.plan.engine import Engine, State
from disbatch.plan.events import Assign
from disbatch.plan.reading import catch_up, complete_barrier
from disbatch.plan.rotation import Pool, Turns
from disbatch.plan.state import Board, Mode

_Given = dict[str, tuple[Engine, list[tuple[int, Task]]]]
"""The new attempts of each engine, by its name."""


def settle(board: Board) -> None:
    """Do all that can be done now."""
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
    """Give ready tasks to engines: as many as can start at once, then as many as queues have room for."""
    ready = board.backlog.ready
    if board.held or not ready.count or board.mode is not Mode.RUNNING:
        return
    given = _give_out(board, queue=False)
    if ready.count and board.rotation.room:
        for name, (engine, pairs) in _give_out(board, queue=True).items():
            given.setdefault(name, (engine, []))[1].extend(pairs)
    for name, (_, pairs) in given.items():
        board.actions.append(Assign(name, pairs))


def _give_out(board: Board, *, queue: bool) -> _Given:
    """Give out tasks of all classes, in the order of their ids within each priority. A class that fits
    nowhere does not keep the others waiting."""
    ready, rotation = board.backlog.ready, board.rotation
    given: _Given = {}
    heads = []
    for number, (demand, tasks) in enumerate(ready.classes.items()):
        pool = rotation.pools.get(demand) or rotation.add_pool(demand, ready.classes)
        turns = pool.queueing if queue else pool.idle
        if turns.open:
            heads.append((-demand.priority, tasks[0].id, number, tasks, pool, turns))
    if len(ready.classes) > 1:
        heapify(heads)
    while heads:
        priority, _, number, tasks, pool, turns = heappop(heads)
        until = heads[0][1] if heads and heads[0][0] == priority else None
        _spread(board, tasks, pool, turns, given, until=until)
        if tasks and turns.open:
            heappush(heads, (priority, tasks[0].id, number, tasks, pool, turns))
    for engine, _ in given.values():
        rotation.touch(engine)
    return given


def _spread(
    board: Board, tasks: deque[Task], pool: Pool, turns: Turns, given: _Given, *, until: int | None
) -> None:
    """Give one task of the pool's class to each of these engines in turn, as long as there are tasks and
    room, up to the task `until`."""
    again, rotation, demand = board.backlog.again, board.rotation, pool.demand
    queue, limited = turns is pool.queueing, bool(rotation.limits)
    others = bool(given)
    open, engine = turns.open, None
    first = attempt = board.next_attempt
    while tasks and open and (until is None or tasks[0].id < until):
        if engine is None:
            engines = next(iter(open.values()))
            engine = next(iter(engines.values()))
            if others and not (engine.queue_room > 0 if queue else engine.capacity.fits(demand)):
                pool.take_out(engine, turns)  # tasks of another class took the room
                engine = None
                continue
            pairs = given.setdefault(engine.id, (engine, []))[1]
        task = tasks.popleft()
        if again:
            again.discard(task.id)
        pairs.append((attempt, task))
        if queue:
            engine.queued[attempt] = task
            more = engine.queue_room > 0
        else:
            engine.running[attempt] = task
            more = engine.capacity.take(demand)
        attempt += 1
        if more and not limited and len(open) == len(engines) == 1:
            continue  # it is the only one
        turns.end_turn(engine)
        if not more:
            pool.take_out(engine, turns)
        if limited:
            rotation.spend(engine, 1)
        engine = None
    board.next_attempt = attempt
    board.live += attempt - first
    board.backlog.ready.take(demand, attempt - first)


def _work_is_done(board: Board) -> bool:
    if board.mode is Mode.ENDING and board.is_behind:
        return False
    if board.mode is not Mode.RUNNING:
        return not any(e.per_engine for e in board.engines.values() if e.state is State.STARTING)
    return board.backlog.is_done and not any(e.state is State.STARTING for e in board.engines.values())


def tail_is_short(board: Board) -> bool:
    """Everything is running that will ever run: engines with nothing can be given back."""
    return (
        board.mode is Mode.RUNNING
        and not board.held
        and board.backlog.is_done
        and not board.rotation.queued
        and not board.recalling
    )
