"""The addresses of the two data planes."""

from __future__ import annotations

from skep.domain.address import relay_vip
from skep.domain.base import NetworkId
from skep.domain.endpoints import Endpoint, NetworkEntry
from skep.domain.objects import Vip


class RelayForms:
    """Loopback addresses: tasks have their own, a virtual address is one of this node's block.

    See `skep.netproxy.core.names.Forms`.
    """

    def __init__(self, block: int, node_number: int) -> None:
        self._block = block
        self._node_number = node_number

    def vip(self, vip: Vip) -> str:
        """See `Forms.vip`."""
        return relay_vip(self._block, self._node_number, vip.index)

    def task(self, endpoint: Endpoint, network_id: NetworkId) -> str:
        """See `Forms.task`."""
        is_there = any(each.network_id == network_id for each in endpoint.attachments)
        return endpoint.address if is_there else ""

    def subnets(self, network: NetworkEntry) -> tuple[str, ...]:
        """See `Forms.subnets`: all networks share the loopback addresses."""
        tasks = f"127.{self._block}.0.0/16"
        return (tasks, f"127.{self._block + self._node_number}.0.0/16")


class KernelForms:
    """Addresses in the networks' own subnets, the same on every node."""

    def vip(self, vip: Vip) -> str:
        """See `Forms.vip`."""
        return vip.address

    def task(self, endpoint: Endpoint, network_id: NetworkId) -> str:
        """See `Forms.task`."""
        for each in endpoint.attachments:
            if each.network_id == network_id:
                return each.address
        return ""

    def subnets(self, network: NetworkEntry) -> tuple[str, ...]:
        """See `Forms.subnets`."""
        return (network.subnet,)
