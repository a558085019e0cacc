"""`network doctor` and `network why`: asks the netproxies that follow any manager.

Whoever is called asks all managers, itself included, each of which asks the netproxies at the
other end of its own streams. What gives no answer in time is told as silent. Nothing is changed.
"""

from __future__ import annotations

import asyncio

from skep.api import codec
from skep.domain.base import NodeId
from skep.domain.control import DiagnoseNetworkRequest, DiagnoseNetworkResponse
from skep.domain.endpoints import NetworkQuestion
from skep.domain.objects import Node, Task
from skep.env import CallError, CallHandler, Channel, Code, Env
from skep.manager.control.core.find import find
from skep.manager.diagnose.core.compare import judged, merged
from skep.manager.endpoints.actor import EndpointServer
from skep.manager.store.actor import Store

METHOD = "skep.v1.Control/DiagnoseNetwork"
PART_METHOD = "skep.v1.Managers/Diagnose"
# Reading a kernel's tables and trying a dozen endpoints takes less; a hung netproxy isn't waited
# for any longer.
ANSWER_S = 4.0
# Above that, by what an answer takes to come back.
PART_DEADLINE_S = 5.0


class Diagnoses:
    """Handlers by method name."""

    def __init__(self, env: Env, store: Store, endpoints: EndpointServer, own_address: str) -> None:
        self._env = env
        self._store = store
        self._endpoints = endpoints
        self._own_address = own_address
        self._channels: dict[str, Channel] = {}

    def handlers(self) -> dict[str, CallHandler]:
        """The client's call, and the one between managers."""
        return {METHOD: self._whole, PART_METHOD: self._part}

    async def close(self) -> None:
        """Give the channels to other managers back."""
        for channel in self._channels.values():
            await channel.close()

    async def _whole(self, data: bytes) -> bytes:
        request = codec.decode(DiagnoseNetworkRequest, data)
        nodes = {node.id: node for node in self._store.tables.all(Node)}
        asked = self._asked(request)
        others = sorted(
            {node.control_address for node in nodes.values() if node.control_address}
            - {self._own_address}
        )
        work = [
            self._env.spawn("diagnose", self._ask(request)),
            *(self._env.spawn("diagnose", self._ask_manager(a, data)) for a in others),
        ]
        await asyncio.wait(work)
        answer = merged(each.result() for each in work)
        wanted = nodes if asked is None else {i: n for i, n in nodes.items() if i == asked}
        whole = judged(answer, wanted, self._endpoints.feed.last_change)
        return codec.encode(whole)

    async def _part(self, data: bytes) -> bytes:
        return codec.encode(await self._ask(codec.decode(DiagnoseNetworkRequest, data)))

    async def _ask(self, request: DiagnoseNetworkRequest) -> DiagnoseNetworkResponse:
        task = self._task(request)
        question = NetworkQuestion(
            id=self._env.ids.new_id(),
            name=request.name,
            task_id=None if task is None else task.id,
        )
        node_id = None if task is None else task.node_id
        diagnoses, silent = await self._endpoints.ask(question, node_id, ANSWER_S)
        names = {node.id: node.name for node in self._store.tables.all(Node)}
        return DiagnoseNetworkResponse(
            version=self._store.version,
            diagnoses=diagnoses,
            silent=tuple(
                (names.get(each, each), f"gave no answer in {ANSWER_S:g} s") for each in silent
            ),
        )

    async def _ask_manager(self, address: str, data: bytes) -> DiagnoseNetworkResponse:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._env.transport.channel(address)
        try:
            answer = await channel.call(PART_METHOD, data, deadline_s=PART_DEADLINE_S)
        except CallError:
            # Its netproxies follow another one by now, or are told as silent.
            return DiagnoseNetworkResponse(version=0)
        return codec.decode(DiagnoseNetworkResponse, answer)

    def _asked(self, request: DiagnoseNetworkRequest) -> NodeId | None:
        """The one node that is meant, if it is one. Raises CallError."""
        if bool(request.name) != bool(request.from_task):
            missing = "from_task" if request.name else "name"
            raise CallError(
                Code.INVALID_ARGUMENT,
                f"{missing}: required, since what a name leads to depends on who asks",
                {"field": missing},
            )
        task = self._task(request)
        if task is None:
            return None
        if task.node_id is None or task.is_terminal:
            raise CallError(
                Code.FAILED_PRECONDITION,
                f"task {task.name} is {task.status.state.value}: it has no network to ask from",
            )
        return task.node_id

    def _task(self, request: DiagnoseNetworkRequest) -> Task | None:
        return find(self._store.tables, Task, request.from_task) if request.from_task else None
