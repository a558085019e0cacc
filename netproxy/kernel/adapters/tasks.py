"""The tasks' network namespaces: made, completed, and removed.

A namespace is held by a file, /run/skep/<node>/netns/<task id>, and so outlives every process. One
that is there already is completed, and what a task does in it is not disturbed.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from skep.env import Rejected, Retryable
from skep.netproxy.kernel.adapters import messages, netns
from skep.netproxy.kernel.adapters.egress import Egress
from skep.netproxy.kernel.adapters.netlink import Message, Netlink
from skep.netproxy.kernel.adapters.sandbox import Plug, Sandbox
from skep.netproxy.kernel.adapters.spaces import LOOPBACK
from skep.netproxy.kernel.core.found import LinkRecord
from skep.netproxy.kernel.core.links import Network, Port, TaskLink
from skep.netproxy.kernel.core.names import (
    EGRESS,
    NAME_LIMIT,
    TASK,
    TASK_GATEWAY,
    interface_name,
    mac_of,
    tag,
)

LOOSE_REVERSE_PATH = 2
MAX_LINKS = 64  # no task is on more networks; each costs an interface on both sides


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """Switches of a task's namespace.

    `reverse_path` is the kernel's rp_filter: 2 where a source must be reachable by any interface,
    0 where clients' addresses are kept by the ingress. `tcp_timestamps` is left alone where None.
    `has_egress` None: a task has a way out unless all of its networks are internal.
    """

    reverse_path: int = LOOSE_REVERSE_PATH
    tcp_timestamps: int | None = None
    has_egress: bool | None = None


@dataclass(frozen=True, slots=True)
class TaskNamespace:
    """A task's namespace: the file that holds it, and its number in the kernel (SO_NETNS_COOKIE).

    The cookie of one that is only half made, a file without a namespace, is 0.
    """

    task_id: str
    path: str
    cookie: int


@dataclass(frozen=True, slots=True)
class _End:
    """A veth's end in a task's namespace, as it should be."""

    interface: str
    address: str
    prefix_length: int
    alias: str


class Tasks:
    """The tasks of one node. All of this blocks, and belongs to the sandbox's thread."""

    def __init__(self, sandbox: Sandbox, egress: Egress) -> None:
        self._sandbox = sandbox
        self._egress = egress
        self._place = sandbox.place

    def attach(
        self,
        task_id: str,
        links: Sequence[TaskLink],
        options: TaskOptions,
        networks: Mapping[str, Network],
    ) -> TaskNamespace:
        """Make or complete a task's namespace with these links.

        The options are those of a new one. Raises Rejected, Retryable for a network that isn't set
        up yet, and OSError; what was made before the error is found by the next `attach` or
        `detach`.
        """
        path = self._place.task(task_id)
        _check_links(links)
        self._sandbox.known()
        bridges = [self._sandbox.bridge_of(link.network_id) for link in links]
        unknown = [link.network_id for link in links if link.network_id not in networks]
        if unknown:
            raise Retryable(f"network {unknown[0]} is not known on this node yet")
        has_egress = options.has_egress
        if has_egress is None:
            has_egress = any(not networks[link.network_id].is_internal for link in links)
        is_there = netns.is_namespace(path)
        enter = netns.inside if is_there else netns.make
        netlink = enter(path, lambda: _opened(options, is_fresh=not is_there))
        try:
            plugs = self._plugs(task_id, links, bridges)
            address = ""
            if has_egress:
                plugs.append(self._plug_out(task_id))
                address = plugs[-1].address
            self._plug_all(task_id, plugs, _inventory(netlink) if is_there else None)
            self._configure(netlink, task_id, links, address, is_fresh=not is_there)
            self._sandbox.settle(self._interfaces(task_id))
            return TaskNamespace(task_id, str(path), netlink.cookie())
        except OSError:
            self._sandbox.doubt()
            raise
        finally:
            netlink.close()

    def _plugs(
        self, task_id: str, links: Sequence[TaskLink], bridges: Sequence[tuple[int, int]]
    ) -> list[Plug]:
        node = self._place.node
        plugs = []
        for link, (bridge, mtu) in zip(links, bridges, strict=True):
            name = interface_name(TASK, task_id, link.network_id)
            alias = tag(node, task=task_id, net=link.network_id, ip=link.address)
            # Noted before it is made: whatever happens, `detach` looks for it.
            self._sandbox.ports[name] = Port(name, link.network_id, link.address, task_id)
            plugs.append(Plug(name, alias, bridge, mtu, link.interface, link.address))
        return plugs

    def _plug_out(self, task_id: str) -> Plug:
        """The task's way out, with its address there."""
        bridge = self._egress.ensure()
        address = self._egress.address_of(task_id)
        return Plug(
            name=interface_name(EGRESS, task_id),
            alias=tag(self._place.node, task=task_id, egress="1", ip=address),
            bridge=bridge,
            mtu=self._sandbox.underlay.mtu,
            peer=TASK_GATEWAY,
            address=address,
            is_isolated=True,
        )

    def _plug_all(
        self, task_id: str, plugs: Sequence[Plug], there: Mapping[str, LinkRecord] | None
    ) -> None:
        """`there` are the ends that a namespace has already; None for a new one."""
        with netns.opened(self._place.task(task_id)) as fd:
            if there is None:
                self._sandbox.plug_new(plugs, fd)
                return
            for plug in plugs:
                self._sandbox.plug(plug, fd, is_there=plug.peer in there)

    def _configure(
        self,
        netlink: Netlink,
        task_id: str,
        links: Sequence[TaskLink],
        egress: str,
        *,
        is_fresh: bool,
    ) -> None:
        """Inside: interfaces up, tagged and with addresses; only what is missing is touched."""
        present = {} if is_fresh else _inventory(netlink)
        having = set()
        if not is_fresh:
            having = {(one.index, one.address) for one in messages.addresses(netlink)}
        gateway = self._egress.gateway
        asked: list[Message] = []
        for end in self._ends(task_id, links, egress):
            link = present.get(end.interface)
            index = link.index if link else messages.index_named(netlink, end.interface)
            if not index:
                raise OSError(errno.ENODEV, f"{end.interface} of task {task_id} has gone")
            if (index, f"{end.address}/{end.prefix_length}") not in having:
                asked.append(messages.set_address(index, end.address, end.prefix_length))
            if link is None or not link.is_up or link.alias != end.alias:
                asked.append(messages.set_up(index, alias=end.alias))
            is_way_out = end.interface == TASK_GATEWAY
            if is_way_out and (link is None or not link.is_up):
                asked.append(messages.default_route(index, gateway.address))
        if asked:
            netlink.ask(asked)

    def _ends(self, task_id: str, links: Sequence[TaskLink], egress: str) -> Iterator[_End]:
        node = self._place.node
        for link in links:
            alias = tag(node, task=task_id, net=link.network_id)
            yield _End(link.interface, link.address, link.prefix_length, alias)
        if egress:
            alias = tag(node, task=task_id, egress="1")
            yield _End(TASK_GATEWAY, egress, self._egress.gateway.prefix_length, alias)

    def detach(self, task_ids: Collection[str]) -> None:
        """Remove these tasks' namespaces and all their links, however much of them there is. A
        process that is still in a namespace keeps it, without links. Raises OSError."""
        self._sandbox.known()
        # All at once: the kernel waits as long for one task's interfaces as for those of many.
        self._sandbox.unplug([name for task_id in task_ids for name in self._interfaces(task_id)])
        for task_id in task_ids:
            for name in self._interfaces(task_id):
                self._sandbox.ports.pop(name, None)
            self._sandbox.egress.pop(task_id, None)
            netns.remove(self._place.task(task_id))

    def _interfaces(self, task_id: str) -> list[str]:
        """The sandbox's ends of a task's links."""
        ports = self._sandbox.ports.values()
        names = [port.interface for port in ports if port.task_id == task_id]
        if task_id in self._sandbox.egress:
            names.append(interface_name(EGRESS, task_id))
        return names

    def attached(self) -> tuple[TaskNamespace, ...]:
        """All tasks that have a namespace, also a half-made one, by id. Raises OSError."""
        found = []
        for task_id in self._place.task_ids():
            path = self._place.task(task_id)
            cookie = netns.inside(path, _cookie) if netns.is_namespace(path) else 0
            found.append(TaskNamespace(task_id, str(path), cookie))
        return tuple(found)


