"""The bridge of a node's own by which tasks leave the cluster, and the ingress into its networks.

Both join the node's own namespace to its sandbox by a veth.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from skep.env import Rejected
from skep.netproxy.kernel.adapters import messages, netns
from skep.netproxy.kernel.adapters.sandbox import Plug, Sandbox
from skep.netproxy.kernel.core.found import LinkRecord
from skep.netproxy.kernel.core.gateway import free_address, gateway_of
from skep.netproxy.kernel.core.links import Port
from skep.netproxy.kernel.core.names import (
    GATEWAY_BRIDGE,
    HOST_INGRESS,
    INGRESS,
    interface_name,
    parse_tag,
    tag,
)

GATEWAY_PORT = "skg-host"


class Egress:
    """The tasks' way out of one node; it is made when the first task needs it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.gateway = gateway_of(sandbox.place.egress_subnet)
        self._is_made = False

    def ensure(self) -> int:
        """Make what is missing of it; the index of its bridge. Raises OSError and Rejected."""
        sandbox, node = self._sandbox, self._sandbox.place.node
        if self._is_made:
            return sandbox.index(GATEWAY_BRIDGE)
        mtu = sandbox.underlay.mtu
        if messages.link_named(sandbox.netlink, GATEWAY_BRIDGE) is None:
            alias = tag(node, gateway="bridge")
            sandbox.netlink.ask(messages.make_bridge(GATEWAY_BRIDGE, mtu, alias))
        bridge = sandbox.index(GATEWAY_BRIDGE)
        plug = Plug(
            name=GATEWAY_PORT,
            alias=tag(node, gateway="port", ip=self.gateway.address),
            bridge=bridge,
            mtu=mtu,
            peer=self.gateway.interface,
            address=self.gateway.address,
        )
        alias = tag(node, gateway="host")
        join_host(sandbox, plug, alias, self.gateway.prefix_length)
        # What is forwarded from this and the underlay's interface is decided by the node's rules.
        netns.sysctl("ipv4/ip_forward", 1)
        self._is_made = True
        return bridge

    def missing(self, others: Sequence[str]) -> tuple[str, ...]:
        """Which of the node's own ends aren't there: of the way out, if it was made, and of what
        else should be."""
        there = {name for _, name in socket.if_nameindex()}
        wanted = (*others, self.gateway.interface) if self._is_made else others
        return tuple(name for name in wanted if name not in there)

    def mend(self) -> None:
        """Look again at what there is of it, if there ever was any."""
        if self._is_made:
            self._is_made = False
            self.ensure()

    def address_of(self, task_id: str) -> str:
        """The address that the task has or now gets. Raises Retryable where none is left."""
        given = self._sandbox.egress
        if task_id not in given:
            given[task_id] = free_address(self.gateway, given.values())
        return given[task_id]


def ensure_ingress(sandbox: Sandbox, network_id: str, address: str, prefix_length: int) -> None:
    """Give the node's own namespace an address on a network. Raises as `Sandbox.plug`."""
    node = sandbox.place.node
    bridge, mtu = sandbox.bridge_of(network_id)
    name = interface_name(INGRESS, network_id)
    for port in [port for port in sandbox.ports.values() if not port.task_id]:
        del sandbox.ports[port.interface]
    sandbox.ports[name] = Port(name, network_id, address)
    plug = Plug(
        name=name,
        alias=tag(node, ingress="1", net=network_id, ip=address),
        bridge=bridge,
        mtu=mtu,
        peer=HOST_INGRESS,
        address=address,
    )
    alias = tag(node, ingress="host", net=network_id, ip=address)
    join_host(sandbox, plug, alias, prefix_length)


def join_host(sandbox: Sandbox, plug: Plug, alias: str, prefix_length: int) -> None:
    """Make or complete a veth whose other end, in the node's own namespace, has an address.

    An end of ours that is for something else (another address or network) is replaced. Raises
    OSError, and Rejected where the name is taken by what isn't ours.
    """
    link = messages.link_named(sandbox.host, plug.peer)
    if link is not None and link.alias != alias and not _is_unfinished(link, sandbox, plug):
        if parse_tag(link.alias, sandbox.place.node) is None:
            raise Rejected(
                f"the interface {plug.peer} is not of node {sandbox.place.node} "
                f"({link.alias or 'it has no alias'}): one network namespace can hold one node; "
                "remove what is left of the other, or give this one a namespace of its own"
            )
        sandbox.host.ask([messages.drop_link(link.index)])
        link = None
    with netns.opened(netns.OWN) as fd:
        sandbox.plug(plug, fd, is_there=link is not None)
    link = messages.link_named(sandbox.host, plug.peer)
    if link is None:
        raise OSError(f"{plug.peer} has gone while it was being made")
    asked = []
    wanted = f"{plug.address}/{prefix_length}"
    having = [one.address for one in messages.addresses(sandbox.host) if one.index == link.index]
    if link.alias != alias:
        asked.append(messages.alias_of(plug.peer, alias))
    if wanted not in having:
        asked.append(messages.set_address(link.index, plug.address, prefix_length))
    if not link.is_up:
        asked.append(messages.set_up(link.index))
    if asked:
        sandbox.host.ask(asked)
        sandbox.settle([plug.name])


def _is_unfinished(link: LinkRecord, sandbox: Sandbox, plug: Plug) -> bool:
    """Whether a process of this node made it and died before it could tag this end."""
    other = messages.link_named(sandbox.netlink, plug.name)
    return not link.alias and other is not None and other.alias == plug.alias
