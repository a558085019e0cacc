"""The requests that are made of a namespace, and its answers, in Skep's terms.

Requests are written here as the kernel wants them (linux/if_link.h and others of its headers); this
is where pyroute2's names for things in answers end.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from skep.netproxy.kernel.adapters import netns
from skep.netproxy.kernel.adapters.netlink import (
    HEADER_BYTES,
    Message,
    Netlink,
    attribute,
    attributes,
    message,
)
from skep.netproxy.kernel.core.found import (
    AddressRecord,
    ForwardRecord,
    LinkRecord,
    NeighbourRecord,
    Records,
)
from skep.netproxy.kernel.core.links import Vxlan

NEW_LINK, DEL_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
NEW_ADDRESS, DEL_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE = 24
NEW_NEIGHBOUR, DEL_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
GET_NAMESPACE_NUMBER = 90

REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
NESTED = 0x8000
UP = 1  # IFF_UP
STATIC, REACHABLE, PERMANENT = 0x40, 0x02, 0x80  # NUD_NOARP is a bridge's word for static
OF_DEVICE, OF_BRIDGE = 0x02, 0x04  # NTF_SELF, NTF_MASTER
# In an answer about a link: 16 bytes of header, then family, a pad and a type (see rtnetlink(7)).
_INDEX, _INDEX_OFFSET = struct.Struct("=i"), 20
SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS

# The fields that all requests of one type have.
_LINK_FIELDS = struct.Struct("=BxHiII")  # family, type, index, flags, which flags to change
_ADDRESS_FIELDS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE_FIELDS = struct.Struct(
    "=8BI"
)  # family, 2 prefix lengths, tos, table, by, scope, type, flags
_NEIGHBOUR_FIELDS = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
# Attributes of links, and of what is nested in them.
_ADDRESS, _NAME, _MTU, _MASTER, _PROTINFO, _LINKINFO = 1, 3, 4, 10, 12, 18
_ALIAS, _GROUP, _NAMESPACE_FD, _EXT_MASK = 20, 27, 28, 29
_KIND, _DATA = 1, 2
_MULTICAST_SNOOPING = 23
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PROXY, _VXLAN_PORT = 1, 4, 7, 11, 15
_VETH_PEER = 1
_PORT_LEARNING, _PORT_FLOOD, _PORT_ISOLATED = 8, 9, 33
# Of addresses, routes and neighbours.
_IF_ADDRESS, _IF_LOCAL = 1, 2
_ROUTE_DEVICE, _ROUTE_GATEWAY = 4, 5
_TO, _MAC = 1, 2
# Of namespaces, whose answers have no more than a family (4 bytes) before their attributes.
_NUMBER, _BY_FD = 1, 3
_NUMBER_OFFSET, _SIGNED = HEADER_BYTES + 4, struct.Struct("=i")
_MAIN_TABLE, _BY_ADMINISTRATOR, _UNICAST = 254, 4, 1


# ------------------------------------------------------------------------------------- requests


def _text(number: int, value: str) -> bytes:
    return attribute(number, value.encode() + b"\0")


def _byte(number: int, value: int) -> bytes:
    return attribute(number, bytes((value,)))


def _number(number: int, value: int) -> bytes:
    return attribute(number, value.to_bytes(4, sys.byteorder))


def _ip(number: int, address: str) -> bytes:
    return attribute(number, socket.inet_pton(socket.AF_INET, address))


def _mac(number: int, address: str) -> bytes:
    return attribute(number, bytes.fromhex(address.replace(":", "")))


def _of_kind(kind: str, data: bytes = b"") -> bytes:
    nested = attribute(_DATA, data) if data else b""
    return attribute(_LINKINFO, _text(_KIND, kind) + nested)


def _link(number: int, flags: int, index: int, *attributes: bytes, is_up: bool = False) -> Message:
    fields = _LINK_FIELDS.pack(0, 0, index, UP * is_up, UP * is_up)
    return message(number, flags, fields, b"".join(attributes))


def make_bridge(name: str, mtu: int, alias: str, mac: str = "") -> list[Message]:
    """A bridge that is up. `mac` is its hardware address; one is drawn where it is ""."""
    address = _mac(_ADDRESS, mac) if mac else b""
    # Nobody here asks for multicast, and its queries would go out on every network.
    kind = _of_kind("bridge", _byte(_MULTICAST_SNOOPING, 0))
    attributes = (_text(_NAME, name), _number(_MTU, mtu), address, kind)
    return [_link(NEW_LINK, CREATE | EXCL, 0, *attributes, is_up=True), alias_of(name, alias)]


def make_vxlan(name: str, vxlan: Vxlan, namespace_fd: int) -> list[Message]:
    """A VXLAN device whose packets are those of the namespace that is asked, and which is itself
    in the one given."""
    data = (
        _number(_VXLAN_ID, vxlan.vni),
        _ip(_VXLAN_LOCAL, vxlan.local),
        attribute(_VXLAN_PORT, vxlan.port.to_bytes(2, "big")),
        _byte(_VXLAN_LEARNING, 0),
        # The device answers for the peers that it knows: questions never leave the node.
        _byte(_VXLAN_PROXY, 1),
    )
    attributes = (
        _text(_NAME, name),
        _number(_MTU, vxlan.mtu),
        _number(_NAMESPACE_FD, namespace_fd),
        _of_kind("vxlan", b"".join(data)),
    )
    return [_link(NEW_LINK, CREATE | EXCL, 0, *attributes)]


def make_wireguard(name: str, namespace_fd: int | None = None) -> Message:
    """A WireGuard device whose packets are those of the namespace that is asked, and which is
    itself in the one given."""
    place = _number(_NAMESPACE_FD, namespace_fd) if namespace_fd is not None else b""
    return _link(NEW_LINK, CREATE | EXCL, 0, _text(_NAME, name), _of_kind("wireguard"), place)


def move_link(index: int, namespace_fd: int) -> Message:
    """Put an interface into another namespace, where it is down."""
    return _link(NEW_LINK, 0, index, _number(_NAMESPACE_FD, namespace_fd))


def make_veth(
    name: str, mtu: int, master: int, peer: tuple[str, str, int], alias: str
) -> list[Message]:
    """A veth whose one end is a port of a bridge; the other is (name, MAC, namespace's fd).

    This end is tagged and up. The other can't be put up before it is there.
    """
    peer_name, mac, namespace_fd = peer
    other = (
        _LINK_FIELDS.pack(0, 0, 0, 0, 0),
        _text(_NAME, peer_name),
        _number(_MTU, mtu),
        _mac(_ADDRESS, mac),
        _number(_NAMESPACE_FD, namespace_fd),
    )
    attributes = (
        _text(_NAME, name),
        _number(_MTU, mtu),
        _number(_MASTER, master),
        _of_kind("veth", attribute(_VETH_PEER, b"".join(other))),
    )
    return [_link(NEW_LINK, CREATE | EXCL, 0, *attributes, is_up=True), alias_of(name, alias)]


def alias_of(name: str, alias: str) -> Message:
    """Tag an interface."""
    return _link(NEW_LINK, 0, 0, _text(_NAME, name), _text(_ALIAS, alias))


def set_up(index: int, *, mtu: int = 0, master: int = 0, alias: str = "") -> Message:
    """Put an interface up, with this MTU, on that bridge and with that tag where they are given."""
    attributes = []
    if alias:
        attributes.append(_text(_ALIAS, alias))
    if mtu:
        attributes.append(_number(_MTU, mtu))
    if master:
        attributes.append(_number(_MASTER, master))
    return _link(NEW_LINK, 0, index, *attributes, is_up=True)


def set_port(index: int, *, is_isolated: bool = False) -> Message:
    """Let a bridge's port have only what static entries say, beside broadcasts.

    Isolated ports reach none of their kind.
    """
    data = _byte(_PORT_LEARNING, 0) + _byte(_PORT_FLOOD, 0) + _byte(_PORT_ISOLATED, is_isolated)
    fields = _LINK_FIELDS.pack(socket.AF_BRIDGE, 0, index, 0, 0)
    return message(SET_LINK, 0, fields, attribute(_PROTINFO | NESTED, data))


def drop_link(index: int) -> Message:
    """Remove an interface, and a veth's other end."""
    return _link(DEL_LINK, 0, index)


def set_group(index: int, group: int) -> Message:
    """Put an interface into a group."""
    return _link(NEW_LINK, 0, index, _number(_GROUP, group))


def drop_group(group: int) -> Message:
    """Remove all interfaces of a group, and veths' other ends."""
    return _link(DEL_LINK, 0, 0, _number(_GROUP, group))


def set_address(index: int, address: str, prefix_length: int) -> Message:
    """Give an interface an address; raises nothing where it has it."""
    fields = _ADDRESS_FIELDS.pack(socket.AF_INET, prefix_length, 0, 0, index)
    attributes = _ip(_IF_LOCAL, address) + _ip(_IF_ADDRESS, address)
    return message(NEW_ADDRESS, CREATE | REPLACE, fields, attributes)


def drop_address(index: int, address: str, prefix_length: int) -> Message:
    """Take an address from an interface."""
    fields = _ADDRESS_FIELDS.pack(socket.AF_INET, prefix_length, 0, 0, index)
    return message(DEL_ADDRESS, 0, fields, _ip(_IF_LOCAL, address))


def default_route(index: int, gateway: str) -> Message:
    """Send by that gateway what has no other way."""
    how = (_MAIN_TABLE, _BY_ADMINISTRATOR, 0, _UNICAST)
    fields = _ROUTE_FIELDS.pack(socket.AF_INET, 0, 0, 0, *how, 0)
    attributes = _ip(_ROUTE_GATEWAY, gateway) + _number(_ROUTE_DEVICE, index)
    return message(NEW_ROUTE, CREATE | REPLACE, fields, attributes)


def forward(index: int, mac: str, vtep: str = "") -> Message:
    """A bridge's static entry for one of its ports; with a vtep, the VXLAN device's own too."""
    if not vtep:
        fields = _NEIGHBOUR_FIELDS.pack(socket.AF_BRIDGE, index, STATIC, OF_BRIDGE, 0)
        return message(NEW_NEIGHBOUR, CREATE | REPLACE, fields, _mac(_MAC, mac))
    state, flags = STATIC | REACHABLE, OF_BRIDGE | OF_DEVICE
    fields = _NEIGHBOUR_FIELDS.pack(socket.AF_BRIDGE, index, state, flags, 0)
    return message(NEW_NEIGHBOUR, CREATE | REPLACE, fields, _mac(_MAC, mac) + _ip(_TO, vtep))


def neighbour(index: int, address: str, mac: str) -> Message:
    """What the VXLAN device answers to who asks for that address."""
    fields = _NEIGHBOUR_FIELDS.pack(socket.AF_INET, index, PERMANENT, 0, 0)
    return message(NEW_NEIGHBOUR, CREATE | REPLACE, fields, _ip(_TO, address) + _mac(_MAC, mac))


def drop_peer(index: int, address: str, mac: str) -> list[Message]:
    """Remove the three entries of a peer, each of which may be gone (ENOENT)."""
    asked = _NEIGHBOUR_FIELDS.pack(socket.AF_INET, index, 0, 0, 0)
    bridge = _NEIGHBOUR_FIELDS.pack(socket.AF_BRIDGE, index, 0, OF_BRIDGE, 0)
    device = _NEIGHBOUR_FIELDS.pack(socket.AF_BRIDGE, index, 0, OF_DEVICE, 0)
    return [
        message(DEL_NEIGHBOUR, 0, asked, _ip(_TO, address)),
        message(DEL_NEIGHBOUR, 0, bridge, _mac(_MAC, mac)),
        message(DEL_NEIGHBOUR, 0, device, _mac(_MAC, mac)),
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
    return _link(GET_LINK, 0, 0, _text(_NAME, name), _number(_EXT_MASK, SKIP_STATISTICS))


def number_of(netlink: Netlink, namespace: Path) -> int | None:
    """By which number links tell of that namespace; None while none has told of it. Raises
    OSError."""
    with netns.opened(namespace) as fd:
        answer = netlink.get(
            message(GET_NAMESPACE_NUMBER, 0, bytes(4), _number(_BY_FD, fd)),
        )
    for number, value in attributes(answer[_NUMBER_OFFSET:] if answer else b""):
        if number == _NUMBER and _SIGNED.unpack(value)[0] >= 0:
            return int(_SIGNED.unpack(value)[0])
    return None


def links(netlink: Netlink) -> tuple[LinkRecord, ...]:
    """All interfaces."""
    request = _link(GET_LINK, 0, 0, _number(_EXT_MASK, SKIP_STATISTICS))
    return tuple(map(_link_record, netlink.dump(request)))


def addresses(netlink: Netlink) -> tuple[AddressRecord, ...]:
    """All IPv4 addresses."""
    request = message(GET_ADDRESS, 0, _ADDRESS_FIELDS.pack(socket.AF_INET, 0, 0, 0, 0))
    found = []
    for answer in netlink.dump(request):
        decoded = _decoded(ifaddrmsg, answer)
        address = decoded.get_attr("IFA_LOCAL")
        found.append(AddressRecord(decoded["index"], f"{address}/{decoded['prefixlen']}"))
    return tuple(found)


def records(netlink: Netlink) -> Records:
    """All that the namespace holds of what Skep makes."""
    forwards = []
    for answer in netlink.dump(_all_neighbours(socket.AF_BRIDGE)):
        decoded = _decoded(ndmsg, answer)
        if decoded["state"] & STATIC:
            vtep = decoded.get_attr("NDA_DST") or ""
            mac = decoded.get_attr("NDA_LLADDR")
            forwards.append(ForwardRecord(decoded["ifindex"], mac, vtep))
    neighbours = []
    for answer in netlink.dump(_all_neighbours(socket.AF_INET)):
        decoded = _decoded(ndmsg, answer)
        if decoded["state"] & PERMANENT:
            address, mac = decoded.get_attr("NDA_DST"), decoded.get_attr("NDA_LLADDR")
            neighbours.append(NeighbourRecord(decoded["ifindex"], address, mac))
    return Records(links(netlink), addresses(netlink), tuple(forwards), tuple(neighbours))


def _all_neighbours(family: int) -> Message:
    return message(GET_NEIGHBOUR, 0, _NEIGHBOUR_FIELDS.pack(family, 0, 0, 0, 0))


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
        decoded.get_attr("IFLA_LINK_NETNSID"),
    )


def all_of(requests: Sequence[Sequence[Message]]) -> list[Message]:
    """Several lists of requests as one."""
    return [request for some in requests for request in some]
