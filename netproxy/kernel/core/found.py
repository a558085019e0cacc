"""What a sandbox holds, put together from what the kernel says of its parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from skep.netproxy.kernel.core.links import Bridge, Overlay, Port, Vxlan
from skep.netproxy.kernel.core.names import address_of, mac_of, parse_tag


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A network interface. `master` is the index of its bridge or 0; `vni`, `local` and `port`
    are those of a VXLAN device, and `namespace` the number of that in which its packets begin: None
    where it is this same one."""

    index: int
    name: str
    kind: str = ""
    alias: str = ""
    mtu: int = 0
    master: int = 0
    is_up: bool = False
    vni: int = 0
    local: str = ""
    port: int = 0
    namespace: int | None = None


@dataclass(frozen=True, slots=True)
class AddressRecord:
    """An IPv4 address of an interface, with its prefix length: "10.0.1.1/24"."""

    index: int
    address: str


@dataclass(frozen=True, slots=True)
class ForwardRecord:
    """A static forwarding entry: of a bridge, for one of its ports, or, with a vtep, of a VXLAN
    device."""

    index: int
    mac: str
    vtep: str = ""


@dataclass(frozen=True, slots=True)
class NeighbourRecord:
    """A permanent neighbour of an interface."""

    index: int
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Records:
    """All that one namespace holds; `tunnel` is the number by which it knows the node's tunnel."""

    links: tuple[LinkRecord, ...] = ()
    addresses: tuple[AddressRecord, ...] = ()
    forwards: tuple[ForwardRecord, ...] = ()
    neighbours: tuple[NeighbourRecord, ...] = ()
    tunnel: int | None = None


@dataclass(frozen=True)
class Found:
    """A node's sandbox: its networks, the ports on them, and the tasks' addresses on the way out.

    `ports` are sorted by task and network; `egress` are addresses by task.
    """

    overlays: Mapping[str, Overlay]
    ports: tuple[Port, ...] = ()
    egress: Mapping[str, str] = field(default_factory=dict)


def assemble(node: str, records: Records) -> Found:
    """What the interfaces with that node's tags make up."""
    bridges: dict[str, LinkRecord] = {}
    devices: dict[str, LinkRecord] = {}
    ports: list[tuple[Port, LinkRecord]] = []
    egress: dict[str, str] = {}
    for link in records.links:
        tag = parse_tag(link.alias, node)
        if tag is None:
            continue
        fields = tag.fields
        if ("task" in fields and "net" in fields) or ("ingress" in fields and "net" in fields):
            ports.append((_port(link, fields), link))
        elif "egress" in fields:
            egress[fields.get("task", "")] = fields.get("ip", "")
        elif "net" in fields:
            (devices if link.kind == "vxlan" else bridges)[fields["net"]] = link
    overlays = _overlays(bridges, devices, records)
    _add_loose(overlays, bridges, ports, records.forwards)
    inventory = sorted((port for port, _ in ports), key=lambda p: (p.task_id, p.network_id))
    return Found(overlays, tuple(inventory), egress)


def _port(link: LinkRecord, fields: Mapping[str, str]) -> Port:
    return Port(link.name, fields["net"], fields.get("ip", ""), fields.get("task", ""))


def _overlays(
    bridges: Mapping[str, LinkRecord], devices: Mapping[str, LinkRecord], records: Records
) -> dict[str, Overlay]:
    gateways = {record.index: record.address for record in records.addresses}
    peers = _peers({link.index for link in devices.values()}, records)
    overlays = {}
    for network_id in sorted(bridges.keys() | devices.keys()):
        link, device = bridges.get(network_id), devices.get(network_id)
        bridge = Bridge(link.mtu, gateways.get(link.index, ""), link.is_up) if link else None
        vxlan = None
        if device is not None:
            is_ready = link is not None and device.is_up and device.master == link.index
            is_encrypted = records.tunnel is not None and device.namespace == records.tunnel
            vxlan = Vxlan(
                *(device.vni, device.local, device.port, device.mtu), is_ready, is_encrypted
            )
        those = peers[device.index] if device else {}
        overlays[network_id] = Overlay(network_id, bridge, vxlan, those)
    return overlays


def _peers(devices: set[int], records: Records) -> dict[int, dict[str, str]]:
    """The peers of each VXLAN device, by its index: by all three entries that one needs."""
    vteps: dict[tuple[int, str], str] = {}
    on_bridge: set[tuple[int, str]] = set()
    for entry in records.forwards:
        if entry.index in devices:
            key = (entry.index, address_of(entry.mac))
            if entry.vtep:
                vteps[key] = entry.vtep
            else:
                on_bridge.add(key)
    answered = {
        (neighbour.index, neighbour.address)
        for neighbour in records.neighbours
        if neighbour.index in devices and neighbour.mac == mac_of(neighbour.address)
    }
    peers: dict[int, dict[str, str]] = defaultdict(dict)
    for index, address in vteps.keys() | on_bridge | answered:
        if address:
            key = (index, address)
            is_whole = key in on_bridge and key in answered
            peers[index][address] = vteps.get(key, "") if is_whole else ""
    return peers


def _add_loose(
    overlays: dict[str, Overlay],
    bridges: Mapping[str, LinkRecord],
    ports: Iterable[tuple[Port, LinkRecord]],
    forwards: Iterable[ForwardRecord],
) -> None:
    fixed = {(entry.index, address_of(entry.mac)) for entry in forwards if not entry.vtep}
    for port, link in ports:
        network_id = port.network_id
        bridge = bridges.get(network_id)
        is_joined = (
            bridge is not None
            and link.master == bridge.index
            and link.is_up
            and (link.index, port.address) in fixed
        )
        if not is_joined:
            overlay = overlays.get(network_id, Overlay(network_id))
            overlays[network_id] = replace(overlay, loose=(*overlay.loose, port))
