"""The streams of netproxies on this manager, and how far each of them is.

Every manager serves them, leader or not: the feed follows this manager's own store. What netproxies
say they have applied is reported to the leader by `skep.manager.roster`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from skep.api import codec
from skep.domain.base import ClusterId, NodeId
from skep.domain.control import NetproxyProgress
from skep.domain.endpoints import (
    ENDPOINT_FORMAT,
    Diagnosis,
    EndpointUpdate,
    NetproxyMessage,
    NetworkQuestion,
)
from skep.env import CallError, Env, Stream, StreamBroken
from skep.manager.endpoints.core.feed import EndpointFeed
from skep.manager.hello import receive_hello
from skep.manager.store.actor import Store
from skep.manager.store.core.command import Change

log = logging.getLogger(__name__)

METHOD = "skep.v1.Endpoints/Follow"

# A follower hears at least this often, so that silence means that something is broken.
SIGN_OF_LIFE_S = 2.0
# A change after a quiet moment travels at once, and those that come within this time after it
# together: a cluster that is deploying something changes hundreds of times a second.
COALESCE_S = 0.01


@dataclass
class _Follower:
    """One netproxy's stream."""

    node_id: NodeId
    stream: Stream
    sent: int
    applied: int
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    errors: tuple[str, ...] = ()
    questions: list[NetworkQuestion] = field(default_factory=list)


class EndpointServer:
    """Serves the endpoint stream. `on_progress` is called when a netproxy's version moves."""

    def __init__(self, env: Env, store: Store, cluster_id: ClusterId) -> None:
        self._env = env
        self._store = store
        self._cluster_id = cluster_id
        self._followers: dict[NodeId, _Follower] = {}
        self._answers: dict[tuple[NodeId, str], asyncio.Future[Diagnosis]] = {}
        # The last step that was encoded, from one version to another.
        self._encoded: tuple[tuple[int, int] | None, tuple[bytes, ...]] = (None, ())
        self.feed = EndpointFeed()
        self.on_progress: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Follow the store from its present state."""
        self.feed.reset(self._store.tables, self._store.version)
        self._store.subscribe(self._changed)

    def restored(self) -> None:
        """The store was replaced by a snapshot."""
        self._encoded = (None, ())
        self.feed.reset(self._store.tables, self._store.version)
        self._wake_all()

    def progress(self) -> tuple[NetproxyProgress, ...]:
        """How far the netproxies on this manager are."""
        return tuple(
            NetproxyProgress(
                node_id=follower.node_id, version=follower.applied, errors=follower.errors
            )
            for follower in self._followers.values()
        )

    async def ask(
        self, question: NetworkQuestion, node_id: NodeId | None, within_s: float
    ) -> tuple[tuple[Diagnosis, ...], tuple[NodeId, ...]]:
        """What the netproxies on this manager say, or the one of `node_id` if it is here; and who
        of them said nothing in time."""
        asked = {
            follower.node_id: asyncio.Future[Diagnosis]()
            for follower in self._followers.values()
            if node_id in (None, follower.node_id)
        }
        keys = {(each, question.id): future for each, future in asked.items()}
        self._answers.update(keys)
        for each in asked:
            self._followers[each].questions.append(question)
            self._followers[each].wake.set()
        try:
            if asked:
                await asyncio.wait(asked.values(), timeout=within_s)
        finally:
            for key in keys:
                del self._answers[key]
        answered = {each: future.result() for each, future in asked.items() if future.done()}
        return tuple(answered.values()), tuple(each for each in asked if each not in answered)

    async def serve(self, stream: Stream) -> None:
        """One netproxy, until it goes away. See `skep.env.StreamHandler`."""
        hello = await receive_hello(
            self._env,
            stream,
            lambda frame: codec.decode(NetproxyMessage, frame).hello,
            ENDPOINT_FORMAT,
            self._cluster_id,
        )
        old = self._followers.get(hello.node_id)
        if old is not None:
            await old.stream.close()
        follower = _Follower(hello.node_id, stream, hello.applied_version, hello.applied_version)
        self._followers[hello.node_id] = follower
        log.info("netproxy=%s follows from=%d", hello.node_id, hello.applied_version)
        reader = self._env.spawn(f"endpoints/read/{hello.node_id}", self._read(follower))
        try:
            await self._write(follower, reader)
        finally:
            reader.cancel()
            if self._followers.get(hello.node_id) is follower:
                del self._followers[hello.node_id]
                self.on_progress()
            log.info("netproxy=%s left applied=%d", hello.node_id, follower.applied)

    async def _write(self, follower: _Follower, reader: asyncio.Task[None]) -> None:
        while not reader.done():
            follower.wake.clear()
            # The frames are of one moment: between computing and sending them nothing is awaited
            # but the sending, and they carry their own version.
            version = self.feed.version
            for frame in self._frames_since(follower.sent):
                await follower.stream.send(frame)
            follower.sent = version
            while follower.questions:
                question = follower.questions.pop(0)
                update = EndpointUpdate(from_version=version, version=version, question=question)
                await follower.stream.send(codec.encode(update))
            try:
                sent_at = self._env.now()
                await self._env.clock.within(SIGN_OF_LIFE_S, follower.wake.wait())
                if (rest_s := sent_at + COALESCE_S - self._env.now()) > 0:
                    await self._env.clock.sleep(rest_s)
            except TimeoutError:
                continue

    def _frames_since(self, version: int) -> tuple[bytes, ...]:
        """What takes a follower from `version` to now. Nearly all of them are as far, and a service
        of a thousand tasks takes 3 ms to encode: it is done once for those that come together."""
        step = (version, self.feed.version)
        if self._encoded[0] != step:
            frames = self.feed.update_since(version)
            self._encoded = step, tuple(codec.encode(frame) for frame in frames)
        return self._encoded[1]

    async def _read(self, follower: _Follower) -> None:
        try:
            while (frame := await follower.stream.receive()) is not None:
                message = codec.decode(NetproxyMessage, frame)
                if message.diagnosis is not None:
                    self._answered(follower, message.diagnosis)
                applied = message.applied
                if applied is None:
                    continue
                if applied.errors != follower.errors:
                    follower.errors = applied.errors
                    log.warning("netproxy=%s errors=%s", follower.node_id, list(applied.errors))
                    self.on_progress()
                if applied.version != follower.applied:
                    follower.applied = applied.version
                    self.on_progress()
        except (StreamBroken, CallError):
            pass
        finally:
            follower.wake.set()

    def _answered(self, follower: _Follower, diagnosis: Diagnosis) -> None:
        waiting = self._answers.get((follower.node_id, diagnosis.question_id))
        if waiting is not None and not waiting.done():
            waiting.set_result(diagnosis)

    def _changed(self, changes: list[Change]) -> None:
        if self.feed.apply(self._store.tables, changes, self._store.version):
            self._wake_all()

    def _wake_all(self) -> None:
        for follower in self._followers.values():
            follower.wake.set()
