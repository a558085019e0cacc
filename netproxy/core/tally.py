"""What the kernel has counted of a node's services, for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class VipTally:
    """Of one service's virtual addresses, as this node's tasks have used them."""

    connections: int = 0
    refused: int = 0
    flows: int = 0


@dataclass(frozen=True, slots=True)
class TrafficTally:
    """Of the same TCP connections: bytes by who has sent them, of those that have ended; and how
    long it took to connect, in seconds over all that were `established`."""

    established: int = 0
    round_trip_s: float = 0.0
    from_client_bytes: int = 0
    from_task_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PortTally:
    """Of one published port of this node: connections (for UDP, flows), and what went through it
    both ways."""

    service_name: str
    port: str  # "8080/tcp"
    connections: int
    packets: int
    bytes: int


@dataclass(frozen=True)
class Tally:
    """All of a node, by service name. `strays` are packets that a guard has dropped, since they
    would have passed untranslated."""

    vips: Mapping[str, VipTally] = field(default_factory=dict)
    traffic: Mapping[str, TrafficTally] = field(default_factory=dict)
    ports: tuple[PortTally, ...] = ()
    strays: int = 0
