"""What follows from how things stand: ready tasks go to engines, barriers complete, engines are let go."""

from __future__ import annotations

from disbatch.model.task import Task
from disbatch.plan.departure import let_go, rebalance
from disbatch.plan.engine import State, Turns
from disbatch.plan.events import Assign
from disbatch.plan.reading import catch_up, complete_barrier
from disbatch.plan.state import Board, Mode


def settle(board: Board) -> None:
    """Do all that can be done now."""
    if board.mode is Mode.RUNNING:
        _dispatch(board)
        backlog = board.backlog
        while backlog.barrier is not None and not backlog.ready and not board.live:
            complete_barrier(board, backlog.barrier)
            _dispatch(board)
        rebalance(board)
    elif board.mode is Mode.ENDING:
        catch_up(board)
    if board.mode is not Mode.CLOSING and _work_is_done(board):
        board.mode = Mode.CLOSING
    let_go(board)


def _dispatch(board: Board) -> None:
    if board.held or not board.backlog.ready or board.mode is not Mode.RUNNING:
        return
    batches: dict[str, list[tuple[int, Task]]] = {}
    _spread(board, board.rotation.idle, batches, queue=False)
    if board.backlog.ready:
        _spread(board, board.rotation.open, batches, queue=True)
    for name, pairs in batches.items():
        board.actions.append(Assign(name, pairs))


def _spread(board: Board, turns: Turns, batches: dict[str, list[tuple[int, Task]]], *, queue: bool) -> None:
    """Give one task to each of these engines in turn, as long as there are tasks and room."""
    ready, again, rotation = board.backlog.ready, board.backlog.again, board.rotation
    limited = bool(rotation.limits)
    touched = {}
    while ready and turns.open:
        engines = next(iter(turns.open.values()))
        name, engine = next(iter(engines.items()))
        task = ready.popleft()
        if again:
            again.discard(task.id)
        attempt = board.next_attempt
        board.next_attempt = attempt + 1
        engine.assigned[attempt] = task
        board.live += 1
        batches.setdefault(name, []).append((attempt, task))
        touched[name] = engine
        if len(turns.open) > 1:
            turns.took(engine.context)
        if engine.busy < engine.slots + (engine.depth if queue else 0):
            engines.move_to_end(name)
        else:
            turns.remove(engine)
        if limited:
            rotation.spend(engine, 1)
    for engine in touched.values():
        rotation.touch(engine)


def _work_is_done(board: Board) -> bool:
    if board.live or (board.mode is Mode.ENDING and board.is_behind):
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
