"""An engine's course once it is there: it takes work, is drained or stopped, runs STOP commands, leaves."""

from __future__ import annotations

from disbatch.model.outcome import Outcome
from disbatch.model.task import PerEngine, Phase
from disbatch.plan.board import Board, Mode
from disbatch.plan.engines import Engine, State
from disbatch.plan.events import (
    AssignPerEngine,
    Drain,
    End,
    Finish,
    RecordPerEngine,
    Release,
    Stop,
)
from disbatch.plan.queues import recall_unwanted


def activate(board: Board, engine: Engine) -> None:
    """Its START commands are done."""
    board.rotation.move(engine, State.DRAINING if engine.draining else State.ACTIVE)
    recall_unwanted(board, engine)


def drain(board: Board, engine: Engine) -> None:
    """It shall leave when it has nothing any more."""
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
        # Its STOP commands are part of leaving in order.
        stopping = engine.state is State.STOPPING and not engine.at_once
        attempts = [*engine.assigned, *engine.claims, *([] if stopping else engine.per_engine)]
        if attempts:
            board.actions.append(End(engine.id, attempts, engine.at_once))
    drain(board, engine)


# ---- PERENGINE ----


def run_per_engine(board: Board, engine: Engine, command: PerEngine) -> None:
    """Have the engine run it."""
    attempt = board.new_attempt()
    engine.per_engine[attempt] = command
    board.actions.append(AssignPerEngine(engine.id, attempt, command))


def per_engine_done(board: Board, engine: Engine, command: PerEngine, outcome: Outcome) -> None:
    """It ran it."""
    board.actions.append(RecordPerEngine(engine.id, command, outcome))
    if engine.state is State.STARTING and not engine.per_engine:
        activate(board, engine)
    elif engine.state is State.STOPPING:
        release_if_stopped(board, engine)


# ---- off it goes ----


def let_go(board: Board) -> None:
    """Engines that can expect nothing more leave; the run is over when the last has left."""
    rotation = board.rotation
    going = rotation.resting if board.mode is Mode.CLOSING else rotation.going
    if going and not (board.nothing_read and board.reads):
        for engine in list(going.values()):
            retire(board, engine)
    if board.mode is Mode.CLOSING and not board.present:
        board.mode = Mode.OVER
        board.actions.append(Finish(board.conclusion))


def retire(board: Board, engine: Engine) -> None:
    """Nothing is left for this engine: its STOP commands, then it leaves."""
    board.rotation.move(engine, State.STOPPING)
    engine.retired = True
    if not (board.at_once or engine.at_once):
        for command in board.commands[Phase.STOP]:
            if command.id not in engine.stops_given:
                run_per_engine(board, engine, command)
    release_if_stopped(board, engine)


def release_if_stopped(board: Board, engine: Engine) -> None:
    """It leaves if its STOP commands are done."""
    if not engine.per_engine:
        board.rotation.move(engine, State.LEAVING)
        board.actions.append(Release(engine.id))
