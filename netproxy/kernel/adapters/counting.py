"""Reads what the kernel has counted of the node's services, whenever somebody scrapes.

On the scraper's own thread, so that neither the event loop nor a change of rules waits for it: it
only reads, and all that it shares with them are descriptors that stay open until `close`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from skep.env import Retryable
from skep.netproxy.core.tally import PortTally, Tally, TrafficTally, VipTally
from skep.netproxy.kernel.core.ingressread import PortCounters
from skep.netproxy.kernel.core.traffic import Traffic
from skep.netproxy.kernel.core.understood import VipKey
from skep.netproxy.kernel.core.vips import Counts

log = logging.getLogger(__name__)
MICRO = 1e-6


class CountsPorts(Protocol):
    """Whoever knows what went through published ports; see `natrules.Ingress`."""

    def counters(self) -> tuple[tuple[PortCounters, ...], int]:
        """Each port's counters, and how many packets the guard has dropped."""
        ...


class CountsVips(Protocol):
    """Whoever knows of virtual addresses; see `vipmodes.VipMode`."""

    def connects(self) -> Mapping[VipKey, Counts]:
        """Connections and refusals so far, where they are counted."""
        ...

    def traffic(self) -> Mapping[VipKey, Traffic]:
        """Bytes and round-trip times, where they are counted."""
        ...

    def strays(self) -> int:
        """Packets that guards in tasks' namespaces have dropped."""
        ...


@dataclass(frozen=True, slots=True)
class Owners:
    """Which service each address and port is."""

    vips: Mapping[VipKey, str]
    ports: Mapping[tuple[str, int], str]


class Counting:
    """Made with the plane's parts; `read` may be called from any thread."""

    def __init__(self, ports: CountsPorts, vips: CountsVips) -> None:
        self._ports = ports
        self._vips = vips
        self._last = Tally()
        self._is_closed = False
        self._one_at_a_time = threading.Lock()

    def read(self, owners: Owners) -> Tally:
        """What is counted now; what was counted last where the kernel doesn't say. Blocks for
        some milliseconds."""
        with self._one_at_a_time:
            if not self._is_closed:
                try:
                    self._last = self._read(owners)
                except (OSError, Retryable) as error:
                    log.warning("counters=unread why=%r", str(error))
            return self._last

    def close(self) -> None:
        """Read no more: the descriptors are about to go. Waits for a reader."""
        with self._one_at_a_time:
            self._is_closed = True

    def _read(self, owners: Owners) -> Tally:
        ports, strays = self._ports.counters()
        return Tally(
            vips=_by_service(self._vips.connects(), owners),
            traffic=_traffic(self._vips.traffic(), owners),
            ports=tuple(
                PortTally(
                    owners.ports[port.protocol, port.published],
                    f"{port.published}/{port.protocol}",
                    port.connections,
                    port.packets,
                    port.bytes,
                )
                for port in ports
                if (port.protocol, port.published) in owners.ports
            ),
            strays=strays + self._vips.strays(),
        )


def _by_service(counts: Mapping[VipKey, Counts], owners: Owners) -> dict[str, VipTally]:
    """A service has an address on each of its networks."""
    sums: dict[str, VipTally] = {}
    for key, count in counts.items():
        name = owners.vips.get(key)
        if name is not None:
            before = sums.get(name, VipTally())
            sums[name] = VipTally(
                before.connections + count.connects,
                before.refused + count.refused,
                before.flows + count.flows,
            )
    return sums


def _traffic(counts: Mapping[VipKey, Traffic], owners: Owners) -> dict[str, TrafficTally]:
    sums: dict[str, TrafficTally] = {}
    for key, count in counts.items():
        name = owners.vips.get(key)
        if name is not None:
            before = sums.get(name, TrafficTally())
            sums[name] = TrafficTally(
                before.established + count.established,
                before.round_trip_s + count.round_trip_us * MICRO,
                before.from_client_bytes + count.sent_bytes,
                before.from_task_bytes + count.received_bytes,
            )
    return sums
