"""What managers want of a node's overlay networks, checked, in the terms of `Overlay`."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from skep.env import Rejected
from skep.netproxy.kernel.core.links import Bridge, Network, Overlay, Peer, Vxlan
from skep.netproxy.kernel.core.names import check_id, is_address

VXLAN_PORT = 4789  # IANA's
VNI_LIMIT = 1 << 24
# What VXLAN over IPv4 adds to each frame: Ethernet 14, IP 20, UDP 8, VXLAN 8 bytes.
VXLAN_OVERHEAD = 50
# What WireGuard over IPv4 adds to each packet: IP 20, UDP 8, its header and tag 32 bytes.
WIREGUARD_OVERHEAD = 60
# Packets are padded to 16 bytes. The kernel stops at the MTU; wireguard-go doesn't see that of a
# device in another namespace. All nodes have the same, whatever their means.
WIREGUARD_PADDING = 15


@dataclass(frozen=True, slots=True)
class Underlay:
    """What carries the overlays of one node: its address there, the UDP port that all nodes use,
    and the MTU of the interface that has the address. `tunnel` is its address in the tunnel, or ""
    and why there is none (`hindrance`)."""

    address: str
    port: int
    mtu: int
    tunnel: str = ""
    hindrance: str = "nothing is known of it"

    @property
    def overlay_mtu(self) -> int:
        """What is left for a packet on an overlay network."""
        return self.mtu - VXLAN_OVERHEAD

    @property
    def tunnel_mtu(self) -> int:
        """What is left for a packet in the tunnel."""
        return self.mtu - WIREGUARD_OVERHEAD - WIREGUARD_PADDING

    @property
    def encrypted_mtu(self) -> int:
        """What is left for a packet on an encrypted network."""
        return self.tunnel_mtu - VXLAN_OVERHEAD


def wanted_overlays(
    networks: Sequence[Network],
    peers: Mapping[str, Sequence[Peer]],
    underlay: Underlay,
    found: Mapping[str, Overlay],
) -> tuple[dict[str, Overlay], list[str]]:
    """These networks as they should be on a node, and, for a person, what can't be had.

    A peer that is refused is left out. A network that is refused is left as it is: its tasks are
    not cut off for an error in what a manager says of it. One that is encrypted never becomes
    clear: a manager that doesn't know of encryption would say that of every network.
    """
    wanted: dict[str, Overlay] = {}
    problems: list[str] = []
    vnis = Counter(network.vni for network in networks)
    for network in networks:
        try:
            if vnis[network.vni] > 1:
                raise Rejected(f"VNI {network.vni} is given to {vnis[network.vni]} networks")
            if not network.is_encrypted and _is_encrypted(found.get(network.network_id)):
                raise Rejected(
                    "it is encrypted here, and a manager says that it isn't, which no network ever "
                    "becomes; are all managers of one release?"
                )
            overlay, refused = _overlay(network, peers.get(network.network_id, ()), underlay)
        except Rejected as error:
            problems.append(f"network {network.network_id}: {error}")
            if network.network_id in found:
                wanted[network.network_id] = _left(found[network.network_id], network)
            continue
        wanted[network.network_id] = overlay
        problems.extend(f"network {network.network_id}: {text}" for text in refused)
    return wanted, problems


def _is_encrypted(found: Overlay | None) -> bool:
    return found is not None and found.vxlan is not None and found.vxlan.is_encrypted


def _left(found: Overlay, network: Network) -> Overlay:
    left = replace(found, loose=())
    is_clear = found.vxlan is not None and not found.vxlan.is_encrypted
    if network.is_encrypted and is_clear:
        left = replace(left, vxlan=None, peers={})
    return left


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
    if network.gateway and not is_address(network.gateway):
        raise Rejected(f"its gateway {network.gateway!r} is no IPv4 address")
    if network.is_encrypted and not underlay.tunnel:
        raise Rejected(f"it is encrypted, which this node can't: {underlay.hindrance}")
    local, mtu = underlay.address, underlay.overlay_mtu
    if network.is_encrypted:
        local, mtu = underlay.tunnel, underlay.encrypted_mtu
    good, refused = {}, []
    for peer in peers:
        if not is_address(peer.address) or not is_address(peer.vtep):
            refused.append(f"no IPv4 addresses: {peer.address!r} by {peer.vtep!r}")
        elif peer.vtep != local:
            # What is said to be here itself needs no entry, and an entry would send it round.
            good[peer.address] = peer.vtep
    gateway = f"{network.gateway}/{subnet.prefixlen}" if network.gateway else ""
    overlay = Overlay(
        network.network_id,
        Bridge(mtu, gateway),
        Vxlan(network.vni, local, underlay.port, mtu, is_encrypted=network.is_encrypted),
        good,
    )
    return overlay, refused
