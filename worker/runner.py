"""What one task asks of its engine, carried out.

A runner has at most three calls under way: one that changes the task (prepare, start, stop,
remove), one that waits for its end, and one that tests its health. Stopping and removing first
cancel a preparation, a start or a test. Answers go to the agent's inbox as events, which waits
when the agent is behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from skep.domain.base import TaskId, replace
from skep.domain.session import Assignment
from skep.domain.spec import HealthCheck
from skep.env import Env, Rejected, Retryable
from skep.worker.core.events import (
    Call,
    CallFailed,
    CallReported,
    CallSucceeded,
    HealthProbed,
    Moment,
    ProcessEnded,
    ProcessStarted,
    TaskEvent,
)
from skep.worker.engine.protocol import Engine, NodeFacts

log = logging.getLogger(__name__)

Answer = Callable[[TaskEvent], Coroutine[Any, Any, None]]


def _tested_by(assignment: Assignment, health: HealthCheck) -> Assignment:
    spec = assignment.spec
    run = replace(spec.task.run, health=health)
    return replace(assignment, spec=replace(spec, task=replace(spec.task, run=run)))


def moment(env: Env) -> Moment:
    """Now."""
    return Moment(env.now(), env.wall())


class Runner:
    """The calls of one task. Every answer goes to `answer`."""

    def __init__(
        self, env: Env, engines: Mapping[str, Engine], facts: NodeFacts, answer: Answer
    ) -> None:
        self._env = env
        self._engines = engines
        self._facts = facts
        self._answer = answer
        self._changing: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._reporting: asyncio.Task[None] | None = None

    def begin(self, call: Call, assignment: Assignment, health: HealthCheck | None = None) -> None:
        """Start a call; never waits. `health` is how to test it, if not as its spec says."""
        if health is not None:
            assignment = _tested_by(assignment, health)
        name = f"task/{assignment.task.id}/{call.value}"
        match call:
            case Call.WAIT:
                self._waiting = self._env.spawn(name, self._run(call, assignment))
            case Call.PROBE:
                self._probing = self._env.spawn(name, self._run(call, assignment))
            case Call.STOP | Call.REMOVE:
                before = [task for task in (self._changing, self._probing) if task is not None]
                self._changing = self._env.spawn(name, self._run_after(before, call, assignment))
            case _:
                self._changing = self._env.spawn(name, self._run(call, assignment))

    def close(self) -> list[asyncio.Task[None]]:
        """Cancel what is under way; the task itself goes on. Returns what is ending."""
        calls = (self._changing, self._waiting, self._probing, self._reporting)
        tasks = [task for task in calls if task]
        for task in tasks:
            task.cancel()
        return tasks

    async def _run_after(
        self, before: list[asyncio.Task[None]], call: Call, assignment: Assignment
    ) -> None:
        for task in before:
            task.cancel()
        if before:
            await asyncio.wait(before)
        await self._run(call, assignment)

    async def _run(self, call: Call, assignment: Assignment) -> None:
        task_id = assignment.task.id
        try:
            event = await self._ask(call, assignment)
        except (Rejected, Retryable, OSError) as error:
            is_retryable = not isinstance(error, Rejected)
            event = CallFailed(moment(self._env), task_id, call, str(error), is_retryable)
        except Exception as error:
            # A runner is its own loop: a bug that one task hits must not take the others along.
            log.exception("task=%s call=%s died", task_id, call.value)
            why = f"internal error: {type(error).__name__}: {error}"
            event = CallFailed(moment(self._env), task_id, call, why, is_retryable=False)
        await self._env.turn()
        await self._answer(event)

    async def _ask(self, call: Call, assignment: Assignment) -> TaskEvent:
        task_id = assignment.task.id
        engine = self._engines.get(assignment.spec.task.engine)
        if engine is None:
            return self._without_engine(call, assignment)
        match call:
            case Call.START:
                started = await engine.start(task_id)
                return ProcessStarted(moment(self._env), task_id, started)
            case Call.WAIT:
                exit_ = await engine.wait(task_id)
                return ProcessEnded(moment(self._env), task_id, exit_)
            case Call.PROBE:
                health = assignment.spec.task.run.health
                assert health is not None, task_id
                complaint = await engine.probe(task_id, health)
                return HealthProbed(moment(self._env), task_id, complaint)
            case Call.PREPARE:
                await engine.prepare(assignment, self._facts, partial(self._report, task_id, call))
            case Call.STOP:
                await engine.stop(task_id)
            case Call.REMOVE:
                await engine.remove(task_id)
        return CallSucceeded(moment(self._env), task_id, call)

    def _report(self, task_id: TaskId, call: Call, words: str) -> None:
        """Pass on how far a call is; left out while the agent has not taken what came before."""
        if self._reporting is None or self._reporting.done():
            event = CallReported(moment(self._env), task_id, call, words)
            self._reporting = self._env.spawn(f"task/{task_id}/report", self._answer(event))

    def _without_engine(self, call: Call, assignment: Assignment) -> TaskEvent:
        """An engine that isn't here has nothing to stop or to remove, either."""
        if call in (Call.STOP, Call.REMOVE):
            return CallSucceeded(moment(self._env), assignment.task.id, call)
        name, has = assignment.spec.task.engine, ", ".join(sorted(self._engines))
        raise Rejected(f"this node has no engine {name!r}; it has: {has}")
