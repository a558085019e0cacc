"""Published ports and the way out, in the node's own namespace: what its nftables table holds.

A new connection to one of the node's own addresses at a published port is sent to one of the
service's tasks over the ingress network, in turn, with the client's address left as it is (how the
answers find back is in `sources`). Loopback addresses and IPv6 are a relay's business.

A port whose service has no task refuses at once. And a new connection to a published port that
arrives here without having been translated is dropped: that can only be one that was being looked
at while the table changed, and if it passed, the kernel would leave the client's port untranslated
for minutes. The client's next attempt, a second later, is translated.

What the tasks send to the world by the node's gateway subnets leaves with the node's address. So it
does on its way to a published port: other nodes may have the same subnets, and the port may lead to
the very task that asks.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from skep.env import Rejected
from skep.netproxy.kernel.core import script
from skep.netproxy.kernel.core.rotation import (
    BACKEND_LIMIT,
    MAP,
    Drawn,
    Rotations,
    Target,
    turn,
    with_gone,
)
from skep.netproxy.kernel.core.script import (
    PROTOCOL_NAMES,
    PROTOCOL_NUMBERS,
    add_elements,
    delete_elements,
    verdict_lines,
)

PortKey = tuple[int, int]
"""Protocol number and published port."""

# More than a cluster has tasks and services; some 100 bytes each.
ADDRESSES_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class IngressPort:
    """A port that is open on this node.

    `backends` are the addresses of its tasks that take connections, wherever they run; in host mode
    those of this node's. A host-mode port without any isn't open at all, so that the node's own
    programs may have it.
    """

    protocol: str
    published: int
    target: int
    backends: tuple[str, ...]
    is_host_mode: bool = False


@dataclass(frozen=True, slots=True)
class Egress:
    """The node's gateway subnets, whose traffic leaves with the node's address, and the subnets of
    the cluster's networks, to which it keeps its own. All as a.b.c.d/n. What goes to the UDP ports
    `untracked` carries the networks from node to node: keeping track of it would cost a tenth of
    every packet, and is of no use."""

    gateways: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    untracked: tuple[int, ...] = ()


@dataclass(frozen=True)
class IngressTable:
    """What the table holds."""

    rotations: Rotations[PortKey] = field(default_factory=Rotations)
    refused: frozenset[PortKey] = frozenset()
    gateways: frozenset[str] = frozenset()
    overlays: frozenset[str] = frozenset()
    untracked: frozenset[int] = frozenset()

    def published(self) -> frozenset[PortKey]:
        """All open ports, with tasks or without."""
        return self.refused | frozenset(self.rotations.drawn)

    def ports(self) -> tuple[IngressPort, ...]:
        """The ports as the kernel has them; which of them are in host mode, it can't tell."""
        found = []
        for protocol, published in sorted(self.published()):
            target = self.rotations.target((protocol, published)) or Target((), published)
            name, port = PROTOCOL_NAMES[protocol], target.port or published
            found.append(IngressPort(name, published, port, target.backends))
        return tuple(found)

    def check_invariants(self) -> None:
        """A port is either served or refused."""
        assert not self.refused & set(self.rotations.drawn)
        self.rotations.check_invariants()


@dataclass(frozen=True)
class Change:
    """One transaction: its text ("" for nothing to do), and the table after it."""

    script: str
    after: IngressTable
    udp: tuple[PortKey, ...] = ()
    """The UDP ports whose tasks it changes: old flows must be asked to choose anew."""


def table_of(node: str) -> str:
    """The name of the node's table."""
    return script.table_name("skep", node)


# For every packet both ways, and so in as few steps as can be.
COUNTED = """\
    meta l4proto 6 ct status dnat counter name ct original proto-dst map @traffic_6
    meta l4proto 17 ct status dnat counter name ct original proto-dst map @traffic_17
"""


