"""The steps from what is there to what is wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.env import Rejected, Retryable
from skep.netproxy.kernel.core.found import (
    AddressRecord,
    ForwardRecord,
    LinkRecord,
    NeighbourRecord,
    Records,
    assemble,
)
from skep.netproxy.kernel.core.gateway import free_address, gateway_of, gateway_rules
from skep.netproxy.kernel.core.links import (
    Bridge,
    ChangeBridge,
    ChangeVxlan,
    DropPeer,
    DropVxlan,
    Join,
    MakeBridge,
    MakeVxlan,
    Network,
    Overlay,
    Peer,
    Port,
    RemoveNetwork,
    SetPeer,
    Vxlan,
    applied,
    check_invariants,
    diff,
    words,
)
from skep.netproxy.kernel.core.names import (
    BRIDGE,
    NAME_LIMIT,
    address_of,
    check_id,
    interface_name,
    mac_of,
    parse_tag,
    tag,
)
from skep.netproxy.kernel.core.wanted import Underlay, wanted_overlays

HERE, THERE, ELSEWHERE = "10.200.0.1", "10.200.0.2", "10.200.0.3"
UNDERLAY = Underlay(HERE, 4789, 1500)
A = Overlay("a", Bridge(1450), Vxlan(1, HERE, 4789, 1450), {"10.0.1.9": THERE, "10.0.1.10": THERE})
B = Overlay("b", Bridge(1450, "10.0.1.1/24"), Vxlan(2, HERE, 4789, 1450))
PORT = Port("skt-x", "a", "10.0.1.5", "t1")


def of(*overlays: Overlay) -> dict[str, Overlay]:
    return {overlay.network_id: overlay for overlay in overlays}


def test_nothing_is_done_where_all_is_as_wanted() -> None:
    assert diff(of(A, B), of(B, A)) == []


def test_networks_are_made_whole_before_anything_is_removed() -> None:
    old = replace(B, peers={"10.0.1.7": THERE})
    changed = replace(A, peers={"10.0.1.9": ELSEWHERE, "10.0.1.8": THERE}, loose=(PORT,))
    gone = Overlay("z", Bridge(1450), Vxlan(9, HERE, 4789, 1450), {"10.0.1.1": THERE})
    new = Overlay("c", Bridge(1450), Vxlan(3, HERE, 4789, 1450), {"10.0.1.3": THERE})
    assert diff(of(A, B, new), of(old, changed, gone)) == [
        SetPeer("a", "10.0.1.9", THERE),
        SetPeer("a", "10.0.1.10", THERE),
        Join("a", PORT),
        MakeBridge("c", Bridge(1450)),
        MakeVxlan("c", Vxlan(3, HERE, 4789, 1450)),
        SetPeer("c", "10.0.1.3", THERE),
        DropPeer("a", "10.0.1.8"),
        DropPeer("b", "10.0.1.7"),
        RemoveNetwork("z"),
    ]


def test_a_vni_is_free_before_it_is_taken() -> None:
    """Two networks that change places, and one whose VNI a new network gets."""
    one, two = Vxlan(1, HERE, 4789, 1450), Vxlan(2, HERE, 4789, 1450)
    swapped = of(replace(A, vxlan=two), replace(B, vxlan=one))
    assert diff(swapped, of(A, B)) == [
        DropVxlan("a"),
        DropVxlan("b"),
        MakeVxlan("a", two),
        SetPeer("a", "10.0.1.9", THERE),
        SetPeer("a", "10.0.1.10", THERE),
        MakeVxlan("b", one),
    ]
    heir = Overlay("h", Bridge(1450), one)
    assert diff(of(heir), of(replace(A, peers={}))) == [
        DropVxlan("a"),
        MakeBridge("h", Bridge(1450)),
        MakeVxlan("h", one),
        RemoveNetwork("a"),
    ]


def test_what_can_be_changed_is_not_made_anew() -> None:
    assert A.vxlan is not None
    tunnel = replace(A.vxlan, mtu=1350)
    want = replace(A, bridge=Bridge(1350, "10.0.1.1/24"), vxlan=tunnel)
    assert diff(of(want), of(A)) == [
        ChangeBridge("a", Bridge(1350, "10.0.1.1/24")),
        ChangeVxlan("a", tunnel),
    ]
    down = replace(A, vxlan=replace(A.vxlan, is_ready=False))
    assert diff(of(A), of(down)) == [ChangeVxlan("a", A.vxlan)]
    moved = replace(A, vxlan=replace(A.vxlan, local=ELSEWHERE), peers={})
    assert diff(of(moved), of(A))[:2] == [DropVxlan("a"), MakeVxlan("a", moved.vxlan)]  # type: ignore[arg-type]


ADDRESSES = st.sampled_from(["10.0.1.2", "10.0.1.3", "10.0.1.20"])
PEERS = st.dictionaries(ADDRESSES, st.sampled_from([THERE, ELSEWHERE]))


@st.composite
def worlds(draw: st.DrawFn, *, is_found: bool) -> dict[str, Overlay]:
    overlays = []
    vnis = draw(st.permutations([1, 2, 3]))
    for name, vni in zip("abc", vnis, strict=True):
        if not draw(st.booleans()):
            continue
        mtu = draw(st.sampled_from([1450, 1350]))
        bridge: Bridge | None = Bridge(mtu, draw(st.sampled_from(["", "10.0.1.1/24"])))
        vxlan: Vxlan | None = Vxlan(vni, HERE, 4789, mtu)
        if is_found and draw(st.booleans()):
            bridge = draw(st.none() | st.just(bridge))
            vxlan = draw(st.none() | st.just(vxlan))
        peers = draw(PEERS) if vxlan else {}
        loose = (replace(PORT, network_id=name),) if is_found and draw(st.booleans()) else ()
        overlays.append(Overlay(name, bridge, vxlan, peers, loose))
    return of(*overlays)


@given(worlds(is_found=False), worlds(is_found=True))
def test_the_steps_lead_to_what_is_wanted(
    wanted: dict[str, Overlay], found: dict[str, Overlay]
) -> None:
    ops = diff(wanted, found)
    now = found
    for op in ops:
        now = applied(now, [op])
        check_invariants(now)  # on the way too: no step would be refused by the kernel
        assert words(op)
    assert now == wanted == applied(found, ops)
    assert diff(wanted, now) == []


# ------------------------------------------------------------------------------------ what is said


def test_what_managers_say_is_put_in_terms_of_the_kernel() -> None:
    networks = [Network("a", 7, "10.0.1.0/24", gateway="10.0.1.1"), Network("b", 8, "10.0.1.0/24")]
    peers = {"a": [Peer("10.0.1.9", THERE), Peer("10.0.1.5", HERE)], "x": [Peer("1.2.3.4", THERE)]}
    assert wanted_overlays(networks, peers, UNDERLAY, {}) == (
        of(
            Overlay(
                "a",
                Bridge(1450, "10.0.1.1/24"),
                Vxlan(7, HERE, 4789, 1450),
                {"10.0.1.9": THERE},
            ),
            Overlay("b", Bridge(1450), Vxlan(8, HERE, 4789, 1450)),
        ),
        [],
    )


@pytest.mark.parametrize(
    "bad",
    [
        Network("a", 0, "10.0.1.0/24"),
        Network("a", 1 << 24, "10.0.1.0/24"),
        Network("a", 7, "10.0.1.1/24"),
        Network("a", 7, "fd00::/64"),
        Network("a", 7, "10.0.1.0/24", gateway="gateway"),
        Network("a", 8, "10.0.1.0/24"),
    ],
)
def test_a_network_that_is_refused_stays_as_it_is(bad: Network) -> None:
    good = Network("b", 8, "10.0.1.0/24")
    wanted, problems = wanted_overlays([bad, good], {}, UNDERLAY, of(A))
    assert wanted["a"] == A
    assert problems[0].startswith("network a: ")
    assert ("b" in wanted) == (bad.vni != good.vni)


# -------------------------------------------------------------------------------------- encryption

SEALED = Network("s", 9, "10.0.1.0/24", is_encrypted=True)
TUNNELED = replace(UNDERLAY, tunnel="10.255.0.2")
TUNNEL_PEERS = {"s": [Peer("10.0.1.9", "10.255.0.3"), Peer("10.0.1.5", "10.255.0.2")]}
# 60 bytes of WireGuard and up to 15 of its padding, beside VXLAN's 50.
SEALED_HERE = Overlay(
    "s",
    Bridge(1375),
    Vxlan(9, "10.255.0.2", 4789, 1375, is_encrypted=True),
    {"10.0.1.9": "10.255.0.3"},
)


def test_an_encrypted_network_has_its_ends_in_the_tunnel() -> None:
    networks = [SEALED, Network("a", 7, "10.0.2.0/24")]
    wanted, problems = wanted_overlays(networks, TUNNEL_PEERS, TUNNELED, {})
    assert problems == []
    assert wanted["s"] == SEALED_HERE
    assert wanted["a"].vxlan == Vxlan(7, HERE, 4789, 1450)
    assert TUNNELED.tunnel_mtu == 1425


def test_without_a_tunnel_an_encrypted_network_is_refused_or_left() -> None:
    lacking = replace(UNDERLAY, hindrance="no WireGuard")
    refusal = ["network s: it is encrypted, which this node can't: no WireGuard"]
    assert wanted_overlays([SEALED], TUNNEL_PEERS, lacking, {}) == ({}, refusal)
    left = wanted_overlays([SEALED], TUNNEL_PEERS, lacking, of(SEALED_HERE))
    assert left == (of(SEALED_HERE), refusal)


def test_an_encrypted_network_is_never_left_in_the_clear() -> None:
    clear = Overlay("s", Bridge(1450), Vxlan(9, HERE, 4789, 1450), {"10.0.1.9": THERE})
    lacking, _ = wanted_overlays([SEALED], TUNNEL_PEERS, UNDERLAY, of(clear))
    assert diff(lacking, of(clear)) == [DropVxlan("s")]
    wanted, _ = wanted_overlays([SEALED], TUNNEL_PEERS, TUNNELED, of(clear))
    assert diff(wanted, of(clear))[0] == DropVxlan("s")
    # Not even where all else is the same.
    assert SEALED_HERE.vxlan is not None
    alike = replace(SEALED_HERE, vxlan=replace(SEALED_HERE.vxlan, is_encrypted=False))
    assert diff(of(SEALED_HERE), of(alike))[:2] == [
        DropVxlan("s"),
        MakeVxlan("s", SEALED_HERE.vxlan),
    ]


def test_an_encrypted_network_never_becomes_clear_whatever_a_manager_says() -> None:
    clear, peers = replace(SEALED, is_encrypted=False), {"s": [Peer("10.0.1.9", THERE)]}
    left, problems = wanted_overlays([clear], peers, TUNNELED, of(SEALED_HERE))
    assert diff(left, of(SEALED_HERE)) == []
    assert ["it is encrypted here" in text for text in problems] == [True]


def test_ids_that_could_leave_the_folder_or_the_tag_are_refused() -> None:
    for text in ("", "..", ".x", "a/b", "a:b", "a=b", "x" * 65, "ä"):
        with pytest.raises(Rejected):
            check_id(text, "a task")
    assert check_id("0abc_d.e-f", "a task") == "0abc_d.e-f"


# ------------------------------------------------------------------------------------------- names


def test_names_and_tags() -> None:
    assert interface_name(BRIDGE, "a") == interface_name(BRIDGE, "a")
    names = {interface_name(BRIDGE, str(number)) for number in range(1000)}
    assert len(names) == 1000
    assert all(len(name) <= NAME_LIMIT for name in names)
    assert mac_of("10.0.1.255") == "02:42:0a:00:01:ff"
    assert address_of(mac_of("10.0.1.255")) == "10.0.1.255"
    assert address_of("00:00:00:00:00:00") == ""
    text = tag("n1", task="t1", net="a")
    assert text == "skep:n1:task=t1:net=a"
    found = parse_tag(text, "n1")
    assert found is not None
    assert found.fields == {"task": "t1", "net": "a"}
    for other in ("", "skep:n2:net=a", "skep:n11:net=a", "kube:n1:net=a"):
        assert parse_tag(other, "n1") is None


# ------------------------------------------------------------------------------------------- found


def records() -> Records:
    """A network with a peer and a task's port, and a foreign interface."""
    mac, peer = mac_of("10.0.1.5"), mac_of("10.0.1.9")
    net = tag("n1", net="a")
    return Records(
        links=(
            LinkRecord(1, "lo"),
            LinkRecord(2, "br", "bridge", net, 1450, is_up=True),
            LinkRecord(3, "vx", "vxlan", net, 1450, 2, True, 7, HERE, 4789),
            LinkRecord(
                4, "skt-x", "veth", tag("n1", task="t1", net="a", ip="10.0.1.5"), 1450, 2, True
            ),
            LinkRecord(5, "ske-x", "veth", tag("n1", task="t1", egress="1", ip="172.29.0.2")),
            LinkRecord(6, "other", "bridge", tag("n2", net="x")),
        ),
        addresses=(AddressRecord(2, "10.0.1.1/24"),),
        forwards=(ForwardRecord(4, mac), ForwardRecord(3, peer), ForwardRecord(3, peer, THERE)),
        neighbours=(NeighbourRecord(3, "10.0.1.9", peer),),
    )


