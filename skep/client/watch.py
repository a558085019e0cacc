"""Following changes without losing one: across managers, broken streams and half-seen commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from skep.api import codec
from skep.client.calls import DELAY_LIMIT_S, FIRST_DELAY_S, Caller
from skep.client.errors import ServerError, from_call
from skep.domain.control import (
    GetClusterRequest,
    GetClusterResponse,
    WatchEvent,
    WatchRequest,
)
from skep.env import CallError, Code, Rejected, Stream, StreamBroken

_WORTH_ANOTHER_TRY = frozenset({Code.UNAVAILABLE, Code.UNKNOWN, Code.DEADLINE_EXCEEDED})


class Cursor:
    """How far a watcher has come. One commit may carry several events, so that a break within a
    commit resumes before it and passes over those already seen."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._seen = 0
        self._is_whole = True
        self._to_skip = 0

    def resume(self) -> int:
        """The version to follow from, in a new stream."""
        if self._is_whole:
            return self._version
        self._to_skip = self._seen
        return self._version - 1

    def advance(self, event: WatchEvent) -> bool:
        """Take one event in; False if it has been seen before."""
        if event.action is None and not event.is_resync and event.version < self._version:
            # A new stream says where it begins: before the commit of which a part has been seen.
            return False
        if event.action is None:
            # A resync, or the word that all up to this version has been sent.
            self._version, self._seen = event.version, 0
            self._is_whole, self._to_skip = True, 0
            return True
        if event.version == self._version and not self._is_whole:
            if self._to_skip:
                self._to_skip -= 1
                return False
            self._seen += 1
            return True
        self._version, self._seen = event.version, 1
        self._is_whole, self._to_skip = False, 0
        return True


async def watch(
    caller: Caller, from_version: int | None, kinds: tuple[str, ...]
) -> AsyncIterator[WatchEvent]:
    """See `Cluster.watch`."""
    if from_version is None:
        # "From now" must mean one moment, not a later one after each broken stream.
        now = await caller.call("GetCluster", GetClusterRequest(), GetClusterResponse)
        from_version = now.version
    cursor = Cursor(from_version)
    delay_s = 0.0
    while True:
        request = WatchRequest(from_version=cursor.resume(), kinds=kinds)
        try:
            stream = await caller.open("Watch", request)
            try:
                while (event := await _receive(stream)) is not None:
                    delay_s = 0.0
                    if cursor.advance(event):
                        yield event
            finally:
                await stream.close()
        except StreamBroken as error:
            # Cancelling a reader may cut the stream under it; that must not pass for a failure.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error
        except CallError as error:
            if error.code not in _WORTH_ANOTHER_TRY:
                raise from_call(error) from None
        # It ended without a reason to stop: its manager is leaving, or has gone.
        caller.turn_away()
        await caller.clock.sleep(delay_s)
        delay_s = min(max(FIRST_DELAY_S, delay_s * 2), DELAY_LIMIT_S)


async def _receive(stream: Stream) -> WatchEvent | None:
    frame = await stream.receive()
    if frame is None:
        return None
    try:
        return codec.decode(WatchEvent, frame)
    except Rejected as error:
        raise ServerError(f"a watch event can't be read: {error}") from None
