"""What waits in an engine's queue is called back: for slots that are idle elsewhere, or because nothing more
shall start there."""

from __future__ import annotations

from disbatch.plan.backlog import Source
from disbatch.plan.board import Board, Mode
from disbatch.plan.engines import Engine, State
from disbatch.plan.events import Hold, Recall, Resume


def recall(board: Board, engine: Engine, count: int) -> None:
    """Ask for the `count` attempts that it would start last; not if it has yet to answer."""
    if count > 0 and not engine.recalling:
        engine.recalling = count
        board.recalling += count
        board.actions.append(Recall(engine.id, engine.newest(count)))
        board.rotation.touch(engine)


def recall_answered(board: Board, engine: Engine) -> None:
    """It answered, or will not."""
    board.recalling -= engine.recalling
    engine.recalling = 0


def recall_unwanted(board: Board, engine: Engine) -> None:
    """If nothing more shall start on this engine, call back what waits in its queue."""
    if engine.stopped:
        return  # it was told to end that
    if board.held or engine.state is State.DRAINING or board.mode is not Mode.RUNNING:
        recall(board, engine, engine.queued)


def recall_everything(board: Board) -> None:
    """Nothing more shall start anywhere."""
    for engine in list(board.rotation.queued.values()):
        recall(board, engine, engine.queued)


def rebalance(board: Board) -> None:
    """Nothing can be read or dispatched: call back what waits in queues for slots that are idle.

    What other engines were asked for already is not waited for: they may be silent for good."""
    idle, queued, backlog = board.rotation.idle, board.rotation.queued, board.backlog
    if backlog.ready or not queued or not idle.open or board.held:
        return
    if backlog.source is Source.FLOWING and backlog.barrier is None:
        return
    vacant = (engine.slots - engine.busy for engine in idle)
    wanted = 0
    while queued:
        engine = next(iter(queued.values()))
        most = (engine.queued + 1) // 2
        while wanted < most and (more := next(vacant, 0)):
            wanted += more
        if not wanted:
            return
        count = min(wanted, most)
        recall(board, engine, count)
        wanted -= count


def on_hold(board: Board, event: Hold) -> None:
    board.held = True
    recall_everything(board)


def on_resume(board: Board, event: Resume) -> None:
    board.held = False
