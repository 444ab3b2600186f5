"""Recall, drain, stop, leave, and the end of the run.

Attempts in an engine's queue are recalled for capacity that is idle elsewhere, or because nothing more may
start on the engine. An engine that gets no more tasks runs its STOP commands and leaves. A run that ends
early starts no more tasks, and lets the running ones finish or ends them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from disbatch.model.task import Demand, Outcome, PerEngine, Phase
from disbatch.plan.backlog import Source
from disbatch.plan.engine import Engine, State
from disbatch.plan.events import (
    AssignPerEngine,
    Conclusion,
    Drain,
    End,
    Finish,
    Hold,
    Interrupt,
    Recall,
    RecordPerEngine,
    Release,
    Resume,
    Stop,
)
from disbatch.plan.state import Board, Mode


def recall(board: Board, engine: Engine, attempts: list[int]) -> None:
    """Recall these attempts from its queue, unless it has not answered the last Recall yet."""
    if attempts and not engine.recalling:
        engine.recalling = len(attempts)
        board.recalling += len(attempts)
        board.actions.append(Recall(engine.id, attempts))
        board.rotation.touch(engine)


def recall_answered(board: Board, engine: Engine) -> None:
    """The engine has answered its Recall, or will not answer."""
    board.recalling -= engine.recalling
    engine.recalling = 0


def recall_unwanted(board: Board, engine: Engine) -> None:
    """Recall the engine's queue if nothing more may start there."""
    if engine.stopped:
        return  # it was told to end them
    if board.held or engine.state is State.DRAINING or board.mode is not Mode.RUNNING:
        recall(board, engine, list(engine.queued))


def recall_everything(board: Board) -> None:
    """Recall all queues: nothing more may start."""
    for engines in list(board.rotation.queued.values()):
        for engine in list(engines.values()):
            recall(board, engine, list(engine.queued))


def rebalance(board: Board) -> None:
    """If nothing can be read or dispatched, recall queued tasks for idle capacity. The class of the newest
    task in a queue stands for the queue.

    Recalls that are not answered yet do not count, since those engines may never answer."""
    rotation, backlog = board.rotation, board.backlog
    if board.held or (backlog.source is Source.FLOWING and backlog.barrier is None):
        return
    if next(iter(rotation.idle), None) is None:
        return
    for demand, queued in list(rotation.queued.items()):
        _rebalance_class(board, demand, queued, rotation.idle.vacancies(demand))


def _rebalance_class(
    board: Board, demand: Demand, queued: OrderedDict[str, Engine], vacant: Iterator[int]
) -> None:
    """`queued`: the engines whose newest queued task is of this class. `vacant`: the numbers of such tasks
    for which idle engines have capacity."""
    wanted = 0
    while queued:
        engine = next(iter(queued.values()))
        most = (len(engine.queued) + 1) // 2
        while wanted < most and (more := next(vacant, 0)):
            wanted += more
        if not wanted:
            return
        newest = engine.newest(min(wanted, most))
        attempts = [attempt for attempt in newest if engine.queued[attempt].demand == demand]
        recall(board, engine, attempts)
        wanted -= len(attempts)


def on_hold(board: Board, event: Hold) -> None:
    board.held = True
    recall_everything(board)


def on_resume(board: Board, event: Resume) -> None:
    board.held = False


def activate(board: Board, engine: Engine) -> None:
    """The engine may take tasks, unless it is drained."""
    board.rotation.move(engine, State.DRAINING if engine.draining else State.ACTIVE)
    recall_unwanted(board, engine)


def drain(board: Board, engine: Engine) -> None:
    """Let the engine leave when it has no attempts."""
    if not engine.draining:
        engine.draining = True
        if engine.state is State.ACTIVE:
            activate(board, engine)


def on_drain(board: Board, event: Drain) -> None:
    engine = board.engines.get(event.engine)
    if engine is not None:
        drain(board, engine)


def on_stop(board: Board, event: Stop) -> None:
    engine = board.engines.get(event.engine)
    if engine is None:
        return
    engine.stopped = True
    engine.at_once |= event.at_once
    if engine.state is not State.LOST:
        # STOP commands that run are part of an orderly departure.
        stopping = engine.state is State.STOPPING and not engine.at_once
        attempts = [*engine.assigned, *engine.claims, *([] if stopping else engine.per_engine)]
        if attempts:
            board.actions.append(End(engine.id, attempts, engine.at_once))
    drain(board, engine)


# ---- PERENGINE ----


def run_per_engine(board: Board, engine: Engine, command: PerEngine) -> None:
    """Send this command to the engine."""
    attempt = board.new_attempt()
    engine.per_engine[attempt] = command
    board.actions.append(AssignPerEngine(engine.id, attempt, command))


def per_engine_done(board: Board, engine: Engine, command: PerEngine, outcome: Outcome) -> None:
    """The engine has run this command."""
    board.actions.append(RecordPerEngine(engine.id, command, outcome))
    if engine.state is State.STARTING and not engine.per_engine:
        activate(board, engine)
    elif engine.state is State.STOPPING:
        release_if_stopped(board, engine)


# ---- engines leave ----


def let_go(board: Board) -> None:
    """Release engines that will get no more tasks; when the last one has left, the run is over."""
    rotation = board.rotation
    going = rotation.resting if board.mode is Mode.CLOSING else rotation.going
    if going and not (board.nothing_read and board.reads):
        for engine in list(going.values()):
            retire(board, engine)
    if board.mode is Mode.CLOSING and not board.present:
        board.mode = Mode.OVER
        board.actions.append(Finish(board.conclusion))


def retire(board: Board, engine: Engine) -> None:
    """The engine gets no more tasks: it runs its STOP commands, then it leaves."""
    board.rotation.move(engine, State.STOPPING)
    engine.retired = True
    if not (board.at_once or engine.at_once):
        for command in board.commands[Phase.STOP]:
            if command.id not in engine.stops_given:
                run_per_engine(board, engine, command)
    release_if_stopped(board, engine)


def release_if_stopped(board: Board, engine: Engine) -> None:
    """Release the engine if its STOP commands are done."""
    if not engine.per_engine:
        board.rotation.move(engine, State.LEAVING)
        board.actions.append(Release(engine.id))


def wind_down(board: Board, mode: Mode, conclusion: Conclusion) -> None:
    """Start no more tasks. Attempts of tasks that are not read again are ended."""
    board.mode = mode
    board.conclusion = conclusion
    for claimed in board.claims.values():
        if claimed.outcome is None and mode is not Mode.ENDING and claimed.engine.state is not State.LOST:
            board.actions.append(End(claimed.engine.id, [claimed.attempt], at_once=False))
    if not board.reads:
        board.backlog.clear()


def end_everything(board: Board, *, at_once: bool) -> None:
    """End all running and queued attempts."""
    for engine in board.engines.values():
        if engine.state is not State.LOST:
            attempts = [*engine.running, *engine.queued, *engine.claims, *engine.per_engine]
            if attempts:
                board.actions.append(End(engine.id, attempts, at_once))


def on_interrupt(board: Board, event: Interrupt) -> None:
    if board.mode in (Mode.RUNNING, Mode.WINDING_DOWN):
        wind_down(board, Mode.ENDING, Conclusion.INTERRUPTED)
    board.at_once |= event.at_once
    if board.mode is not Mode.OVER:
        end_everything(board, at_once=event.at_once)
