"""The BPF programs that turn a service's VIP into one of its backends, and the maps they share.

They run in the system calls of the tasks, not on their packets: connect(2) and sendto(2) get the
backend's address in place of the VIP, recvfrom(2) and getpeername(2) the VIP in place of the
backend's. So a connection costs nothing once it is made, needs no connection tracking, and stays
where it is when the service changes.

Which networks a task is on is found by the cookie of its network namespace, which the kernel never
gives twice; so equal subnets and VIPs of different networks don't meet.

Freed map elements may be used again at once, under the feet of a program that is reading one. So
what is read is checked against what was looked for, and the search is made anew if it differs.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from skep.netproxy.kernel.core.asm import Assembler, Helper, Register

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = Register

# A task is seldom on more than a handful; the list is searched in full for every address of a
# task that is on none of them.
NETWORKS_PER_SCOPE = 16
# 13,000 services of ten tasks, in 2 MiB of memory for all of them.
SLOT_COUNT = 128 * 1024
SERVICE_COUNT = 64 * 1024
SCOPE_COUNT = 16 * 1024  # namespaces, and so tasks, on one node
# Sockets whose VIP is remembered. The kernel forgets those used least recently: then getpeername
# shows the backend, and a socket that sends to many picks a backend anew.
SOCKET_COUNT = 64 * 1024
# Two retries would do; the verifier walks through every one.
_ATTEMPTS = 4


class MapType(enum.IntEnum):
    """From `enum bpf_map_type`."""

    HASH = 1
    ARRAY = 2
    LRU_HASH = 9
    SOCKET_STORAGE = 24


# Elements are made one by one, so that an empty map is small. More than that: elements of maps
# that are made whole at the start are overwritten while they are read.
NO_PREALLOC = 1
_MMAPABLE = 1 << 10


@dataclass(frozen=True, slots=True)
class MapSpec:
    """How a map is made. The layouts of keys and values are in `skep.netproxy.kernel.core.vips`."""

    type: MapType
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int = 0


MAPS: Mapping[str, MapSpec] = {
    # cookie of a network namespace -> the networks it is on
    "skep_scopes": MapSpec(MapType.HASH, 8, 8 + 12 * NETWORKS_PER_SCOPE, SCOPE_COUNT, NO_PREALLOC),
    # (network, VIP) -> where its backends are
    "skep_services": MapSpec(MapType.HASH, 8, 16, SERVICE_COUNT, NO_PREALLOC),
    # (network, VIP) -> connects, refusals and flows; whose turn it is follows from them. Apart
    # from the service, whose entry is replaced as a whole.
    "skep_counters": MapSpec(MapType.HASH, 8, 24, SERVICE_COUNT, NO_PREALLOC),
    # slot -> backend, and the (network, VIP) it is one of
    "skep_backends": MapSpec(MapType.ARRAY, 4, 16, SLOT_COUNT, _MMAPABLE),
    # (network, VIP, backend) -> there, if it is a backend still
    "skep_members": MapSpec(MapType.HASH, 12, 4, SLOT_COUNT, NO_PREALLOC),
    # (socket, VIP, port) -> the backend its datagrams go to
    "skep_flows": MapSpec(MapType.LRU_HASH, 16, 16, SOCKET_COUNT),
    # (socket, backend, port) -> the (network, VIP) that its user knows
    "skep_origins": MapSpec(MapType.LRU_HASH, 16, 8, SOCKET_COUNT),
}


class Kind(enum.Enum):
    """A program by the system call it runs in; the value is short for the program's name.

    Those for IPv6 sockets are for their IPv4 addresses (::ffff:10.0.1.2), which is how Java
    connects. Sending from such a socket needs none: the kernel does it by the IPv4 path.
    """

    CONNECT4 = "c4"
    CONNECT6 = "c6"
    SENDMSG4 = "s4"
    RECVMSG4 = "r4"
    RECVMSG6 = "r6"
    GETPEERNAME4 = "p4"
    GETPEERNAME6 = "p6"


ATTACH_TYPES: Mapping[Kind, int] = {
    Kind.CONNECT4: 10,
    Kind.CONNECT6: 11,
    Kind.SENDMSG4: 14,
    Kind.RECVMSG4: 19,
    Kind.RECVMSG6: 20,
    Kind.GETPEERNAME4: 29,
    Kind.GETPEERNAME6: 30,
}
"""From `enum bpf_attach_type`."""

_IPV6 = (Kind.CONNECT6, Kind.RECVMSG6, Kind.GETPEERNAME6)

# Offsets in struct bpf_sock_addr.
_IP4, _IP6, _PORT, _TYPE = 4, 8, 24, 32

_SOCK_DGRAM = 2
_ECONNREFUSED = 111

# The stack, by offsets from its top. The first two make the keys of services and counters, with
# the third that of members.
_NETWORK, _VIP, _MEMBER = -16, -12, -8
_COOKIE = -8  # of the namespace; done with when _MEMBER is written
_COUNT, _BASE = -24, -20
_SLOT = -20
_SOCKET, _PEER, _PEER_PORT = -40, -32, -28  # the key of flows and origins
_FLOW = -48
_FLOW_BACKEND, _FLOW_ZERO, _FLOW_GENERATION = -64, -60, -56
# Offsets in values.
_SCOPE_COOKIE, _SCOPE_NETWORKS, _SCOPE_NETWORK_BYTES = 0, 8, 12
_SERVICE_PLACE, _SERVICE_GENERATION = 0, 8
_CONNECTS, _REFUSED, _FLOWS = 0, 8, 16
_SLOT_ADDRESS, _SLOT_OWNER = 0, 8


def build(kind: Kind, maps: Mapping[str, int]) -> bytes:
    """The instructions of one program; `maps` are the file descriptors of `MAPS`."""
    return _written(kind).assemble(maps)


def is_ours(program_name: str) -> bool:
    """Whether a netproxy, of whatever version, has loaded the program of this name."""
    return re.fullmatch(r"skep[0-9a-f]{7}_[a-z][a-z0-9]", program_name) is not None


def map_names(kind: Kind) -> frozenset[str]:
    """The maps that one program uses. SENDMSG4 uses all of them."""
    return _written(kind).map_names()


def name(kind: Kind) -> str:
    """The program's name in the kernel, as `bpftool prog` shows it."""
    return f"skep{program_format()}_{kind.value}"


