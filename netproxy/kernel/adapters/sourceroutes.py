"""Routing rules, default routes and settings in the namespaces of tasks; see `core.sources`.

All functions block, and work on the namespace that the calling thread is in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from skep.netproxy.kernel.core.script import UDP
from skep.netproxy.kernel.core.sources import (
    NO_ROUTING,
    ROUTE_PROTOCOL,
    RULE_PRIORITIES,
    RouteChange,
    Routing,
    Rule,
    route_change,
)

_AF_INET = 2
_NO_ADDRESS = "0.0.0.0"
_SETTINGS = Path("/proc/sys/net/ipv4")


def add_routing(wanted: Routing) -> RouteChange:
    """Add what is missing; returns all that there is to change, of which the removals are still to
    be done, by `remove_routing`. Raises OSError."""
    with IPRoute() as links:
        change = route_change(_routing(links), wanted)
        for table, gateway in change.gateways_set:
            _route(links, "replace", table, gateway=gateway)
        for rule in change.rules_added:
            _rule(links, "add", rule)
    return change


def remove_routing(change: RouteChange) -> None:
    """The second half of a change. Raises OSError."""
    if not change.rules_removed and not change.tables_removed:
        return
    with IPRoute() as links:
        for rule in change.rules_removed:
            _rule(links, "del", rule)
        for table in change.tables_removed:
            _route(links, "del", table)


def clear_routing() -> None:
    """Remove all of it. Raises OSError."""
    remove_routing(add_routing(NO_ROUTING))


def write_setting(name: str, value: str) -> None:
    """Set net.ipv4's `name` where it isn't so yet. Raises OSError."""
    path = _SETTINGS / name
    if path.read_text().strip() != value:
        path.write_text(value)


def _routing(links: Any) -> Routing:
    """What is there of ours, told by its origin."""
    rules = frozenset(
        _read_rule(rule)
        for rule in links.get_rules(family=_AF_INET)
        if rule.get_attr("FRA_PROTOCOL") == ROUTE_PROTOCOL
        and rule.get_attr("FRA_PRIORITY") in RULE_PRIORITIES
    )
    gateways = {
        int(route.get_attr("RTA_TABLE")): str(route.get_attr("RTA_GATEWAY"))
        for route in links.get_routes(family=_AF_INET, proto=ROUTE_PROTOCOL)
        if route["proto"] == ROUTE_PROTOCOL
    }
    return Routing(rules, gateways)


def _read_rule(message: Any) -> Rule:
    source, ports = message.get_attr("FRA_SRC"), message.get_attr("FRA_SPORT_RANGE")
    is_sourceless = source == _NO_ADDRESS
    return Rule(
        priority=message.get_attr("FRA_PRIORITY"),
        table=message.get_attr("FRA_TABLE"),
        mark=message.get_attr("FRA_FWMARK"),
        source=None if is_sourceless else source,
        udp_port=None if ports is None else int(ports.partition(":")[0]),
        is_sourceless=is_sourceless,
        has_no_default=message.get_attr("FRA_SUPPRESS_PREFIXLEN") == 0,
    )


def _rule(links: Any, command: str, rule: Rule) -> None:
    fields: dict[str, Any] = {}
    if rule.mark is not None:
        fields["fwmark"] = rule.mark
    if rule.source is not None or rule.is_sourceless:
        fields |= {"src": rule.source or _NO_ADDRESS, "src_len": 32}
    if rule.udp_port is not None:
        fields |= {"ip_proto": UDP, "sport_range": f"{rule.udp_port}:{rule.udp_port}"}
    if rule.has_no_default:
        fields["suppress_prefixlen"] = 0
    try:
        links.rule(
            command,
            family=_AF_INET,
            priority=rule.priority,
            table=rule.table,
            protocol=ROUTE_PROTOCOL,
            **fields,
        )
    except NetlinkError as error:
        raise OSError(error.code, f"{command} routing rule {rule}: {error}") from None


def _route(links: Any, command: str, table: int, gateway: str | None = None) -> None:
    where = {} if gateway is None else {"gateway": gateway}
    try:
        links.route(command, dst="0.0.0.0/0", table=table, proto=ROUTE_PROTOCOL, **where)
    except NetlinkError as error:
        raise OSError(error.code, f"{command} route by {gateway}, table {table}: {error}") from None
