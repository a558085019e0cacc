"""How the answers of published ports find back, though the client's address was left as it is.

In each task's namespace: a connection of which something comes in on the ingress network is marked
with the number of the node that it came by. That is told by the source MAC, which is made from that
node's ingress address. What goes out is given the mark of its connection, and a routing rule per
node sends what has its mark to a table with that node as the default gateway. It isn't left to the
first packet, so that connections live through a table that is made anew. But the packet by which a
connection gets its mark has the mark as well: a TCP socket that is made for it takes it over
(tcp_fwmark_accept), and sends what it has to say the right way from the start.

Before it is marked, an answer is routed once without, by which it also gets a source address if its
socket has none: a UDP server that listens on all addresses would answer with the one that belongs
to the task's default route, and the client would not know it. So what goes out by the default route
from the ingress address, or from a published UDP port and no address yet, is sent by the ingress
network, whether the task has a default route of its own or not. A kernel that is strict about where
packets come from (rp_filter) asks where an answer would go, and is satisfied with that, too.

Clients choose their ports anew for each node that they ask, so that two connections by two nodes
may look the same to a task. They are told apart by the zone they come in: on the way in, one that
would look like another gets another port, and all others keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from skep.env import Rejected
from skep.netproxy.kernel.core import script
from skep.netproxy.kernel.core.ingress import check_address
from skep.netproxy.kernel.core.listing import Listing, Unfamiliar
from skep.netproxy.kernel.core.names import address_of, mac_of
from skep.netproxy.kernel.core.script import add_elements, delete_elements

# Node number n has routing table and rule priority BASE + n: clear of the tables 253 to 255, which
# are the kernel's own. The others come after them, and before that of the main table at 32766.
BASE = 10_000
NODE_NUMBER_LIMIT = 20_000
MAIN_PRIORITY, SOURCE_PRIORITY, UDP_PRIORITY = 31_001, 31_002, 31_003
RULE_PRIORITIES = range(BASE, UDP_PRIORITY + 1)
MAIN_TABLE, OWN_TABLE = 254, BASE
# Of the numbers that nobody has registered as an origin of routes: told from others' by it.
ROUTE_PROTOCOL = 157
BASE_RULE_COUNT, MARKING_RULE_COUNT = 3, 3


@dataclass(frozen=True, slots=True)
class SourceRoute:
    """A node that connections come in by."""

    number: int
    """1 and up; the node's own in the cluster, which never changes."""
    address: str
    """Its address on the ingress network."""

    @property
    def mac(self) -> str:
        """The MAC of its end on the ingress network."""
        return mac_of(self.address)

    @property
    def table(self) -> int:
        """The routing table that leads back to it; the priority of the rule as well."""
        return BASE + self.number


def table_of(node: str) -> str:
    """The name of the table in the namespaces of this node's tasks."""
    return script.table_name("skepsource", node)


def body_of(interface: str) -> str:
    """The table without nodes. `interface` is the task's on the ingress network, where all tasks
    with published ports are: what comes there from another task, and not from a node, is dropped,
    so that a published port is the only way in.

    The zone is the end of the source MAC, and holds for the way in only: the kernel sees that two
    ways out are the same, and `parting`, though it is empty, has it change the second one.
    """
    return f"""\
  map nodes {{
    type ether_addr : mark
  }}
  chain sorting {{
    type filter hook prerouting priority -300
    iifname "{interface}" ct original zone set @ll,80,16
  }}
  chain parting {{
    type nat hook input priority 100
  }}
  chain arriving {{
    type filter hook prerouting priority -150
    iifname "{interface}" ct mark 0 goto marking
  }}
  chain marking {{
    ct mark set ether saddr map @nodes
    ct state new ct mark 0 drop
    meta mark set ct mark
  }}
  chain answering {{
    type route hook output priority -150
    ct mark != 0 meta mark set ct mark
  }}
"""


def check_routes(routes: Iterable[SourceRoute]) -> frozenset[SourceRoute]:
    """Raises Rejected for numbers or addresses that can't be, or that two nodes share."""
    found = frozenset(routes)
    for route in found:
        if not 0 < route.number <= NODE_NUMBER_LIMIT:
            raise Rejected(f"node number {route.number} is not 1 to {NODE_NUMBER_LIMIT}")
        check_address(route.address, f"node number {route.number}")
    for name in ("number", "address"):
        values = [getattr(route, name) for route in found]
        if len(set(values)) < len(values):
            twice = sorted(value for value in set(values) if values.count(value) > 1)
            raise Rejected(f"nodes share the ingress {name} {twice[0]}; each needs its own")
    return found