@functools.cache
def program_format() -> str:
    """Seven characters that differ when anything differs in programs or maps.

    They are part of every program's name, so that a netproxy knows by the names whether what an
    earlier one has left is what it would load itself.
    """
    digest = hashlib.sha256(repr(sorted(MAPS.items())).encode())
    for kind in Kind:
        digest.update(build(kind, dict.fromkeys(MAPS, 0)))
    return digest.hexdigest()[:7]


def _written(kind: Kind) -> Assembler:
    a = Assembler()
    a.move(R6, R1)
    address_at = _address(a, kind)
    if kind in (Kind.CONNECT4, Kind.CONNECT6):
        _find_service(a, address_at)
        _pick(a)
        _make_socket_key(a, R7)
        _remember_origin(a)
        _rewrite(a, address_at)
        _refuse(a)
    elif kind is Kind.SENDMSG4:
        _find_service(a, address_at)
        _stick(a)
        _pick(a)
        _remember_flow(a)
        a.label("stay")
        _keep_origin(a)
        _rewrite(a, address_at)
        _refuse(a)
    else:
        _show_origin(a, address_at)
    a.label("leave")
    a.move(R0, 1)
    a.exit()
    return a


def _address(a: Assembler, kind: Kind) -> int:
    """Where the IPv4 address is in the context; one that has none is left alone."""
    if kind not in _IPV6:
        return _IP4
    a.load(R2, R6, _IP6 + 8, 4)
    a.jump_if(R2, "!=", -0x10000, "leave", bits=32)  # ffff in the order of the network
    for word in (0, 4):
        a.load(R2, R6, _IP6 + word, 4)
        a.jump_if(R2, "!=", 0, "leave")
    return _IP6 + 12


