"""The relay as a node's whole data plane: see `skep.netproxy.dataplane.Dataplane`.

Tasks share the node's network namespace, and what they are attached to is no more than what they
may ask the name of.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from skep.domain.address import relay_dns
from skep.domain.attach import AttachRequest
from skep.domain.base import TaskId
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.core.forms import RelayForms
from skep.netproxy.core.routes import Desired
from skep.netproxy.core.world import World
from skep.netproxy.dataplane import Joined, Observed
from skep.netproxy.kernel.core.tunnel import check_clear

# Where names are asked for; as root, and else.
DNS_PORT, HIGH_DNS_PORT = 53, 5300


class RelayPlane:
    """`block` and `node_number` are those of the loopback plan."""

    name = "relay"

    def __init__(self, relay: Relay, block: int, node_number: int, dns_port: int) -> None:
        self._relay = relay
        self._block = block
        self._node_number = node_number
        self._dns_port = dns_port
        self._forms = RelayForms(block, node_number)

    @property
    def forms(self) -> RelayForms:
        """See `Dataplane.forms`."""
        return self._forms

    def place(self, set_number: int) -> tuple[str, int]:
        """See `skep.netproxy.network.SharedDns`."""
        return relay_dns(self._block, self._node_number, set_number), self._dns_port

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        """See `Dataplane.apply`."""
        return await self._relay.apply(desired)

    async def attach(self, request: AttachRequest, world: World) -> Joined:
        """See `Dataplane.attach`: there is nothing to do, but to refuse what can't be had."""
        own = [world.networks[each.network_id] for each in request.attachments]
        check_clear(own, "it is in user space")
        return Joined()

    async def detach(self, task_ids: Iterable[TaskId]) -> None:
        """See `Dataplane.detach`."""

    async def attached(self) -> frozenset[TaskId]:
        """See `Dataplane.attached`."""
        return frozenset()

    async def probe(self, task_id: TaskId, address: str, port: int, deadline_s: float) -> int:
        """See `Dataplane.probe`. Tasks on other nodes of a local cluster are on this machine."""
        began_ns = time.monotonic_ns()
        async with asyncio.timeout(deadline_s):
            _, writer = await asyncio.open_connection(address, port)
        took_ns = time.monotonic_ns() - began_ns
        writer.close()
        return took_ns

    async def differences(self) -> tuple[str, ...]:
        """See `Dataplane.differences`: a relay is as it has said, or it isn't there."""
        missing = self._relay.worker_count - len(self._relay.worker_pids)
        return (f"{missing} relay workers don't run",) if missing else ()

    def facts(self) -> tuple[str, ...]:
        """See `Dataplane.facts`."""
        seen = self._relay.observed()
        return (
            f"{len(seen.listeners)} listeners, {seen.connections} connections",
            f"{len(self._relay.worker_pids)} relay workers, {self._relay.restarts} started anew",
        )

    def observed(self) -> Observed:
        """See `Dataplane.observed`."""
        return self._relay.observed()

    async def close(self, drain_s: float) -> None:
        """See `Dataplane.close`."""
        await self._relay.close(drain_s)