def test_a_sandbox_is_put_together_from_its_parts() -> None:
    found = assemble("n1", records())
    whole = Overlay(
        "a", Bridge(1450, "10.0.1.1/24"), Vxlan(7, HERE, 4789, 1450), {"10.0.1.9": THERE}
    )
    assert found.overlays == of(whole)
    assert found.ports == (PORT,)
    assert found.egress == {"t1": "172.29.0.2"}


@pytest.mark.parametrize(
    ("begins", "tunnel", "is_encrypted"),
    [(None, None, False), (None, 1, False), (0, None, False), (0, 1, False), (1, 1, True)],
)
def test_a_device_is_encrypted_if_its_packets_begin_in_the_tunnel(
    begins: int | None, tunnel: int | None, is_encrypted: bool
) -> None:
    """None: they begin in the sandbox, or the sandbox knows of no tunnel."""
    parts = records()
    links = [replace(each, namespace=begins) for each in parts.links]
    found = assemble("n1", replace(parts, links=tuple(links), tunnel=tunnel))
    vxlan = found.overlays["a"].vxlan
    assert vxlan is not None
    assert vxlan.is_encrypted is is_encrypted


@pytest.mark.parametrize("missing", range(3))
def test_a_peer_without_one_of_its_entries_is_incomplete(missing: int) -> None:
    parts = records()
    if missing == 2:
        parts = replace(parts, neighbours=())
    else:
        entries = list(parts.forwards)
        del entries[1 + missing]
        parts = replace(parts, forwards=tuple(entries))
    assert assemble("n1", parts).overlays["a"].peers == {"10.0.1.9": ""}


