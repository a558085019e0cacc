"""Reading what tasks have written, across managers and broken streams, each line once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from skep.api import codec
from skep.client.calls import ATTEMPT_LIMIT_S, DELAY_LIMIT_S, FIRST_DELAY_S, Caller
from skep.client.errors import ClientError, ServerError, Unavailable, from_call
from skep.domain.base import TaskId, pairs, replace
from skep.domain.control import LogEvent, LogLine, LogsRequest
from skep.env import CallError, Code, Rejected, Stream, StreamBroken

if TYPE_CHECKING:
    from skep.client.cluster import Cluster

_WORTH_ANOTHER_TRY = frozenset({Code.UNAVAILABLE, Code.UNKNOWN, Code.DEADLINE_EXCEEDED})

# The last lines of a task are shown beside something more important, which must not wait for them.
LAST_LINES_DEADLINE_S = 2.0


class Failures:
    """How long streams have failed in a row. One that has lived longer than an attempt may take
    was a good one, whatever became of it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._since: float | None = None
        self._delay_s = 0.0

    def ended(self) -> None:
        """A stream was whole, or gave something."""
        self._since, self._delay_s = None, 0.0

    async def failed(self, opened_at: float, why: Exception) -> None:
        """A stream that was opened then has failed: wait for the next one's turn. Raises
        Unavailable once the caller's deadline is over."""
        clock = self._caller.clock
        now = clock.now()
        if now - opened_at > ATTEMPT_LIMIT_S:
            self.ended()
        if self._since is None:
            self._since = now
        elif now - self._since > self._caller.deadline_s:
            where = ", ".join(self._caller.addresses)
            raise Unavailable(f"no manager at {where} could read the logs (last: {why})") from None
        self._caller.turn_away()
        await clock.sleep(self._delay_s)
        self._delay_s = min(max(FIRST_DELAY_S, self._delay_s * 2), DELAY_LIMIT_S)


async def logs(caller: Caller, request: LogsRequest) -> AsyncGenerator[LogEvent, None]:
    """See `Cluster.logs`."""
    positions: dict[str, str] = {}
    failures = Failures(caller)
    while True:
        opened_at = caller.clock.now()
        try:
            stream = await caller.open("Logs", replace(request, positions=pairs(positions)))
            opened_at = caller.clock.now()
            try:
                while (event := await _receive(stream)) is not None:
                    failures.ended()
                    if event.task_id is not None and event.position:
                        positions[event.task_id] = event.position
                    if event.lines or event.problem:
                        yield event
            finally:
                await stream.close()
            return
        except StreamBroken as error:
            # Cancelling a reader may cut the stream under it; that must not pass for a failure.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error
            why: Exception = error
        except CallError as error:
            if error.code not in _WORTH_ANOTHER_TRY:
                raise from_call(error) from None
            why = error
        await failures.failed(opened_at, why)


async def _receive(stream: Stream) -> LogEvent | None:
    frame = await stream.receive()
    if frame is None:
        return None
    try:
        return codec.decode(LogEvent, frame)
    except Rejected as error:
        raise ServerError(f"a log event can't be read: {error}") from None


async def last_lines(cluster: Cluster, task_id: TaskId, count: int) -> list[LogLine]:
    """The newest `count` lines of a task, oldest first; fewer, or none, where they can't be had
    within two seconds. Never raises: whoever asks has something worse to tell."""
    found: list[LogLine] = []

    async def read() -> None:
        async with aclosing(cluster.logs(tasks=(task_id,), tail=count)) as events:
            async for event in events:
                found.extend(event.lines)
                del found[:-count]

    with suppress(TimeoutError, ClientError):
        await cluster.clock.within(LAST_LINES_DEADLINE_S, read())
    return found
