"""What leads to tasks and from them: a node's links, its own place among them, and its relay.

They are asked for what differs from what they have done, and for all of it after a failure and
where somebody else has changed the kernel.
"""

from __future__ import annotations

from skep.env import Rejected, Retryable
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.kernel.adapters.links import Links
from skep.netproxy.kernel.core.names import HOST_INGRESS
from skep.netproxy.kernel.core.plan import KernelPlan, prefix_of
from skep.netproxy.relay.core.protocol import Listener


class Ways:
    """The links and the relay of one node. One call at a time."""

    def __init__(self, links: Links, relay: Relay) -> None:
        self._links = links
        self._relay = relay
        # What they were last asked for and have done; None: they are to be asked again.
        self._connected: tuple[object, ...] | None = None
        self._served: tuple[Listener, ...] | None = None
        # This node's own end of the ingress network, once it is there.
        self._own_end: tuple[str, str, int] | None = None
        self._lacks_ends = False

    async def connect(self, plan: KernelPlan) -> tuple[str, ...]:
        """Networks and their peers, and this node's own place on the ingress network; returns, for
        a person, what could not be done."""
        asked = (plan.networks, plan.peers, plan.tunnel)
        problems: tuple[str, ...] = ()
        try:
            # What carries a tunnel may be a process that has died: that is looked at every time.
            if plan.tunnel is not None or not _are_same(asked, self._connected):
                self._connected = None
                problems = await self._links.apply(*asked)
                self._connected = None if problems else asked
            if plan.ingress is not None and plan.ingress_address:
                if self._lacks_ends:
                    await self._links.ensure_egress()
                    self._lacks_ends = False
                end = (plan.ingress.network_id, plan.ingress_address, prefix_of(plan.ingress))
                if end != self._own_end:
                    self._own_end = None
                    await self._links.ensure_ingress(*end)
                    self._own_end = end
        except (OSError, Retryable, Rejected) as error:
            return (f"networks: {error}",)
        return problems

    async def serve(self, plan: KernelPlan) -> tuple[str, ...]:
        """What only the relay can; returns problems, as when one of its workers doesn't run."""
        is_whole = len(self._relay.worker_pids) == self._relay.worker_count
        if plan.listeners is self._served and is_whole:
            return ()
        self._served = None
        problems = await self._relay.serve(plan.version, plan.listeners)
        self._served = None if problems else plan.listeners
        return problems

    async def missing_ends(self, plan: KernelPlan) -> tuple[str, ...]:
        """The interfaces of the node's own namespace that aren't there, and are made by the next
        `connect` that follows `forget`. Raises OSError."""
        own = (HOST_INGRESS,) if plan.ingress_address else ()
        missing = await self._links.missing_ends(*own)
        self._lacks_ends = bool(missing)
        return missing

    def doubt(self) -> None:
        """The links have failed at something, and look again when they are next asked."""
        self._connected = None

    def forget(self) -> None:
        """Somebody else has changed the kernel: have everything looked at again."""
        self._connected = self._served = self._own_end = None


def _are_same(one: tuple[object, ...], other: tuple[object, ...] | None) -> bool:
    """Whether they are of the same objects, as the parts of plans that haven't changed are."""
    return other is not None and all(a is b or a == b for a, b in zip(one, other, strict=True))
