"""One link to every other manager: dialled, greeted, kept alive, bounded.

Of two managers the one with the lower raft id dials. A link that comes in replaces the one that is
there, and nothing that the older one still delivers is heard: messages of one peer stay in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from skep.env import CallError, Listener, Service, Stream, StreamBroken, Transport
from skep.manager.raft.actor.context import Context
from skep.manager.raft.core import codec

METHOD = "skep.raft/Link"

logger = logging.getLogger(__name__)


class LinkHooks(Protocol):
    """What links tell their node."""

    def link_up(self, peer: int) -> None:
        """Frames to `peer` can be sent."""
        ...

    def link_down(self, peer: int) -> None:
        """Frames to `peer` can't be sent; those that were under way may be lost."""
        ...

    def link_full(self, peer: int) -> None:
        """Too much is waiting to be sent to `peer`; hold back until `link_drained`."""
        ...

    def link_drained(self, peer: int) -> None:
        """There is room again."""
        ...

    def frame_received(self, peer: int, frame: codec.AnyFrame) -> None:
        """A frame has come from `peer`."""
        ...


class _Link:
    """One stream in use, and what waits to be sent on it."""

    def __init__(self, stream: Stream, now: float) -> None:
        self.stream = stream
        self.queue: deque[bytes] = deque()
        self.queued_bytes = 0
        self.is_held_back = False
        self.work = asyncio.Event()
        self.drained = asyncio.Event()
        self.drained.set()
        self.ended = asyncio.Event()
        self.heard_at = now

    def put(self, data: bytes) -> None:
        self.queue.append(data)
        self.queued_bytes += len(data)
        self.work.set()

    def end(self) -> None:
        """Whoever serves it gives it up; nothing is heard or sent on it any more."""
        self.drained.set()
        self.ended.set()