def body_of(interface: str) -> str:
    """The table without ports. `interface` is the node's end of its link to the ingress network."""
    key = "meta l4proto . th dport"
    return f"""\
  map ports {{
    type inet_proto . inet_service : verdict
  }}
  map guard {{
    type inet_proto . inet_service : verdict
  }}
  map traffic_6 {{
    type inet_service : counter
  }}
  map traffic_17 {{
    type inet_service : counter
  }}
  set gateways {{
    type ipv4_addr
    flags interval
  }}
  set overlays {{
    type ipv4_addr
    flags interval
  }}
  set untracked {{
    type inet_service
  }}
{MAP}{script.GUARD_CHAINS}\
  chain carried_in {{
    type filter hook prerouting priority -300
    udp dport @untracked notrack
  }}
  chain carried_out {{
    type filter hook output priority -300
    udp dport @untracked notrack
  }}
  chain prerouting {{
    type nat hook prerouting priority -100
    fib daddr type local {key} vmap @ports
  }}
  chain output {{
    type nat hook output priority -100
    ip daddr != 127.0.0.0/8 fib daddr type local {key} vmap @ports
  }}
  chain input {{
    type filter hook input priority 0
    ct state new ct status ! dnat ip daddr != 127.0.0.0/8 fib daddr type local {key} vmap @guard
{COUNTED}\
  }}
  chain forward {{
    type filter hook forward priority 0
    oifname "{interface}" ct state new ct status ! dnat goto stray
  }}
  chain leaving {{
    type filter hook postrouting priority 0
{COUNTED}\
  }}
  chain masquerading {{
    type nat hook postrouting priority 100
    ip saddr @gateways ct status dnat masquerade
    ip saddr @gateways ip daddr != @overlays ip daddr != @gateways masquerade
  }}
"""


# Rules in the base chains of `body_of`; a table with fewer has been meddled with.
BASE_RULE_COUNT = 12


def chain_of(key: PortKey) -> str:
    """The chain of one port."""
    return f"port_{key[0]}_{key[1]}"


def connections_of(key: PortKey) -> str:
    """The counter of one port's new connections."""
    return f"connections_{key[0]}_{key[1]}"


def traffic_of(key: PortKey) -> str:
    """The counter of one port's packets, both ways."""
    return f"traffic_{key[0]}_{key[1]}"


def check_ports(ports: Iterable[IngressPort]) -> dict[PortKey, IngressPort]:
    """The ports by key. Raises Rejected for what can't be published."""
    found: dict[PortKey, IngressPort] = {}
    for port in ports:
        where = f"published port {port.published}/{port.protocol}"
        number = PROTOCOL_NUMBERS.get(port.protocol)
        if number is None:
            raise Rejected(f"{where}: the protocol is tcp or udp")
        for name, value in (("published", port.published), ("target", port.target)):
            if not 0 < value < 65536:
                raise Rejected(f"{where}: {name} is {value}, and ports are 1 to 65535", field=name)
        if (number, port.published) in found:
            raise Rejected(f"{where} is given twice; give each to one service")
        if len(port.backends) > BACKEND_LIMIT:
            raise Rejected(f"{where}: {len(port.backends)} tasks; at most {BACKEND_LIMIT} fit")
        for address in port.backends:
            check_address(address, where)
        found[number, port.published] = port
    return found


def check_address(address: str, where: str) -> None:
    """Raises Rejected for what is no IPv4 address."""
    if why := _why_no_address(address):
        raise Rejected(f"{where}: {why}")


@functools.lru_cache(ADDRESSES_REMEMBERED)
def _why_no_address(text: str) -> str:
    """Remembered, since all addresses are looked at whenever one of them changes."""
    try:
        ipaddress.IPv4Address(text)
    except ValueError as error:
        return str(error)
    return ""


