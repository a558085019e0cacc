"""What the kernel says of a WireGuard device, as it says it; there may be none on this machine."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.netlink.generic.wireguard import wgmsg

from skep.netproxy.kernel.adapters import wireguard_netlink
from skep.netproxy.kernel.core.keys import text_of
from skep.netproxy.kernel.core.tunnel import Change, Device, TunnelPeer

OWN, ONE, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
PEER = TunnelPeer("10.255.0.3", "192.0.2.3")


def said(*attrs: Any) -> Any:
    """One message, encoded and decoded."""
    message = wgmsg()
    message["attrs"] = [("WGDEVICE_A_IFNAME", "x"), *attrs]
    message.encode()
    decoded = wgmsg(message.data)
    decoded.decode()
    return decoded


def peer(key: bytes, *attrs: Any) -> tuple[str, Any]:
    return "WGDEVICE_A_PEERS", [{"attrs": [("WGPEER_A_PUBLIC_KEY", text_of(key)), *attrs]}]


def allowed(address: bytes, prefix_length: int = 32) -> tuple[str, Any]:
    told = [
        ("WGALLOWEDIP_A_FAMILY", 2),
        ("WGALLOWEDIP_A_IPADDR", address),
        ("WGALLOWEDIP_A_CIDR_MASK", prefix_length),
    ]
    return "WGPEER_A_ALLOWEDIPS", [{"attrs": told}]


def test_a_device_in_several_messages() -> None:
    endpoint = ("WGPEER_A_ENDPOINT", {"addr": "192.0.2.3", "port": 51820})
    messages = [
        said(
            ("WGDEVICE_A_PRIVATE_KEY", text_of(OWN)),
            ("WGDEVICE_A_LISTEN_PORT", 51820),
            peer(ONE, endpoint, allowed(b"\x0a\xff\0\3")),
        ),
        said(peer(OTHER)),
        said(peer(OTHER, allowed(bytes(4), 0))),
    ]
    strange = TunnelPeer("0.0.0.0/0", "")
    assert wireguard_netlink.device_of(messages) == Device(OWN, 51820, {ONE: PEER, OTHER: strange})
    assert wireguard_netlink.device_of([said()]) == Device(bytes(32), 0)


def test_a_change_is_told_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, Any]]] = []

    class Kernel:
        def set(self, name: str, **what: Any) -> None:
            told.append((name, what))

        def close(self) -> None:
            told.append(("closed", {}))

    monkeypatch.setattr(wireguard_netlink, "WireGuard", Kernel)
    wireguard_netlink.tell("x", Change(OWN, 51820, (OTHER,), {ONE: PEER}), 51820)
    assert told == [
        ("x", {"private_key": text_of(OWN), "listen_port": 51820}),
        ("x", {"peer": {"public_key": text_of(OTHER), "remove": True}}),
        (
            "x",
            {
                "peer": {
                    "public_key": text_of(ONE),
                    "endpoint_addr": "192.0.2.3",
                    "endpoint_port": 51820,
                    "replace_allowed_ips": True,
                    "allowed_ips": ["10.255.0.3/32"],
                }
            },
        ),
        ("closed", {}),
    ]
