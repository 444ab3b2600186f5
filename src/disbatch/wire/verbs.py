"""The requests of the verbs that change a run, one for each verb in `model.verbs`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, get_args

import msgspec

from disbatch.model import verbs
from disbatch.model.verbs import RunVerb
from disbatch.wire.engine_protocol import Count, Name

MOST_NAMES = 1024
MOST_RANGES = 8192
"""The most ranges in one request, which keeps it far below the size limit of messages."""

Names = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=MOST_NAMES)]
Ranges = Annotated[list[tuple[Count, Count]], msgspec.Meta(min_length=1, max_length=MOST_RANGES)]


class Drain(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Drain these nodes, or the nodes of these labels: running tasks finish, then the nodes are released."""

    verb: ClassVar[RunVerb] = verbs.DRAIN
    names: Names


class Stop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Stop these nodes, or the nodes of these labels: running tasks are ended, to be run elsewhere, and the
    nodes are released."""

    verb: ClassVar[RunVerb] = verbs.STOP
    names: Names


class Pause(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Start no more tasks."""

    verb: ClassVar[RunVerb] = verbs.PAUSE


class Unpause(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Start tasks again."""

    verb: ClassVar[RunVerb] = verbs.RESUME


class Cancel(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Cancel these tasks, and end those that run: (first, last) id of each range."""

    verb: ClassVar[RunVerb] = verbs.CANCEL
    ranges: Ranges


class Close(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """No more tasks will be submitted: the run ends when all are done."""

    verb: ClassVar[RunVerb] = verbs.CLOSE


class Finish(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """End the run now, in good order, to be resumed later."""

    verb: ClassVar[RunVerb] = verbs.FINISH


RunRequest = Drain | Stop | Pause | Unpause | Cancel | Close | Finish
_REQUESTS: dict[str, Any] = {request.verb.name: request for request in get_args(RunRequest)}


def run_request(verb: RunVerb, *arguments: object) -> RunRequest:
    """The request of this verb. `arguments`: names of nodes, or ranges of task ids, or none, according to its
    target."""
    request: RunRequest = _REQUESTS[verb.name](*arguments)
    return request
