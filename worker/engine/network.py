"""What an engine asks of the netproxy of its node: to connect a task to its networks, and to undo
that once the task has ended.

In the relay plane a task without networks needs nothing of the kind, and starts whether or not a
netproxy runs. In the kernel plane every task is in a network namespace of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable

from skep.api import codec
from skep.domain.attach import AttachRequest, AttachResponse, DetachRequest, HoldRequest
from skep.domain.base import ServiceId, TaskId
from skep.domain.session import Assignment
from skep.domain.spec import PROCESS
from skep.domain.templates import wanted_vips
from skep.env import CallError, Channel, Env, Retryable

log = logging.getLogger(__name__)

KERNEL = "kernel"
_METHOD = "skep.v1.Attach/"
# Attaching takes milliseconds; a netproxy that needs longer is in trouble, and is asked again.
CALL_DEADLINE_S = 5.0
# The end of a task is not held up for longer: what is left over is found out later.
DETACH_DEADLINE_S = 2.0
HOLD_RETRY_S = 5.0


class TaskNetwork:
    """The netproxy at `address` ("unix:/path"), which has this data plane; "" for none. All tasks
    are known once each of the `engines` has said which it has."""

    def __init__(
        self,
        env: Env,
        address: str = "",
        plane: str = "relay",
        engines: Collection[str] = (PROCESS,),
    ) -> None:
        self._env = env
        self._address = address
        self._plane = plane
        self._channel: Channel | None = None
        self._live: set[TaskId] = set()
        self._holding: asyncio.Task[None] | None = None
        self._unheard = set(engines)
        self._owes_word = False
        self._change = asyncio.Lock()

    @property
    def plane(self) -> str:
        """The node's data plane."""
        return self._plane

    async def attach(self, assignment: Assignment) -> AttachResponse:
        """Connect a task; what isn't needed is empty. Raises Retryable: there may be no netproxy
        at the moment, or it hasn't heard of a network or a service yet."""
        task, run = assignment.task, assignment.spec.task.run
        names = wanted_vips(run)
        if not (task.attachments or names or self._plane == KERNEL):
            return AttachResponse()
        request = AttachRequest(
            task_id=task.id,
            service_id=ServiceId(task.service_id),
            service_name=task.service_name,
            attachments=task.attachments,
            names=names,
            hostname=f"{task.name}.{task.id}",
        )
        self._live.add(task.id)
        try:
            async with self._change:
                data = await self._call("Attach", codec.encode(request), CALL_DEADLINE_S)
        except CallError as error:
            raise Retryable(f"networks: {error.message}") from error
        return codec.decode(AttachResponse, data)

    async def detach(self, task_id: TaskId) -> None:
        """Undo `attach`; fine for a task that never was, for which, once all are known, nobody is
        asked. Where the netproxy doesn't answer in time,
        it is told all tasks that there are as soon as it does."""
        if self._knows_all and task_id not in self._live:
            return
        self._live.discard(task_id)
        if not self._address:
            return
        try:
            request = codec.encode(DetachRequest(task_id=task_id))
            await self._call("Detach", request, DETACH_DEADLINE_S)
        except CallError as error:
            log.warning("task=%s detached=no why=%r", task_id, error.message)
            self._say_again()

    def take_over(self, live: Iterable[TaskId], engine: str = PROCESS) -> None:
        """These tasks of an engine live on from before. What else is attached is taken away once
        all engines have said so and the netproxy answers."""
        self._live.update(live)
        self._unheard.discard(engine)
        self._say_again()

    @property
    def _knows_all(self) -> bool:
        return not self._unheard

    def _say_again(self) -> None:
        """Say which tasks there are, which takes all others away. Before all are known, that would
        be those that live on from before."""
        # Also while it is under way: what was said may have been said too early.
        self._owes_word = True
        if not (self._address and self._knows_all):
            return
        if self._holding is None or self._holding.done():
            self._holding = self._env.spawn("network-hold", self._hold())

    async def close(self) -> None:
        """Give the connection back."""
        if self._holding is not None:
            self._holding.cancel()
        if self._channel is not None:
            await self._channel.close()

    async def _hold(self) -> None:
        while self._owes_word:
            # A task that is attached meanwhile would be missing from the list, and be cut off.
            async with self._change:
                self._owes_word = False
                try:
                    request = codec.encode(HoldRequest(task_ids=tuple(sorted(self._live))))
                    await self._call("Hold", request, CALL_DEADLINE_S)
                    continue
                except CallError as error:
                    self._owes_word = True
                    log.info("held=untold why=%r", error.message)
            await self._env.clock.sleep(HOLD_RETRY_S)

    async def _call(self, method: str, request: bytes, deadline_s: float) -> bytes:
        if not self._address:
            raise Retryable("this task is on networks, but the node has no netproxy to ask")
        if self._channel is None:
            self._channel = self._env.transport.channel(self._address)
        return await self._channel.call(_METHOD + method, request, deadline_s=deadline_s)
