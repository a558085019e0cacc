"""The tasks' way out of the cluster: a network of the node's own, whose addresses the node gives.

Its addresses mean nothing on other nodes. Tasks can't reach one another by it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from skep.env import Rejected, Retryable
from skep.netproxy.kernel.core.names import HOST_GATEWAY

DEFAULT_SUBNET = "172.29.0.0/16"


@dataclass(frozen=True, slots=True)
class Gateway:
    """The node's end of it: the interface in the node's own namespace, its address, the subnet."""

    subnet: str
    address: str
    prefix_length: int
    interface: str = HOST_GATEWAY


def gateway_of(subnet: str) -> Gateway:
    """The gateway of a subnet, which has the first address; raises Rejected."""
    try:
        network = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise Rejected(f"the gateway's subnet {subnet!r} is no IPv4 network: {error}") from None
    if network.prefixlen > 30:
        raise Rejected(f"the gateway's subnet {subnet} has no room for tasks; use a /30 or wider")
    return Gateway(subnet, str(network.network_address + 1), network.prefixlen)


def free_address(gateway: Gateway, taken: Iterable[str]) -> str:
    """The lowest address that no task has; raises Retryable where there is none."""
    network = ipaddress.IPv4Network(gateway.subnet)
    used = {int(ipaddress.IPv4Address(address)) for address in taken}
    first = int(network.network_address) + 2
    for number in range(first, int(network.broadcast_address)):
        if number not in used:
            return str(ipaddress.IPv4Address(number))
    raise Retryable(f"all addresses of {gateway.subnet} are given to tasks; use a wider subnet")


def gateway_rules(node: str, gateway: Gateway) -> str:
    """What nft(8) must be given in the node's own namespace, as often as one likes.

    What leaves the node gets the node's address. What the node itself or its other tasks would
    be asked for by that way is not translated.
    """
    table = f"ip skep-{node}-gateway"
    return f"""\
table {table}
delete table {table}
table {table} {{
  chain leave {{
    type nat hook postrouting priority 100;
    ip saddr {gateway.subnet} oifname != "{gateway.interface}" masquerade
  }}
}}
"""
