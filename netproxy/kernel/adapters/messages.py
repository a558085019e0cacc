"""The requests that are made of a namespace, and its answers, in Skep's terms.

This is where pyroute2's names for things end.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from skep.netproxy.kernel.adapters.netlink import Message, Netlink, message
from skep.netproxy.kernel.core.found import (
    AddressRecord,
    ForwardRecord,
    LinkRecord,
    NeighbourRecord,
    Records,
)
from skep.netproxy.kernel.core.links import Vxlan

NEW_LINK, DEL_LINK, GET_LINK = 16, 17, 18
NEW_ADDRESS, GET_ADDRESS = 20, 22
NEW_ROUTE = 24
NEW_NEIGHBOUR, DEL_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30

REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
NESTED = 0x8000
UP = 1  # IFF_UP
STATIC, REACHABLE, PERMANENT = 0x40, 0x02, 0x80  # NUD_NOARP is a bridge's word for static
OF_DEVICE, OF_BRIDGE = 0x02, 0x04  # NTF_SELF, NTF_MASTER
# In an answer about a link: 16 bytes of header, then family, a pad and a type (see rtnetlink(7)).
_INDEX, _INDEX_OFFSET = struct.Struct("=i"), 20
SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS

Attributes = list[tuple[Any, ...]]


# ------------------------------------------------------------------------------------- requests


def _link(number: int, flags: int, fields: dict[str, Any], attrs: Attributes) -> Message:
    return message(ifinfmsg, number, flags, fields, attrs)


def _nested(kind: str, data: Attributes) -> tuple[str, Any]:
    return (
        "IFLA_LINKINFO",
        {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": data})]},
    )


def make_bridge(name: str, mtu: int, alias: str, mac: str = "") -> list[Message]:
    """A bridge that is up. `mac` is its hardware address; one is drawn where it is ""."""
    attrs: Attributes = [("IFLA_IFNAME", name), ("IFLA_MTU", mtu)]
    if mac:
        attrs.append(("IFLA_ADDRESS", mac))
    # Nobody here asks for multicast, and its queries would go out on every network.
    attrs.append(_nested("bridge", [("IFLA_BR_MCAST_SNOOPING", 0)]))
    up = {"flags": UP, "change": UP}
    return [_link(NEW_LINK, CREATE | EXCL, up, attrs), alias_of(name, alias)]


def make_vxlan(name: str, vxlan: Vxlan, namespace_fd: int) -> list[Message]:
    """A VXLAN device whose packets are those of the namespace that is asked, and which is itself
    in the one given."""
    data: Attributes = [
        ("IFLA_VXLAN_ID", vxlan.vni),
        ("IFLA_VXLAN_LOCAL", vxlan.local),
        ("IFLA_VXLAN_PORT", vxlan.port),
        ("IFLA_VXLAN_LEARNING", 0),
        # The device answers for the peers that it knows: questions never leave the node.
        ("IFLA_VXLAN_PROXY", 1),
    ]
    attrs: Attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", vxlan.mtu),
        ("IFLA_NET_NS_FD", namespace_fd),
        _nested("vxlan", data),
    ]
    return [_link(NEW_LINK, CREATE | EXCL, {}, attrs)]


def make_wireguard(name: str, namespace_fd: int | None = None) -> Message:
    """A WireGuard device whose packets are those of the namespace that is asked, and which is
    itself in the one given."""
    kind = {"attrs": [("IFLA_INFO_KIND", "wireguard")]}
    attrs: Attributes = [("IFLA_IFNAME", name), ("IFLA_LINKINFO", kind)]
    if namespace_fd is not None:
        attrs.append(("IFLA_NET_NS_FD", namespace_fd))
    return _link(NEW_LINK, CREATE | EXCL, {}, attrs)


def move_link(index: int, namespace_fd: int) -> Message:
    """Put an interface into another namespace, where it is down."""
    return _link(NEW_LINK, 0, {"index": index}, [("IFLA_NET_NS_FD", namespace_fd)])


def make_veth(
    name: str, mtu: int, master: int, peer: tuple[str, str, int], alias: str
) -> list[Message]:
    """A veth whose one end is a port of a bridge; the other is (name, MAC, namespace's fd).

    This end is tagged and up. The other can't be put up before it is there.
    """
    peer_name, mac, namespace_fd = peer
    other: Attributes = [
        ("IFLA_IFNAME", peer_name),
        ("IFLA_MTU", mtu),
        ("IFLA_ADDRESS", mac),
        ("IFLA_NET_NS_FD", namespace_fd),
    ]
    attrs: Attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu),
        ("IFLA_MASTER", master),
        _nested("veth", [("VETH_INFO_PEER", {"attrs": other})]),
    ]
    up = {"flags": UP, "change": UP}
    return [_link(NEW_LINK, CREATE | EXCL, up, attrs), alias_of(name, alias)]


def alias_of(name: str, alias: str) -> Message:
    """Tag an interface."""
    return _link(NEW_LINK, 0, {}, [("IFLA_IFNAME", name), ("IFLA_IFALIAS", alias)])


def set_up(index: int, *, mtu: int = 0, master: int = 0, alias: str = "") -> Message:
    """Put an interface up, with this MTU, on that bridge and with that tag where they are given."""
    attrs: Attributes = []
    if alias:
        attrs.append(("IFLA_IFALIAS", alias))
    if mtu:
        attrs.append(("IFLA_MTU", mtu))
    if master:
        attrs.append(("IFLA_MASTER", master))
    return _link(NEW_LINK, 0, {"index": index, "flags": UP, "change": UP}, attrs)


def set_port(index: int, *, is_isolated: bool = False) -> Message:
    """Let a bridge's port have only what static entries say, beside broadcasts.

    Isolated ports reach none of their kind.
    """
    data: Attributes = [
        ("IFLA_BRPORT_LEARNING", 0),
        ("IFLA_BRPORT_UNICAST_FLOOD", 0),
        ("IFLA_BRPORT_ISOLATED", int(is_isolated)),
    ]
    fields = {"family": socket.AF_BRIDGE, "index": index}
    return _link(
        NEW_LINK + 3, 0, fields, [("IFLA_PROTINFO", {"attrs": data}, NESTED)]
    )  # RTM_SETLINK


def drop_link(index: int) -> Message:
    """Remove an interface, and a veth's other end."""
    return _link(DEL_LINK, 0, {"index": index}, [])


def set_group(index: int, group: int) -> Message:
    """Put an interface into a group."""
    return _link(NEW_LINK, 0, {"index": index}, [("IFLA_GROUP", group)])


def drop_group(group: int) -> Message:
    """Remove all interfaces of a group, and veths' other ends."""
    return _link(DEL_LINK, 0, {}, [("IFLA_GROUP", group)])


def set_address(index: int, address: str, prefix_length: int) -> Message:
    """Give an interface an address; raises nothing where it has it."""
    attrs: Attributes = [("IFA_LOCAL", address), ("IFA_ADDRESS", address)]
    fields = {"family": socket.AF_INET, "prefixlen": prefix_length, "index": index}
    return message(ifaddrmsg, NEW_ADDRESS, CREATE | REPLACE, fields, attrs)


def drop_address(index: int, address: str, prefix_length: int) -> Message:
    """Take an address from an interface."""
    fields = {"family": socket.AF_INET, "prefixlen": prefix_length, "index": index}
    return message(ifaddrmsg, NEW_ADDRESS + 1, 0, fields, [("IFA_LOCAL", address)])


def default_route(index: int, gateway: str) -> Message:
    """Send by that gateway what has no other way."""
    fields = {
        "family": socket.AF_INET,
        "table": 254,
        "proto": 4,  # static
        "scope": 0,
        "type": 1,  # unicast
    }
    attrs: Attributes = [("RTA_GATEWAY", gateway), ("RTA_OIF", index)]
    return message(rtmsg, NEW_ROUTE, CREATE | REPLACE, fields, attrs)


def forward(index: int, mac: str, vtep: str = "") -> Message:
    """A bridge's static entry for one of its ports; with a vtep, the VXLAN device's own too."""
    fields = {"family": socket.AF_BRIDGE, "ifindex": index, "state": STATIC, "flags": OF_BRIDGE}
    attrs: Attributes = [("NDA_LLADDR", mac)]
    if vtep:
        fields.update(state=STATIC | REACHABLE, flags=OF_BRIDGE | OF_DEVICE)
        attrs.append(("NDA_DST", vtep))
    return message(ndmsg, NEW_NEIGHBOUR, CREATE | REPLACE, fields, attrs)


def neighbour(index: int, address: str, mac: str) -> Message:
    """What the VXLAN device answers to who asks for that address."""
    fields = {"family": socket.AF_INET, "ifindex": index, "state": PERMANENT}
    attrs: Attributes = [("NDA_DST", address), ("NDA_LLADDR", mac)]
    return message(ndmsg, NEW_NEIGHBOUR, CREATE | REPLACE, fields, attrs)


def drop_peer(index: int, address: str, mac: str) -> list[Message]:
    """Remove the three entries of a peer, each of which may be gone (ENOENT)."""
    bridge = {"family": socket.AF_BRIDGE, "ifindex": index, "flags": OF_BRIDGE}
    device = {"family": socket.AF_BRIDGE, "ifindex": index, "flags": OF_DEVICE}
    asked = {"family": socket.AF_INET, "ifindex": index}
    return [
        message(ndmsg, DEL_NEIGHBOUR, 0, asked, [("NDA_DST", address)]),
        message(ndmsg, DEL_NEIGHBOUR, 0, bridge, [("NDA_LLADDR", mac)]),
        message(ndmsg, DEL_NEIGHBOUR, 0, device, [("NDA_LLADDR", mac)]),
    ]


# -------------------------------------------------------------------------------------- answers


def link_named(netlink: Netlink, name: str) -> LinkRecord | None:
    """One interface by its name."""
    answer = netlink.get(_get_link(name))
    return None if answer is None else _link_record(answer)


def index_named(netlink: Netlink, name: str) -> int:
    """The index of an interface; 0 where there is none. Much quicker than all that is known."""
    answer = netlink.get(_get_link(name))
    return 0 if answer is None else int(_INDEX.unpack_from(answer, _INDEX_OFFSET)[0])


def _get_link(name: str) -> Message:
    attrs: Attributes = [("IFLA_IFNAME", name), ("IFLA_EXT_MASK", SKIP_STATISTICS)]
    return _link(GET_LINK, 0, {}, attrs)


def links(netlink: Netlink) -> tuple[LinkRecord, ...]:
    """All interfaces."""
    request = _link(GET_LINK, 0, {}, [("IFLA_EXT_MASK", SKIP_STATISTICS)])
    return tuple(map(_link_record, netlink.dump(request)))


def addresses(netlink: Netlink) -> tuple[AddressRecord, ...]:
    """All IPv4 addresses."""
    request = message(ifaddrmsg, GET_ADDRESS, 0, {"family": socket.AF_INET}, [])
    found = []
    for answer in netlink.dump(request):
        decoded = _decoded(ifaddrmsg, answer)
        address = decoded.get_attr("IFA_LOCAL")
        found.append(AddressRecord(decoded["index"], f"{address}/{decoded['prefixlen']}"))
    return tuple(found)


def records(netlink: Netlink) -> Records:
    """All that the namespace holds of what Skep makes."""
    forwards = []
    for answer in netlink.dump(message(ndmsg, GET_NEIGHBOUR, 0, {"family": socket.AF_BRIDGE}, [])):
        decoded = _decoded(ndmsg, answer)
        if decoded["state"] & STATIC:
            vtep = decoded.get_attr("NDA_DST") or ""
            mac = decoded.get_attr("NDA_LLADDR")
            forwards.append(ForwardRecord(decoded["ifindex"], mac, vtep))
    neighbours = []
    for answer in netlink.dump(message(ndmsg, GET_NEIGHBOUR, 0, {"family": socket.AF_INET}, [])):
        decoded = _decoded(ndmsg, answer)
        if decoded["state"] & PERMANENT:
            address, mac = decoded.get_attr("NDA_DST"), decoded.get_attr("NDA_LLADDR")
            neighbours.append(NeighbourRecord(decoded["ifindex"], address, mac))
    return Records(links(netlink), addresses(netlink), tuple(forwards), tuple(neighbours))


def _decoded(kind: Any, answer: bytes) -> Any:
    decoded = kind(answer)
    decoded.decode()
    return decoded


def _link_record(answer: bytes) -> LinkRecord:
    decoded = _decoded(ifinfmsg, answer)
    info = decoded.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info is not None else "") or ""
    vni, local, port = 0, "", 0
    if kind == "vxlan":
        data = info.get_attr("IFLA_INFO_DATA")
        vni = data.get_attr("IFLA_VXLAN_ID")
        local = data.get_attr("IFLA_VXLAN_LOCAL") or ""
        port = data.get_attr("IFLA_VXLAN_PORT")
    return LinkRecord(
        decoded["index"],
        decoded.get_attr("IFLA_IFNAME"),
        kind,
        decoded.get_attr("IFLA_IFALIAS") or "",
        decoded.get_attr("IFLA_MTU"),
        decoded.get_attr("IFLA_MASTER") or 0,
        bool(decoded["flags"] & UP),
        vni,
        local,
        port,
        decoded.get_attr("IFLA_LINK_NETNSID") is None,
    )


def all_of(requests: Sequence[Sequence[Message]]) -> list[Message]:
    """Several lists of requests as one."""
    return [request for some in requests for request in some]
