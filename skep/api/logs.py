"""Passing lines on without looking at each of them."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from skep.api import control_pb2
from skep.domain.control import LogEvent
from skep.env import Rejected


def labelled(lines: bytes, label: LogEvent) -> bytes:
    """`label`, encoded, with the lines of another encoded event, and nothing else of that one: a
    node says what its tasks wrote, and not whose it is. Raises Rejected for what is no event."""
    message = control_pb2.LogEvent()
    try:
        message.ParseFromString(lines)
    except DecodeError as error:
        raise Rejected(f"lines: not a LogEvent: {error}", field="lines") from None
    found = control_pb2.LogEvent(
        task_name=label.task_name,
        node_name=label.node_name,
        problem=label.problem,
        position=label.position,
        lines=message.lines,
    )
    if label.task_id is not None:
        found.task_id = label.task_id
    return found.SerializeToString()
