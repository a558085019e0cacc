"""The kernel's data plane of one node: see `skep.netproxy.dataplane.Dataplane`.

What is in force is the kernel's and stays when this process ends, however that happens. What the
next one wants is compared with what is there, and only differences are touched.

A task's namespace is attached first and learns the way back for published ports a moment later:
that takes two waits for the kernel, of 16 ms each, and is needed only once the task is healthy.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from skep.domain.attach import AttachRequest
from skep.domain.base import NodeId, TaskId
from skep.env import Env, Rejected, Retryable
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.core.forms import KernelForms
from skep.netproxy.core.names import reaches_world
from skep.netproxy.core.routes import Desired
from skep.netproxy.core.tally import Tally
from skep.netproxy.core.world import World
from skep.netproxy.dataplane import Joined, Observed
from skep.netproxy.kernel.adapters import vipmodes
from skep.netproxy.kernel.adapters.counting import Counting, Owners
from skep.netproxy.kernel.adapters.holding import hold
from skep.netproxy.kernel.adapters.inside import run_inside
from skep.netproxy.kernel.adapters.links import UNTRIED, Links, Wanted
from skep.netproxy.kernel.adapters.natrules import Ingress, IngressWanted, differences
from skep.netproxy.kernel.adapters.place import HostPlace
from skep.netproxy.kernel.adapters.tasks import LOOSE_REVERSE_PATH, TaskOptions
from skep.netproxy.kernel.adapters.vipmodes import Place, VipMode
from skep.netproxy.kernel.adapters.vipswitch import Switch
from skep.netproxy.kernel.adapters.ways import Ways
from skep.netproxy.kernel.adapters.wireguard import Encryption
from skep.netproxy.kernel.core.ingress import Egress, IngressPort
from skep.netproxy.kernel.core.links import TaskLink
from skep.netproxy.kernel.core.names import HOST_INGRESS
from skep.netproxy.kernel.core.plan import ANY_HOST, KernelPlan, Planner, check_apart, prefix_of
from skep.netproxy.kernel.core.sources import TaskLink as IngressLink
from skep.netproxy.kernel.core.tunnel import check_clear
from skep.netproxy.relay.core.protocol import Key

log = logging.getLogger(__name__)
# There where the kernel has IPv6 at all.
IPV6 = "/proc/net/if_inet6"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Task:
    """A task that is attached: its links, its namespace, its end of the ingress network, and
    whether it may reach what is outside of the cluster."""

    links: tuple[TaskLink, ...]
    place: Place
    ingress: TaskLink | None
    has_egress: bool


class KernelPlane:
    """Made by `open`. The relay serves what only user space can; see `core.plan`."""

    name = "kernel"

    def __init__(
        self,
        env: Env,
        place: HostPlace,
        node_id: NodeId,
        relay: Relay,
        encryption: Encryption = UNTRIED,
    ) -> None:
        self._env = env
        self._place = place
        self._relay = relay
        self._encryption = encryption
        self._planner = Planner(node_id, has_ipv6=os.path.exists(IPV6), key=encryption.public_key)
        self._plan = KernelPlan()
        self._tasks: dict[TaskId, _Task] = {}
        # Tasks that are to be attached: after a start, these are more than those that are yet.
        self._expected: frozenset[TaskId] = frozenset()
        # Published ports that other programs of this node have, by the last attempt to listen.
        # After a start, nobody has tried yet: the ports stay as they are.
        self._taken: frozenset[Key] = frozenset()
        self._forms = KernelForms()
        self._rules = concurrent.futures.ThreadPoolExecutor(1, "kernel-rules")
        self._change = asyncio.Lock()
        self._links: Links | None = None
        self._ways: Ways | None = None
        self._vips: VipMode | None = None
        self._ingress: Ingress | None = None
        self._switch: Switch | None = None
        self._held: int | None = None
        self._counting: Counting | None = None
        # Until all is known once, nothing of what is in force may be taken for left over.
        self._is_applied = False

    async def open(self, vip_mode: str, *, counts_traffic: bool = False) -> None:
        """Find what is there, or begin. Raises Rejected with what is missing, OSError."""
        # First what may be missing, so that nothing is made before it is known to be there.
        self._ingress = Ingress(self._place.node, None, HOST_INGRESS)
        self._held = hold(self._place)
        self._links = await Links.open(self._place, self._encryption)
        self._ways = Ways(self._links, self._relay)
        choose = functools.partial(vipmodes.choose, counts_traffic=counts_traffic)
        self._vips = await self._blocking(choose, self._place.node, vip_mode)
        self._switch = Switch(self._place.node, self._vips.name)
        self._counting = Counting(self._ingress, self._vips)
        log.info("plane=kernel node=%s vips=%s", self._place.node, self._vips.name)

    @property
    def vip_mode(self) -> tuple[str, str | None]:
        """By what virtual addresses are, and why not by something better."""
        return self._mode.name, self._mode.hindrance

    @property
    def forms(self) -> KernelForms:
        """See `Dataplane.forms`."""
        return self._forms

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        """See `Dataplane.apply`."""
        async with self._change:
            plan = self._plan = self._planner.plan(desired.world)
            self._expected = desired.world.tasks
            problems = (*plan.problems, *await self._known_ways.connect(plan))
            # Before the rules: a port that something else on this node has is not taken from it.
            problems += await self._known_ways.serve(plan)
            self._taken = frozenset(key for key in _keys(plan) if not self._relay.is_open(key))
            failures, hindrances = await self._blocking(self._put_rules, plan, dict(self._tasks))
            self._is_applied = True
            if failures:
                # Nobody knows what new connections may reach.
                raise Retryable("; ".join(failures))
            return problems + hindrances

    async def attach(self, request: AttachRequest, world: World) -> Joined:
        """See `Dataplane.attach`."""
        async with self._change:
            there = {network.network_id for network in self._plan.networks}
            if not {each.network_id for each in request.attachments} <= there:
                self._plan = self._planner.plan(world)
                for problem in await self._known_ways.connect(self._plan):
                    log.warning("networks=incomplete why=%r", problem)
            self._expected = world.tasks
            task = await self._attach(request, world)
            if self._mode.name == vipmodes.BPF:
                self._mode.attach(task.place, self._plan.vips)
            else:
                await self._blocking(self._mode.attach, task.place, self._plan.vips)
            self._tasks[request.task_id] = task
        if self._is_applied:
            self._env.spawn("attached", self._complete())
        return Joined(namespace=task.place.path, cgroup=self._mode.cgroup)

    async def detach(self, task_ids: Iterable[TaskId]) -> None:
        """See `Dataplane.detach`."""
        async with self._change:
            for task_id in task_ids:
                task = self._tasks.pop(task_id, None)
                if task is not None:
                    self._mode.drop(task.place)
                try:
                    await self._opened.detach(task_id)
                except (OSError, Rejected) as error:
                    self._known_ways.doubt()
                    raise Retryable(f"task {task_id} can't be detached: {error}") from error

    async def attached(self) -> frozenset[TaskId]:
        """See `Dataplane.attached`."""
        try:
            return frozenset(TaskId(each.task_id) for each in await self._opened.attached())
        except OSError as error:
            raise Retryable(f"namespaces of tasks can't be read: {error}") from error

    async def probe(self, task_id: TaskId, address: str, port: int, deadline_s: float) -> int:
        """See `Dataplane.probe`."""
        task = self._tasks.get(task_id)
        if task is None:
            raise OSError(f"task {task_id} has no namespace here")

        def connect() -> int:
            began_ns = time.monotonic_ns()
            socket.create_connection((address, port), timeout=deadline_s).close()
            return time.monotonic_ns() - began_ns

        def inside() -> int:
            return run_inside(task.place.path, connect)

        return await asyncio.get_running_loop().run_in_executor(None, inside)

    async def differences(self) -> tuple[str, ...]:
        """See `Dataplane.differences`."""
        async with self._change:
            plan, tasks = self._plan, dict(self._tasks)
            links: dict[str, tuple[TaskLink, ...]] = {i: tasks[i].links for i in tasks}
            wanted = Wanted(plan.networks, plan.peers, links, plan.tunnel)
            try:
                missing = await self._known_ways.missing_ends(plan)
                found = tuple(f"interface {name} of this node is gone" for name in missing)
                found += await self._opened.differences(wanted)
                found += await self._blocking(self._rule_differences, plan, tasks)
            except (OSError, Retryable) as error:
                found = (f"the kernel can't be read: {error}",)
            if found and self._ingress is not None:
                # What is remembered of it is wrong: the next `apply` reads it anew.
                self._known_ways.forget()
                self._ingress.forget()
                self._mode.forget()
            return found

    def facts(self) -> tuple[str, ...]:
        """See `Dataplane.facts`."""
        plan = self._plan
        return (
            f"virtual addresses by {self._mode.name}",
            f"{len(plan.networks)} networks with {sum(map(len, plan.peers.values()))} peers here",
            f"{len(plan.vips)} virtual addresses, {len(plan.ports)} published ports",
            f"encryption: {self._encryption.note}",
        )

    def observed(self) -> Observed:
        """See `Dataplane.observed`."""
        seen = self._relay.observed()
        return Observed(self._plan.version, seen.listeners, seen.connections)

    def tally(self) -> Tally:
        """What the kernel has counted; may be called from any thread, and blocks for some ms."""
        if self._counting is None:
            return Tally()
        plan = self._plan
        return self._counting.read(Owners(plan.vip_names, plan.port_names))

    async def close(self, drain_s: float) -> None:
        """See `Dataplane.close`: what the kernel does goes on."""
        async with self._change:
            # Who is about to complete a task finds nothing to do it with.
            self._is_applied = False
        await self._relay.close(drain_s)
        if self._counting is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._counting.close)
        if self._links is not None:
            await self._links.close()
        if self._vips is not None:
            self._vips.close()
        self._rules.shutdown(wait=False)
        if self._held is not None:
            os.close(self._held)
            self._held = None

    # ------------------------------------------------------------------------- parts of it

    @property
    def _opened(self) -> Links:
        assert self._links is not None, "it is not open"
        return self._links

    @property
    def _known_ways(self) -> Ways:
        assert self._ways is not None, "it is not open"
        return self._ways

    @property
    def _mode(self) -> VipMode:
        assert self._vips is not None, "it is not open"
        return self._vips

    async def _attach(self, request: AttachRequest, world: World) -> _Task:
        links: list[TaskLink] = []
        ingress = None
        for number, attachment in enumerate(request.attachments):
            network = world.networks[attachment.network_id]
            link = TaskLink(
                network.network_id, attachment.address, prefix_of(network), f"eth{number}"
            )
            links.append(link)
            ingress = link if network.is_ingress else ingress
        own = [world.networks[each.network_id] for each in request.attachments]
        check_apart(own, self._opened.gateway.subnet, self._place.address)
        if self._encryption.driver is None:
            check_clear(own, self._encryption.hindrance)
        has_egress = reaches_world(network for network in own if not network.is_ingress)
        options = TaskOptions(
            # The ingress keeps clients' addresses: their way in isn't the kernel's way out.
            reverse_path=0 if ingress is not None else LOOSE_REVERSE_PATH,
            has_egress=has_egress,
        )
        try:
            made = await self._opened.attach(request.task_id, links, options)
        except (OSError, Rejected) as error:
            # The links doubt what they know, and look again when they are next asked.
            self._known_ways.doubt()
            raise Retryable(f"task {request.task_id} can't be attached: {error}") from error
        networks = tuple(
            (world.networks[a.network_id].vni, world.networks[a.network_id].subnet)
            for a in request.attachments
        )
        return _Task(tuple(links), Place(made.path, made.cookie, networks), ingress, has_egress)

    async def _complete(self) -> None:
        """Rules for a task that has just been attached; `apply` repeats what fails."""
        async with self._change:
            if not self._is_applied:
                return
            failures, _ = await self._blocking(self._put_rules, self._plan, dict(self._tasks))
            for failure in failures:
                log.warning("attached=incomplete why=%r", failure)

    # ------------------------------------------------------------------ on the thread of rules

    def _put_rules(
        self, plan: KernelPlan, tasks: Mapping[TaskId, _Task]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What failed, and what others have put in the way."""
        is_all = self._expected <= tasks.keys()
        failures = self._mode.apply(plan.vips, _places(tasks), is_all=is_all)
        assert self._ingress is not None
        try:
            problems = self._ingress.apply(self._ingress_wanted(plan, tasks))
        except Rejected as error:
            return (*failures, f"published ports: {error}"), ()
        hindrances = self._ingress.in_the_way
        failures += tuple(p for p in problems if p not in hindrances)
        if is_all and not failures and self._switch is not None:
            hindrances += self._switch.apply(plan.vips, _places(tasks))
        return failures, hindrances

    def _ingress_wanted(self, plan: KernelPlan, tasks: Mapping[TaskId, _Task]) -> IngressWanted:
        gateways = [self._opened.gateway.subnet]
        # A published UDP server that asks others from its own port goes out by the ingress network,
        # by which those on internal networks may answer and nothing else.
        gateways += [
            f"{task.ingress.address}/32"
            for task in tasks.values()
            if task.ingress is not None and task.has_egress
        ]
        return IngressWanted(
            ports=self._open_ports(plan),
            egress=Egress(
                gateways=tuple(gateways),
                overlays=tuple(sorted({network.subnet for network in plan.networks})),
                untracked=self._place.carriers(is_encrypting=plan.tunnel is not None),
            ),
            nodes=plan.sources,
            tasks={
                task.place.path: IngressLink(
                    task.ingress.interface, task.ingress.address, plan.ingress_address
                )
                for task in tasks.values()
                if task.ingress is not None and plan.ingress_address
            },
        )

    def _open_ports(self, plan: KernelPlan) -> tuple[IngressPort, ...]:
        """Those that no other program of this node listens on."""
        return tuple(
            port
            for port, key in zip(plan.ports, _keys(plan), strict=True)
            if key not in self._taken or (port.is_host_mode and not port.backends)
        )

    def _rule_differences(self, plan: KernelPlan, tasks: Mapping[TaskId, _Task]) -> tuple[str, ...]:
        places = _places(tasks)
        found = list(self._mode.differences(plan.vips, places))
        assert self._ingress is not None
        wanted = self._ingress_wanted(plan, tasks)
        seen = self._ingress.observe(wanted.tasks)
        return (*found, *differences(wanted, seen))

    async def _blocking(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._rules, work, *arguments)


def _keys(plan: KernelPlan) -> tuple[Key, ...]:
    return tuple(Key(ANY_HOST, port.published, port.protocol) for port in plan.ports)


def _places(tasks: Mapping[TaskId, _Task]) -> dict[str, Place]:
    return {task_id: task.place for task_id, task in tasks.items()}
