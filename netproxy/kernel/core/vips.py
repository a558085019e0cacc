"""What the maps of the VIP programs should hold: layouts, and the way from what they do hold.

Inside, addresses are the four bytes they are on the wire, and services and scopes are the keys of
their map entries. Text is parsed here, once, at the edge.

The order of writing is fixed (`Writes`), so that at every moment a VIP has its old backends or its
new ones, and a netproxy that dies in between leaves nothing that the next one's `apply` doesn't
put right.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from collections.abc import Mapping, Set
from dataclasses import dataclass

from skep.env import Rejected
from skep.netproxy.kernel.core.programs import NETWORKS_PER_SCOPE
from skep.netproxy.kernel.core.slots import Slots

Networks = tuple[tuple[int, str], ...]
"""The networks a namespace is on: (number, "10.0.1.0/24"). No two of them overlap."""

Services = Mapping[tuple[int, str], tuple[str, ...]]
"""The addresses of the backends, by network number and VIP."""

# The same ones come with every pass, and parsing was most of what a pass took. 3 MiB at most.
_ADDRESSES_KEPT = 16 * 1024

_KEY = struct.Struct("<I4s")
_SERVICE = struct.Struct("<IIQ")  # count, first slot, generation
_COUNTERS = struct.Struct("<QQQ")
_SLOT = struct.Struct("<4sI8s")  # address, zero, the service's key
_COOKIE = struct.Struct("<Q")
_NETWORK = struct.Struct("<4s4sI")

SLOT_BYTES = _SLOT.size
_MEMBER_VALUE = struct.pack("<I", 1)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one service, since its VIP was set.

    `connects` are of TCP; `flows` are UDP sockets that were connected, or have sent to the VIP and
    were given a backend.
    """

    connects: int
    refused: int
    flows: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A service as the maps hold it: its slots, and the backends that stand there."""

    first: int
    count: int
    backends: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """What the maps hold, of all services and scopes, or of those that are to be changed."""

    services: Mapping[bytes, Entry]
    members: Set[bytes]
    counters: Set[bytes]


@dataclass(frozen=True, slots=True)
class Writes:
    """Changes of the maps, to be made in the order of the fields.

    Members go before the entry changes: a flow that sees the new generation then surely misses
    them. Those that come are there before they are needed.
    """

    slots: tuple[tuple[int, bytes], ...] = ()  # (first, contents)
    members_gone: tuple[bytes, ...] = ()
    members: tuple[tuple[bytes, bytes], ...] = ()
    counters: tuple[tuple[bytes, bytes], ...] = ()
    services: tuple[tuple[bytes, bytes], ...] = ()  # each one switches over in one moment
    services_gone: tuple[bytes, ...] = ()
    counters_gone: tuple[bytes, ...] = ()
    slots_freed: tuple[tuple[int, int], ...] = ()  # (first, count)


# ------------------------------------------------------------------------------------ parsing


def parse_key(number: int, vip: str) -> bytes:
    """The key of a service. Raises Rejected."""
    return _KEY.pack(_number(number), parse_address(vip))


@functools.lru_cache(_ADDRESSES_KEPT)
def parse_address(address: str) -> bytes:
    """Four bytes. Raises Rejected."""
    try:
        return ipaddress.IPv4Address(address).packed
    except ValueError:
        raise Rejected(f"{address!r} is not an IPv4 address") from None


def parse_backends(backends: tuple[str, ...]) -> tuple[bytes, ...]:
    """Sorted, each once: the order in which they take turns. Raises Rejected."""
    return tuple(sorted({parse_address(backend) for backend in backends}))


def parse_services(services: Services) -> dict[bytes, tuple[bytes, ...]]:
    """Backends by the keys of their services. Raises Rejected."""
    return {parse_key(*key): parse_backends(backends) for key, backends in services.items()}


def parse_cookie(cookie: int) -> bytes:
    """The key of a scope. Raises Rejected."""
    if not 0 < cookie < 2**64:
        raise Rejected(f"{cookie} is not the cookie of a network namespace (SO_NETNS_COOKIE)")
    return _COOKIE.pack(cookie)


def parse_scope(cookie: int, networks: Networks) -> bytes:
    """The value of a scope. Raises Rejected."""
    if len(networks) > NETWORKS_PER_SCOPE:
        raise Rejected(
            f"a task can be on {NETWORKS_PER_SCOPE} networks with VIPs, not {len(networks)}; "
            "attach it to fewer, or give some of them endpoint_mode dnsrr"
        )
    parsed: list[tuple[ipaddress.IPv4Network, int]] = []
    for number, text in networks:
        try:
            network = ipaddress.IPv4Network(text)
        except ValueError as error:
            raise Rejected(f"{text!r} is not an IPv4 network: {error}") from None
        if network.prefixlen == 0:
            raise Rejected("0.0.0.0/0 as a network would hold every address there is")
        for other, _ in parsed:
            if network.overlaps(other):
                raise Rejected(f"networks {other} and {network} of one namespace overlap")
        parsed.append((network, _number(number)))
    listed = b"".join(
        _NETWORK.pack(network.network_address.packed, network.netmask.packed, number)
        for network, number in parsed
    )
    return parse_cookie(cookie) + listed.ljust(_NETWORK.size * NETWORKS_PER_SCOPE, b"\0")


def _number(number: int) -> int:
    if not 0 < number < 2**32:
        raise Rejected(f"network number {number} is not between 1 and {2**32 - 1}")
    return number


# ------------------------------------------------------------------------------------ reading


def read_key(key: bytes) -> tuple[int, str]:
    """Network number and VIP of a service's key."""
    number, vip = _KEY.unpack(key)
    return number, read_address(vip)


