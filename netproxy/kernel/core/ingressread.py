"""Reads back what the kernel has of a node's published ports; see `ingress` for what is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skep.netproxy.kernel.core import script
from skep.netproxy.kernel.core.ingress import (
    BASE_RULE_COUNT,
    IngressTable,
    PortKey,
    body_of,
    connections_of,
)
from skep.netproxy.kernel.core.listing import (
    DropsForwarded,
    Listing,
    Unfamiliar,
    key_of,
    subnet_of,
    target_of,
)
from skep.netproxy.kernel.core.rotation import found, read_backends, read_rule
from skep.netproxy.kernel.core.script import PROTOCOL_NAMES, STRAYS


@dataclass(frozen=True, slots=True)
class PortCounters:
    """What went through one published port of this node, both ways, since it was published."""

    protocol: str
    published: int
    packets: int
    bytes: int
    connections: int


def read_table(interface: str, listing: Listing) -> IngressTable | None:
    """What a listed table holds; None where it isn't as this release makes it."""
    if script.layout_mark(body_of(interface)) not in listing.rules:
        return None
    if listing.base_rule_count() != BASE_RULE_COUNT:
        return None
    try:
        elements = listing.elements
        drawn = {
            (protocol, port): read_rule(listing.rules[target_of(verdict)][-1])
            for (protocol, port), verdict in _pairs(elements["ports"])
        }
        guards = {key: target_of(verdict) for key, verdict in _pairs(elements["guard"])}
        table = IngressTable(
            found(drawn, read_backends(elements["backends"])),
            frozenset(key for key, chain in guards.items() if chain == "refuse"),
            frozenset(map(subnet_of, elements["gateways"])),
            frozenset(map(subnet_of, elements["overlays"])),
            frozenset(int(str(port)) for port in elements["untracked"]),
        )
        table.check_invariants()
        if set(guards) != table.published() or _counters_missing(table, listing):
            return None
    except (Unfamiliar, AssertionError, LookupError, ValueError):
        return None
    return table


def _pairs(elements: list[object]) -> list[tuple[PortKey, object]]:
    pairs: list[tuple[PortKey, object]] = []
    for element in elements:
        match element:
            case [key, verdict]:
                protocol, port = key_of(key)
                pairs.append(((int(protocol), int(port)), verdict))
            case _:
                raise Unfamiliar(f"an element {element!r}")
    return pairs


def _counters_missing(table: IngressTable, listing: Listing) -> bool:
    counted = {
        (number, int(element[0]))
        for number in PROTOCOL_NAMES
        for element in listing.elements[f"traffic_{number}"]
    }
    return counted != table.published()


def read_counters(listing: Listing) -> tuple[tuple[PortCounters, ...], int]:
    """The counters of each port, and how many strays were dropped."""
    found = []
    for name, (packets, size) in listing.counters.items():
        kind, _, rest = name.partition("_")
        if kind != "traffic":
            continue
        number, _, published = rest.partition("_")
        key = int(number), int(published)
        connections, _ = listing.counters.get(connections_of(key), (0, 0))
        found.append(PortCounters(PROTOCOL_NAMES[key[0]], key[1], packets, size, connections))
    found.sort(key=lambda port: (port.protocol, port.published))
    return tuple(found), listing.counters.get(STRAYS, (0, 0))[0]


def forward_problems(drops: Iterable[DropsForwarded], interface: str) -> tuple[str, ...]:
    """For a person: who drops what this node forwards. A drop is final, whatever our table says."""
    return tuple(
        f"table {drop.family} {drop.table}, chain {drop.chain} drops forwarded packets, those of "
        f"published ports among them; let pass there what enters or leaves by {interface} (with "
        f"Docker: iptables -I DOCKER-USER -i {interface} -j ACCEPT, and the same with -o)"
        for drop in drops
    )
