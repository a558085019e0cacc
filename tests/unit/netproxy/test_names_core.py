"""What names stand for: by service, network and data plane."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from skep.domain.base import NetworkId, NodeId, ServiceId, TaskId, replace
from skep.domain.endpoints import Endpoint, NetworkEntry, NetworkPlace, ServiceEndpoints
from skep.domain.objects import Attachment, Vip
from skep.domain.spec import EndpointMode
from skep.netproxy.core.forms import KernelForms, RelayForms
from skep.netproxy.core.names import Names, lookup, meaning, whereabouts
from skep.netproxy.core.steps import Stepped
from skep.netproxy.core.world import World
from skep.netproxy.dns.core.protocol import network_changes
from skep.netproxy.dns.core.zones import Names as ZoneNames
from skep.netproxy.dns.core.zones import NetworkZone

BACK = NetworkEntry(network_id=NetworkId("back"), name="back", vni=4097, subnet="10.0.1.0/24")
FRONT = NetworkEntry(network_id=NetworkId("front"), name="front", vni=4098, subnet="10.0.1.0/24")
INGRESS = NetworkEntry(
    network_id=NetworkId("ingress"),
    name="ingress",
    vni=4099,
    subnet="10.255.0.0/16",
    is_ingress=True,
)


def task(service: str, number: int, **on: str) -> Endpoint:
    return Endpoint(
        task_id=TaskId(f"{service}{number}"),
        node_id=NodeId("n1"),
        address=f"127.32.16.{number}",
        attachments=tuple(
            Attachment(network_id=NetworkId(network), address=address)
            for network, address in on.items()
        ),
        name=f"{service}.{number}",
    )


def service(name: str, index: int, *endpoints: Endpoint, **on: tuple[str, ...]) -> ServiceEndpoints:
    """A service on networks (with its aliases there); its VIP is 10.0.1.(100 + index) on each."""
    return ServiceEndpoints(
        service_id=ServiceId(name),
        name=name,
        endpoints=endpoints,
        networks=tuple(
            NetworkPlace(network_id=NetworkId(n), aliases=aliases) for n, aliases in on.items()
        ),
        vips=tuple(
            Vip(network_id=NetworkId(n), index=index, address=f"10.0.1.{100 + index}") for n in on
        ),
    )


def world(*services: ServiceEndpoints) -> World:
    return World(
        version=1,
        services={each.service_id: each for each in services},
        networks={each.network_id: each for each in (BACK, FRONT, INGRESS)},
    )


WEB = service(
    "web",
    1,
    task("web", 1, front="10.0.1.11", ingress="10.255.0.9"),
    task("web", 2, front="10.0.1.12"),
    front=("www",),
)
DB = service("db", 2, task("db", 1, back="10.0.1.21"), back=(), front=("store",))


def said(
    world: World, network: str, name: str, *, in_kernel: bool = True
) -> tuple[str, ...] | None:
    forms = KernelForms() if in_kernel else RelayForms(32, 4)
    found = lookup(Names(forms).zones(world), (NetworkId(network),), name)
    return None if found is None else found[1].addresses


def test_a_name_is_the_virtual_address_and_tasks_are_the_tasks() -> None:
    now = world(WEB, DB)
    assert said(now, "front", "web") == ("10.0.1.101",)
    assert said(now, "front", "WEB") == ("10.0.1.101",)
    assert said(now, "front", "www") == ("10.0.1.101",)
    assert said(now, "front", "tasks.web") == ("10.0.1.11", "10.0.1.12")
    assert said(now, "front", "tasks.www") == ("10.0.1.11", "10.0.1.12")
    assert said(now, "front", "web.2") == ("10.0.1.12",)


def test_names_are_their_networks_own() -> None:
    now = world(WEB, DB)
    assert said(now, "back", "web") is None
    assert said(now, "back", "store") is None
    assert said(now, "front", "store") == ("10.0.1.102",)
    assert said(now, "back", "db") == ("10.0.1.102",)
    # None of its tasks is on that network, and yet the name is known there.
    assert said(now, "front", "tasks.db") == ()
    assert NetworkId("ingress") not in Names(KernelForms()).zones(now)


def test_in_the_relay_plane_the_same_names_are_this_node_s_addresses() -> None:
    now = world(WEB)
    assert said(now, "front", "web", in_kernel=False) == ("127.36.0.1",)
    assert said(now, "front", "tasks.web", in_kernel=False) == ("127.32.16.1", "127.32.16.2")


def test_without_a_virtual_address_a_name_is_the_tasks() -> None:
    direct = replace(WEB, endpoint_mode=EndpointMode.DNSRR, vips=())
    assert said(world(direct), "front", "web") == ("10.0.1.11", "10.0.1.12")
    assert said(world(replace(direct, endpoints=())), "front", "web") == ()
    # One that has no address yet is known all the same, so that it isn't looked for elsewhere.
    assert said(world(replace(WEB, vips=())), "front", "web") == ()


def test_who_shares_an_alias_shares_its_answers_but_a_name_comes_first() -> None:
    other = service("api", 3, front=("www", "web"))
    now = world(WEB, other)
    assert set(said(now, "front", "www") or ()) == {"10.0.1.101", "10.0.1.103"}
    assert said(now, "front", "web") == ("10.0.1.101",)


def test_what_has_not_changed_is_not_made_anew() -> None:
    names = Names(KernelForms())
    before = names.zones(world(WEB, DB))
    after = names.zones(world(WEB, replace(DB, endpoints=())))
    assert after[NetworkId("front")] is before[NetworkId("front")]
    old, new = before[NetworkId("back")], after[NetworkId("back")]
    assert new.records["db"] is old.records["db"]
    assert isinstance(new.records, Stepped)
    assert new.records.touched == {"tasks.db", "db.1"}


# Of each service: on which networks it is, its aliases there, and its healthy tasks.
WORDS = st.dictionaries(
    st.sampled_from(["web", "Db", "api"]),
    st.tuples(
        st.sets(st.sampled_from(["front", "back"])),
        st.sets(st.sampled_from(["web", "WWW", "tasks.api", "api.1"])),
        st.sets(st.integers(1, 3)),
        st.booleans(),
    ),
)
Said = dict[str, tuple[set[str], set[str], set[int], bool]]


@given(st.lists(st.tuples(st.booleans(), WORDS), max_size=8))
def test_what_is_made_step_by_step_is_what_would_be_made_at_once(
    steps: list[tuple[bool, Said]],
) -> None:
    names, told = Names(KernelForms()), ZoneNames()
    asked: dict[str, ServiceEndpoints] = {}
    held: dict[str, NetworkZone] = {}
    for is_on_back, said in steps:
        services = []
        for name, (on, aliases, tasks, is_direct) in sorted(said.items()):
            made = service(
                name,
                len(name),
                *(task(name, n, front=f"10.0.1.{n}", back=f"10.0.2.{n}") for n in sorted(tasks)),
                **{network: tuple(sorted(aliases)) for network in sorted(on)},
            )
            made = replace(made, endpoint_mode=EndpointMode.DNSRR) if is_direct else made
            services.append(asked[name] if asked.get(name) == made else made)
        asked = {each.name: each for each in services}
        now = world(*services)
        if not is_on_back:
            networks = {FRONT.network_id: FRONT, INGRESS.network_id: INGRESS}
            now = dataclasses.replace(now, networks=networks)
        zones = names.zones(now)
        names.check_invariants()
        at_once = Names(KernelForms()).zones(now)
        assert zones.keys() == at_once.keys()
        assert all(zones[key].records == at_once[key].records for key in zones)
        # Who is told only of what changed knows the same.
        zones_by_id = {str(key): zone for key, zone in zones.items()}
        changed, removed = network_changes(held, zones_by_id)
        told.change_networks(1, changed, removed, is_whole=False)
        for key, zone in zones.items():
            entries = told.zones[key].entries
            assert {name: entry.record for name, entry in entries.items()} == zone.records
        held = zones_by_id


def test_a_person_is_told_what_a_name_means_and_where_else_it_is_known() -> None:
    now = world(WEB, DB)
    front = (NetworkId("front"),)
    assert meaning(now, front, "www") == (WEB, True)
    assert meaning(now, front, "tasks.web") == (WEB, False)
    assert meaning(now, front, "web.1") == (WEB, False)
    assert meaning(now, (NetworkId("back"),), "web") is None
    impostor = service("a", 9, front=("web",))
    assert meaning(world(impostor, WEB), front, "web") == (WEB, True)
    assert "service web on network front" in whereabouts(now, "web")
    assert "on no network" in whereabouts(world(service("lone", 4)), "lone")
    assert "no service" in whereabouts(now, "nobody")
