"""The link to the leader: `LinkCore` with a stream, a timer and the agent's inbox round it.

The reader hands over one frame and waits until it is handled, so that a flood of frames slows the
leader down instead of filling the inbox. The writer has a queue of its own, so that a leader that
doesn't read can't hold the link up; when the queue is full, the connection is given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from skep.actor import Actor, InboxFull, Mailbox, Reply
from skep.api import codec
from skep.domain.base import SessionId
from skep.domain.session import LeaderMessage, StatusBatch, WorkerMessage
from skep.env import CallError, Env, Rejected, Stream, StreamBroken, Timer
from skep.worker.core.events import (
    AgentEvent,
    SessionClosed,
    SessionOpened,
    SetReceived,
    StatusesAcknowledged,
    TasksDrained,
)
from skep.worker.core.link import (
    Begun,
    Connect,
    Connected,
    Described,
    Disconnected,
    HangUp,
    LinkCore,
    LinkEffect,
    LinkEvent,
    MessageReceived,
    Send,
    SessionRefused,
    SetTick,
    TellClosed,
    TellMessage,
    TellWelcome,
    TermRaised,
    Ticked,
)
from skep.worker.execs import ExecRunner
from skep.worker.logs import LogPublisher
from skep.worker.runner import moment

log = logging.getLogger(__name__)

SESSION_METHOD = "skep.v1.Workers/Session"
# A manager on the same network accepts in milliseconds; a stuck one must not hold up the search
# until the leader's successor judges who is lost.
CONNECT_DEADLINE_S = 1.0
# One frame, a few ticks, and what the agent says: never near this.
LINK_INBOX_LIMIT = 256
# Heartbeats and at most four batches; more means that the leader has stopped reading.
OUTBOX_LIMIT = 64


@dataclass(frozen=True, slots=True)
class LinkRestarted:
    """Told to the agent: this link knows nothing; it waits for `Begun`."""


@dataclass(frozen=True, slots=True)
class BatchReady:
    """Told by the agent: send this, if that session is still the present one."""

    session_id: SessionId
    batch: StatusBatch


@dataclass(frozen=True, slots=True)
class _Handed:
    """One event of the reader, which waits until it is handled."""

    reader: LinkActor
    event: LinkEvent
    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class Errands:
    """Who carries out what a leader asks for beside the session: orders for logs, which end with
    it, and those for programs inside tasks, which live as long as their own streams."""

    logs: LogPublisher
    execs: ExecRunner


LinkMessage = Begun | SessionRefused | TermRaised | Described | Ticked | BatchReady | _Handed


class LinkActor(Actor[LinkMessage]):
    """See the module. `agent` leaves a message in the agent's inbox, waiting for room."""

    def __init__(
        self,
        env: Env,
        mailbox: Mailbox[LinkMessage],
        agent: Callable[[AgentEvent | LinkRestarted], Awaitable[None]],
        errands: Errands,
        make_core: Callable[[], LinkCore],
    ) -> None:
        super().__init__(env, mailbox)
        self._agent = agent
        self._errands = errands
        self._core = make_core()
        self._timer: Timer | None = None
        self._talk: asyncio.Task[None] | None = None
        self._outbox: Mailbox[WorkerMessage] | None = None
        self._noted: set[str] = set()

    async def started(self) -> None:
        """See `Actor.started`."""
        await self._agent(LinkRestarted())

    async def stopped(self) -> None:
        """See `Actor.stopped`."""
        self._errands.logs.cancel_all()
        self._errands.execs.cancel_all()
        self._hang_up()
        if self._timer is not None:
            self._timer.cancel()

    async def handle(self, message: LinkMessage) -> None:
        """See `Actor.handle`."""
        match message:
            case BatchReady(session_id, batch):
                if session_id == self._core.session_id:
                    await self._execute([Send(WorkerMessage(statuses=batch))])
            case _Handed(reader, event, reply):
                try:
                    # What an earlier incarnation's reader left behind is about its connection.
                    if reader is self:
                        await self._execute(self._core.step(event))
                finally:
                    reply.set(None)
            case _:
                await self._execute(self._core.step(message))

    async def _execute(self, effects: list[LinkEffect]) -> None:
        for effect in effects:
            match effect:
                case Connect(connection, address):
                    self._connect(connection, address)
                case Send(message):
                    await self._send(message)
                case HangUp(why):
                    self._note_end(why)
                    self._hang_up()
                case SetTick(due):
                    self._set_tick(due)
                case TellWelcome(session_id, term):
                    self._noted.clear()
                    log.info("session=%s term=%d to=%s", session_id, term, self._core.address)
                    await self._agent(SessionOpened(moment(self.env), session_id, term))
                case TellMessage(session_id, message):
                    await self._tell_agent(session_id, message)
                case TellClosed(why):
                    self._errands.logs.cancel_all()
                    await self._agent(SessionClosed(moment(self.env), why))

    def _note_end(self, why: str) -> None:
        """One line for each reason: managers may be away for days, and we ask every 2 s."""
        if why not in self._noted:
            self._noted.add(why)
            log.info("link to=%s closed why=%s", self._core.address, why)

    async def _tell_agent(self, session_id: SessionId, message: LeaderMessage) -> None:
        at = moment(self.env)
        event: AgentEvent
        if message.assignments is not None:
            event = SetReceived(at, session_id, message.assignments)
        elif message.stored is not None:
            event = StatusesAcknowledged(at, session_id, message.stored.number)
        elif message.drained is not None:
            event = TasksDrained(at, session_id, message.drained.task_ids)
        elif message.logs is not None:
            self._errands.logs.begin(self._core.address, message.logs)
            return
        elif message.logs_cancelled is not None:
            self._errands.logs.cancel(message.logs_cancelled.order_id)
            return
        elif message.exec is not None:
            self._errands.execs.begin(self._core.address, message.exec)
            return
        else:
            return  # A newer leader may say what this release doesn't know.
        await self._agent(event)

    def _set_tick(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # A loop may call a hair early; the core must not take that for an overtaken timer.
        self._timer = self.env.clock.call_at(
            due, lambda: self.mailbox.tell(Ticked(max(due, self.env.now())))
        )

    async def _send(self, message: WorkerMessage) -> None:
        if self._outbox is None:
            return  # The connection has just been given up.
        try:
            self._outbox.tell(message)
        except InboxFull:
            why = f"{self._outbox.name} does not read"
            gone = Disconnected(self.env.now(), self._core.connection, why)
            await self._execute(self._core.step(gone))

    def _hang_up(self) -> None:
        self._outbox = None
        if self._talk is not None:
            self._talk.cancel()
            self._talk = None

    # ------------------------------------------------------------------- one connection

    def _connect(self, connection: int, address: str) -> None:
        self._hang_up()
        self._outbox = Mailbox(address, OUTBOX_LIMIT)
        self._talk = self.env.spawn(
            f"link/{connection}", self._run_talk(connection, address, self._outbox)
        )

    async def _run_talk(
        self, connection: int, address: str, outbox: Mailbox[WorkerMessage]
    ) -> None:
        leader = ""
        try:
            why = await self._talk_to(connection, address, outbox)
        except CallError as error:
            why, leader = error.message, error.details.get("leader", "")
        except (StreamBroken, Rejected, OSError) as error:
            why = str(error)
        await self._hand(Disconnected(self.env.now(), connection, why, leader))

    async def _talk_to(self, connection: int, address: str, outbox: Mailbox[WorkerMessage]) -> str:
        channel = self.env.transport.channel(address)
        stream: Stream | None = None
        writer: asyncio.Task[None] | None = None
        try:
            stream = await channel.open(SESSION_METHOD, deadline_s=CONNECT_DEADLINE_S)
            writer = self.env.spawn(f"link/{connection}/writer", self._write(stream, outbox))
            await self._hand(Connected(self.env.now(), connection))
            while (frame := await stream.receive()) is not None:
                await self.env.turn()
                message = codec.decode(LeaderMessage, frame)
                await self._hand(MessageReceived(self.env.now(), connection, message))
            return f"{address} closed the stream"
        finally:
            if writer is not None:
                writer.cancel()
            if stream is not None:
                await stream.close()
            await channel.close()

    async def _hand(self, event: LinkEvent) -> None:
        reply: Reply[None] = Reply()
        self.mailbox.tell(_Handed(self, event, reply))
        await reply.wait()

    async def _write(self, stream: Stream, outbox: Mailbox[WorkerMessage]) -> None:
        while True:
            message = await outbox.take()
            await self.env.turn()
            try:
                await stream.send(codec.encode(message))
            except (CallError, StreamBroken):
                return  # The reader learns why, and says so.
