"""The shell round the two cores: follows a manager's endpoint stream and has it put in force.

What is held is kept on disk and put in force at start, before any manager has answered: a node that
restarts while no manager can be reached serves what it last knew.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

import msgspec

from skep.actor import Actor, Mailbox, Overflow
from skep.api import codec
from skep.domain.base import ClusterId, NodeId, Struct, decode, encode
from skep.domain.endpoints import (
    ENDPOINT_FORMAT,
    Diagnosis,
    EndpointUpdate,
    MeshNode,
    NetproxyApplied,
    NetproxyHello,
    NetproxyMessage,
    NetworkEntry,
    NetworkQuestion,
    ServiceEndpoints,
)
from skep.env import CallError, Env, Rejected, Retryable, Stream, StreamBroken
from skep.netproxy.core import endpoints, follow
from skep.netproxy.core.routes import Desired, VipForm
from skep.netproxy.dataplane import Network

log = logging.getLogger(__name__)

FOLLOW_METHOD = "skep.v1.Endpoints/Follow"
STATE_FILE = "endpoints"
STATE_FORMAT = 1
# Connecting takes milliseconds; another manager is tried well before this one counts as silent.
DIAL_DEADLINE_S = 2.0
# A cluster in a rolling update changes many times a second, and each save costs an fsync. What is
# lost by the wait is only ever stale, and put right by the first manager that answers.
SAVE_PERIOD_S = 1.0
# Frames are handled at once; a manager that sends faster than that waits.
INBOX_LIMIT = 64


class SavedState(Struct, frozen=True, kw_only=True):
    """What is on disk. Of another cluster or node it is of no use, and dropped."""

    format: int
    cluster_id: ClusterId
    node_id: NodeId
    version: int
    services: tuple[ServiceEndpoints, ...] = ()
    nodes: tuple[MeshNode, ...] = ()
    networks: tuple[NetworkEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """Stream `number` can be written to."""

    number: int
    stream: Stream


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """One frame of stream `number`."""

    number: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """Stream `number` was not opened, or has ended."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The time that the follow core asked for."""


@dataclass(frozen=True, slots=True)
class RetryReached:
    """The time that the endpoint table asked for."""


Message = StreamOpened | FrameReceived | StreamEnded | DeadlineReached | RetryReached


