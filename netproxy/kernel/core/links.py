"""The overlay networks of one node: what is wanted, what is there, and the steps between.

Both are told in the same terms, `Overlay`, so that a difference is what isn't equal. A network is
a bridge with a VXLAN device; a peer is a task of the network on another node, with static entries
that say behind which node its address is. Nothing is learned from traffic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the cluster, with `gateway` as an address of each node's bridge where there is
    one. Tasks of a network that is not internal get a way out of the cluster as well. What goes
    from node to node of one that is encrypted goes by WireGuard or not at all."""

    network_id: str
    vni: int
    subnet: str
    gateway: str = ""
    is_internal: bool = False
    is_encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """A task of a network on another node, whose address is `vtep`: in the underlay, or in the
    tunnel for an encrypted network."""

    address: str
    vtep: str


@dataclass(frozen=True, slots=True)
class TaskLink:
    """A task's place on a network: its address, and its interface's name in its namespace."""

    network_id: str
    address: str
    prefix_length: int
    interface: str


@dataclass(frozen=True, slots=True)
class Bridge:
    """The bridge of a network; `gateway` with its prefix length, or "". One that is not ready is
    down."""

    mtu: int
    gateway: str = ""
    is_ready: bool = True


@dataclass(frozen=True, slots=True)
class Vxlan:
    """The device that carries a network to the other nodes. One that is not ready is down or not
    on the bridge. The packets of one that is encrypted begin in the node's tunnel, which nothing
    leads into or out of but WireGuard; those of others begin in the node's own namespace."""

    vni: int
    local: str
    port: int
    mtu: int
    is_ready: bool = True
    is_encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """A sandbox's end of a veth, by what its tag says. `task_id` is "" for the ingress."""

    interface: str
    network_id: str
    address: str
    task_id: str = ""


@dataclass(frozen=True)
class Overlay:
    """One network on one node. `peers` are vteps by address, "" where the entries of one are
    incomplete; `loose` are ports that are not on the bridge as they should be."""

    network_id: str
    bridge: Bridge | None = None
    vxlan: Vxlan | None = None
    peers: Mapping[str, str] = field(default_factory=dict)
    loose: tuple[Port, ...] = ()


# ----------------------------------------------------------------------------------------- steps


@dataclass(frozen=True, slots=True)
class DropVxlan:
    """Remove a network's VXLAN device, and the entries on it."""

    network_id: str


@dataclass(frozen=True, slots=True)
class MakeBridge:
    """Make a network's bridge."""

    network_id: str
    bridge: Bridge


@dataclass(frozen=True, slots=True)
class ChangeBridge:
    """Give a bridge its MTU and its gateway's address, and put it up."""

    network_id: str
    bridge: Bridge


@dataclass(frozen=True, slots=True)
class MakeVxlan:
    """Make a network's VXLAN device and put it on the bridge."""

    network_id: str
    vxlan: Vxlan


@dataclass(frozen=True, slots=True)
class ChangeVxlan:
    """Give a VXLAN device its MTU, and put it up and on the bridge; nothing else can change."""

    network_id: str
    vxlan: Vxlan


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Say behind which node an address is."""

    network_id: str
    address: str
    vtep: str


@dataclass(frozen=True, slots=True)
class Join:
    """Put a port back on its network's bridge."""

    network_id: str
    port: Port


@dataclass(frozen=True, slots=True)
class DropPeer:
    """Forget where an address is."""

    network_id: str
    address: str


@dataclass(frozen=True, slots=True)
class RemoveNetwork:
    """Remove a network's VXLAN device and bridge."""

    network_id: str


Op = (
    DropVxlan
    | MakeBridge
    | ChangeBridge
    | MakeVxlan
    | ChangeVxlan
    | SetPeer
    | Join
    | DropPeer
    | RemoveNetwork
)


def diff(wanted: Mapping[str, Overlay], found: Mapping[str, Overlay]) -> list[Op]:
    """The steps from `found` to `wanted`, in the order in which they must be made.

    VXLAN devices in the way go first, since no two may have the same VNI. Then each network is
    made whole, its peers before the ports that may speak to them. What is no longer wanted goes
    last, peers before networks.
    """
    ops: list[Op] = [DropVxlan(network_id) for network_id in _in_the_way(wanted, found)]
    dropped = {op.network_id for op in ops}
    last: list[Op] = []
    for network_id, want in sorted(wanted.items()):
        have = found.get(network_id, Overlay(network_id))
        if network_id in dropped:
            have = replace(have, vxlan=None, peers={})
        ops.extend(_makes(want, have))
        gone = have.peers.keys() - want.peers.keys()
        last.extend(DropPeer(network_id, address) for address in _by_number(gone))
    last.extend(RemoveNetwork(network_id) for network_id in sorted(found.keys() - wanted.keys()))
    return ops + last


