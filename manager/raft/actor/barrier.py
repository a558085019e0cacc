"""Sync before send: nothing is promised before it is durable.

A vote, a request for votes (which holds one's own vote) and the answer that entries are here wait
until the journal has reached them. Everything else leaves at once: the leader sends entries while
its own disk still writes them, since it doesn't count itself before that is done.
"""

from __future__ import annotations

from collections import deque

from skep.manager.raft.actor.journal import Journal
from skep.manager.raft.actor.links import Links
from skep.manager.raft.core.codec import (
    AnyFrame,
    AppendAnswer,
    SnapshotAnswer,
    VoteAnswer,
    VoteRequest,
)

# A disk that has stalled for minutes. Answers beyond are dropped; the leader will ask again.
WAITING_LIMIT = 10_000


def is_promise(frame: AnyFrame) -> bool:
    """Whether others will rely on what this node's disk holds."""
    match frame:
        case VoteRequest(pre=pre) | VoteAnswer(pre=pre):
            return not pre
        case AppendAnswer(matched=matched, reset=reset):
            return matched or reset
        case SnapshotAnswer():
            return True
        case _:
            return False


class Barrier:
    """Holds promises back until they are durable."""

    def __init__(self, journal: Journal, links: Links) -> None:
        self._journal = journal
        self._links = links
        self._waiting: deque[tuple[int, int, AnyFrame]] = deque()

    def send(self, peer: int, frame: AnyFrame) -> None:
        """Send now, or once all that is recorded by now is durable."""
        if not is_promise(frame) or self._journal.durable >= self._journal.sequence:
            self._links.send(peer, frame)
        elif len(self._waiting) < WAITING_LIMIT:
            self._waiting.append((self._journal.sequence, peer, frame))

    async def room(self, peer: int) -> bool:
        """Wait until frames to `peer` don't pile up; False if there is no link."""
        return await self._links.room(peer)

    def release(self) -> None:
        """Send what has become durable."""
        while self._waiting and self._waiting[0][0] <= self._journal.durable:
            _, peer, frame = self._waiting.popleft()
            self._links.send(peer, frame)
