"""A node's network as a whole: the data plane, the names, and the tasks that are attached.

What managers want comes from the follower by `apply`; what the worker of this node asks for comes
as calls. Both are done one after the other. Attached tasks are on disk before anything is made for
them, so that whatever this process leaves behind when it dies is found again by the next one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import msgspec

from skep.api import codec
from skep.domain.attach import (
    AttachDone,
    AttachRequest,
    AttachResponse,
    DetachRequest,
    HoldRequest,
)
from skep.domain.base import ClusterId, NetworkId, NodeId, Struct, TaskId, decode, encode
from skep.domain.endpoints import Endpoint, NameAnswer, NetworkQuestion, Probe
from skep.env import CallError, Code, Env, Retryable, Service
from skep.netproxy.core.attachments import Attached, Attachments
from skep.netproxy.core.names import Names, lookup, meaning, whereabouts
from skep.netproxy.core.routes import Desired, inside
from skep.netproxy.core.world import World
from skep.netproxy.dataplane import Dataplane, Joined, Look
from skep.netproxy.dns.core.protocol import Listen
from skep.netproxy.dns.core.resolv import resolv_conf
from skep.netproxy.dns.core.zones import NetworkZone, Scope

log = logging.getLogger(__name__)

SERVICE = "skep.v1.Attach"
STATE_FILE = "attachments"
STATE_FORMAT = 1
TASK_DNS = ("127.0.0.11", 53)
# What others do to the kernel's tables (a firewall's restart, say) is put right within this time.
AUDIT_PERIOD_S = 30.0
# A sample of a service's endpoints says enough, and a person doesn't wait for long.
PROBE_LIMIT = 20
PROBE_S = 1.0
# A task with a namespace of its own serves on each of its networks, and so listens on all.
EVERY_ADDRESS = "0.0.0.0"


class SavedAttachments(Struct, frozen=True, kw_only=True):
    """What is on disk. Of another cluster or node it is of no use, and dropped."""

    format: int
    cluster_id: ClusterId
    node_id: NodeId
    attached: tuple[Attached, ...] = ()


class NameServer(Protocol):
    """Answers names; see `skep.netproxy.dns.client`."""

    async def apply(
        self, zones: dict[NetworkId, NetworkZone], listens: tuple[Listen, ...]
    ) -> tuple[str, ...]:
        """Put these names in force, to be answered at these places; returns what could not be
        done, for a person."""
        ...


class SharedDns(Protocol):
    """Where names are answered in a plane without namespaces."""

    def place(self, set_number: int) -> tuple[str, int]:
        """The address for a set of networks, by its number."""
        ...


class NodeNetwork:
    """See the module. `shared_dns` is None where each task has a namespace of its own."""

    def __init__(
        self,
        env: Env,
        identity: tuple[ClusterId, NodeId],
        plane: Dataplane,
        names: NameServer,
        shared_dns: SharedDns | None,
    ) -> None:
        self._env = env
        self._cluster_id, self._node_id = identity
        self._plane = plane
        self._server = names
        self._shared_dns = shared_dns
        self._names = Names(plane.forms)
        self._zones: dict[NetworkId, NetworkZone] = {}
        self._world = World()
        self._desired: Desired | None = None
        self._attachments = self._load()
        self._joined: dict[TaskId, Joined] = {}
        self._lock = asyncio.Lock()

    @property
    def attached(self) -> Attachments:
        """The attached tasks."""
        return self._attachments

    @property
    def zones(self) -> dict[NetworkId, NetworkZone]:
        """All names, as they were last put in force."""
        return self._zones

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        """See `Dataplane.apply`: names are part of it."""
        async with self._lock:
            self._desired = desired
            self._world = desired.world
            self._zones = self._names.zones(desired.world)
            problems = await self._complete()
            named = await self._tell_names()
            return (*problems, *named, *await self._plane.apply(desired))

    def service(self) -> Service:
        """The calls of this node's worker."""

        async def attach(data: bytes) -> bytes:
            return codec.encode(await self.attach(codec.decode(AttachRequest, data)))

        async def detach(data: bytes) -> bytes:
            await self.detach((codec.decode(DetachRequest, data).task_id,))
            return codec.encode(AttachDone(node_id=self._node_id))

        async def hold(data: bytes) -> bytes:
            await self.hold(codec.decode(HoldRequest, data).task_ids)
            return codec.encode(AttachDone(node_id=self._node_id))

        calls = {"Attach": attach, "Detach": detach, "Hold": hold}
        return Service({f"{SERVICE}/{name}": call for name, call in calls.items()})

    async def attach(self, request: AttachRequest) -> AttachResponse:
        """Connect one task. Raises CallError UNAVAILABLE where a network or a service isn't
        known yet, Retryable for trouble of the machine."""
        async with self._lock:
            self._check_known(request)
            vips = tuple((name, self._address_of(request, name)) for name in sorted(request.names))
            attached = self._attachments.by_task.get(request.task_id)
            if attached is None or attached.request != request:
                attached = self._attachments.add(request)
                await self._save()
            joined = await self._plane.attach(request, self._world)
            self._joined[request.task_id] = joined
            problems = await self._tell_names()
            if problems:
                raise Retryable(f"names can't be answered: {'; '.join(problems)}")
            log.info("task=%s attached=%d", request.task_id, len(request.attachments))
            return self._answer(attached, joined, vips)

    async def detach(self, task_ids: tuple[TaskId, ...]) -> None:
        """Forget these tasks, and take away all that they have here. Raises Retryable."""
        async with self._lock:
            await self._detach(task_ids)

    async def hold(self, task_ids: tuple[TaskId, ...]) -> None:
        """Take away what is attached beside these tasks. Raises Retryable."""
        async with self._lock:
            found = await self._plane.attached() - set(task_ids)
            gone = sorted({*self._attachments.beside(set(task_ids)), *found})
            if gone:
                log.info("attached=left over tasks=%s", ",".join(gone))
                await self._detach(tuple(gone))

    async def audit(self) -> None:
        """Look now and then whether the world is as it was put, and put it right."""
        while True:
            await self._env.clock.sleep(AUDIT_PERIOD_S)
            async with self._lock:
                differences = await self._plane.differences()
                for difference in differences:
                    log.warning("difference=%r", difference)
                if differences and self._desired is not None:
                    for problem in await self._plane.apply(self._desired):
                        log.error("audit=incomplete why=%r", problem)

    async def diagnose(self, question: NetworkQuestion) -> Look:
        """See `Network.diagnose`."""
        async with self._lock:
            differences = await self._plane.differences()
        answer = None
        if question.name and question.task_id is not None:
            answer = await self._explain(question.name, question.task_id)
        attached = len(self._attachments.by_task)
        facts = (f"{attached} attached tasks", *self._plane.facts())
        return Look(self._plane.name, differences, facts, answer)

    async def _explain(self, name: str, task_id: TaskId) -> NameAnswer:
        attached = self._attachments.by_task.get(task_id)
        if attached is None:
            why = "the task is on no network, or its netproxy has not attached it"
            return NameAnswer(name=name, kind="unknown", why=why)
        found = lookup(self._zones, attached.network_ids, name)
        meant = meaning(self._world, attached.network_ids, name)
        if found is None or meant is None:
            elsewhere = whereabouts(self._world, name)
            return NameAnswer(name=name, kind="unknown", why=elsewhere)
        network_id, record = found
        service, is_vip = meant
        targets = [(e, self._plane.forms.task(e, network_id)) for e in service.endpoints]
        port = next((each.target for each in inside(service)), None)
        probes = [
            self._env.spawn("probe", self._probe(task_id, endpoint, address, port))
            for endpoint, address in targets[:PROBE_LIMIT]
        ]
        if probes:
            await asyncio.wait(probes)
        return NameAnswer(
            name=name,
            kind="vip" if is_vip else "tasks",
            network=self._world.networks[network_id].name,
            service=service.name,
            addresses=record.addresses,
            probes=tuple(probe.result() for probe in probes),
            why="" if targets else "the service has no healthy task",
        )

    async def _probe(
        self, task_id: TaskId, endpoint: Endpoint, address: str, port: int | None
    ) -> Probe:
        latency_ns, error = None, ""
        if port is None:
            error = "not tried: the service names no port"
        else:
            try:
                latency_ns = await self._plane.probe(task_id, address, port, PROBE_S)
            except TimeoutError:
                error = f"no answer in {PROBE_S:g} s at port {port}"
            except OSError as failure:
                error = f"{failure.strerror or failure} at port {port}"
        return Probe(
            task_id=endpoint.task_id,
            node_id=endpoint.node_id,
            address=address,
            latency_ns=latency_ns,
            error=error,
        )

    # ----------------------------------------------------------------------------- parts of it

    async def _detach(self, task_ids: tuple[TaskId, ...]) -> None:
        was_known = self._attachments.drop(task_ids)
        for task_id in task_ids:
            self._joined.pop(task_id, None)
        # An open socket would keep a namespace alive, so that names come first.
        await self._tell_names()
        await self._plane.detach(task_ids)
        if was_known:
            await self._save()

    async def _complete(self) -> tuple[str, ...]:
        """Attach what a process before this one knew of; what can't be is tried again."""
        problems = []
        for task_id, attached in self._attachments.by_task.items():
            if task_id in self._joined or not self._knows(attached.network_ids):
                continue
            try:
                self._joined[task_id] = await self._plane.attach(attached.request, self._world)
            except Retryable as error:
                name = attached.request.service_name
                problems.append(f"{name}: task {task_id} can't be attached: {error}")
        return tuple(problems)

    def _knows(self, network_ids: tuple[NetworkId, ...]) -> bool:
        return all(network_id in self._world.networks for network_id in network_ids)

    def _check_known(self, request: AttachRequest) -> None:
        for attachment in request.attachments:
            if attachment.network_id not in self._world.networks:
                raise CallError(
                    Code.UNAVAILABLE,
                    f"network {attachment.network_id} is not known on this node yet",
                )

    def _address_of(self, request: AttachRequest, name: str) -> str:
        networks = tuple(each.network_id for each in request.attachments)
        found = lookup(self._zones, networks, name)
        if found is None or not found[1].addresses:
            raise CallError(
                Code.UNAVAILABLE, f"no service {name!r} on the networks of this task (yet)"
            )
        return found[1].addresses[0]

    async def _tell_names(self) -> tuple[str, ...]:
        return await self._server.apply(self._zones, self._listens())

    def _listens(self) -> tuple[Listen, ...]:
        if self._shared_dns is not None:
            return tuple(
                self._listen(f"set-{number}", ids, *self._shared_dns.place(number), None)
                for number, ids in sorted(self._attachments.sets().items())
            )
        return tuple(
            self._listen(task_id, attached.network_ids, *TASK_DNS, self._joined[task_id].namespace)
            for task_id, attached in sorted(self._attachments.by_task.items())
            if task_id in self._joined
        )

    def _listen(
        self,
        scope_id: str,
        network_ids: tuple[NetworkId, ...],
        address: str,
        port: int,
        namespace: str | None,
    ) -> Listen:
        known = [self._world.networks[i] for i in network_ids if i in self._world.networks]
        named = tuple(network.network_id for network in known if not network.is_ingress)
        # Who is on internal networks alone is not to reach the world, not even its name servers.
        forwards = not named or any(not network.is_internal for network in known)
        scope = Scope(scope_id=scope_id, networks=named, forwards=forwards)
        return Listen(scope=scope, address=address, port=port, namespace=namespace)

    def _answer(
        self, attached: Attached, joined: Joined, vips: tuple[tuple[str, str], ...]
    ) -> AttachResponse:
        request = attached.request
        host, port = TASK_DNS
        if self._shared_dns is not None:
            host, port = self._shared_dns.place(attached.set_number)
        own = "".join(f"{each.address}\t{request.hostname}\n" for each in request.attachments[:1])
        return AttachResponse(
            namespace=joined.namespace,
            cgroup=joined.cgroup,
            # A resolver can't be told of any other port.
            resolv_conf=resolv_conf(host) if port == TASK_DNS[1] else "",
            hosts=f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{own if request.hostname else ''}",
            dns=f"{host}:{port}",
            vips=vips,
            address=EVERY_ADDRESS if joined.namespace else "",
        )

    # --------------------------------------------------------------------------------- the disk

    def _load(self) -> Attachments:
        try:
            data = self._env.disk.read(STATE_FILE)
            saved = decode(SavedAttachments, data) if data is not None else None
        except (msgspec.DecodeError, OSError) as error:
            log.error("attachments=unreadable why=%r", str(error))
            return Attachments()
        mine = (STATE_FORMAT, self._cluster_id, self._node_id)
        if saved is None or (saved.format, saved.cluster_id, saved.node_id) != mine:
            return Attachments()
        log.info("attachments=loaded tasks=%d", len(saved.attached))
        return Attachments(saved.attached)

    async def _save(self) -> None:
        saved = SavedAttachments(
            format=STATE_FORMAT,
            cluster_id=self._cluster_id,
            node_id=self._node_id,
            attached=tuple(self._attachments.by_task.values()),
        )
        try:
            await self._env.disk.replace(STATE_FILE, encode(saved))
        except OSError as error:
            raise Retryable(f"attachments can't be kept on disk: {error}") from error