def _check_links(links: Sequence[TaskLink]) -> None:
    if len(links) > MAX_LINKS:
        raise Rejected(f"a task can be on {MAX_LINKS} networks at most, not on {len(links)}")
    interfaces = [link.interface for link in links]
    for link in links:
        mac_of(link.address)
        if not 0 < link.prefix_length <= 32:
            raise Rejected(f"/{link.prefix_length} of {link.address} is no prefix length")
        name = link.interface
        if not name or len(name) > NAME_LIMIT or "/" in name or name in ("lo", TASK_GATEWAY):
            raise Rejected(
                f"{name!r} can't name a task's interface: use up to {NAME_LIMIT} characters "
                f"without '/', and neither 'lo' nor {TASK_GATEWAY!r}"
            )
    for what in (interfaces, [link.network_id for link in links]):
        if len(set(what)) < len(what):
            raise Rejected(f"a task's interfaces and networks must differ: {', '.join(what)}")


def _opened(options: TaskOptions, *, is_fresh: bool) -> Netlink:
    """In the task's namespace: its socket, with all switches set before the loopback is up, which
    therefore says whether they were."""
    netlink = Netlink()
    try:
        loopback = None if is_fresh else messages.link_named(netlink, "lo")
        if loopback is None or not loopback.is_up:
            _switch(options)
            netlink.ask([messages.set_up(LOOPBACK)])
    except BaseException:
        netlink.close()
        raise
    return netlink


def _switch(options: TaskOptions) -> None:
    netns.sysctl("ipv4/ip_unprivileged_port_start", 0)
    # A task on two networks is no way from the one to the other.
    netns.sysctl("ipv4/ip_forward", 0)
    for scope in ("all", "default"):
        netns.sysctl(f"ipv4/conf/{scope}/rp_filter", options.reverse_path)
        # Addresses are given once by us; looking for another owner only delays the first packet.
        netns.sysctl(f"ipv6/conf/{scope}/accept_dad", 0)
    if options.tcp_timestamps is not None:
        netns.sysctl("ipv4/tcp_timestamps", options.tcp_timestamps)


def _inventory(netlink: Netlink) -> dict[str, LinkRecord]:
    return {link.name: link for link in messages.links(netlink)}


def _cookie() -> int:
    netlink = Netlink()
    try:
        return netlink.cookie()
    finally:
        netlink.close()