def make_mailbox() -> Mailbox[Message]:
    """The actor's inbox: everyone who leaves a message may wait."""
    return Mailbox("netproxy", INBOX_LIMIT, Overflow.WAIT)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this netproxy is, and whom it may follow. `vip_form` says where this node listens for
    virtual addresses, if it does."""

    cluster_id: ClusterId
    node_id: NodeId
    managers: tuple[str, ...]
    vip_form: VipForm | None = None


@dataclass(slots=True)
class Progress:
    """What metrics show; outlives the actor."""

    held_version: int = 0
    applied_version: int = 0
    is_connected: bool = False
    errors: tuple[str, ...] = ()
    streams: int = 0


class FollowActor(Actor[Message]):
    """Keeps this node's data plane as the managers want it."""

    def __init__(
        self,
        env: Env,
        mailbox: Mailbox[Message],
        identity: Identity,
        network: Network,
        progress: Progress,
    ) -> None:
        super().__init__(env, mailbox)
        self._identity = identity
        self._network = network
        self._progress = progress
        self._table = endpoints.EndpointTable(identity.node_id, identity.vip_form)
        self._follow = follow.Follow(identity.managers, env.fork_dice("netproxy"))
        self._conversation: asyncio.Task[None] | None = None
        self._outbox: Mailbox[NetproxyMessage] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._deadline: asyncio.Task[None] | None = None
        self._retry: asyncio.Task[None] | None = None
        self._save_wanted = asyncio.Event()
        self._saver: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def started(self) -> None:
        """Serve what is on disk, then look for a manager."""
        saved = self._load()
        self._saver = self.env.spawn("netproxy-saver", self._save_when_wanted())
        await self._step_table(
            endpoints.StateLoaded(saved.version, saved.services, saved.nodes, saved.networks)
            if saved
            else endpoints.StateLoaded(0, (), ())
        )
        await self._step_follow(follow.Started(self.env.now()))

    async def stopped(self) -> None:
        """End all that this incarnation started; the data plane goes on as it is."""
        self._progress.is_connected = False
        tasks = (self._conversation, self._writer, self._deadline, self._retry, self._saver)
        for task in (*tasks, self._looking):
            if task is not None:
                task.cancel()
        if self._save_wanted.is_set():
            await self._save()

    async def handle(self, message: Message) -> None:
        """One message."""
        now = self.env.now()
        match message:
            case StreamOpened(number, stream):
                if self._is_present(number):
                    log.info("manager=%s stream=%d state=open", stream.peer, number)
                    await self._opened(stream)
            case FrameReceived(number, frame):
                if self._is_present(number):
                    await self._frame(now, number, frame)
            case StreamEnded(number, why):
                if self._is_present(number):
                    log.warning("stream=%d state=ended why=%r", number, why)
                    await self._hang_up()
                    await self._step_follow(follow.Lost(now, number, why))
            case DeadlineReached():
                await self._step_follow(follow.DeadlineReached(now))
            case RetryReached():
                await self._step_table(endpoints.RetryReached())

    # ------------------------------------------------------------------------------ the cores

    async def _step_follow(self, event: follow.Event) -> None:
        for effect in self._follow.step(event):
            match effect:
                case follow.Dial(number, address):
                    self._progress.streams += 1
                    self._conversation = self.env.spawn(
                        f"netproxy-stream-{number}", self._converse(number, address)
                    )
                case follow.Leave(number, why):
                    log.warning("stream=%d state=left why=%r", number, why)
                    await self._hang_up()
                case follow.SetDeadline(at):
                    self._deadline = self._later(self._deadline, at, DeadlineReached())

    async def _step_table(self, event: endpoints.Event) -> None:
        effects = deque(self._table.step(event))
        while effects:
            match effects.popleft():
                case endpoints.SendHello(version):
                    self._send(NetproxyMessage(hello=self._hello(version)))
                case endpoints.SendApplied(version, errors):
                    applied = NetproxyApplied(version=version, errors=errors)
                    self._send(NetproxyMessage(applied=applied))
                case endpoints.Apply(desired):
                    effects.extend(self._table.step(await self._apply(desired)))
                case endpoints.Save():
                    self._save_wanted.set()
                case endpoints.SetRetry(at):
                    self._retry = self._later(self._retry, at, RetryReached())
                case endpoints.Cut(why):
                    await self._step_follow(
                        follow.Unwanted(self.env.now(), self._follow.number, why)
                    )
        self._show_progress()

    async def _apply(self, desired: Desired) -> endpoints.PlaneApplied:
        try:
            problems = await self._network.apply(desired)
        except Retryable as error:
            return endpoints.PlaneApplied(
                self.env.now(), desired.version, (str(error),), is_in_force=False
            )
        return endpoints.PlaneApplied(self.env.now(), desired.version, problems)

    def _show_progress(self) -> None:
        progress = self._progress
        progress.held_version = self._table.version
        progress.applied_version = self._table.in_force
        if self._table.errors != progress.errors:
            for error in self._table.errors:
                if error not in progress.errors:
                    log.error("apply=incomplete version=%d why=%r", self._table.version, error)
            progress.errors = self._table.errors

    def _later(
        self, old: asyncio.Task[None] | None, at: float, message: Message
    ) -> asyncio.Task[None]:
        if old is not None:
            old.cancel()

        async def tell() -> None:
            await self.env.clock.sleep(max(0.0, at - self.env.now()))
            await self.mailbox.put(message)

        return self.env.spawn("netproxy-timer", tell())

    # ----------------------------------------------------------------------------- the stream

    def _is_present(self, number: int) -> bool:
        return self._conversation is not None and number == self._follow.number

    async def _converse(self, number: int, address: str) -> None:
        channel = self.env.transport.channel(address)
        why = "the manager closed it"
        try:
            stream = await channel.open(FOLLOW_METHOD, deadline_s=DIAL_DEADLINE_S)
            try:
                await self.mailbox.put(StreamOpened(number, stream))
                while (frame := await stream.receive()) is not None:
                    await self.mailbox.put(FrameReceived(number, frame))
            finally:
                await stream.close()
        except (CallError, StreamBroken) as error:
            why = str(error)
        finally:
            await channel.close()
        await self.mailbox.put(StreamEnded(number, f"{address}: {why}"))

    async def _opened(self, stream: Stream) -> None:
        # One hello, and the newest of the acknowledgements and of the answers that wait.
        self._outbox = Mailbox(
            "netproxy-outbox",
            3,
            Overflow.COALESCE,
            key=lambda message: (message.hello is None, message.applied is None),
        )
        self._writer = self.env.spawn("netproxy-writer", _write(stream, self._outbox))
        self._progress.is_connected = True
        await self._step_table(endpoints.StreamOpened())

    def _send(self, message: NetproxyMessage) -> None:
        if self._outbox is not None:
            self._outbox.tell(message)

    def _hello(self, applied_version: int) -> NetproxyHello:
        return NetproxyHello(
            format=ENDPOINT_FORMAT,
            cluster_id=self._identity.cluster_id,
            node_id=self._identity.node_id,
            applied_version=applied_version,
        )

    async def _frame(self, now: float, number: int, frame: bytes) -> None:
        try:
            update = codec.decode(EndpointUpdate, frame)
        except Rejected as error:
            await self._step_follow(follow.Unwanted(now, number, str(error)))
            return
        if update.question is not None:
            # The answer may take seconds, and updates don't wait for it.
            self._looking = self.env.spawn("netproxy-look", self._answer(update.question))
            await self._step_follow(follow.Heard(now, number))
            return
        await self._step_table(endpoints.UpdateReceived(now, update, len(frame)))
        # Where the table had no use for it, the stream is no longer the present one.
        await self._step_follow(follow.Heard(now, number))

    async def _answer(self, question: NetworkQuestion) -> None:
        look = await self._network.diagnose(question)
        table = self._table
        diagnosis = Diagnosis(
            question_id=question.id,
            node_id=self._identity.node_id,
            plane=look.plane,
            held_version=table.version,
            applied_version=table.in_force,
            problems=table.errors,
            differences=look.differences,
            facts=look.facts,
            answer=look.answer,
        )
        self._send(NetproxyMessage(diagnosis=diagnosis))

    async def _hang_up(self) -> None:
        for task in (self._conversation, self._writer):
            if task is not None:
                task.cancel()
        self._conversation = self._writer = self._outbox = None
        self._progress.is_connected = False
        await self._step_table(endpoints.StreamLost())

    # ------------------------------------------------------------------------------- the disk

    def _load(self) -> SavedState | None:
        try:
            data = self.env.disk.read(STATE_FILE)
            saved = decode(SavedState, data) if data is not None else None
        except (msgspec.DecodeError, OSError) as error:
            log.error("state=unreadable why=%r", str(error))
            return None
        if saved is None:
            return None
        identity = self._identity
        if (saved.format, saved.cluster_id, saved.node_id) != (
            STATE_FORMAT,
            identity.cluster_id,
            identity.node_id,
        ):
            log.error("state=unusable why='format %d of another cluster or node'", saved.format)
            return None
        log.info("state=loaded version=%d services=%d", saved.version, len(saved.services))
        return saved

    async def _save_when_wanted(self) -> None:
        while True:
            await self._save_wanted.wait()
            await self._save()
            await self.env.clock.sleep(SAVE_PERIOD_S)

    async def _save(self) -> None:
        self._save_wanted.clear()
        table = self._table
        state = SavedState(
            format=STATE_FORMAT,
            cluster_id=self._identity.cluster_id,
            node_id=self._identity.node_id,
            version=table.version,
            services=tuple(table.services.values()),
            nodes=tuple(table.nodes.values()),
            networks=tuple(table.networks.values()),
        )
        try:
            await self.env.disk.replace(STATE_FILE, encode(state))
        except OSError as error:
            log.error("state=unsaved version=%d why=%r", state.version, str(error))
            self._save_wanted.set()


async def _write(stream: Stream, outbox: Mailbox[NetproxyMessage]) -> None:
    try:
        while True:
            await stream.send(codec.encode(await outbox.take()))
    except (StreamBroken, CallError):
        return  # The reading side says why.