def change(
    node: str,
    interface: str,
    now: frozenset[SourceRoute] | None,
    wanted: frozenset[SourceRoute],
) -> str:
    """The transaction from `now` (None: no table, or one to be replaced); "" for none."""
    table = table_of(node)
    lines = script.new_table(table, body_of(interface)) if now is None else []
    before = _marks(now or ())
    after = _marks(wanted)
    old = [mac for mac in sorted(before) if after.get(mac) != before[mac]]
    new = [mac for mac in sorted(after) if before.get(mac) != after[mac]]
    lines += delete_elements(table, "nodes", old)
    lines += add_elements(table, "nodes", (f"{mac} : {after[mac]}" for mac in new))
    return "\n".join(lines) + "\n" if lines else ""


def _marks(routes: Iterable[SourceRoute]) -> dict[str, int]:
    return {route.mac: route.number for route in routes}


def read_table(interface: str, listing: Listing) -> frozenset[SourceRoute] | None:
    """The nodes in a listed table; None where it isn't as this release makes it."""
    if script.layout_mark(body_of(interface)) not in listing.rules:
        return None
    if listing.base_rule_count() != BASE_RULE_COUNT:
        return None
    if len(listing.rules["marking"]) != MARKING_RULE_COUNT:
        return None
    try:
        return frozenset(_read_node(element) for element in listing.elements["nodes"])
    except (Unfamiliar, LookupError, ValueError):
        return None


def _read_node(element: object) -> SourceRoute:
    match element:
        case [str(mac), int(number)] if address_of(mac):
            return SourceRoute(number, address_of(mac))
    raise Unfamiliar(f"a node {element!r}")


@dataclass(frozen=True, slots=True)
class TaskLink:
    """A task's end of the ingress network."""

    interface: str
    address: str
    gateway: str
    """Its own node's address there."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule: what it is for, and the table to look in.

    `is_sourceless` is what has no source address yet; `has_no_default` leaves the table's default
    route out.
    """

    priority: int
    table: int
    mark: int | None = None
    source: str | None = None
    udp_port: int | None = None
    is_sourceless: bool = False
    has_no_default: bool = False


@dataclass(frozen=True, slots=True)
class Routing:
    """Rules, and default gateways by table."""

    rules: frozenset[Rule]
    gateways: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class RouteChange:
    """What to change in a namespace's routing."""

    rules_removed: tuple[Rule, ...]
    tables_removed: tuple[int, ...]
    gateways_set: tuple[tuple[int, str], ...]
    rules_added: tuple[Rule, ...]


def routing_of(link: TaskLink, routes: Iterable[SourceRoute], udp_ports: Iterable[int]) -> Routing:
    """All that a task needs that connections come to by these nodes. `udp_ports` are its own ports
    that are published."""
    listed = list(routes)
    rules = {Rule(route.table, route.table, mark=route.number) for route in listed}
    rules.add(Rule(MAIN_PRIORITY, MAIN_TABLE, has_no_default=True))
    rules.add(Rule(SOURCE_PRIORITY, OWN_TABLE, source=link.address))
    for port in udp_ports:
        rules.add(Rule(UDP_PRIORITY, OWN_TABLE, udp_port=port, is_sourceless=True))
    gateways = {route.table: route.address for route in listed}
    return Routing(frozenset(rules), {OWN_TABLE: link.gateway, **gateways})


NO_ROUTING = Routing(frozenset(), {})


def route_change(now: Routing, wanted: Routing) -> RouteChange:
    """From what is there to what is wanted."""
    by_priority = attrgetter("priority", "table")
    return RouteChange(
        rules_removed=tuple(sorted(now.rules - wanted.rules, key=by_priority)),
        tables_removed=tuple(sorted(set(now.gateways) - set(wanted.gateways))),
        gateways_set=tuple(
            (table, gateway)
            for table, gateway in sorted(wanted.gateways.items())
            if now.gateways.get(table) != gateway
        ),
        rules_added=tuple(sorted(wanted.rules - now.rules, key=by_priority)),
    )


def check_link(link: TaskLink) -> None:
    """Raises Rejected for what are no addresses."""
    check_address(link.address, f"address of {link.interface}")
    check_address(link.gateway, f"gateway of {link.interface}")
