"""What a WireGuard device is told, and how it is understood."""

from __future__ import annotations

import pytest

from skep.env import Retryable
from skep.netproxy.kernel.adapters.wireguard import Encryption, KernelDriver
from skep.netproxy.kernel.core.keys import text_of
from skep.netproxy.kernel.core.tunnel import (
    Change,
    Device,
    TunnelPeer,
    change,
    check_clear,
    differences,
    parse_device,
    request_of,
)
from tests.unit.netproxy.kernel.test_plan_core import APP, INGRESS, NETWORKS, SECRET

OWN, ONE, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
FIRST, SECOND = TunnelPeer("10.255.0.3", "192.0.2.3"), TunnelPeer("10.255.0.4", "192.0.2.4")
WANTED = Device(OWN, 51820, {ONE: FIRST, OTHER: SECOND})

SAID = f"""\
private_key={OWN.hex()}
listen_port=51820
public_key={ONE.hex()}
preshared_key={"0" * 64}
endpoint=192.0.2.3:51820
last_handshake_time_sec=1
tx_bytes=7
rx_bytes=7
persistent_keepalive_interval=0
allowed_ip=10.255.0.3/32
protocol_version=1
public_key={OTHER.hex()}
endpoint=192.0.2.4:51820
allowed_ip=10.255.0.4/32
"""


@pytest.mark.parametrize(
    "holder",
    [WANTED, Change(OWN), Encryption(KernelDriver(), OWN)],
    ids=("device", "change", "encryption"),
)
def test_a_private_key_is_in_no_text(holder: object) -> None:
    for text in (repr(holder), str(holder)):
        assert repr(OWN) not in text
        assert "private_key" not in text


def test_a_device_as_it_is_described() -> None:
    assert parse_device(SAID) == WANTED
    assert parse_device("") == Device(bytes(32), 0)
    strange = parse_device(SAID + "allowed_ip=0.0.0.0/0\n")
    assert strange.peers[OTHER].address == "10.255.0.4 0.0.0.0/0"
    assert change(WANTED, strange).peers == {OTHER: SECOND}


def test_a_new_device_is_told_everything() -> None:
    step = change(WANTED, Device(bytes(32), 0))
    assert request_of(step, 51820) == (
        f"set=1\nprivate_key={OWN.hex()}\nlisten_port=51820\n"
        f"public_key={ONE.hex()}\nendpoint=192.0.2.3:51820\n"
        "replace_allowed_ips=true\nallowed_ip=10.255.0.3/32\n"
        f"public_key={OTHER.hex()}\nendpoint=192.0.2.4:51820\n"
        "replace_allowed_ips=true\nallowed_ip=10.255.0.4/32\n\n"
    )


def test_only_differences_are_told() -> None:
    assert change(WANTED, WANTED) == Change()
    found = Device(OWN, 51820, {ONE: TunnelPeer("10.255.0.3", "192.0.2.9"), OWN: SECOND})
    step = change(WANTED, found)
    assert step == Change(removed=(OWN,), peers={ONE: FIRST, OTHER: SECOND})
    assert request_of(step, 51820).startswith(f"set=1\npublic_key={OWN.hex()}\nremove=true\n")


def test_differences_in_words() -> None:
    assert list(differences(WANTED, WANTED)) == []
    # Where a peer's packets come from is WireGuard's own business.
    moved = Device(OWN, 51820, {**WANTED.peers, ONE: TunnelPeer("10.255.0.3", "198.51.100.7")})
    assert list(differences(WANTED, moved)) == []
    found = Device(ONE, 7, {OWN: FIRST, ONE: TunnelPeer("10.255.0.9", "192.0.2.3")})
    assert list(differences(WANTED, found)) == [
        "WireGuard: its private key is not this node's",
        "WireGuard: its port is 7, not 51820",
        f"WireGuard: {text_of(OWN)} is no node's key",
        "WireGuard: the node at 192.0.2.3 is missing, or has another address",
        "WireGuard: the node at 192.0.2.4 is missing, or has another address",
    ]


def test_a_task_on_an_encrypted_network_waits_for_a_node_that_can() -> None:
    check_clear([NETWORKS[APP], NETWORKS[INGRESS]], "no WireGuard")
    with pytest.raises(Retryable, match=r"network secret is encrypted, .* can't: no WireGuard"):
        check_clear([NETWORKS[APP], SECRET], "no WireGuard")
