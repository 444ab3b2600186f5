"""What becomes of a task that is not assigned any more: it is done, given up, cancelled, or runs again."""

from __future__ import annotations

from disbatch.model.task import Task
from disbatch.plan.board import Board, Mode
from disbatch.plan.ending import end_everything, wind_down
from disbatch.plan.engines import Engine
from disbatch.plan.events import Cancel, Conclusion, End, RecordCancelled, RecordLost
from disbatch.plan.ids import IdSet


def close_task(board: Board, task: Task, *, failed: bool) -> None:
    """It is done."""
    if board.losses:
        board.losses.pop(task.id, None)
    if not failed:
        return
    board.note_failure(task)
    if board.fail_fast and board.mode is Mode.RUNNING:
        wind_down(board, Mode.ENDING, Conclusion.FAILED_FAST)
        end_everything(board, at_once=False)


def may_rerun(board: Board, engine: Engine, task: Task) -> bool:
    """Counts a loss of a task that ran (or could not be started); False if that was one too many."""
    if board.mode is not Mode.RUNNING:
        return True
    losses = board.losses.get(task.id, 0) + 1
    board.losses[task.id] = losses
    if losses <= board.max_losses:
        board.reruns += 1
        return True
    board.actions.append(RecordLost(engine.id, task))
    close_task(board, task, failed=True)
    return False


def run_again(board: Board, tasks: list[Task]) -> None:
    """These are to be assigned again, but for those that were cancelled."""
    if board.cancelled:
        for task in tasks:
            if task.id in board.cancelled:
                record_cancelled(board, task)
        tasks = [task for task in tasks if task.id not in board.cancelled]
    board.backlog.again.update(task.id for task in tasks)
    if board.mode is Mode.RUNNING:
        board.backlog.put_back(tasks)


# ---- cancelling ----


def on_cancel(board: Board, event: Cancel) -> None:
    new, cancelled, backlog = IdSet(event.ranges), board.cancelled, board.backlog
    for engine in board.engines.values():
        attempts = [a for a, t in engine.assigned.items() if t.id in new and t.id not in cancelled]
        if attempts:
            board.actions.append(End(engine.id, attempts, engine.at_once))
    for first, last in new:
        cancelled.add(first, last)
    ready = list(backlog.ready)
    backlog.ready.clear()
    for task in ready:
        if task.id in new:
            backlog.again.discard(task.id)
            record_cancelled(board, task)
        else:
            backlog.ready.append(task)


def record_cancelled(board: Board, task: Task) -> None:
    """It was cancelled, and nothing of it runs."""
    board.actions.append(RecordCancelled(task))
    close_cancelled(board, task)


def close_cancelled(board: Board, task: Task) -> None:
    """It failed, but that is what the user wanted: no reason to end the run."""
    board.losses.pop(task.id, None)
    board.note_failure(task)
