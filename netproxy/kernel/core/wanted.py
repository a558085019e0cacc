"""What managers want of a node's overlay networks, checked, in the terms of `Overlay`."""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from skep.env import Rejected
from skep.netproxy.kernel.core.links import Bridge, Network, Overlay, Peer, Vxlan
from skep.netproxy.kernel.core.names import check_id

VXLAN_PORT = 4789  # IANA's
VNI_LIMIT = 1 << 24
# What VXLAN over IPv4 adds to each frame: Ethernet 14, IP 20, UDP 8, VXLAN 8 bytes.
VXLAN_OVERHEAD = 50


@dataclass(frozen=True, slots=True)
class Underlay:
    """What carries the overlays of one node: its address there, the UDP port that all nodes use,
    and the MTU of the interface that has the address."""

    address: str
    port: int
    mtu: int

    @property
    def overlay_mtu(self) -> int:
        """What is left for a packet on an overlay network."""
        return self.mtu - VXLAN_OVERHEAD


def wanted_overlays(
    networks: Sequence[Network],
    peers: Mapping[str, Sequence[Peer]],
    underlay: Underlay,
    found: Mapping[str, Overlay],
) -> tuple[dict[str, Overlay], list[str]]:
    """These networks as they should be on a node, and, for a person, what can't be had.

    A peer that is refused is left out. A network that is refused is left as it is: its tasks are
    not cut off for an error in what a manager says of it.
    """
    wanted: dict[str, Overlay] = {}
    problems: list[str] = []
    vnis = Counter(network.vni for network in networks)
    for network in networks:
        try:
            if vnis[network.vni] > 1:
                raise Rejected(f"VNI {network.vni} is given to {vnis[network.vni]} networks")
            overlay, refused = _overlay(network, peers.get(network.network_id, ()), underlay)
        except Rejected as error:
            problems.append(f"network {network.network_id}: {error}")
            if network.network_id in found:
                wanted[network.network_id] = replace(found[network.network_id], loose=())
            continue
        wanted[network.network_id] = overlay
        problems.extend(f"network {network.network_id}: {text}" for text in refused)
    return wanted, problems


def _overlay(
    network: Network, peers: Sequence[Peer], underlay: Underlay
) -> tuple[Overlay, list[str]]:
    check_id(network.network_id, "a network")
    if not 0 < network.vni < VNI_LIMIT:
        raise Rejected(f"VNI {network.vni} is not between 1 and {VNI_LIMIT - 1}")
    try:
        subnet = ipaddress.IPv4Network(network.subnet)
    except ValueError as error:
        raise Rejected(f"its subnet {network.subnet!r} is no IPv4 network: {error}") from None
    if network.gateway and not _is_address(network.gateway):
        raise Rejected(f"its gateway {network.gateway!r} is no IPv4 address")
    good, refused = {}, []
    for peer in peers:
        if not _is_address(peer.address) or not _is_address(peer.vtep):
            refused.append(f"no IPv4 addresses: {peer.address!r} by {peer.vtep!r}")
        elif peer.vtep != underlay.address:
            # What is said to be here itself needs no entry, and an entry would send it round.
            good[peer.address] = peer.vtep
    mtu = underlay.overlay_mtu
    gateway = f"{network.gateway}/{subnet.prefixlen}" if network.gateway else ""
    overlay = Overlay(
        network.network_id,
        Bridge(mtu, gateway),
        Vxlan(network.vni, underlay.address, underlay.port, mtu),
        good,
    )
    return overlay, refused


# All peers of a network are told again with each change of one of them.
@functools.lru_cache(maxsize=1 << 16)
def _is_address(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(
        part.isascii() and part.isdigit() and int(part) < 256 and str(int(part)) == part
        for part in parts
    )
