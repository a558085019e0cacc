"""Virtual addresses as text for nftables."""

from __future__ import annotations

from skep.netproxy.kernel.core import natvip
from skep.netproxy.kernel.core.natvip import VipTable

EMPTY = natvip.change("n1", None, {}).after


def test_vips_are_added_changed_emptied_and_removed_in_one_transaction() -> None:
    first = natvip.change(
        "n1", EMPTY, {"10.0.1.2": ("10.0.1.11",), "10.0.1.3": ("10.0.1.12",), "10.0.1.4": ()}
    )
    assert first.touched == ("10.0.1.2", "10.0.1.3", "10.0.1.4")
    assert (
        first.script
        == """\
add element ip skepvip_n1 backends { 0 : 10.0.1.11, 8192 : 10.0.1.12 }
add chain ip skepvip_n1 vip_10_0_1_2
add chain ip skepvip_n1 vip_10_0_1_3
add rule ip skepvip_n1 vip_10_0_1_2 meta l4proto 17 counter name udp_flows
add rule ip skepvip_n1 vip_10_0_1_2 dnat to numgen inc mod 1 offset 0 map @backends
add rule ip skepvip_n1 vip_10_0_1_3 meta l4proto 17 counter name udp_flows
add rule ip skepvip_n1 vip_10_0_1_3 dnat to numgen inc mod 1 offset 8192 map @backends
add element ip skepvip_n1 vips { 10.0.1.2 : goto vip_10_0_1_2, 10.0.1.3 : goto vip_10_0_1_3 }
add element ip skepvip_n1 guard { 10.0.1.2 : goto stray, 10.0.1.3 : goto stray, \
10.0.1.4 : goto refuse }
"""
    )
    second = natvip.change(
        "n1",
        first.after,
        {"10.0.1.2": ("10.0.1.11", "10.0.1.13"), "10.0.1.3": (), "10.0.1.4": None},
    )
    assert second.touched == ("10.0.1.2", "10.0.1.3", "10.0.1.4")
    assert (
        second.script
        == """\
add element ip skepvip_n1 backends { 4096 : 10.0.1.11, 4097 : 10.0.1.13 }
flush chain ip skepvip_n1 vip_10_0_1_2
add rule ip skepvip_n1 vip_10_0_1_2 meta l4proto 17 counter name udp_flows
add rule ip skepvip_n1 vip_10_0_1_2 dnat to numgen inc mod 2 offset 4096 map @backends
delete element ip skepvip_n1 vips { 10.0.1.3 }
delete element ip skepvip_n1 guard { 10.0.1.3, 10.0.1.4 }
add element ip skepvip_n1 guard { 10.0.1.3 : goto refuse }
delete chain ip skepvip_n1 vip_10_0_1_3
"""
    )
    second.after.check_invariants()
    assert second.after.vips() == {"10.0.1.2": ("10.0.1.11", "10.0.1.13"), "10.0.1.3": ()}


def test_nothing_is_done_for_what_is_so_already() -> None:
    wanted = {"10.0.1.2": ("10.0.1.11", "10.0.1.12"), "10.0.1.4": ()}
    now = natvip.change("n1", EMPTY, wanted).after
    other_order = {"10.0.1.4": (), "10.0.1.2": ("10.0.1.12", "10.0.1.11")}
    assert natvip.change("n1", now, other_order) == natvip.Change("", now)


def test_an_empty_table_has_no_vips() -> None:
    assert VipTable() == EMPTY
    assert EMPTY.vips() == {}