def _lookup(a: Assembler, name: str, key_at: int) -> None:
    """r0 = the value, or 0."""
    a.load_map(R1, name)
    a.move(R2, FP)
    a.add(R2, key_at)
    a.call(Helper.MAP_LOOKUP)


def _find_service(a: Assembler, address_at: int) -> None:
    """r8 = the service's entry, with count and base on the stack, or leave.

    Every connect of a task comes through here, also those to anywhere else: so nothing is done
    before it is known to be needed.
    """
    a.move(R9, _ATTEMPTS)
    a.label("again")
    a.move(R1, R6)
    a.call(Helper.GET_NETNS_COOKIE)
    a.store(FP, _COOKIE, R0, 8)
    a.move(R8, R0)
    _lookup(a, "skep_scopes", _COOKIE)
    a.jump_if(R0, "==", 0, "leave")
    a.load(R7, R6, address_at, 4)
    for place in range(NETWORKS_PER_SCOPE):
        at = _SCOPE_NETWORKS + _SCOPE_NETWORK_BYTES * place
        a.load(R2, R0, at + 4, 4)
        a.jump_if(R2, "==", 0, "leave")  # no mask: the end of the list
        a.bit_and(R2, R7)
        a.load(R3, R0, at, 4)
        a.load(R4, R0, at + 8, 4)
        a.jump_if(R2, "==", R3, "on_network")
    a.jump("leave")

    a.label("torn")
    a.add(R9, -1)
    a.jump_if(R9, "!=", 0, "again")
    a.jump("deny")  # so often only if the maps are damaged; better an error than a hang

    a.label("on_network")
    a.load(R2, R0, _SCOPE_COOKIE, 8)
    a.jump_if(R2, "!=", R8, "torn")
    a.store(FP, _NETWORK, R4, 4)
    a.store(FP, _VIP, R7, 4)
    _lookup(a, "skep_services", _NETWORK)
    a.jump_if(R0, "==", 0, "leave")
    a.move(R8, R0)
    # Both by one load, so that they belong together.
    a.load(R1, R8, _SERVICE_PLACE, 8)
    a.store(FP, _COUNT, R1, 8)
    a.load(R1, FP, _COUNT, 4)
    a.jump_if(R1, "==", 0, "refuse")


def _pick(a: Assembler) -> None:
    """r7 = the backend whose turn it is.

    Datagrams take turns of their own: some resolvers connect a UDP socket to an address before the
    TCP one, to see what its source would be, and of two backends one would never be connected to.
    """
    a.label("pick")
    _lookup(a, "skep_counters", _NETWORK)
    a.move(R1, 1)
    a.jump_if(R0, "==", 0, "turn")
    a.load(R2, R6, _TYPE, 4)
    a.jump_if(R2, "!=", _SOCK_DGRAM, "stream")
    a.add(R0, _FLOWS - _CONNECTS)
    a.label("stream")
    a.fetch_add(R0, _CONNECTS, R1)
    a.label("turn")
    a.load(R2, FP, _COUNT, 4)
    a.modulo(R1, R2)
    a.load(R2, FP, _BASE, 4)
    a.add(R1, R2)
    a.store(FP, _SLOT, R1, 4)
    _lookup(a, "skep_backends", _SLOT)
    a.jump_if(R0, "==", 0, "torn")
    a.load(R2, R0, _SLOT_OWNER, 8)
    a.load(R3, FP, _NETWORK, 8)
    a.jump_if(R2, "!=", R3, "torn")
    a.load(R7, R0, _SLOT_ADDRESS, 4)


def _make_socket_key(a: Assembler, peer: Register) -> None:
    """The key (socket, peer, port) on the stack. `peer` is one of those that a call keeps."""
    a.move(R1, R6)
    a.call(Helper.GET_SOCKET_COOKIE)
    a.store(FP, _SOCKET, R0, 8)
    a.store(FP, _PEER, peer, 4)
    a.load(R1, R6, _PORT, 4)
    a.store(FP, _PEER_PORT, R1, 4)


