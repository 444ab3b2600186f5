"""What somebody at the page may want the run to do: JSON in, a verb of the control channel out."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from disbatch.model.errors import UsageError
from disbatch.wire.messages import Count
from disbatch.wire.requests import Cancel, Drain, Finish, Pause, Stop, Unpause, Verb

MOST_BYTES = 1 << 16
_Node = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class _Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    verb: Literal["drain", "stop", "pause", "resume", "cancel", "finish"]
    nodes: Annotated[list[_Node], msgspec.Meta(max_length=1024)] = []
    tasks: Annotated[list[tuple[Count, Count]], msgspec.Meta(max_length=1024)] = []


def parse_order(body: bytes) -> Verb:
    """The verb that a body asks for. UsageError."""
    try:
        order = msgspec.json.decode(body, type=_Order)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"no order: {error}") from error
    if order.verb in ("drain", "stop"):
        if not order.nodes or not all(node.isprintable() for node in order.nodes):
            raise UsageError(f"{order.verb}: no node is named")
        return Drain(order.nodes) if order.verb == "drain" else Stop(order.nodes)
    if order.verb == "cancel":
        if not order.tasks or any(last < first for first, last in order.tasks):
            raise UsageError("cancel: no task is named")
        return Cancel(order.tasks)
    if order.verb == "finish":
        return Finish()
    return Pause() if order.verb == "pause" else Unpause()