class Links:
    """All the links of one node."""

    def __init__(
        self,
        context: Context,
        transport: Transport,
        addresses: Mapping[int, str],
        hooks: LinkHooks,
    ) -> None:
        self._env = context.env
        self._cluster = context.cluster
        self._me = context.me
        self._settings = context.settings
        self._tasks = context.tasks
        self._dice = context.env.fork_dice("raft.links")
        self._transport = transport
        self._peers = dict(addresses)
        self._hooks = hooks
        self._links: dict[int, _Link] = {}
        self._listener: Listener | None = None
        self._is_stopped = False

    @property
    def address(self) -> str:
        """Where this node listens."""
        assert self._listener is not None
        return self._listener.address

    async def start(self, listen: str) -> None:
        """Listen, and dial the peers that are ours to dial. Raises OSError."""
        self._listener = await self._transport.listen(listen, Service(streams={METHOD: self._take}))
        for peer in sorted(self._peers):
            if self._me < peer:
                self._tasks.spawn(f"raft-dial-{peer}", self._dial, peer)
        self._tasks.spawn("raft-pings", self._keep_alive)

    async def stop(self) -> None:
        """Close everything. The dialling ends with the node's tasks."""
        self._is_stopped = True
        if self._listener is not None:
            await self._listener.close()
        for link in list(self._links.values()):
            link.end()

    def is_up(self, peer: int) -> bool:
        """Whether there is a link to `peer`."""
        return peer in self._links

    def send(self, peer: int, frame: codec.AnyFrame) -> None:
        """Queue a frame; without a link, or with far too much waiting, it is lost."""
        link = self._links.get(peer)
        # The engine is held back from the first limit on; what still comes is small answers.
        if link is None or link.queued_bytes > 2 * self._settings.link_limit_bytes:
            return
        link.put(codec.encode(frame))
        if link.queued_bytes > self._settings.link_limit_bytes and not link.is_held_back:
            link.is_held_back = True
            link.drained.clear()
            self._hooks.link_full(peer)

    async def room(self, peer: int) -> bool:
        """Wait until frames to `peer` don't pile up; False if there is no link."""
        link = self._links.get(peer)
        if link is None:
            return False
        await link.drained.wait()
        return self._links.get(peer) is link

    # --------------------------------------------------------------------------- making a link

    async def _dial(self, peer: int) -> None:
        channel = self._transport.channel(self._peers[peer])
        try:
            while True:
                try:
                    deadline_s = self._settings.dial_deadline_s
                    stream = await channel.open(METHOD, deadline_s=deadline_s)
                    await self._use(stream, frozenset({peer}))
                except (CallError, StreamBroken, TimeoutError) as error:
                    logger.debug("dial node=%s peer=%s why=%s", self._env.node, peer, error)
                await self._env.clock.sleep(self._settings.redial_s * self._dice.uniform(0.5, 1.5))
        finally:
            await channel.close()

    async def _take(self, stream: Stream) -> None:
        try:
            await self._use(stream, frozenset(peer for peer in self._peers if peer < self._me))
        except (CallError, StreamBroken, TimeoutError) as error:
            logger.debug("link node=%s peer=%s why=%s", self._env.node, stream.peer, error)

    async def _use(self, stream: Stream, expected: frozenset[int]) -> None:
        """Greet, and serve the link until it ends."""
        try:
            peer = await self._greet(stream, expected)
            if peer is not None and not self._is_stopped:
                await self._serve(peer, stream)
        finally:
            await stream.close()

    async def _greet(self, stream: Stream, expected: frozenset[int]) -> int | None:
        await stream.send(codec.encode(codec.Hello(codec.VERSION, self._cluster, self._me)))
        deadline_s = self._settings.dial_deadline_s
        data = await self._env.clock.within(deadline_s, stream.receive())
        if data is None:
            return None
        try:
            return codec.check_hello(codec.decode(data), self._cluster, expected)
        except codec.FrameInvalid as error:
            logger.warning(
                "link refused node=%s peer=%s why=%s", self._env.node, stream.peer, error
            )
            await stream.send(codec.encode(codec.Refused(str(error))))
            return None

    # ---------------------------------------------------------------------------- using a link

    async def _serve(self, peer: int, stream: Stream) -> None:
        link = _Link(stream, self._env.now())
        older = self._links.get(peer)
        self._links[peer] = link
        if older is not None:
            older.end()
            self._hooks.link_down(peer)
        self._hooks.link_up(peer)
        logger.info("link up node=%s peer=%s address=%s", self._env.node, peer, stream.peer)
        reader = self._tasks.spawn(f"raft-read-{peer}", self._read, peer, link)
        writer = self._tasks.spawn(f"raft-write-{peer}", self._write, peer, link)
        try:
            await link.ended.wait()
        finally:
            reader.cancel()
            writer.cancel()
            link.end()
            if self._links.get(peer) is link:
                del self._links[peer]
                self._hooks.link_down(peer)
                logger.info("link down node=%s peer=%s", self._env.node, peer)

    async def _read(self, peer: int, link: _Link) -> None:
        try:
            while True:
                data = await link.stream.receive()
                await self._env.turn()
                if data is None or link.ended.is_set():
                    return
                link.heard_at = self._env.now()
                frame = codec.decode(data)
                if isinstance(frame, codec.Refused):
                    raise codec.FrameInvalid(f"the other side refused: {frame.why}")
                if not isinstance(frame, codec.Ping):
                    self._hooks.frame_received(peer, frame)
        except (StreamBroken, CallError) as error:
            logger.debug("link broken node=%s peer=%s why=%s", self._env.node, peer, error)
        except codec.FrameInvalid as error:
            logger.warning("link cut node=%s peer=%s why=%s", self._env.node, peer, error)
        finally:
            link.end()

    async def _write(self, peer: int, link: _Link) -> None:
        try:
            while True:
                await link.work.wait()
                link.work.clear()
                while link.queue:
                    data = link.queue.popleft()
                    await link.stream.send(data)
                    link.queued_bytes -= len(data)
                    self._let_go(peer, link)
        except (StreamBroken, CallError) as error:
            logger.debug("link broken node=%s peer=%s why=%s", self._env.node, peer, error)
        finally:
            link.end()

    def _let_go(self, peer: int, link: _Link) -> None:
        if link.is_held_back and link.queued_bytes < self._settings.link_limit_bytes // 2:
            link.is_held_back = False
            link.drained.set()
            if self._links.get(peer) is link:
                self._hooks.link_drained(peer)

    async def _keep_alive(self) -> None:
        """Ping every link, and cut those that have been silent for too long."""
        while True:
            await self._env.clock.sleep(self._settings.ping_s)
            await self._env.turn()
            for peer, link in list(self._links.items()):
                if self._env.now() - link.heard_at > self._settings.link_silence_s:
                    logger.warning("link cut node=%s peer=%s why=silent", self._env.node, peer)
                    link.end()
                elif not link.queue:
                    link.put(codec.encode(codec.Ping()))