@pytest.mark.parametrize("change", [{"master": 0}, {"is_up": False}, {"index": 9}])
def test_a_port_that_is_not_whole_is_loose(change: dict[str, int]) -> None:
    parts = records()
    links = [
        replace(record, **change) if record.name == "skt-x" else record  # type: ignore[arg-type]
        for record in parts.links
    ]
    found = assemble("n1", replace(parts, links=tuple(links)))
    assert found.overlays["a"].loose == (PORT,)


# ----------------------------------------------------------------------------------------- gateway


def test_addresses_on_the_way_out_are_the_lowest_free_ones() -> None:
    gateway = gateway_of("172.29.0.0/29")
    assert (gateway.address, gateway.prefix_length) == ("172.29.0.1", 29)
    taken: list[str] = []
    for _ in range(5):
        taken.append(free_address(gateway, taken))
    assert taken == [f"172.29.0.{number}" for number in range(2, 7)]
    assert free_address(gateway, taken[:2] + taken[3:]) == "172.29.0.4"
    with pytest.raises(Retryable, match=r"172\.29\.0\.0/29"):
        free_address(gateway, taken)
    for bad in ("172.29.0.0/31", "172.29.0.1/16", "out"):
        with pytest.raises(Rejected):
            gateway_of(bad)


def test_the_rules_of_the_gateway_name_the_node() -> None:
    rules = gateway_rules("n1", gateway_of("172.29.0.0/16"))
    assert 'ip saddr 172.29.0.0/16 oifname != "skep-gw" masquerade' in rules
    assert rules.startswith("table ip skep-n1-gateway\ndelete table ip skep-n1-gateway\n")
