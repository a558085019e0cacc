"""What a name leads to for one task, and whether it gets there: for a person who wonders."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from skep.domain.base import NetworkId, TaskId
from skep.domain.endpoints import Endpoint, NameAnswer, Probe
from skep.env import Env
from skep.netproxy.core.attachments import Attached
from skep.netproxy.core.names import lookup, meaning, whereabouts
from skep.netproxy.core.routes import inside
from skep.netproxy.core.world import World
from skep.netproxy.dataplane import Dataplane
from skep.netproxy.dns.core.zones import NetworkZone

# A sample of a service's endpoints says enough, and a person doesn't wait for long.
PROBE_LIMIT = 20
PROBE_S = 1.0


class Asker:
    """Explains names by what is in force at one moment."""

    def __init__(
        self, env: Env, plane: Dataplane, world: World, zones: Mapping[NetworkId, NetworkZone]
    ) -> None:
        self._env = env
        self._plane = plane
        self._world = world
        self._zones = zones

    async def explain(self, name: str, task_id: TaskId, attached: Attached | None) -> NameAnswer:
        """What this name leads to for a task, with each endpoint tried just now."""
        if attached is None:
            why = "the task is on no network, or its netproxy has not attached it"
            return NameAnswer(name=name, kind="unknown", why=why)
        found = lookup(self._zones, attached.network_ids, name)
        meant = meaning(self._world, attached.network_ids, name)
        if found is None or meant is None:
            return NameAnswer(name=name, kind="unknown", why=whereabouts(self._world, name))
        network_id, record = found
        service, is_vip = meant
        targets = [(e, self._plane.forms.task(e, network_id)) for e in service.endpoints]
        if not is_vip:
            # One task's own name leads to that task.
            targets = [(e, address) for e, address in targets if address in record.addresses]
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
