"""A node's network as a whole: the data plane, the names, and the tasks that are attached.

What managers want comes from the follower by `apply`; what the worker of this node asks for comes
as calls. Both are done one after the other. Attached tasks are on disk before anything is made for
them, so that whatever this process leaves behind when it dies is found again by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import Protocol, TypeVar

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
from skep.domain.endpoints import NetworkQuestion
from skep.env import CallError, Code, Env, Retryable, Service
from skep.netproxy.core.attachments import Attached, Attachments, in_place_of
from skep.netproxy.core.names import Names, lookup, reaches_world
from skep.netproxy.core.routes import Desired
from skep.netproxy.core.world import World
from skep.netproxy.dataplane import Dataplane, Joined, Look
from skep.netproxy.dns.core.protocol import Listen
from skep.netproxy.dns.core.resolv import resolv_conf
from skep.netproxy.dns.core.zones import NetworkZone, Scope
from skep.netproxy.explain import Asker

log = logging.getLogger(__name__)
T = TypeVar("T")

SERVICE = "skep.v1.Attach"
STATE_FILE = "attachments"
STATE_FORMAT = 1
TASK_DNS = ("127.0.0.11", 53)
# What others do to the kernel's tables (a firewall's restart, say) is put right within this time.
AUDIT_PERIOD_S = 60.0
# Telling names takes milliseconds. A server of names that hangs is killed and started anew, which
# the data plane doesn't wait for.
NAMES_S = 5.0
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
    ) -> dict[str, str]:
        """Put these names in force, to be answered at these places; returns, by scope, why one
        can't be answered. Raises Retryable where it isn't known what is in force."""
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
        self._is_saved = True
        # Those that are forgotten, and could not be taken away yet.
        self._leaving: dict[TaskId, Attached] = {}
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
            self._look_at(desired.world)
            problems = await self._complete()
            whole = replace(desired, world=self._world)
            # One that can't be had is no reason to wait with the other.
            applying = self._env.spawn("plane", _outcome(self._plane.apply(whole)))
            named = await _outcome(self._tell_names())
            applied = await applying
            if isinstance(named, Retryable):
                raise named
            if isinstance(applied, Retryable):
                raise applied
            refused = (f"names: {scope}: {why}" for scope, why in named.items())
            return (*problems, *refused, *applied)

    def _look_at(self, world: World) -> None:
        """The managers' word, with what is known of this node's own tasks beside it."""
        attached = self._attachments
        self._world = replace(
            world,
            networks=attached.entries(world.networks),
            here=attached.networks(),
            tasks=frozenset(attached.by_task),
        )
        self._zones = self._names.zones(self._world)

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
            known = (*self._attachments.by_task.values(), *self._leaving.values())
            if former := in_place_of(request, known):
                # Managers give an address to one task at a time, so these are over.
                log.warning("attached=left over tasks=%s", ",".join(former))
                await self._detach(former)
            attached = self._attachments.by_task.get(request.task_id)
            if attached is None or attached.request != request:
                networks = (self._world.networks[a.network_id] for a in request.attachments)
                attached = self._attachments.add(request, networks)
                self._look_at(self._world)
                self._is_saved = False
            await self._save()
            joined = await self._plane.attach(request, self._world)
            self._joined[request.task_id] = joined
            problems = await self._tell_names()
            scope = self._scope_of(attached)
            if scope in problems:
                raise Retryable(f"names can't be answered: {problems[scope]}")
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
            try:
                await self._mend()
            except (Retryable, OSError) as error:
                log.error("audit=failed why=%r", str(error))

    async def _mend(self) -> None:
        async with self._lock:
            left_over = await self._plane.attached() - set(self._attachments.by_task)
            if left_over:
                log.warning("attached=left over tasks=%s", ",".join(sorted(left_over)))
                await self._plane.detach(sorted(left_over))
            differences = await self._plane.differences()
            for difference in differences:
                log.warning("difference=%r", difference)
            if differences and self._desired is not None:
                desired = replace(self._desired, world=self._world)
                for problem in await self._plane.apply(desired):
                    log.error("audit=incomplete why=%r", problem)

    async def diagnose(self, question: NetworkQuestion) -> Look:
        """See `Network.diagnose`."""
        async with self._lock:
            differences = await self._plane.differences()
        answer = None
        if question.name and question.task_id is not None:
            attached = self._attachments.by_task.get(question.task_id)
            asker = Asker(self._env, self._plane, self._world, self._zones)
            answer = await asker.explain(question.name, question.task_id, attached)
        facts = (f"{len(self._attachments.by_task)} attached tasks", *self._plane.facts())
        return Look(self._plane.name, differences, facts, answer)

    # ----------------------------------------------------------------------------- parts of it

    async def _detach(self, task_ids: tuple[TaskId, ...]) -> None:
        for task_id in task_ids:
            if (attached := self._attachments.by_task.get(task_id)) is not None:
                self._leaving[task_id] = attached
        if self._attachments.drop(task_ids):
            self._is_saved = False
        # First of all: whoever starts after us must not make them anew.
        await self._save()
        for task_id in task_ids:
            self._joined.pop(task_id, None)
        self._look_at(self._world)
        # An open socket would keep a namespace alive, so that names come first.
        with contextlib.suppress(Retryable):
            await self._tell_names()
        await self._plane.detach(task_ids)
        for task_id in task_ids:
            self._leaving.pop(task_id, None)

    async def _complete(self) -> tuple[str, ...]:
        """Attach what a process before this one knew of; what can't be is tried again."""
        problems = []
        for task_id, attached in self._attachments.by_task.items():
            if task_id in self._joined:
                continue
            try:
                self._joined[task_id] = await self._plane.attach(attached.request, self._world)
            except Retryable as error:
                name = attached.request.service_name
                problems.append(f"{name}: task {task_id} can't be attached: {error}")
        return tuple(problems)

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

    async def _tell_names(self) -> dict[str, str]:
        try:
            telling = self._server.apply(self._zones, self._listens())
            return await self._env.clock.within(NAMES_S, telling)
        except TimeoutError:
            raise Retryable(f"names: no answer in {NAMES_S:g} s") from None

    def _scope_of(self, attached: Attached) -> str:
        """Where a task asks for names: alone, or with all that are on the same networks."""
        if self._shared_dns is None:
            return attached.request.task_id
        return f"set-{attached.set_number}"

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
        own = [network for network in known if not network.is_ingress]
        named = tuple(network.network_id for network in own)
        scope = Scope(scope_id=scope_id, networks=named, forwards=reaches_world(own))
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
        """Keep what is attached, unless that is on disk already. Raises Retryable."""
        if self._is_saved:
            return
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
        self._is_saved = True


async def _outcome(work: Awaitable[T]) -> T | Retryable:
    """What comes of it; that it can't be had is an outcome too."""
    try:
        return await work
    except Retryable as error:
        return error