def change(
    node: str,
    interface: str,
    now: IngressTable | None,
    ports: Iterable[IngressPort],
    egress: Egress,
) -> Change:
    """The transaction that leads from `now` (None: no table, or one that is to be replaced) to
    these ports. Raises Rejected."""
    wanted = check_ports(ports)
    table = table_of(node)
    lines = script.new_table(table, body_of(interface)) if now is None else []
    before = now or IngressTable()
    targets, refused = _split(wanted)
    turned = turn(before.rotations, with_gone(before.rotations, targets))
    after = IngressTable(
        # What is left over is cleared away with the next turn, not for its own sake.
        turned.after if turned.touched else before.rotations,
        refused,
        _subnets(egress.gateways),
        _subnets(egress.overlays),
        frozenset(egress.untracked),
    )
    new = sorted(after.published() - before.published())
    gone = sorted(before.published() - after.published())
    for name in ("gateways", "overlays"):
        lines += _set_lines(table, name, getattr(before, name), getattr(after, name))
    ports_before, ports_after = (
        frozenset(map(str, table_then.untracked)) for table_then in (before, after)
    )
    lines += _set_lines(table, "untracked", ports_before, ports_after)
    lines += _counter_lines(table, new)
    if turned.touched:
        lines += turned.lines(table, chain_of, _rules_of)
    lines += verdict_lines(table, "ports", _chains(before), _chains(after))
    lines += verdict_lines(table, "guard", _guards(before), _guards(after))
    lines += turned.removal_lines(table, chain_of)
    lines += _lines_without_counters(table, gone)
    touched = {*turned.touched, *gone, *new}
    udp = tuple(sorted(key for key in touched if key[0] == script.UDP))
    return Change("\n".join(lines) + "\n" if lines else "", after if lines else before, udp)


def check_egress(egress: Egress) -> None:
    """Raises Rejected for what isn't subnets."""
    _subnets(egress.gateways)
    _subnets(egress.overlays)


def udp_targets(ports: Iterable[IngressPort], address: str) -> frozenset[int]:
    """The UDP ports that the task with this address serves."""
    return frozenset(p.target for p in ports if p.protocol == "udp" and address in p.backends)


def _split(
    wanted: Mapping[PortKey, IngressPort],
) -> tuple[dict[PortKey, Target], frozenset[PortKey]]:
    targets, refused = {}, set()
    for key, port in sorted(wanted.items()):
        if port.backends:
            targets[key] = Target(tuple(sorted(set(port.backends))), port.target)
        elif not port.is_host_mode:
            refused.add(key)
    return targets, frozenset(refused)


def _subnets(subnets: Iterable[str]) -> frozenset[str]:
    """Without overlaps, which a set of nftables doesn't take. Raises Rejected."""
    try:
        networks = [ipaddress.IPv4Network(subnet) for subnet in subnets]
    except ValueError as error:
        raise Rejected(f"a subnet of the node's gateways or networks: {error}") from None
    return frozenset(str(network) for network in ipaddress.collapse_addresses(networks))


def _set_lines(table: str, name: str, now: frozenset[str], then: frozenset[str]) -> list[str]:
    lines = delete_elements(table, name, sorted(now - then))
    return lines + add_elements(table, name, sorted(then - now))


def _element(key: PortKey) -> str:
    return f"{key[0]} . {key[1]}"


def _counter_lines(table: str, new: list[PortKey]) -> list[str]:
    lines = []
    for key in new:
        lines.append(f"add counter ip {table} {connections_of(key)}")
        lines.append(f"add counter ip {table} {traffic_of(key)}")
    for number in PROTOCOL_NAMES:
        mapped = (f'{key[1]} : "{traffic_of(key)}"' for key in new if key[0] == number)
        lines += add_elements(table, f"traffic_{number}", mapped)
    return lines


def _lines_without_counters(table: str, gone: list[PortKey]) -> list[str]:
    lines = []
    for number in PROTOCOL_NAMES:
        keys = (str(key[1]) for key in gone if key[0] == number)
        lines += delete_elements(table, f"traffic_{number}", keys)
    for key in gone:
        lines.append(f"delete counter ip {table} {connections_of(key)}")
        lines.append(f"delete counter ip {table} {traffic_of(key)}")
    return lines


def _rules_of(key: PortKey, drawn: Drawn) -> tuple[str, ...]:
    # The protocol must be told where a port is set.
    return (f"counter name {connections_of(key)} meta l4proto {key[0]} {drawn.rule()}",)


def _chains(table: IngressTable) -> dict[str, str]:
    return {_element(key): chain_of(key) for key in table.rotations.drawn}


def _guards(table: IngressTable) -> dict[str, str]:
    guards = dict.fromkeys(map(_element, table.rotations.drawn), "stray")
    return guards | dict.fromkeys(map(_element, table.refused), "refuse")
