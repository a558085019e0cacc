"""Published ports as text for nftables."""

from __future__ import annotations

import pytest

from skep.env import Rejected
from skep.netproxy.kernel.core import ingress, script
from skep.netproxy.kernel.core.ingress import Egress, IngressPort, IngressTable
from skep.netproxy.kernel.core.ingressread import forward_problems, read_counters
from skep.netproxy.kernel.core.listing import (
    DropsForwarded,
    Listing,
    read_forward_drops,
    read_listing,
)

WEB = IngressPort("tcp", 8000, 80, ("10.255.0.11", "10.255.0.12"))
DNS = IngressPort("udp", 53, 53, ())
NO_EGRESS = Egress()


def change(
    now: IngressTable | None, *ports: IngressPort, egress: Egress = NO_EGRESS
) -> ingress.Change:
    made = ingress.change("n1", "ing0", now, ports, egress)
    made.after.check_invariants()
    return made


EMPTY = change(None).after


def test_a_new_table_replaces_what_is_there() -> None:
    lines = change(None).script.splitlines()
    assert lines[:3] == ["table ip skep_n1 { }", "delete table ip skep_n1", "table ip skep_n1 {"]
    assert lines[-1] == "}"
    assert any("layout_" in line for line in lines)


def test_ports_are_added() -> None:
    made = change(EMPTY, WEB, DNS)
    assert made.udp == ((17, 53),)
    assert (
        made.script
        == """\
add counter ip skep_n1 connections_6_8000
add counter ip skep_n1 traffic_6_8000
add counter ip skep_n1 connections_17_53
add counter ip skep_n1 traffic_17_53
add element ip skep_n1 traffic_6 { 8000 : "traffic_6_8000" }
add element ip skep_n1 traffic_17 { 53 : "traffic_17_53" }
add element ip skep_n1 backends { 0 : 10.255.0.11, 1 : 10.255.0.12 }
add chain ip skep_n1 port_6_8000
add rule ip skep_n1 port_6_8000 counter name connections_6_8000 meta l4proto 6 \
dnat to numgen inc mod 2 offset 0 map @backends : 80
add element ip skep_n1 ports { 6 . 8000 : goto port_6_8000 }
add element ip skep_n1 guard { 17 . 53 : goto refuse, 6 . 8000 : goto stray }
"""
    )


def test_a_task_is_removed() -> None:
    now = change(EMPTY, WEB, DNS).after
    made = change(now, IngressPort("tcp", 8000, 80, ("10.255.0.12",)), DNS)
    assert made.udp == ()
    assert (
        made.script
        == """\
add element ip skep_n1 backends { 4096 : 10.255.0.12 }
flush chain ip skep_n1 port_6_8000
add rule ip skep_n1 port_6_8000 counter name connections_6_8000 meta l4proto 6 \
dnat to numgen inc mod 1 offset 4096 map @backends : 80
"""
    )


def test_a_port_loses_its_last_task() -> None:
    now = change(EMPTY, WEB).after
    assert (
        change(now, IngressPort("tcp", 8000, 80, ())).script
        == """\
delete element ip skep_n1 ports { 6 . 8000 }
delete element ip skep_n1 guard { 6 . 8000 }
add element ip skep_n1 guard { 6 . 8000 : goto refuse }
delete chain ip skep_n1 port_6_8000
"""
    )


def test_a_port_is_closed() -> None:
    now = change(EMPTY, WEB).after
    assert (
        change(now).script
        == """\
delete element ip skep_n1 ports { 6 . 8000 }
delete element ip skep_n1 guard { 6 . 8000 }
delete chain ip skep_n1 port_6_8000
delete element ip skep_n1 traffic_6 { 8000 }
delete counter ip skep_n1 connections_6_8000
delete counter ip skep_n1 traffic_6_8000
"""
    )


def test_subnets_come_and_go() -> None:
    made = change(EMPTY, egress=Egress(("172.31.0.0/25", "172.31.0.128/25"), ("10.0.0.0/24",)))
    assert (
        made.script
        == """\
add element ip skep_n1 gateways { 172.31.0.0/24 }
add element ip skep_n1 overlays { 10.0.0.0/24 }
"""
    )
    assert (
        change(made.after, egress=Egress((), ("10.0.0.0/24",))).script
        == """\
delete element ip skep_n1 gateways { 172.31.0.0/24 }
"""
    )


