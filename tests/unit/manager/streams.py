"""A stream whose other end is the test."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from skep.api import codec
from skep.domain.base import Struct
from skep.env import StreamBroken

S = TypeVar("S", bound=Struct)


class FakeStream:
    """`skep.env.Stream`. With `is_stuck` nothing that is sent gets away."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_stuck = False
        self.is_closed = False
        self._inbox: asyncio.Queue[bytes | StreamBroken | None] = asyncio.Queue()

    @property
    def peer(self) -> str:
        return "the test"

    async def send(self, frame: bytes) -> None:
        if self.is_closed:
            raise StreamBroken("closed")
        if self.is_stuck:
            await asyncio.Event().wait()
        self.sent.append(frame)

    async def receive(self) -> bytes | None:
        frame = await self._inbox.get()
        if isinstance(frame, StreamBroken):
            raise frame
        return frame

    async def close(self) -> None:
        self.is_closed = True
        self._inbox.put_nowait(None)

    def say(self, message: Struct) -> None:
        """The other end says something."""
        self._inbox.put_nowait(codec.encode(message))

    def hang_up(self, *, is_broken: bool = False) -> None:
        """The other end goes."""
        self._inbox.put_nowait(StreamBroken("cut") if is_broken else None)

    def heard(self, kind: type[S]) -> list[S]:
        """All that the other end has been told."""
        return [codec.decode(kind, frame) for frame in self.sent]
