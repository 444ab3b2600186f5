"""Engines tell how attempts ended, or give them back: what counts, and what follows for the task."""

from __future__ import annotations

from disbatch.model.outcome import Ending, Outcome
from disbatch.model.task import Task
from disbatch.plan.board import Board, Mode
from disbatch.plan.claims import keep
from disbatch.plan.engines import Engine, State
from disbatch.plan.events import Finished, RecordTask, Returned, Verdict
from disbatch.plan.fates import close_cancelled, close_task, may_rerun, record_cancelled, run_again
from disbatch.plan.leaving import drain, per_engine_done
from disbatch.plan.queues import recall_answered, recall_unwanted


def on_finished(board: Board, event: Finished) -> None:
    engine = board.engines.get(event.engine)
    if engine is not None and finish_attempts(board, engine, event.outcomes):
        drain(board, engine)  # nobody here ordered it: the engine's node makes it stop


def finish_attempts(board: Board, engine: Engine, outcomes: list[Outcome]) -> bool:
    """True if the engine seems to be stopped by its node."""
    assigned, counted, elapsed, stopping = engine.assigned, 0, 0.0, False
    for outcome in outcomes:
        task = assigned.pop(outcome.attempt, None)
        if task is None:
            _odd_result(board, engine, outcome)
            continue
        board.live -= 1
        if outcome.ending is Ending.OWN:
            counted += 1
            elapsed += outcome.elapsed
            _count(board, engine, task, outcome)
        else:
            unordered = outcome.ending is Ending.ORDERED and task.id not in board.cancelled
            unordered &= outcome.attempt >= board.first_attempt  # that a former driver may have ordered
            stopping |= unordered and board.mode is Mode.RUNNING
            _not_run(board, engine, task, outcome)
    if counted:
        engine.learn(elapsed / counted)
    board.rotation.touch(engine)
    return stopping


def _count(board: Board, engine: Engine, task: Task, outcome: Outcome) -> None:
    board.actions.append(RecordTask(engine.id, task, outcome, Verdict.COUNTS))
    board.rotation.count(engine.context)
    close_task(board, task, failed=outcome.return_code != 0)


def _not_run(board: Board, engine: Engine, task: Task, outcome: Outcome) -> None:
    """The attempt did not come to its own end: it was ended on purpose, or could not be started."""
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
    """A result of something that is not assigned to this engine now."""
    if (engine.claims or engine.commands) and keep(board, engine, outcome):
        return
    command = engine.per_engine.pop(outcome.attempt, None)
    if command is not None:
        per_engine_done(board, engine, command, outcome)
        return
    task = engine.adrift.pop(outcome.attempt, None)
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
    back = [engine.assigned.pop(attempt) for attempt in event.attempts if attempt in engine.assigned]
    for attempt in event.attempts:
        engine.adrift.pop(attempt, None)  # it was also told to end this one, and will not answer that
    board.live -= len(back)
    board.rotation.spend(engine, -len(back))
    run_again(board, back)
    board.rotation.touch(engine)
    if back:
        recall_unwanted(board, engine)