def _stick(a: Assembler) -> None:
    """Go on at "stay" with r7 = the backend that earlier datagrams went to, if it is one still.

    As long as the service's generation is the one that the flow has seen, nothing was removed.
    """
    _make_socket_key(a, R7)
    _lookup(a, "skep_flows", _SOCKET)
    a.jump_if(R0, "==", 0, "pick")
    a.load(R7, R0, _FLOW_BACKEND - _FLOW_BACKEND, 4)
    a.load(R1, R0, _FLOW_GENERATION - _FLOW_BACKEND, 8)
    a.load(R2, R8, _SERVICE_GENERATION, 8)
    a.jump_if(R1, "==", R2, "stay")
    a.store(FP, _FLOW, R0, 8)
    a.store(FP, _MEMBER, R7, 4)
    _lookup(a, "skep_members", _NETWORK)
    a.jump_if(R0, "==", 0, "pick")
    a.load(R1, FP, _FLOW, 8)
    a.load(R2, R8, _SERVICE_GENERATION, 8)
    a.store(R1, _FLOW_GENERATION - _FLOW_BACKEND, R2, 8)
    a.jump("stay")


def _update(a: Assembler, name: str, key_at: int, value_at: int) -> None:
    a.load_map(R1, name)
    a.move(R2, FP)
    a.add(R2, key_at)
    a.move(R3, FP)
    a.add(R3, value_at)
    a.move(R4, 0)
    a.call(Helper.MAP_UPDATE)


def _remember_flow(a: Assembler) -> None:
    """The socket's datagrams to this VIP and port go to r7 from now on."""
    a.store(FP, _FLOW_BACKEND, R7, 4)
    a.store(FP, _FLOW_ZERO, 0, 4)
    a.load(R1, R8, _SERVICE_GENERATION, 8)
    a.store(FP, _FLOW_GENERATION, R1, 8)
    _update(a, "skep_flows", _SOCKET, _FLOW_BACKEND)


def _remember_origin(a: Assembler) -> None:
    """What comes from r7, whose key is on the stack, is shown as coming from the VIP."""
    _update(a, "skep_origins", _SOCKET, _NETWORK)


def _keep_origin(a: Assembler) -> None:
    """As `_remember_origin`, for a flow that may be an old one.

    Connections make origins too, and so many of them that the kernel may have forgotten this one
    while it still knew the flow. Looking it up is cheap and keeps it from being forgotten.
    """
    a.store(FP, _PEER, R7, 4)
    _lookup(a, "skep_origins", _SOCKET)
    a.jump_if(R0, "==", 0, "origin")
    a.load(R1, FP, _NETWORK, 8)
    a.store(R0, 0, R1, 8)
    a.jump("rewrite")
    a.label("origin")
    _remember_origin(a)
    a.label("rewrite")


def _rewrite(a: Assembler, address_at: int) -> None:
    """Go to the backend. The port is kept."""
    a.store(R6, address_at, R7, 4)
    a.jump("leave")


def _refuse(a: Assembler) -> None:
    """No backends: what a closed port answers, rather than the "not permitted" of a bare 0."""
    a.label("refuse")
    _lookup(a, "skep_counters", _NETWORK)
    a.jump_if(R0, "==", 0, "deny")
    a.move(R1, 1)
    a.fetch_add(R0, _REFUSED, R1)
    a.label("deny")
    a.move(R1, -_ECONNREFUSED)
    a.call(Helper.SET_RETVAL)
    a.move(R0, 0)
    a.exit()


def _show_origin(a: Assembler, address_at: int) -> None:
    """Put the VIP in place of the backend's address, if the socket reached it by one."""
    a.load(R7, R6, address_at, 4)
    _make_socket_key(a, R7)
    _lookup(a, "skep_origins", _SOCKET)
    a.jump_if(R0, "==", 0, "leave")
    a.load(R1, R0, _VIP - _NETWORK, 4)
    a.store(R6, address_at, R1, 4)