def test_what_carries_the_networks_is_not_tracked() -> None:
    made = change(EMPTY, egress=Egress(untracked=(4789,)))
    assert made.script == "add element ip skep_n1 untracked { 4789 }\n"
    moved = change(made.after, egress=Egress(untracked=(4790,)))
    assert moved.script == (
        "delete element ip skep_n1 untracked { 4789 }\nadd element ip skep_n1 untracked { 4790 }\n"
    )


def test_nothing_is_done_for_what_is_so_already() -> None:
    now = change(EMPTY, WEB, DNS).after
    other_order = IngressPort("tcp", 8000, 80, WEB.backends[::-1])
    assert change(now, DNS, other_order) == ingress.Change("", now)


def test_a_host_mode_port_without_tasks_is_not_open() -> None:
    port = IngressPort("tcp", 8000, 80, (), is_host_mode=True)
    assert change(EMPTY, port).script == ""


def test_ports_are_told_back() -> None:
    assert change(EMPTY, WEB, DNS).after.ports() == (WEB, DNS)


@pytest.mark.parametrize(
    ("port", "says"),
    [
        (IngressPort("icmp", 1, 1, ()), "tcp or udp"),
        (IngressPort("tcp", 65536, 1, ()), "published is 65536"),
        (IngressPort("tcp", 1, 0, ()), "target is 0"),
        (IngressPort("tcp", 1, 1, ("web",)), "web"),
        (IngressPort("tcp", 1, 1, ("10.0.0.1",) * 4097), "at most 4096"),
    ],
)
def test_what_cannot_be_published_is_refused(port: IngressPort, says: str) -> None:
    with pytest.raises(Rejected, match=says):
        change(EMPTY, port)


def test_names_of_tables_are_those_of_nodes_and_never_the_same() -> None:
    nodes = ["n1", "n-1", "n.1", "n_1", "n 1", "ñ1", "n_5f1"]
    names = [script.table_name("skep", node) for node in nodes]
    assert names[:3] == ["skep_n1", "skep_n-1", "skep_n.1"]
    assert len(set(names)) == len(names)


def test_counters_are_read() -> None:
    listing = Listing(
        {},
        {},
        {
            "connections_6_80": (3, 180),
            "traffic_6_80": (30, 4000),
            "traffic_17_53": (2, 99),
            "connections_17_53": (1, 50),
            "strays": (4, 240),
        },
    )
    counters, strays = read_counters(listing)
    assert [(c.protocol, c.published, c.packets, c.bytes, c.connections) for c in counters] == [
        ("tcp", 80, 30, 4000, 3),
        ("udp", 53, 2, 99, 1),
    ]
    assert strays == 4


def test_a_listing_is_read_by_chain_map_and_counter() -> None:
    listing = read_listing("""{"nftables": [
        {"metainfo": {"version": "1.0.6"}}, {"table": {"name": "t"}},
        {"counter": {"name": "k", "packets": 1, "bytes": 2}},
        {"map": {"name": "m", "elem": [[1, "10.0.0.3"]]}}, {"set": {"name": "s"}},
        {"chain": {"name": "c"}}, {"chain": {"name": "in", "hook": "input"}},
        {"rule": {"chain": "in", "expr": [{"drop": null}]}}]}""")
    assert listing == Listing(
        rules={"c": [], "in": [[{"drop": None}]]},
        elements={"m": [[1, "10.0.0.3"]], "s": []},
        counters={"k": (1, 2)},
        base_chains=frozenset({"in"}),
    )
    assert listing.base_rule_count() == 1


def test_who_drops_forwarded_packets_is_told() -> None:
    def chain(family: str, hook: str, policy: str) -> str:
        return (
            f'{{"chain": {{"family": "{family}", "table": "filter", "name": "F", '
            f'"hook": "{hook}", "policy": "{policy}"}}}}'
        )

    chains = [
        chain("ip", "forward", "drop"),
        chain("ip", "forward", "accept"),
        chain("ip6", "forward", "drop"),
        chain("ip", "input", "drop"),
        '{"chain": {"family": "ip", "table": "filter", "name": "plain"}}',
    ]
    drops = read_forward_drops(f'{{"nftables": [{", ".join(chains)}]}}')
    assert drops == (DropsForwarded("ip", "filter", "F"),)
    (problem,) = forward_problems(drops, "ing0")
    assert "table ip filter, chain F" in problem
    assert "iptables -I DOCKER-USER -i ing0 -j ACCEPT" in problem
