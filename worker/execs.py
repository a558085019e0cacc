"""Running programs inside tasks for the leader: one stream for each, apart from the session.

The program lives as long as its stream. Nothing of it is kept: an agent that dies takes it along.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from skep.api import codec
from skep.domain.base import ClusterId, NodeId, TaskId
from skep.domain.execution import (
    EXEC_FORMAT,
    ExecAnswer,
    ExecHello,
    ExecMessage,
    ExecOrder,
    ExecOutput,
    ExecSpec,
)
from skep.env import CallError, Env, Fatal, Rejected, Retryable, Stream, StreamBroken
from skep.worker.engine.protocol import Engine, Execution
from skep.worker.orders import CONNECT_DEADLINE_S, Orders

log = logging.getLogger(__name__)

METHOD = "skep.v1.ExecutionWorkers/RunExec"


class ExecRunner:
    """Carries out a leader's orders. Never blocks its caller."""

    def __init__(
        self, env: Env, cluster_id: ClusterId, node_id: NodeId, engines: Mapping[str, Engine]
    ) -> None:
        self._env = env
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._engines = engines
        self._orders = Orders(env, "exec")

    @property
    def open_orders(self) -> int:
        """How many programs are being run."""
        return len(self._orders)

    def begin(self, address: str, order: ExecOrder) -> None:
        """Carry out an order of the leader at `address`."""
        self._orders.begin(order.order_id, partial(self._carry_out, address, order))

    def cancel_all(self) -> None:
        """The session that all orders came by has ended."""
        self._orders.cancel_all()

    async def _carry_out(self, address: str, order: ExecOrder) -> None:
        channel = self._env.transport.channel(address)
        stream: Stream | None = None
        running: Execution | None = None
        try:
            stream = await channel.open(METHOD, deadline_s=CONNECT_DEADLINE_S)
            hello = ExecHello(
                format=EXEC_FORMAT,
                cluster_id=self._cluster_id,
                node_id=self._node_id,
                order_id=order.order_id,
            )
            await stream.send(codec.encode(ExecAnswer(hello=hello)))
            # A leader whose client has gone meanwhile ends the stream instead.
            if await stream.receive() is None:
                return
            try:
                running = await self._begun(order.task_id, order.spec)
            except (Rejected, Retryable, Fatal, OSError) as error:
                problem = ExecOutput(problem=str(error) or type(error).__name__)
                await stream.send(codec.encode(ExecAnswer(output=problem)))
                await stream.receive()
                return
            await self._talk(stream, running)
        except (CallError, StreamBroken, OSError) as error:
            log.info("exec=%s to=%s ended why=%s", order.order_id, address, error)
        finally:
            if running is not None:
                await running.close()
            if stream is not None:
                await stream.close()
            await channel.close()

    async def _begun(self, task_id: TaskId, spec: ExecSpec) -> Execution:
        problem = "its node has no such task"
        for engine in self._engines.values():
            try:
                return await engine.exec(task_id, spec)
            except Rejected as error:
                problem = str(error)
        raise Rejected(problem)

    async def _talk(self, stream: Stream, running: Execution) -> None:
        """Until the program has ended and all of its output is sent, or nobody wants it."""

        async def output() -> None:
            while True:
                told = await running.receive()
                await self._env.turn()
                await stream.send(codec.encode(ExecAnswer(output=told)))
                if told.exit_code is not None or told.problem:
                    return

        async def input_() -> None:
            while (frame := await stream.receive()) is not None:
                await self._env.turn()
                given = codec.decode(ExecMessage, frame).input
                if given is None:
                    continue
                if given.size is not None:
                    await running.resize(given.size)
                if given.data:
                    await running.send(given.data)
                if given.is_end:
                    await running.end_input()

        both = [self._env.spawn("exec/out", output()), self._env.spawn("exec/in", input_())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if both[0].done():
                both[0].result()
                # The leader closes once its client has all of it.
                await asyncio.wait((both[1],), timeout=None)
        finally:
            for each in both:
                each.cancel()
            await asyncio.wait(both)