def _in_the_way(wanted: Mapping[str, Overlay], found: Mapping[str, Overlay]) -> Iterator[str]:
    claimed = {
        (want.vxlan.vni, want.vxlan.port): network_id
        for network_id, want in wanted.items()
        if want.vxlan is not None
    }
    for network_id, have in sorted(found.items()):
        if have.vxlan is None:
            continue
        want = wanted.get(network_id)
        if want is None:
            is_in_the_way = (have.vxlan.vni, have.vxlan.port) in claimed
        else:
            is_in_the_way = want.vxlan is None or not _is_same_device(want.vxlan, have.vxlan)
        if is_in_the_way:
            yield network_id


def _is_same_device(one: Vxlan, other: Vxlan) -> bool:
    return replace(one, mtu=other.mtu, is_ready=other.is_ready) == other


def _makes(want: Overlay, have: Overlay) -> Iterator[Op]:
    if want.bridge is not None and want.bridge != have.bridge:
        make = MakeBridge if have.bridge is None else ChangeBridge
        yield make(want.network_id, want.bridge)
    if want.vxlan is not None and want.vxlan != have.vxlan:
        tunnel = MakeVxlan if have.vxlan is None else ChangeVxlan
        yield tunnel(want.network_id, want.vxlan)
    if want.peers != have.peers:
        new = (address for address, vtep in want.peers.items() if have.peers.get(address) != vtep)
        for address in _by_number(new):
            yield SetPeer(want.network_id, address, want.peers[address])
    for port in have.loose:
        yield Join(want.network_id, port)


def _by_number(addresses: Iterable[str]) -> list[str]:
    return sorted(addresses, key=lambda address: tuple(map(int, address.split("."))))


def applied(found: Mapping[str, Overlay], ops: Iterable[Op]) -> dict[str, Overlay]:
    """What is there once these steps have been made."""
    after = dict(found)
    peers: dict[str, dict[str, str]] = {}
    for op in ops:
        key = op.network_id
        now = after.get(key, Overlay(key))
        match op:
            case RemoveNetwork():
                after.pop(key, None)
                peers.pop(key, None)
                continue
            case MakeBridge() | ChangeBridge():
                now = replace(now, bridge=op.bridge)
            case MakeVxlan() | ChangeVxlan():
                now = replace(now, vxlan=op.vxlan)
            case DropVxlan():
                now = replace(now, vxlan=None)
                peers[key] = {}
            case SetPeer():
                peers.setdefault(key, dict(now.peers))[op.address] = op.vtep
            case DropPeer():
                peers.setdefault(key, dict(now.peers)).pop(op.address, None)
            case Join():
                now = replace(now, loose=tuple(port for port in now.loose if port != op.port))
        after[key] = now
    for key, those in peers.items():
        after[key] = replace(after[key], peers=those)
    return after


def words(op: Op) -> str:
    """A step's reason, for a person: what is not as it should be."""
    where = f"network {op.network_id}"
    match op:
        case DropVxlan():
            return f"{where}: its VXLAN device is in the way"
        case MakeBridge():
            return f"{where}: it has no bridge"
        case ChangeBridge(bridge=bridge):
            address = f" and address {bridge.gateway}" if bridge.gateway else ""
            return f"{where}: its bridge should be up with MTU {bridge.mtu}{address}"
        case MakeVxlan(vxlan=vxlan):
            kind = "encrypted VXLAN" if vxlan.is_encrypted else "VXLAN"
            return f"{where}: it has no {kind} device for VNI {vxlan.vni} from {vxlan.local}"
        case ChangeVxlan(vxlan=vxlan):
            return f"{where}: its VXLAN device should be up on the bridge with MTU {vxlan.mtu}"
        case SetPeer():
            return f"{where}: {op.address} should be reached by {op.vtep}"
        case Join():
            return f"{where}: {op.port.interface} ({op.port.address}) is not on its bridge"
        case DropPeer():
            return f"{where}: {op.address} should not be reached by another node any more"
        case RemoveNetwork():
            return f"{where}: it is not wanted here"


def check_invariants(overlays: Mapping[str, Overlay]) -> None:
    """What holds of every node's networks, wanted or found; raises AssertionError."""
    taken: dict[tuple[int, int], str] = {}
    for network_id, overlay in overlays.items():
        assert overlay.network_id == network_id, overlay
        assert overlay.vxlan is not None or not overlay.peers, f"peers of no device: {overlay}"
        if overlay.vxlan is not None:
            key = (overlay.vxlan.vni, overlay.vxlan.port)
            assert taken.setdefault(key, network_id) == network_id, f"{key} is used twice"