def read_address(address: bytes) -> str:
    """As text."""
    return ".".join(map(str, address))


def read_place(value: bytes) -> tuple[int, int]:
    """(first slot, count) of a service's value."""
    count, first, _ = _SERVICE.unpack(value)
    return first, count


def read_generation(value: bytes) -> int:
    """The generation in a service's value."""
    return int(_SERVICE.unpack(value)[2])


def read_slots(key: bytes, contents: bytes) -> tuple[bytes, ...]:
    """The backends of a service in slots side by side; what isn't its own doesn't count."""
    return tuple(address for address, _, owner in _SLOT.iter_unpack(contents) if owner == key)


def read_counts(value: bytes) -> Counts:
    """The value of a service's counters."""
    return Counts(*_COUNTERS.unpack(value))


def read_scope(value: bytes) -> tuple[int, Networks]:
    """Cookie and networks of a scope's value."""
    networks = []
    for address, mask, number in _NETWORK.iter_unpack(value[_COOKIE.size :]):
        if any(mask):
            length = int.from_bytes(mask, "big").bit_count()
            networks.append((number, f"{read_address(address)}/{length}"))
    return _COOKIE.unpack_from(value)[0], tuple(networks)


# ----------------------------------------------------------------------------------- planning


def plan(
    held: Held,
    wanted: Mapping[bytes, tuple[bytes, ...] | None],
    slots: Slots,
    now_ns: int,
) -> Writes:
    """The writes from `held` to `wanted`; None is a service that goes.

    Services that are in neither are left alone. `now_ns` rises with every call and is what changed
    services get as their generation. Takes slots, and gives none back: that is for when the writes
    are made (`Writes.slots_freed`). Raises Retryable where there is no room.
    """
    held_members: dict[bytes, set[bytes]] = {}
    for member in held.members:
        held_members.setdefault(member[: _KEY.size], set()).add(member)
    members: list[bytes] = []
    members_gone: list[bytes] = []
    new_slots, counters, services, gone, counters_gone, freed = [], [], [], [], [], []
    for key, backends in wanted.items():
        entry = held.services.get(key)
        before = held_members.get(key, set())
        after = {key + backend for backend in backends or ()}
        members_gone += before - after
        members += after - before
        if backends is None:
            if entry is not None:
                gone.append(key)
            if key in held.counters:
                counters_gone.append(key)
        else:
            if key not in held.counters:
                counters.append((key, _COUNTERS.pack(0, 0, 0)))
            if entry is not None and entry.backends == backends and before == after:
                continue
            first = slots.take(len(backends), now_ns)
            if backends:
                new_slots.append((first, b"".join(_SLOT.pack(b, 0, key) for b in backends)))
            services.append((key, _SERVICE.pack(len(backends), first, now_ns)))
        if entry is not None and entry.count:
            freed.append((entry.first, entry.count))
    return Writes(
        slots=tuple(new_slots),
        members_gone=tuple(members_gone),
        members=tuple((member, _MEMBER_VALUE) for member in members),
        counters=tuple(counters),
        services=tuple(services),
        services_gone=tuple(gone),
        counters_gone=tuple(counters_gone),
        slots_freed=tuple(freed),
    )


def with_gone(
    wanted: Mapping[bytes, tuple[bytes, ...]], held: Held
) -> dict[bytes, tuple[bytes, ...] | None]:
    """`wanted` as the whole truth: what is held of any other service goes."""
    known = held.services.keys() | held.counters | {m[: _KEY.size] for m in held.members}
    return {**dict.fromkeys(known - wanted.keys()), **wanted}
