"""What the simulated operator does with networks, and what must come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from skep.client.calls import Caller
from skep.client.errors import Refused
from skep.domain.base import replace
from skep.domain.control import CreateNetworkRequest, RemoveRequest, RemoveResponse
from skep.domain.objects import Network, Node, Task
from skep.domain.spec import EndpointMode, NetworkSpec, NetworkUse, PortMode, ServiceSpec
from skep.manager.store.core.tables import Tables

NETWORKS_LIMIT = 3
# Narrow, so that addresses come round again within a run; wide enough for all services at once,
# with what is left of their former tasks.
SUBNETS = ("10.7.0.0/26", "10.7.0.0/26", "")
STACK_NETWORK = NetworkSpec(name="stack_net")

Insist = Callable[[Caller, str, Any, Any], Awaitable[Any]]


class Networks:
    """Networks that were acknowledged (`wanted`), and which services may be on them."""

    def __init__(self, dice: Random, insist: Insist) -> None:
        self.wanted: dict[str, NetworkSpec] = {}
        self._dice = dice
        self._insist = insist
        self._serial = 0

    def is_due(self) -> bool:
        """Whether the next intention is about networks."""
        return self._dice.random() < 0.12

    async def act(self, caller: Caller) -> None:
        """Create or remove one."""
        removable = sorted(self.wanted.keys() - {STACK_NETWORK.name})
        if len(removable) < NETWORKS_LIMIT and self._dice.random() < 0.7:
            self._serial += 1
            subnet = self._dice.choice(SUBNETS)
            spec = NetworkSpec(name=f"n{self._serial}", subnet=subnet)
            request = CreateNetworkRequest(request_id=caller.ids.new_id(), spec=spec)
            await self._insist(caller, "CreateNetwork", request, Network)
            self.wanted[spec.name] = spec
        elif removable:
            await self.remove(caller, self._dice.choice(removable))

    async def remove(self, caller: Caller, name: str) -> None:
        """Remove one, unless a service needs it."""
        request = RemoveRequest(request_id=caller.ids.new_id(), ref=name)
        try:
            await self._insist(caller, "RemoveNetwork", request, RemoveResponse)
        except Refused:
            return
        del self.wanted[name]

    def put_on(self, spec: ServiceSpec) -> ServiceSpec:
        """The spec of a service on none, one or two networks that are there."""
        names = sorted(self.wanted)
        if not spec.name.startswith("stack_"):
            # The stack's own goes with it.
            names = [name for name in names if name != STACK_NETWORK.name]
        chosen: list[str] = []
        for name in self._dice.sample(names, min(len(names), self._dice.choice((0, 1, 1, 2)))):
            subnets = [self.wanted[other].subnet for other in chosen]
            # A task on two with the same addresses is refused.
            if not self.wanted[name].subnet or self.wanted[name].subnet not in subnets:
                chosen.append(name)
        uses = tuple(NetworkUse(network=name, aliases=("also",)) for name in chosen)
        mode = self._dice.choice((EndpointMode.VIP, EndpointMode.VIP, EndpointMode.DNSRR))
        if any(port.mode is PortMode.INGRESS for port in spec.ports):
            # A port on every node leads to a virtual address, so others are refused.
            mode = EndpointMode.VIP
        return replace(spec, task=replace(spec.task, networks=uses), endpoint_mode=mode)

    def changed(self, spec: ServiceSpec) -> ServiceSpec:
        """Now and then with other networks."""
        return self.put_on(spec) if self._dice.random() < 0.1 else spec

    def has_all(self, spec: ServiceSpec) -> bool:
        """Whether the networks of a spec, perhaps one from before, are still there."""
        return all(use.network in self.wanted for use in spec.task.networks)


def why_not_right(networks: Networks, tables: Tables) -> list[str]:
    """What is still missing of the networks, for a person."""
    why = []
    rows = {row.name: row for row in tables.all(Network)}
    if rows.keys() != networks.wanted.keys() | {"ingress"}:
        why.append(f"networks are {sorted(rows)}, wanted {sorted(networks.wanted)} and ingress")
    why += [
        f"network {row.name} has nothing: {row.message}" for row in rows.values() if not row.vni
    ]
    for name, spec in networks.wanted.items():
        if name in rows and rows[name].spec != spec:
            why.append(f"network {name} is not as it was acknowledged")
    for node in tables.all(Node):
        if node.description.mesh_address and not node.ingress_address:
            why.append(f"node {node.name} has no address on the ingress network")
    return why


def leftovers(tables: Tables) -> list[str]:
    """What is left when every service and every network was removed."""
    names = [row.name for row in tables.all(Network) if not row.is_ingress]
    tasks = [task.name for task in tables.all(Task) if task.attachments]
    return [f"network {name}" for name in names] + [f"task {name}" for name in tasks]
