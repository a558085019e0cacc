"""Makes UDP flows choose their backend anew, where the one that they have is theirs no more.

The kernel remembers where a flow of UDP goes for as long as it is busy, and a client that keeps its
port would be sent to a removed backend for ever. So would one whose packets have gone nowhere since
before its port was published. TCP is left alone: its connections end by themselves.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from skep.netproxy.kernel.core.script import UDP

_AF_INET = 2
# Of the reader's namespace; most of those that have just been made have no connections yet.
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


@dataclass(frozen=True, slots=True)
class UdpTarget:
    """Where flows to this address (None: any of the namespace's own) and this port (None: any) may
    be going by now."""

    address: str | None
    port: int | None
    backends: frozenset[str]


def settle_udp(targets: Iterable[UdpTarget]) -> int:
    """Forget the flows to these targets that lead anywhere but to their backends; how many.

    Blocks; of the calling thread's namespace. Flows from and to the node's loopback addresses are
    left. Raises OSError.
    """
    listed = list(targets)
    if not listed or (_COUNT.exists() and _COUNT.read_text().strip() == "0"):
        return 0
    own = _own_addresses() if any(target.address is None for target in listed) else frozenset()
    with NFCTSocket() as connections:
        by_place = {(target.address, target.port): target for target in listed}
        # Listed to the end before anything else is said.
        astray = [f for f in _flows(connections, listed) if _is_astray(f, by_place, own)]
        return sum(_forget(connections, flow) for flow in astray)


@dataclass(frozen=True, slots=True)
class _Flow:
    source: str
    destination: str
    source_port: int
    destination_port: int
    answered_by: str


def _flows(connections: Any, targets: list[UdpTarget]) -> Iterator[_Flow]:
    """UDP flows; where there is but one target, its own if the kernel can choose (since 5.8).

    A list takes the kernel some 9 ms, as it goes through the connections of all namespaces, so
    there is one for all targets.
    """
    wanted: dict[str, Any] = {"proto": UDP}
    if len(targets) == 1 and targets[0].address is not None:
        wanted["daddr"] = targets[0].address
    if len(targets) == 1 and targets[0].port is not None:
        wanted["dport"] = targets[0].port
    for message in connections.dump(tuple_orig=NFCTAttrTuple(**wanted)):
        flow = _read_flow(message)
        if flow is not None:
            yield flow


def _read_flow(message: Any) -> _Flow | None:
    original, reply = message.get_attr("CTA_TUPLE_ORIG"), message.get_attr("CTA_TUPLE_REPLY")
    if original is None or reply is None:
        return None
    ends, back = original.get_attr("CTA_TUPLE_IP"), reply.get_attr("CTA_TUPLE_IP")
    protocol = original.get_attr("CTA_TUPLE_PROTO")
    if protocol.get_attr("CTA_PROTO_NUM") != UDP or ends.get_attr("CTA_IP_V4_SRC") is None:
        return None
    return _Flow(
        source=ends.get_attr("CTA_IP_V4_SRC"),
        destination=ends.get_attr("CTA_IP_V4_DST"),
        source_port=protocol.get_attr("CTA_PROTO_SRC_PORT"),
        destination_port=protocol.get_attr("CTA_PROTO_DST_PORT"),
        answered_by=back.get_attr("CTA_IP_V4_SRC"),
    )


def _is_astray(
    flow: _Flow, by_place: Mapping[tuple[str | None, int | None], UdpTarget], own: frozenset[str]
) -> bool:
    address, port = flow.destination, flow.destination_port
    places: list[tuple[str | None, int | None]] = [(address, None), (address, port)]
    if address in own and not ipaddress.ip_address(address).is_loopback:
        places += [(None, None), (None, port)]
    return any(
        place in by_place and flow.answered_by not in by_place[place].backends for place in places
    )


def _forget(connections: Any, flow: _Flow) -> int:
    original = NFCTAttrTuple(
        saddr=flow.source,
        daddr=flow.destination,
        proto=UDP,
        sport=flow.source_port,
        dport=flow.destination_port,
    )
    try:
        connections.entry("del", tuple_orig=original)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise OSError(error.code, f"deleting a UDP flow: {error}") from None
        return 0
    return 1


def _own_addresses() -> frozenset[str]:
    with IPRoute() as links:
        found = links.get_addr(family=_AF_INET)
        return frozenset(message.get_attr("IFA_LOCAL") for message in found)
