"""Items are read: tasks become ready, up to the next barrier."""

from __future__ import annotations

from collections import deque

from disbatch.model.task import NO_DEMAND, Barrier, PerEngine, Phase, Task
from disbatch.plan.attempts import close_task, finish_attempts, record_cancelled, run_again
from disbatch.plan.backlog import Source
from disbatch.plan.departure import recall_everything, run_per_engine, wind_down
from disbatch.plan.engine import State
from disbatch.plan.events import (
    Completed,
    Conclusion,
    CountRecorded,
    Read,
    RecordBarrier,
    Recorded,
    RecordSkipped,
    SourceDry,
    SourceEnded,
)
from disbatch.plan.state import Board, Claimed, Mode
from disbatch.plan.takeover import assign_inherited, drop_claim, inherit_command


def on_read(board: Board, event: Read) -> None:
    if not board.reads:
        return
    board.nothing_read = False
    board.backlog.add(event.items)
    _take_unread(board)


def on_source_dry(board: Board, event: SourceDry) -> None:
    if board.backlog.source is Source.FLOWING:
        board.backlog.source = Source.DRY


def on_source_ended(board: Board, event: SourceEnded) -> None:
    board.backlog.source = Source.ENDED
    board.nothing_read = False
    if not event.broken:
        known = board.backlog.unread_tasks()
        for id in [id for id in board.claims if id not in known]:
            drop_claim(board, id)  # the source has changed since the former driver read it
    if event.broken and board.mode is Mode.RUNNING:
        wind_down(board, Mode.WINDING_DOWN, Conclusion.SOURCE_BROKEN)
        recall_everything(board)


def _take_unread(board: Board) -> None:
    backlog, cancelled = board.backlog, board.cancelled if board.cancelled else None
    unread, ready = backlog.unread, backlog.ready
    demand, tasks = NO_DEMAND, deque[Task]()
    while unread and backlog.barrier is None:
        item = unread.popleft()
        if type(item) is Task:
            if board.claims and item.id in board.claims:
                _take_claimed(board, item, board.claims.pop(item.id))
            elif cancelled is not None and item.id in cancelled:
                record_cancelled(board, item)
            else:
                if item.demand is not demand or not tasks:
                    demand = item.demand
                    tasks = ready.class_of(demand)
                tasks.append(item)
                ready.count += 1
        elif type(item) is Completed:
            drop_claim(board, item.task.id)
            board.actions.append(RecordSkipped(item))
            if item.failed:
                board.count_failure(item.task)
        elif type(item) is Recorded:
            _take_recorded(board, item)
        elif type(item) is Barrier:
            backlog.barrier = None if board.mode is Mode.ENDING else item
        elif type(item) is PerEngine:
            _add_command(board, item)


def catch_up(board: Board) -> None:
    """The run is ending: items are read only to record the attempts of a former driver."""
    if board.is_behind:
        board.backlog.barrier = None
        _take_unread(board)
    if not board.is_behind:
        board.backlog.clear()


def _take_claimed(board: Board, task: Task, claimed: Claimed) -> None:
    """A task that an engine has claimed is read."""
    engine, attempt, outcome = claimed
    engine.pop_claim(attempt)
    if outcome is None and engine.state is State.LOST:
        engine.set_adrift(attempt, task)
        board.rotation.spend(engine, -1)
        run_again(board, [task])
        return
    assign_inherited(board, engine, attempt, task)
    if outcome is not None:
        engine.kept -= 1
        finish_attempts(board, engine, [outcome])
    board.rotation.touch(engine)


def _take_recorded(board: Board, recorded: Recorded) -> None:
    """A former driver has recorded this task or barrier."""
    board.actions.append(CountRecorded(recorded))
    item = recorded.item
    if isinstance(item, Task):
        drop_claim(board, item.id, recorded=True)
        close_task(board, item, failed=recorded.failed)
    elif board.reset_failures() and item.check and board.mode is Mode.RUNNING:
        wind_down(board, Mode.WINDING_DOWN, Conclusion.CHECK_FAILED)


def _add_command(board: Board, command: PerEngine) -> None:
    board.commands[command.phase].append(command)
    for engine in board.engines.values():
        if engine.commands and inherit_command(board, engine, command):
            continue
        if command.phase is Phase.STOP or board.mode is not Mode.RUNNING:
            continue
        if engine.state in (State.STARTING, State.ACTIVE) and not engine.stopped:
            run_per_engine(board, engine, command)
            board.rotation.move(engine, State.STARTING)
        elif engine.state is State.LOST and not engine.retired:
            engine.per_engine[board.new_attempt()] = command  # sent if it comes back


def complete_barrier(board: Board, barrier: Barrier) -> None:
    """All tasks before the barrier are done: record it, and read on."""
    board.actions.append(RecordBarrier(barrier, board.failed_since_barrier, board.first_failed))
    failed = board.reset_failures()
    board.backlog.barrier = None
    if barrier.check and failed:
        wind_down(board, Mode.WINDING_DOWN, Conclusion.CHECK_FAILED)
    else:
        _take_unread(board)
