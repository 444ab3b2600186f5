"""What the outcome of an attempt means for its task: done, run again, given up, or cancelled.

An attempt that ended by itself has a result, and its task is done. A task whose attempt was ended on request,
or returned, runs again. If the attempt was lost with its engine, or could not be started, the task runs again
up to `max_losses` times (`may_rerun`), and is then given up. A cancelled task does not run again.
"""

from __future__ import annotations

from disbatch.model.idset import IdSet
from disbatch.model.task import Ending, Outcome, Task
from disbatch.plan.departure import (
    drain,
    end_everything,
    per_engine_done,
    recall_answered,
    recall_unwanted,
    wind_down,
)
from disbatch.plan.engine import Engine, State
from disbatch.plan.events import (
    Cancel,
    Conclusion,
    End,
    Finished,
    RecordCancelled,
    RecordLost,
    RecordTask,
    Returned,
    Verdict,
)
from disbatch.plan.state import Board, Mode
from disbatch.plan.takeover import keep


def close_task(board: Board, task: Task, *, failed: bool) -> None:
    """The task is done."""
    if board.losses:
        board.losses.pop(task.id, None)
    if not failed:
        return
    board.count_failure(task)
    if board.fail_fast and board.mode is Mode.RUNNING:
        wind_down(board, Mode.ENDING, Conclusion.FAILED_FAST)
        end_everything(board, at_once=False)


def may_rerun(board: Board, engine: Engine, task: Task) -> bool:
    """Count a loss of this task. False if it was one too many, and the task is given up."""
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
    """Make these tasks ready again, except those that were cancelled."""
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
    for task in backlog.ready.remove_all(new):
        backlog.again.discard(task.id)
        record_cancelled(board, task)


def record_cancelled(board: Board, task: Task) -> None:
    """The task is cancelled, and no attempt of it runs."""
    board.actions.append(RecordCancelled(task))
    close_cancelled(board, task)


def close_cancelled(board: Board, task: Task) -> None:
    """The task is done, and failed; since the user wanted that, `fail_fast` does not apply."""
    board.losses.pop(task.id, None)
    board.count_failure(task)


def on_finished(board: Board, event: Finished) -> None:
    engine = board.engines.get(event.engine)
    if engine is not None and finish_attempts(board, engine, event.outcomes):
        drain(board, engine)  # the plan did not end these attempts: the engine's node does


def finish_attempts(board: Board, engine: Engine, outcomes: list[Outcome]) -> bool:
    """Returns True if the engine seems to be stopped by its node."""
    counted, elapsed, stopping, pop = 0, 0.0, False, engine.pop
    for outcome in outcomes:
        task = pop(outcome.attempt)
        if task is None:
            _odd_result(board, engine, outcome)
            continue
        if outcome.ending is Ending.OWN:
            counted += 1
            elapsed += outcome.elapsed
            _count(board, engine, task, outcome)
        else:
            board.live -= 1
            unordered = outcome.ending is Ending.ORDERED and task.id not in board.cancelled
            unordered &= outcome.attempt >= board.first_attempt  # that a former driver may have ordered
            stopping |= unordered and board.mode is Mode.RUNNING
            _not_run(board, engine, task, outcome)
    if counted:
        board.live -= counted
        engine.learn(elapsed / counted)
    board.rotation.touch(engine)
    return stopping


def _count(board: Board, engine: Engine, task: Task, outcome: Outcome) -> None:
    board.actions.append(RecordTask(engine.id, task, outcome, Verdict.COUNTS))
    if board.rotation.limits:
        board.rotation.count(engine.context)
    failed = outcome.return_code != 0
    if failed or board.losses:
        close_task(board, task, failed=failed)


def _not_run(board: Board, engine: Engine, task: Task, outcome: Outcome) -> None:
    """The attempt did not end by itself: it was ended on request, or could not be started."""
    if task.id in board.cancelled:
        board.rotation.spend(engine, -1)
        if outcome.pid:
            board.actions.append(RecordTask(engine.id, task, outcome, Verdict.CANCELLED))
            close_cancelled(board, task)
        else:
            record_cancelled(board, task)
        return
    if outcome.ending is Ending.UNSTARTED and board.losses.get(task.id, 0) >= board.max_losses:
        _count(board, engine, task, outcome)
        return
    board.rotation.spend(engine, -1)
    if outcome.pid:
        board.actions.append(RecordTask(engine.id, task, outcome, Verdict.ENDED))
        board.reruns += board.mode is Mode.RUNNING
    if outcome.ending is Ending.ORDERED or may_rerun(board, engine, task):
        run_again(board, [task])


def _odd_result(board: Board, engine: Engine, outcome: Outcome) -> None:
    """The outcome of an attempt that is not assigned to this engine now."""
    if (engine.claims or engine.commands) and keep(board, engine, outcome):
        return
    command = engine.per_engine.pop(outcome.attempt, None)
    if command is not None:
        per_engine_done(board, engine, command, outcome)
        return
    task = engine.pop_adrift(outcome.attempt)
    if task is None:
        return  # a repeat
    if outcome.ending is not Ending.OWN:
        return
    if task.id in board.backlog.again:
        if board.mode is Mode.RUNNING:
            board.backlog.remove(task)
        else:
            board.backlog.again.discard(task.id)
        board.rotation.spend(engine, 1)
        _count(board, engine, task, outcome)
    else:
        board.actions.append(RecordTask(engine.id, task, outcome, Verdict.SUPERSEDED))


def on_returned(board: Board, event: Returned) -> None:
    engine = board.engines.get(event.engine)
    if engine is None or engine.state is State.LOST:
        return
    recall_answered(board, engine)
    back = [task for attempt in event.attempts if (task := engine.pop(attempt)) is not None]
    for attempt in event.attempts:
        engine.pop_adrift(attempt)  # of attempts that it was told to end, too, it reports nothing else
    board.live -= len(back)
    board.rotation.spend(engine, -len(back))
    run_again(board, back)
    board.rotation.touch(engine)
    if back:
        recall_unwanted(board, engine)
