"""Programs that are run inside tasks: between those who want them and the nodes that run them.

The leader pairs a client's stream with one that the task's worker opens for it, and passes frames
on, each side at the pace of the other. Both streams end together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from skep.api import codec
from skep.domain.base import ClusterId, NodeId
from skep.domain.execution import (
    EXEC_FORMAT,
    ExecAnswer,
    ExecMessage,
    ExecOrder,
    ExecOutput,
    ExecRequest,
)
from skep.domain.objects import Node, Task
from skep.domain.session import LeaderMessage
from skep.domain.states import TaskState
from skep.env import CallError, Code, Env, Stream, StreamBroken
from skep.manager.control.core.find import find
from skep.manager.hello import receive_hello
from skep.manager.leading import Office, Sessions, catch_up, stream_to_leader
from skep.manager.store.actor import Store

log = logging.getLogger(__name__)

METHOD = "skep.v1.Execution/Exec"
FORWARDED = f"forwarded/{METHOD}"
RUN = "skep.v1.ExecutionWorkers/RunExec"

# People at terminals, and scripts of theirs; each costs two streams.
LIMIT = 128
# A worker opens its stream within milliseconds.
ANSWER_DEADLINE_S = 5.0


@dataclass(eq=False)
class _Opened:
    """An order that its node may open a stream for, and that stream once it is there."""

    node_id: NodeId
    worker: Stream | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Execs:
    """Serves Execution/Exec and ExecutionWorkers/RunExec on one manager."""

    def __init__(self, env: Env, store: Store, office: Office, cluster_id: ClusterId) -> None:
        self._env = env
        self._store = store
        self._office = office
        self._cluster_id = cluster_id
        self._clients = 0
        self._opened: dict[str, _Opened] = {}

    @property
    def open_count(self) -> int:
        """How many clients there are now."""
        return self._clients

    async def serve(self, stream: Stream) -> None:
        """One client at any manager. See `skep.env.StreamHandler`."""
        await self._serve(stream, may_forward=True)

    async def serve_forwarded(self, stream: Stream) -> None:
        """One client at a manager that was believed to lead."""
        await self._serve(stream, may_forward=False)

    async def _serve(self, stream: Stream, *, may_forward: bool) -> None:
        frame = await stream.receive()
        if frame is None:
            return
        request = codec.decode(ExecMessage, frame).request
        if request is None or not request.spec.argv:
            raise CallError(Code.INVALID_ARGUMENT, "spec.argv: what to run is missing")
        if self._clients >= LIMIT:
            raise CallError(
                Code.RESOURCE_EXHAUSTED, f"{LIMIT} programs are run in tasks from here already"
            )
        self._clients += 1
        try:
            sessions = self._office.dispatcher
            if self._office.is_leader and sessions is not None:
                await self._run(stream, request, sessions)
            else:
                await self._forward(stream, frame, may_forward=may_forward)
        finally:
            self._clients -= 1

    async def _forward(self, stream: Stream, frame: bytes, *, may_forward: bool) -> None:
        forwarded = stream_to_leader(self._env, self._office, FORWARDED, may_forward=may_forward)
        async with forwarded as leader:
            await leader.send(frame)
            await self._pass_both_ways(stream, leader.send, self._from(leader, "the leader"))

    def _from(self, leader: Stream, who: str) -> Callable[[], Awaitable[bytes | None]]:
        async def receive() -> bytes | None:
            try:
                return await leader.receive()
            except StreamBroken as error:
                raise CallError(Code.UNKNOWN, f"{who} is gone: {error}") from None

        return receive

    async def _run(self, stream: Stream, request: ExecRequest, sessions: Sessions) -> None:
        await catch_up(self._store)
        task = find(self._store.tables, Task, request.task)
        node_id = task.node_id
        if task.status.state is not TaskState.RUNNING or node_id is None:
            raise CallError(
                Code.FAILED_PRECONDITION,
                f"task {task.name} ({task.id}) is {task.status.state.value}; programs can be run "
                "in running tasks",
            )
        if sessions.session_of(node_id) is None:
            node = self._store.tables.get(Node, node_id)
            name = node.name if node is not None else node_id
            raise CallError(Code.FAILED_PRECONDITION, f"node {name} is not connected")
        order_id = self._env.ids.new_id()
        opened = self._opened[order_id] = _Opened(node_id)
        order = ExecOrder(order_id=order_id, task_id=task.id, spec=request.spec)
        log.info("exec=%s task=%s node=%s", order_id, task.id, node_id)
        sessions.tell(node_id, LeaderMessage(exec=order))
        try:
            await self._pair(stream, opened)
        finally:
            del self._opened[order_id]
            opened.ended.set()

    async def _pair(self, stream: Stream, opened: _Opened) -> None:
        try:
            await self._env.clock.within(ANSWER_DEADLINE_S, opened.arrived.wait())
        except TimeoutError:
            raise CallError(Code.UNAVAILABLE, "the task's node does not answer") from None
        worker = opened.worker
        assert worker is not None
        is_over = False

        async def output() -> bytes | None:
            nonlocal is_over
            if is_over:
                return None
            frame = await self._from(worker, "the task's node")()
            told = None if frame is None else codec.decode(ExecAnswer, frame).output
            if told is None:
                raise CallError(Code.UNKNOWN, "the task's node went away before the program ended")
            if told.problem:
                raise CallError(Code.FAILED_PRECONDITION, told.problem)
            is_over = told.exit_code is not None
            return codec.encode(told)

        # Both begin now: until then nothing was done, and the client may ask another manager.
        await worker.send(codec.encode(ExecMessage()))
        await stream.send(codec.encode(ExecOutput()))
        await self._pass_both_ways(stream, worker.send, output)

    async def _pass_both_ways(
        self,
        client: Stream,
        send: Callable[[bytes], Awaitable[None]],
        receive: Callable[[], Awaitable[bytes | None]],
    ) -> None:
        """The client's frames to where the program runs, and what it says back, to its end; or to
        the client's: a client that has gone needs no program any more."""

        async def outward() -> None:
            while (frame := await receive()) is not None:
                await self._env.turn()
                await client.send(frame)

        async def inward() -> None:
            while (frame := await client.receive()) is not None:
                await self._env.turn()
                message = codec.decode(ExecMessage, frame)
                if message.input is not None:
                    await send(frame)

        both = [self._env.spawn("exec/out", outward()), self._env.spawn("exec/in", inward())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            # A client closes its stream when it has all, or when it wants no more of it.
            error = (both[0] if both[0].done() else both[1]).exception()
            if error is not None:
                raise error
        finally:
            for each in both:
                each.cancel()
            await asyncio.wait(both)

    async def serve_run(self, stream: Stream) -> None:
        """One order, from the node that it was given to. See `skep.env.StreamHandler`."""
        hello = await receive_hello(
            self._env,
            stream,
            lambda frame: codec.decode(ExecAnswer, frame).hello,
            EXEC_FORMAT,
            self._cluster_id,
        )
        opened = self._opened.get(hello.order_id)
        if opened is None:
            raise CallError(Code.NOT_FOUND, "nobody wants this any more")
        if opened.node_id != hello.node_id or opened.worker is not None:
            log.warning("exec=%s node=%s refused", hello.order_id, hello.node_id)
            raise CallError(Code.PERMISSION_DENIED, "this order is another's")
        opened.worker = stream
        opened.arrived.set()
        await opened.ended.wait()
