"""Requests of the kernel, as pyroute2 reads them."""

from __future__ import annotations

from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from skep.netproxy.kernel.adapters import messages
from skep.netproxy.kernel.adapters.netlink import Message
from skep.netproxy.kernel.core.links import Vxlan

MAC = "02:42:0a:01:02:03"


def read(kind: Any, request: Message) -> Any:
    decoded = kind(bytes(request))
    decoded.decode()
    assert decoded["header"]["length"] == len(request)
    return decoded


def test_a_veth() -> None:
    veth, alias = messages.make_veth("skt-a", 1400, 7, ("eth0", MAC, 9), "a tag")
    made = read(ifinfmsg, veth)
    assert (made["header"]["type"], made["flags"], made["change"]) == (16, 1, 1)
    assert [made.get_attr(f"IFLA_{each}") for each in ("IFNAME", "MTU", "MASTER")] == [
        "skt-a",
        1400,
        7,
    ]
    info = made.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    other = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    names = ("IFNAME", "MTU", "ADDRESS", "NET_NS_FD")
    assert [other.get_attr(f"IFLA_{each}") for each in names] == ["eth0", 1400, MAC, 9]
    assert read(ifinfmsg, alias).get_attr("IFLA_IFALIAS") == "a tag"


def test_devices_of_a_network() -> None:
    [vxlan] = messages.make_vxlan("skx-a", Vxlan(77, "192.0.2.1", 4789, 1450), 5)
    data = read(ifinfmsg, vxlan).get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    names = ("ID", "LOCAL", "PORT", "LEARNING", "PROXY")
    wanted = [77, "192.0.2.1", 4789, 0, 1]
    assert [data.get_attr(f"IFLA_VXLAN_{each}") for each in names] == wanted
    bridge, _ = messages.make_bridge("skb-a", 1450, "a tag", MAC)
    made = read(ifinfmsg, bridge)
    assert made.get_attr("IFLA_ADDRESS") == MAC
    port = read(ifinfmsg, messages.set_port(4, is_isolated=True))
    assert (port["family"], port["index"]) == (7, 4)
    up = read(ifinfmsg, messages.set_up(4, mtu=1400, master=7, alias="a tag"))
    assert (up["index"], up["flags"], up.get_attr("IFLA_MASTER")) == (4, 1, 7)


def test_addresses_and_routes() -> None:
    address = read(ifaddrmsg, messages.set_address(4, "10.0.0.9", 24))
    assert (address["index"], address["prefixlen"]) == (4, 24)
    assert address.get_attr("IFA_LOCAL") == address.get_attr("IFA_ADDRESS") == "10.0.0.9"
    route = read(rtmsg, messages.default_route(4, "10.0.0.1"))
    assert (route["table"], route["proto"], route["type"]) == (254, 4, 1)
    assert (route.get_attr("RTA_GATEWAY"), route.get_attr("RTA_OIF")) == ("10.0.0.1", 4)


def test_entries_of_a_peer() -> None:
    entry = read(ndmsg, messages.forward(4, MAC, "192.0.2.1"))
    assert (entry["family"], entry["ifindex"], entry["state"], entry["flags"]) == (7, 4, 0x42, 6)
    assert (entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST")) == (MAC, "192.0.2.1")
    own = read(ndmsg, messages.forward(4, MAC))
    assert (own["state"], own["flags"], own.get_attr("NDA_DST")) == (0x40, 4, None)
    asked = read(ndmsg, messages.neighbour(4, "10.0.0.9", MAC))
    assert (asked["family"], asked["state"], asked.get_attr("NDA_DST")) == (2, 0x80, "10.0.0.9")
