"""The link layer of one node: its overlay networks, its tasks' namespaces, and ways in and out.

Nothing here waits on the caller's event loop: one thread of its own does all the work, in order.
That thread is in the node's own network namespace; what must be done in another one is done by a
thread that ends with it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from skep.netproxy.kernel.adapters import netns
from skep.netproxy.kernel.adapters.cleanup import clean_node
from skep.netproxy.kernel.adapters.egress import Egress, ensure_ingress
from skep.netproxy.kernel.adapters.place import HostPlace
from skep.netproxy.kernel.adapters.sandbox import Sandbox
from skep.netproxy.kernel.adapters.tasks import TaskNamespace, TaskOptions, Tasks
from skep.netproxy.kernel.adapters.wireguard import Encryption, WireGuard
from skep.netproxy.kernel.core.found import Found
from skep.netproxy.kernel.core.gateway import Gateway
from skep.netproxy.kernel.core.links import Network, Peer, Port, TaskLink, diff, words
from skep.netproxy.kernel.core.tunnel import Tunnel
from skep.netproxy.kernel.core.wanted import Underlay, wanted_overlays

T = TypeVar("T")

DEFAULT_OPTIONS = TaskOptions()
UNTRIED = Encryption()


@dataclass(frozen=True)
class Wanted:
    """All that a node should have: `peers` by network and `tasks` by id; a `tunnel` where one of
    the networks is encrypted."""

    networks: Sequence[Network] = ()
    peers: Mapping[str, Sequence[Peer]] = field(default_factory=dict)
    tasks: Mapping[str, Sequence[TaskLink]] = field(default_factory=dict)
    tunnel: Tunnel | None = None


@dataclass(frozen=True)
class Observed:
    """What the kernel has: networks, ports and ways out in the sandbox, and the namespaces."""

    found: Found
    tasks: tuple[TaskNamespace, ...]
    overlay_mtu: int


class Links:
    """The open link layer of one node; made by `open`, and given back by `close`.

    Closing it, or the process's death, changes nothing that is in force.
    """

    def __init__(self, place: HostPlace, encryption: Encryption) -> None:
        self._place = place
        self._encryption = encryption
        # One thread: it alone uses the netlink sockets, and what it does is in order.
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "kernel-links")
        self._opened: tuple[Sandbox, Egress, Tasks] | None = None
        self._wireguard: WireGuard | None = None
        self._networks: dict[str, Network] = {}
        self._leaving: set[str] = set()

    @classmethod
    async def open(cls, place: HostPlace, encryption: Encryption = UNTRIED) -> Links:
        """Make or find the node's sandbox. Raises Rejected and OSError."""
        links = cls(place, encryption)
        try:
            await links._do(links._open)
        except BaseException:
            links._executor.shutdown(wait=False)
            raise
        return links

    async def close(self) -> None:
        """Let go of it once what is under way is done; idempotent."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await self._do(opened[0].close)
        self._executor.shutdown(wait=False)

    @property
    def gateway(self) -> Gateway:
        """The node's end of the tasks' way out, for the rules that let them out."""
        return self._parts[1].gateway

    async def apply(
        self,
        networks: Sequence[Network],
        peers: Mapping[str, Sequence[Peer]],
        tunnel: Tunnel | None = None,
    ) -> tuple[str, ...]:
        """Have exactly these networks, with these peers on other nodes; returns, for a person,
        what could not be done. Encrypted ones need a tunnel. Applying the same again tries that
        again."""
        return await self._do(self._apply, networks, peers, tunnel)

    async def ensure_ingress(self, network_id: str, address: str, prefix_length: int) -> None:
        """Give the node itself that address on a network, on its interface `skep-ing`, whatever
        it had before. Raises Retryable, Rejected and OSError."""
        await self._do(lambda: ensure_ingress(self._parts[0], network_id, address, prefix_length))

    async def missing_ends(self, *names: str) -> tuple[str, ...]:
        """Which of these interfaces, and of the tasks' way out if there is one, aren't in the
        node's own namespace. The way out is made anew by `ensure_egress`."""
        return await self._do(lambda: self._parts[1].missing(names))

    async def ensure_egress(self) -> None:
        """Make what is missing of the tasks' way out, where there was one. Raises OSError and
        Rejected."""
        await self._do(lambda: self._parts[1].mend())

    async def attach(
        self, task_id: str, links: Sequence[TaskLink], options: TaskOptions = DEFAULT_OPTIONS
    ) -> TaskNamespace:
        """Make a task's namespace with these links, or complete it. Its networks must have been
        applied. Raises Retryable, Rejected and OSError; see `Tasks.attach`."""
        self._leaving = set()  # who leaves from now on leaves after this
        return await self._do(
            lambda: self._parts[2].attach(task_id, links, options, self._networks)
        )

    async def detach(self, task_id: str) -> None:
        """Remove all of a task's namespace and links, which need not be there.

        Tasks that leave while others do are removed together, in the time that one takes. Raises
        Rejected and OSError.
        """
        self._place.task(task_id)
        self._leaving.add(task_id)
        await self._do(self._detach, self._leaving)

    async def attached(self) -> tuple[TaskNamespace, ...]:
        """The tasks that have a namespace, also a half-made one, by id. Raises OSError."""
        return await self._do(self._parts[2].attached)

    async def observe(self) -> Observed:
        """What the kernel has, read anew; the next `apply` starts from it. Raises OSError."""
        return await self._do(self._observe)

    async def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """In which ways the kernel, read anew, isn't as wanted, for a person. Raises OSError."""
        return await self._do(self._differences, wanted)

    async def clean(self) -> None:
        """Close it, and remove all that was made for this node; see `clean`."""
        await self.close()
        await clean(self._place)

    # ------------------------------------------------------------------- on the thread of its own

    @property
    def _parts(self) -> tuple[Sandbox, Egress, Tasks]:
        assert self._opened is not None, "it is closed"
        return self._opened

    async def _do(self, work: Callable[..., T], *args: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: work(*args))

    def _open(self) -> None:
        _go_to(self._place)
        sandbox = Sandbox(self._place)
        try:
            egress = Egress(sandbox)
        except BaseException:
            sandbox.close()
            raise
        self._opened = sandbox, egress, Tasks(sandbox, egress)
        if self._encryption.driver is not None:
            key = self._encryption.private_key
            self._wireguard = WireGuard(sandbox, self._encryption.driver, key)

    def _apply(
        self,
        networks: Sequence[Network],
        peers: Mapping[str, Sequence[Peer]],
        tunnel: Tunnel | None,
    ) -> tuple[str, ...]:
        sandbox = self._parts[0]
        try:
            found = sandbox.known().overlays
        except OSError as error:
            return (f"the sandbox of node {self._place.node} can't be read: {error}",)
        underlay = self._underlay(tunnel)
        if underlay.tunnel:
            assert self._wireguard is not None
            assert tunnel is not None
            try:
                self._wireguard.ensure(tunnel)
            except (OSError, ValueError) as error:
                underlay = replace(underlay, tunnel="", hindrance=str(error))
        wanted, problems = wanted_overlays(networks, peers, underlay, found)
        self._networks = {network.network_id: network for network in networks}
        problems.extend(sandbox.execute(diff(wanted, found)))
        if self._wireguard is not None and not any(each.is_encrypted for each in networks):
            try:
                self._wireguard.remove()
            except OSError as error:
                problems.append(f"WireGuard: {error}")
        return tuple(problems)

    def _underlay(self, tunnel: Tunnel | None) -> Underlay:
        """What carries networks here, as far as the tunnel can be had."""
        underlay = self._parts[0].underlay
        if self._wireguard is None:
            return replace(underlay, hindrance=self._encryption.hindrance)
        if tunnel is None:
            return replace(underlay, hindrance="it has no address on the ingress network yet")
        return replace(underlay, tunnel=tunnel.address)

    def _detach(self, leaving: set[str]) -> None:
        """All who wait for it by now. Those of a failure stay, and are tried again by the rest."""
        together = sorted(leaving)
        self._parts[2].detach(together)
        leaving.difference_update(together)

    def _observe(self) -> Observed:
        sandbox, _, tasks = self._parts
        return Observed(sandbox.look(), tasks.attached(), sandbox.underlay.overlay_mtu)

    def _differences(self, wanted: Wanted) -> tuple[str, ...]:
        observed = self._observe()
        found = observed.found
        underlay = self._underlay(wanted.tunnel)
        overlays, texts = wanted_overlays(wanted.networks, wanted.peers, underlay, found.overlays)
        if self._wireguard is not None and wanted.tunnel is not None:
            texts.extend(self._wireguard.differences(wanted.tunnel))
        texts.extend(map(words, diff(overlays, found.overlays)))
        texts.extend(_task_differences(wanted.tasks, found.ports, observed.tasks))
        return tuple(texts)


