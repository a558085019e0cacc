"""The agent: its core with a disk, engines, timers and the link's inbox round it.

Nothing here waits for a disk, an engine or the leader: saves and calls run beside the actor, and
their results come back as messages. So heartbeats and health tests go on whatever hangs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from skep.actor import Actor, InboxFull, Mailbox
from skep.domain.base import ClusterId, NodeId, SessionId, TaskId
from skep.domain.states import TaskState
from skep.env import Env, Retryable, Timer
from skep.worker.core.agent import AgentCore, StrayTask
from skep.worker.core.events import (
    AgentEffect,
    AgentEvent,
    CallDue,
    ChangeSaved,
    FlushDue,
    ForgetTask,
    LeaveSession,
    Moment,
    NoteMove,
    PutOffCall,
    RaiseTerm,
    SaveChange,
    SaveFailed,
    SendBatch,
    SessionClosed,
    SetFlush,
    StartCall,
    TakeSupplies,
)
from skep.worker.core.link import Begun, SessionRefused, TermRaised
from skep.worker.engine.protocol import Engine, NodeFacts
from skep.worker.journal import Journal
from skep.worker.link import BatchReady, LinkMessage, LinkRestarted
from skep.worker.runner import Runner, moment
from skep.worker.supplies import Supplies

log = logging.getLogger(__name__)

# A node runs some hundreds of tasks; each has three calls and a few timers under way at most.
AGENT_INBOX_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Own:
    """A message to one incarnation of the agent: its calls, saves and timers end with it."""

    incarnation: AgentActor
    event: AgentEvent


AgentMessage = AgentEvent | LinkRestarted | Own


@dataclass
class AgentView:
    """What others may look at: the present core, and what came of it. For metrics and tests."""

    core: AgentCore | None = None
    moves: int = 0
    saves: int = 0
    save_failures: int = 0

    @property
    def session_id(self) -> SessionId | None:
        """The present session, if there is one."""
        return self.core.session_id if self.core else None

    def states(self) -> Counter[TaskState]:
        """How many tasks are in which state."""
        return self.core.states() if self.core else Counter()


@dataclass(frozen=True)
class AgentParts:
    """What an agent is made of besides its seams. `on_step` sees every step; tests check there."""

    cluster_id: ClusterId
    node_id: NodeId
    facts: NodeFacts
    engines: Mapping[str, Engine]
    supplies: Supplies
    view: AgentView
    on_step: Callable[[AgentCore], None] | None = None


class AgentActor(Actor[AgentMessage]):
    """See the module. `link` is the link's inbox."""

    def __init__(
        self,
        env: Env,
        mailbox: Mailbox[AgentMessage],
        link: Mailbox[LinkMessage],
        parts: AgentParts,
    ) -> None:
        super().__init__(env, mailbox)
        self._link = link
        self._parts = parts
        self._core: AgentCore
        self._journal: Journal | None = None
        self._saving: asyncio.Task[None] | None = None
        self._runners: dict[TaskId, Runner] = {}
        self._timers: dict[Hashable, Timer] = {}
        self._is_stopped = False

    async def started(self) -> None:
        """Take up what is on disk and in the engines, then look for a leader."""
        parts = self._parts
        self._journal = Journal.open(self.env.disk, parts.cluster_id, parts.node_id)
        # This life's core knows nothing of what an earlier one was given.
        parts.supplies.give_all((), ())
        strays = []
        for name, engine in parts.engines.items():
            strays += [StrayTask(held, name) for held in await engine.held()]
        self._core = parts.view.core = AgentCore(self._journal.ledger)
        self._execute(self._core.begin(moment(self.env), strays))
        self._looked_at()
        self._link.tell(Begun(self.env.now(), self._core.highest_term))

    async def stopped(self) -> None:
        """Leave tasks running; let a write that has begun end, since it can't be called back."""
        self._is_stopped = True
        for timer in self._timers.values():
            timer.cancel()
        ending = [task for runner in self._runners.values() for task in runner.close()]
        if self._saving is not None:
            ending.append(self._saving)
        if ending:
            await asyncio.wait(ending)
        if self._journal is not None:
            self._journal.close()

    async def handle(self, message: AgentMessage) -> None:
        """See `Actor.handle`."""
        match message:
            case LinkRestarted():
                at = moment(self.env)
                self._step(SessionClosed(at, "the link was restarted"))
                self._link.tell(Begun(at.now, self._core.highest_term))
            case Own(incarnation, event):
                # What an earlier incarnation asked for is for the new one to ask again.
                if incarnation is self:
                    self._step(event)
            case _:
                self._step(message)

    def _step(self, event: AgentEvent) -> None:
        self._execute(self._core.step(event))
        self._looked_at()

    def _looked_at(self) -> None:
        if self._parts.on_step is not None:
            self._parts.on_step(self._core)

    def _execute(self, effects: list[AgentEffect]) -> None:
        for effect in effects:
            match effect:
                case StartCall(call, assignment, health):
                    self._runner(assignment.task.id).begin(call, assignment, health)
                case TakeSupplies():
                    self._take(effect)
                case PutOffCall():
                    self._put_off(effect)
                case NoteMove(task_id, old, new, why):
                    self._parts.view.moves += 1
                    log.info("task=%s from=%s to=%s why=%s", task_id, old.value, new.value, why)
                case ForgetTask(task_id):
                    self._forget(task_id)
                case SaveChange():
                    self._saving = self.env.spawn("agent/save", self._save(effect))
                case SetFlush(due):
                    self._set_timer("flush", due, FlushDue)
                case SendBatch(session_id, batch):
                    self._link.tell(BatchReady(session_id, batch))
                case LeaveSession(session_id, why):
                    self._link.tell(SessionRefused(self.env.now(), session_id, why))
                case RaiseTerm(term):
                    self._link.tell(TermRaised(self.env.now(), term))

    def _take(self, effect: TakeSupplies) -> None:
        supplies = self._parts.supplies
        if effect.is_all:
            supplies.give_all(effect.files, effect.logins or ())
            return
        supplies.give(effect.files, effect.removed)
        if effect.logins is not None:
            supplies.set_logins(effect.logins)

    def _runner(self, task_id: TaskId) -> Runner:
        runner = self._runners.get(task_id)
        if runner is None:
            runner = Runner(self.env, self._parts.engines, self._parts.facts, self._answer)
            self._runners[task_id] = runner
        return runner

    def _forget(self, task_id: TaskId) -> None:
        runner = self._runners.pop(task_id, None)
        if runner is not None:
            runner.close()
        for key in [key for key in self._timers if isinstance(key, tuple) and key[0] == task_id]:
            self._timers.pop(key).cancel()
        log.info("task=%s forgotten", task_id)

    async def _answer(self, event: AgentEvent) -> None:
        await self.mailbox.put(Own(self, event))

    async def _save(self, effect: SaveChange) -> None:
        assert self._journal is not None
        event: AgentEvent
        try:
            await self._journal.save(effect.change)
            self._parts.view.saves += 1
            event = ChangeSaved(moment(self.env), effect.number)
        except (OSError, Retryable) as error:
            self._parts.view.save_failures += 1
            log.error("save number=%d failed why=%s", effect.number, error)
            event = SaveFailed(moment(self.env), effect.number, str(error))
        await self.env.turn()
        if not self._is_stopped:
            await self._answer(event)

    def _put_off(self, effect: PutOffCall) -> None:
        self._set_timer(
            (effect.task_id, effect.call),
            effect.due,
            lambda at: CallDue(at, effect.task_id, effect.call),
        )

    def _set_timer(self, key: Hashable, due: float, make: Callable[[Moment], AgentEvent]) -> None:
        if key in self._timers:
            self._timers[key].cancel()

        def fire() -> None:
            self._timers.pop(key, None)
            # A loop may call a hair early; the core must not take that for an overtaken timer.
            event = make(Moment(max(due, self.env.now()), self.env.wall()))
            try:
                self.mailbox.tell(Own(self, event))
            except InboxFull:
                self.env.spawn("agent/timer", self._answer(event))

        self._timers[key] = self.env.clock.call_at(due, fire)
