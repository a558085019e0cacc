"""The way back to the clients of published ports, as text and values."""

from __future__ import annotations

import pytest

from skep.env import Rejected
from skep.netproxy.kernel.core import sources
from skep.netproxy.kernel.core.sources import (
    NO_ROUTING,
    RouteChange,
    Rule,
    SourceRoute,
    TaskLink,
    route_change,
    routing_of,
)

ONE, TWO = SourceRoute(1, "10.255.0.1"), SourceRoute(2, "10.255.0.2")
LINK = TaskLink("ing0", "10.255.0.11", "10.255.0.1")


def test_nodes_are_told_by_the_mac_of_their_address() -> None:
    assert SourceRoute(1, "10.255.0.171").mac == "02:42:0a:ff:00:ab"
    assert (
        sources.change("n1", "ing0", frozenset([ONE]), frozenset([TWO]))
        == """\
delete element ip skepsource_n1 nodes { 02:42:0a:ff:00:01 }
add element ip skepsource_n1 nodes { 02:42:0a:ff:00:02 : 2 }
"""
    )
    # The address went to another node.
    other = frozenset([SourceRoute(7, "10.255.0.1")])
    assert (
        sources.change("n1", "ing0", frozenset([ONE]), other)
        == """\
delete element ip skepsource_n1 nodes { 02:42:0a:ff:00:01 }
add element ip skepsource_n1 nodes { 02:42:0a:ff:00:01 : 7 }
"""
    )
    assert sources.change("n1", "ing0", frozenset([ONE]), frozenset([ONE])) == ""


def test_the_routing_of_a_task() -> None:
    routing = routing_of(LINK, [ONE, TWO], [53])
    assert routing.gateways == {10_000: "10.255.0.1", 10_001: "10.255.0.1", 10_002: "10.255.0.2"}
    assert routing.rules == {
        Rule(10_001, 10_001, mark=1),
        Rule(10_002, 10_002, mark=2),
        Rule(31_001, 254, has_no_default=True),
        Rule(31_002, 10_000, source="10.255.0.11"),
        Rule(31_003, 10_000, udp_port=53, is_sourceless=True),
    }
    assert all(rule.priority in sources.RULE_PRIORITIES for rule in routing.rules)


def test_only_what_differs_is_changed() -> None:
    now, then = routing_of(LINK, [ONE], [53]), routing_of(LINK, [TWO], [54])
    assert route_change(now, then) == RouteChange(
        rules_removed=(
            Rule(10_001, 10_001, mark=1),
            Rule(31_003, 10_000, udp_port=53, is_sourceless=True),
        ),
        tables_removed=(10_001,),
        gateways_set=((10_002, "10.255.0.2"),),
        rules_added=(
            Rule(10_002, 10_002, mark=2),
            Rule(31_003, 10_000, udp_port=54, is_sourceless=True),
        ),
    )
    assert route_change(now, now) == RouteChange((), (), (), ())
    all_gone = route_change(now, NO_ROUTING)
    assert (len(all_gone.rules_removed), all_gone.tables_removed) == (4, (10_000, 10_001))


@pytest.mark.parametrize(
    ("routes", "says"),
    [
        ([SourceRoute(0, "10.0.0.1")], "node number 0"),
        ([SourceRoute(20_001, "10.0.0.1")], "node number 20001"),
        ([SourceRoute(1, "n1")], "n1"),
        ([ONE, SourceRoute(1, "10.255.0.2")], "share the ingress number 1"),
        ([ONE, SourceRoute(2, "10.255.0.1")], "share the ingress address 10.255.0.1"),
    ],
)
def test_what_cannot_be_is_refused(routes: list[SourceRoute], says: str) -> None:
    with pytest.raises(Rejected, match=says):
        sources.check_routes(routes)