def _task_differences(
    wanted: Mapping[str, Sequence[TaskLink]],
    ports: Sequence[Port],
    namespaces: Sequence[TaskNamespace],
) -> list[str]:
    there = {one.task_id: one for one in namespaces}
    linked = {(port.task_id, port.network_id): port for port in ports if port.task_id}
    texts = []
    for task_id, links in sorted(wanted.items()):
        if task_id not in there or not there[task_id].cookie:
            texts.append(f"task {task_id}: it has no network namespace")
        for link in links:
            port = linked.pop((task_id, link.network_id), None)
            if port is None or port.address != link.address:
                texts.append(f"task {task_id}: {link.address} is not on network {link.network_id}")
    for task_id, network_id in linked:
        texts.append(f"task {task_id}: it should not be on network {network_id}")
    texts.extend(
        f"task {task_id}: its network namespace is not wanted here"
        for task_id in sorted(there.keys() - wanted.keys())
    )
    return texts


def _go_to(place: HostPlace) -> None:
    """Put a thread where the node is, for all that it does from then on."""
    if place.namespace is not None:
        netns.enter(place.namespace)


async def clean(place: HostPlace) -> None:
    """Remove everything that Skep has made in the kernel for this node, and its files, also
    without knowing what that was. No `Links` of the node may be open. Raises OSError."""

    def go_and_clean() -> None:
        _go_to(place)
        clean_node(place)

    executor = concurrent.futures.ThreadPoolExecutor(1, "kernel-clean")
    try:
        await asyncio.get_running_loop().run_in_executor(executor, go_and_clean)
    finally:
        executor.shutdown(wait=False)
