"""The run ends before everything is done: nothing new starts, and what runs finishes or is ended."""

from __future__ import annotations

from disbatch.plan.board import Board, Mode
from disbatch.plan.engines import State
from disbatch.plan.events import Conclusion, End, Interrupt


def wind_down(board: Board, mode: Mode, conclusion: Conclusion) -> None:
    """Nothing new starts; what runs and is not known to be of this run's tasks is ended at once."""
    board.mode = mode
    board.conclusion = conclusion
    for claimed in board.claims.values():
        if claimed.outcome is None and mode is not Mode.ENDING and claimed.engine.state is not State.LOST:
            board.actions.append(End(claimed.engine.id, [claimed.attempt], at_once=False))
    if not board.reads:
        board.backlog.clear()


def end_everything(board: Board, *, at_once: bool) -> None:
    """End all that runs, and all that waits on engines."""
    for engine in board.engines.values():
        if engine.state is not State.LOST:
            attempts = [*engine.assigned, *engine.claims, *engine.per_engine]
            if attempts:
                board.actions.append(End(engine.id, attempts, at_once))


def on_interrupt(board: Board, event: Interrupt) -> None:
    if board.mode in (Mode.RUNNING, Mode.WINDING_DOWN):
        wind_down(board, Mode.ENDING, Conclusion.INTERRUPTED)
    board.at_once |= event.at_once
    if board.mode is not Mode.OVER:
        end_everything(board, at_once=event.at_once)
