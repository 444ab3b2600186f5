"""Attempts of a former driver: claims of engines to tasks that this plan has not read yet.

A claim takes a slot and counts for its context's limit. When its task is read, it becomes a valid attempt; if
it has ended by then, its outcome was kept. Of two claims to one task, the later attempt is valid. If the task
was already assigned to another engine by this plan, the claim of an engine that joins late is valid, because
that attempt has run for longer. A claim to a task that is recorded is ended, and still counts for the limit:
the former driver recorded this attempt, and was killed before it acknowledged it.
"""

from __future__ import annotations

from disbatch.model.task import Outcome, PerEngine, Phase, Task
from disbatch.plan.departure import drain
from disbatch.plan.engine import Engine, State
from disbatch.plan.events import End, Past, RecordPerEngine
from disbatch.plan.state import Board, Claimed


def inherit(board: Board, engine: Engine, past: Past) -> list[int]:
    """An engine joins with attempts of a former driver. Returns those that it is to end."""
    unwanted: list[int] = []
    engine.commands.update(past.commands)
    if past.leaving or any(phase is Phase.STOP for phase, _ in past.commands):
        drain(board, engine)
    board.rotation.count_before(engine.context, past.recorded)
    backlog = board.backlog
    unread = backlog.unread_tasks()
    wanted = {id for id in past.tasks.values() if id < backlog.read_to and id not in unread}
    ready = {task.id: task for task in backlog.ready if task.id in wanted} if wanted else {}
    taken: set[int] = set()
    elsewhere: dict[int, tuple[int, Engine]] = {}
    if wanted:
        for other in board.engines.values():
            elsewhere |= {t.id: (a, other) for a, t in other.assigned.items() if t.id in wanted}
    for attempt, id in sorted(past.tasks.items()):
        if id not in wanted:
            won = claim(board, engine, attempt, id)
        elif id in ready:
            won = True
            taken.add(id)
            board.rotation.spend(engine, 1)
            assign_inherited(board, engine, attempt, ready.pop(id))
        else:
            won = id in elsewhere and _win(board, engine, attempt, *elsewhere[id])
            if id not in elsewhere:
                board.rotation.count_before(engine.context, 1)
        if not won:
            engine.set_adrift(attempt, None)
            unwanted.append(attempt)
        elif id in wanted:
            elsewhere[id] = (attempt, engine)  # it may have a later attempt of this task, too
    if taken:
        backlog.remove_all(taken)
    return unwanted


def claim(board: Board, engine: Engine, attempt: int, id: int) -> bool:
    """Add a claim. False if another engine has a later attempt of that task."""
    rival = board.claims.get(id)
    if rival is not None:
        if rival.attempt > attempt:
            return False
        _give_up(board, rival)
    board.claims[id] = Claimed(engine, attempt)
    engine.claim(attempt, id)
    board.rotation.spend(engine, 1)
    return True


def _win(board: Board, engine: Engine, attempt: int, theirs: int, rival: Engine) -> bool:
    """The task is assigned to `rival`, by this driver or a former one. Returns whether `engine` gets it."""
    if attempt < theirs < board.first_attempt:
        return False
    task = rival.pop(theirs)
    assert task is not None, "the attempt of `rival` is valid"
    board.live -= 1
    board.rotation.spend(rival, -1)
    _end_replaced(board, rival, theirs, task)
    board.rotation.spend(engine, 1)
    assign_inherited(board, engine, attempt, task)
    return True


def _end_replaced(board: Board, engine: Engine, attempt: int, task: Task | None) -> None:
    engine.set_adrift(attempt, task)
    if engine.state is not State.LOST:
        board.actions.append(End(engine.id, [attempt], board.at_once or engine.at_once))
    board.rotation.touch(engine)


def assign_inherited(board: Board, engine: Engine, attempt: int, task: Task) -> None:
    """Make this attempt of the engine valid; it counts for its context's limit already."""
    engine.inherit(attempt, task)
    board.live += 1
    if engine.state is not State.LOST and (engine.stopped or task.id in board.cancelled):
        board.actions.append(End(engine.id, [attempt], board.at_once or engine.at_once))


def drop_claim(board: Board, id: int, *, recorded: bool = False) -> None:
    """Remove the claim to this task, if there is one: the task is `recorded`, or does not exist."""
    claimed = board.claims.pop(id, None) if board.claims else None
    if claimed is not None:
        _give_up(board, claimed)
        if recorded:
            board.rotation.count_before(claimed.engine.context, 1)


def _give_up(board: Board, claimed: Claimed) -> None:
    board.rotation.spend(claimed.engine, -1)
    if claimed.outcome is None:
        claimed.engine.pop_claim(claimed.attempt)
        _end_replaced(board, claimed.engine, claimed.attempt, None)
    else:
        claimed.engine.kept -= 1


def keep(board: Board, engine: Engine, outcome: Outcome) -> bool:
    """Keep the outcome of an attempt of a former driver until its task or command is read again. False if it
    is another attempt."""
    id = engine.pop_claim(outcome.attempt)
    if id is not None:
        board.claims[id] = Claimed(engine, outcome.attempt, outcome)
        engine.kept += 1
        return True
    for key, held in engine.commands.items():
        if held == outcome.attempt:
            engine.commands[key] = outcome
            engine.kept += 1
            return True
    return False


def inherit_command(board: Board, engine: Engine, command: PerEngine) -> bool:
    """True if a former driver sent this command to the engine."""
    key = (command.phase, command.id)
    if key not in engine.commands:
        return False
    held = engine.commands.pop(key)
    if isinstance(held, Outcome):
        engine.kept -= 1
        board.actions.append(RecordPerEngine(engine.id, command, held))
    elif held is not None:
        engine.per_engine[held] = command
        if engine.state is State.ACTIVE and command.phase is Phase.START:
            board.rotation.move(engine, State.STARTING)
    if command.phase is Phase.STOP:
        engine.stops_given.add(command.id)
    board.rotation.touch(engine)
    return True
