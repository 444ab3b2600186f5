"""Says what is wrong with a run, from the evidence alone.

What is promised, and looked for here:

1. In each status file a task stands at most once as done; in the last one every task does.
2. A task that is recorded with return code 0 said that it began and that it came to its end: the very attempt
   that the line names. Another return code has a cause: the test killed that shell, or cancelled the task,
   or (-100) its engines were lost too often.
3. What ended is recorded, as long as its engine was not lost or killed; what one life has recorded, the next
   one skips.
4. A task is started again only if the attempt before was ended by order (`Z`, and it was over), or its engine
   was given up before: killed, not heard for the patience, or not there when another driver took over; or if
   that engine itself had given its driver up. An engine that is cut off may, for as long as it does not hear
   that it was given up, start what it had.
5. Tasks behind a barrier start when those before it are done.
6. A context with a limit completes no more tasks than that, unless the run was taken over and an engine of
   the context had ended.
7. PERENGINE commands run at most once on an engine; START before its first task, STOP after its last one.
8. What users order holds: while a run is paused nothing starts, and nothing of what is cancelled ever does,
   but on engines that cannot hear it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations, pairwise
from math import inf

from chaos_evidence import Attempt, Evidence, Life, Place

from disbatch.model.statusline import Mark, Record
from disbatch.model.task import LOST_RETURN_CODE

CANCELLED = (-15, -9)
SLACK = 0.1
"""Seconds between what a log or a record tells and what a task does."""
WORD = 2.0
"""Seconds until an engine that is heard again has got the order to end what was replaced."""


def complaints(evidence: Evidence) -> list[str]:
    """A line for each thing that should not be so."""
    checks = (_counted_once, _results, _kept, _started_again, _barriers, _limits, _commands, _heeded)
    return [line for check in checks for line in check(evidence)]


# ---- 1 ----


def _done(life: Life) -> list[Record]:
    return [record for record in life.records if record.mark in (Mark.TASK, Mark.SKIPPED)]


def _counted_once(evidence: Evidence) -> Iterator[str]:
    for number, life in enumerate(evidence.lives):
        times = Counter(record.id for record in _done(life))
        yield from (f"life {number}: task {id} is done {n} times" for id, n in times.items() if n > 1)
        lines = Counter(_key(r) for r in life.records if r.pid and r.mark is not Mark.BARRIER)
        yield from (f"life {number}: {n} lines of one attempt: {key}" for key, n in lines.items() if n > 1)
        met = Counter(record.id for record in life.records if record.mark is Mark.BARRIER)
        yield from (f"life {number}: barrier {id} is complete {n} times" for id, n in met.items() if n > 1)
    last = evidence.lives[-1]
    found = {record.id for record in _done(last)}
    wanted = set(range(evidence.ids)) - set(evidence.barriers)
    yield from (f"task {id} is missing" for id in sorted(wanted - found))
    yield from (f"task {id} is no task" for id in sorted(found - wanted))
    complete = {record.id for record in last.records if record.mark is Mark.BARRIER}
    yield from (f"barrier {id} is not complete" for id in evidence.barriers if id not in complete)


def _key(record: Record) -> tuple[str, int, str, int, float]:
    kind = "P" if record.mark is Mark.PER_ENGINE else "T"
    return kind, record.id, record.node, record.pid, record.start


# ---- 2 ----


def _results(evidence: Evidence) -> Iterator[str]:
    attempts = {(attempt.task, attempt.place): attempt for attempt in evidence.attempts}
    for life in evidence.lives:
        for record in (*_done(life), *life.unrecorded):
            if record.mark in (Mark.TASK, Mark.SKIPPED):
                place = Place(record.node, record.pid)
                problem = _problem(evidence, record, attempts.get((record.id, place)))
                if problem:
                    yield f"task {record.id}, recorded with {record.return_code} of {place}: {problem}"


def _problem(evidence: Evidence, record: Record, attempt: Attempt | None) -> str:
    if record.return_code == LOST_RETURN_CODE:
        lost = any(_losses(life, engine) for life in evidence.lives for engine in life.engines)
        return "" if lost else "no engine was lost"
    if record.id in evidence.cancelled and record.return_code in CANCELLED:
        return ""
    if record.return_code == -9 and Place(record.node, record.pid) in evidence.killed:
        return ""
    if record.return_code:
        return "nobody made it fail"
    if attempt is None:
        return "it never began there"
    if attempt.end is None:
        return "it never came to its end"
    if not record.start - SLACK <= attempt.start <= attempt.end <= record.finish + SLACK:
        return f"its times are {record.start} to {record.finish}, but it said {attempt}"
    return ""


# ---- 3 ----


def _kept(evidence: Evidence) -> Iterator[str]:
    for attempt in evidence.attempts:
        life = evidence.life_of(attempt.engine)
        engine = life.engines[attempt.engine]
        told = {(r.id, r.node, r.pid) for r in (*life.records, *life.unrecorded)}
        if attempt.end is None or (attempt.task, *attempt.place) in told or engine.killed is not None:
            continue
        replaced = attempt.task in {record.id for record in _done(life)} and _was_taken_over(life, attempt)
        if not (replaced or _losses(life, attempt.engine) or _orders(evidence, attempt)):
            yield f"task {attempt.task} ended, and nothing of it is recorded: {attempt}"
    for number, (life, after) in enumerate(pairwise(evidence.lives)):
        skipped = {_key(record) for record in after.records if record.mark is Mark.SKIPPED}
        done = [r for r in (*_done(life), *life.results()) if r.return_code != LOST_RETURN_CODE]
        again = {record.id for record in done if _key(record) not in skipped}
        elsewhere = {record.id for record in after.records if record.mark is Mark.SKIPPED}
        not_reached = {record.id for record in _done(after)}
        for id in sorted(again - elsewhere):
            ran = [a for a in evidence.attempts if a.task == id and a.engine in after.engines]
            if ran or id in not_reached:
                yield f"task {id} was done in life {number}, and life {number + 1} did not skip it"


# ---- 4 ----


def _losses(life: Life, engine: str) -> list[float]:
    """When this engine was given up, or gave its driver up. Logs name the node, the run file the engine."""
    known = life.engines[engine]
    given_up = life.lost.get(known.node, []) if known.ever_gone else []
    orphaned = life.orphaned.get(known.node, [])
    return sorted([*given_up, *orphaned, *([] if known.killed is None else [known.killed])])


def _was_taken_over(life: Life, attempt: Attempt) -> bool:
    """Another driver came after its end; who finds the task recorded drops what else there is of it."""
    assert attempt.end is not None
    return any(at > attempt.end for at in life.drivers)


def _orders(evidence: Evidence, attempt: Attempt) -> list[float]:
    """When its engine ended it by order, says its log; if the driver was killed, nothing else tells."""
    life, line = evidence.life_of(attempt.engine), evidence.first_line + attempt.task
    ordered = life.ordered.get((life.engines[attempt.engine].node, line), [])
    return [at for at in ordered if at >= attempt.start]


def _returned(life: Life, engine: str, after: float, before: float) -> bool:
    """It was heard again in between."""
    return any(after < at <= before for at in life.joined.get(life.engines[engine].node, []))


def _started_again(evidence: Evidence) -> Iterator[str]:
    by_task = defaultdict(list)
    for attempt in evidence.attempts:
        by_task[attempt.task].append(attempt)
    for task, attempts in by_task.items():
        attempts.sort(key=lambda attempt: attempt.start)
        for one, other in combinations(attempts, 2):
            problem = _unexcused(evidence, one, other)
            if problem:
                yield f"task {task} was started again: {problem}: {one}, then {other}"


def _unexcused(evidence: Evidence, one: Attempt, other: Attempt) -> str:
    life, after = evidence.life_of(one.engine), evidence.life_of(other.engine)
    if life is not after:
        if evidence.lives.index(after) < evidence.lives.index(life):
            return "by a run that was resumed already"
        late = one.end is not None and one.end > after.began + SLACK
        return "the attempt of the former life ran on" if late else ""
    if _was_ended(evidence, one, other.start) or _was_given_up(life, one, other.start):
        return ""
    if _knew_nothing(life, other):
        return ""
    return "the attempt before counted"


def _was_ended(evidence: Evidence, attempt: Attempt, before: float) -> bool:
    if any(at <= before + SLACK for at in _orders(evidence, attempt)):
        return True
    return any(
        record.mark is Mark.SUPERSEDED
        and (record.id, record.node, record.pid) == (attempt.task, *attempt.place)
        and record.finish <= before + SLACK
        for record in evidence.life_of(attempt.engine).records
    )


def _was_given_up(life: Life, attempt: Attempt, before: float) -> bool:
    """Before that moment, and if before it began, not heard again since."""
    for lost in _losses(life, attempt.engine):
        if lost <= before + SLACK and (
            lost >= attempt.start or not _returned(life, attempt.engine, lost, attempt.start - WORD)
        ):
            return True
    return False


def _knew_nothing(life: Life, attempt: Attempt) -> bool:
    """Its engine had it from before it was given up, and had not heard of that."""
    return any(
        lost <= attempt.start + SLACK and not _returned(life, attempt.engine, lost, attempt.start - WORD)
        for lost in _losses(life, attempt.engine)
    )


# ---- 5, 6, 7 ----


def _barriers(evidence: Evidence) -> Iterator[str]:
    for life in evidence.lives:
        done = {record.id: record for record in _done(life)}
        for barrier in evidence.barriers:
            behind = [a for a in evidence.attempts if a.engine in life.engines and a.task > barrier]
            if not behind:
                continue
            first = min(attempt.start for attempt in behind)
            before = set(range(barrier)) - set(evidence.barriers)
            for id in sorted(before):
                if id not in done:
                    yield f"task {id} is not done, though tasks behind barrier {barrier} were started"
                elif done[id].pid and done[id].finish > first + SLACK:
                    yield f"task {id} ended after tasks behind barrier {barrier} were started"


def _limits(evidence: Evidence) -> Iterator[str]:
    engines = {(attempt.task, attempt.place): attempt.engine for attempt in evidence.attempts}
    for number, life in enumerate(evidence.lives):
        counted: Counter[str] = Counter()
        for record in life.records:
            engine = engines.get((record.id, Place(record.node, record.pid)))
            of_cancelled = record.id in evidence.cancelled and record.return_code in CANCELLED
            if record.mark is Mark.TASK and engine in life.engines and not of_cancelled:
                counted[life.engines[engine].context] += 1
        for context, limit in life.limits.items():
            gone = any(each.ever_gone for each in life.engines.values() if each.context == context)
            # A driver that takes the run over learns the count from the engines that are there.
            if counted[context] > limit and not (gone and len(life.drivers) > 1):
                who = context or "the driver's own"
                yield f"life {number}: {counted[context]} tasks of context {who}, whose limit is {limit}"


def _commands(evidence: Evidence) -> Iterator[str]:
    for phase, is_stop in (("START", False), ("STOP", True)):
        times = Counter(command.engine for command in evidence.commands if command.is_stop is is_stop)
        yield from (f"engine {engine}: {n} {phase} commands" for engine, n in times.items() if n > 1)
    first = {command.engine: command.at for command in evidence.commands if not command.is_stop}
    last = {command.engine: command.at for command in evidence.commands if command.is_stop}
    for attempt in evidence.attempts:
        if not first.get(attempt.engine, inf) <= attempt.start:
            yield f"engine {attempt.engine}: task {attempt.task} began before the START command"
        if not attempt.start <= last.get(attempt.engine, inf):
            yield f"engine {attempt.engine}: task {attempt.task} began after the STOP command"


def _heeded(evidence: Evidence) -> Iterator[str]:
    for order in evidence.orders:
        life = evidence.lives[order.life]
        for attempt in evidence.attempts:
            late = order.since + WORD < attempt.start < order.until
            wanted = order.tasks is None or attempt.task in order.tasks
            if late and wanted and attempt.engine in life.engines and not _knew_nothing(life, attempt):
                what = "a task" if order.tasks is None else f"task {attempt.task}"
                yield f"{what} was started after it was told not to be: {attempt}"
