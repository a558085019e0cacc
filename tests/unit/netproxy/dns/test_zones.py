"""Who finds what."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.netproxy.dns.core import protocol
from skep.netproxy.dns.core.protocol import Listen, whole
from skep.netproxy.dns.core.zones import (
    Names,
    NetworkChange,
    NetworkZone,
    Outcome,
    Record,
    Scope,
    check,
    check_scope,
    merge,
)
from tests.unit.netproxy.dns.support import record, scope, zone


def names_of(*zones: NetworkZone) -> Names:
    names = Names()
    names.change_networks(1, map(whole, zones), (), is_whole=True)
    names.check_invariants()
    return names


def find(names: Names, asker: Scope, name: str) -> tuple[str, ...] | Outcome:
    outcome, entry = names.find(names.put_scope(asker), name)
    assert (entry is not None) == (outcome is Outcome.FOUND)
    return outcome if entry is None else entry.record.addresses


FRONT = zone("front", record("web", "10.0.0.2"), record("tasks.web", "10.0.0.3", "10.0.0.4"))
BACK = zone("back", record("web", "10.1.0.2"), record("db", "10.1.0.5"))
UNKNOWN, FORWARD = Outcome.UNKNOWN, Outcome.FORWARD


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("web", ("10.0.0.2",)),
        ("tasks.web", ("10.0.0.3", "10.0.0.4")),
        ("db", ("10.1.0.5",)),
        ("web.front", ("10.0.0.2",)),
        ("web.back", ("10.1.0.2",)),
        ("tasks.web.front", ("10.0.0.3", "10.0.0.4")),
        ("tasks.web.back", FORWARD),
        ("db.front", FORWARD),
        ("nobody", UNKNOWN),
        ("front", UNKNOWN),
        ("example.org", FORWARD),
        ("web.stack", ("10.0.0.2",)),
        ("db.stack", ("10.1.0.5",)),
        ("web.back.stack", ("10.1.0.2",)),
        ("web.corp.example", ("10.0.0.2",)),
        ("nobody.stack", UNKNOWN),
        ("example.org.stack", UNKNOWN),
        ("stack", UNKNOWN),
        ("corp.example", UNKNOWN),
        ("webstack", UNKNOWN),
        ("xcorp.example", FORWARD),
        ("me", ("10.9.9.9",)),
        ("me.stack", ("10.9.9.9",)),
        ("", FORWARD),
    ],
)
def test_a_name_is_looked_for_in_order(name: str, found: tuple[str, ...] | Outcome) -> None:
    own = (record("me", "10.9.9.9"),)
    asker = scope(
        "s", "front", "back", search=("Stack.", "corp.example", "."), forwards=True, own=own
    )
    assert find(names_of(FRONT, BACK), asker, name) == found
    inside = Scope(
        scope_id="t", networks=asker.networks, search=asker.search, own=own, forwards=False
    )
    # Without a way outside, whatever would go there does not exist.
    assert find(names_of(FRONT, BACK), inside, name) == (UNKNOWN if found is FORWARD else found)


def test_the_first_network_wins_and_what_is_ones_own_comes_before() -> None:
    names = names_of(FRONT, BACK)
    assert find(names, scope("s", "back", "front"), "web") == ("10.1.0.2",)
    own = (record("Web", "10.9.9.9"),)
    assert find(names, scope("s", "back", own=own), "web") == ("10.9.9.9",)


def test_a_scope_sees_its_networks_and_no_other() -> None:
    names = names_of(FRONT, BACK)
    assert find(names, scope("s", "front"), "db") is UNKNOWN
    assert find(names, scope("s", "front"), "db.back") is UNKNOWN
    assert find(names, scope("s", "unheard-of"), "web") is UNKNOWN
    view = names.put_scope(scope("s", "front"))
    assert names.find_address(view, "10.1.0.5") == (UNKNOWN, None)


def test_a_name_without_addresses_is_known() -> None:
    assert find(names_of(zone("net", record("web"))), scope("s", "net"), "web") == ()


def test_records_of_one_name_are_taken_together() -> None:
    both = zone(
        "net", record("API", "10.0.0.1", "10.0.0.1"), record("api.", "10.0.0.2", "10.0.0.1")
    )
    assert find(names_of(both), scope("s", "net"), "api") == ("10.0.0.1", "10.0.0.2")


def test_an_address_has_the_most_particular_of_its_names() -> None:
    net = zone(
        "Net",
        record("web", "10.0.0.2"),
        record("alias", "10.0.0.2", reverse=False),
        record("rr", "10.0.0.3", "10.0.0.4"),
        record("web.1", "10.0.0.3"),
        subnets=("10.0.0.0/24",),
    )
    names = names_of(net)
    view = names.put_scope(scope("s", "Net", forwards=True, own=(record("me", "10.0.0.9"),)))
    found = {n: names.find_address(view, f"10.0.0.{n}") for n in (2, 3, 4, 5, 9)}
    assert found == {
        2: (Outcome.FOUND, "web.net"),
        3: (Outcome.FOUND, "web.1.net"),
        4: (Outcome.FOUND, "rr.net"),
        5: (UNKNOWN, None),
        9: (Outcome.FOUND, "me"),
    }
    assert names.find_address(view, "8.8.8.8") == (FORWARD, None)
    inside = names.put_scope(scope("t", "Net"))
    assert names.find_address(inside, "8.8.8.8") == (UNKNOWN, None)


def firsts(names: Names, asker: Scope, name: str, times: int, is_udp: bool = True) -> list[bytes]:
    view = names.put_scope(asker)
    _, entry = names.find(view, name)
    assert entry is not None
    return [names.turn(view, entry, is_udp)[12:16] for _ in range(times)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_address_comes_first_equally_often(count: int) -> None:
    names = names_of(zone("net", record("web", *(f"10.0.0.{n}" for n in range(count)))))
    # Two askers who take turns, and UDP and TCP in turns: nobody meets but every other address.
    seen: Counter[tuple[str, bool, bytes]] = Counter()
    for _ in range(5 * count):
        for asker in ("a", "b"):
            for is_udp in (True, False):
                [first] = firsts(names, scope(asker, "net"), "web", 1, is_udp)
                seen[asker, is_udp, first] += 1
    assert len(seen) == 4 * count
    assert set(seen.values()) == {5}


def test_those_who_ask_once_are_spread_too() -> None:
    names = names_of(zone("net", record("web", *(f"10.0.0.{n}" for n in range(4)))))
    seen = Counter(firsts(names, scope(f"task-{n}", "net"), "web", 1)[0] for n in range(400))
    assert len(seen) == 4
    assert min(seen.values()) > 60


def test_a_rotation_goes_on_when_scopes_and_records_change() -> None:
    names = names_of(zone("net", record("web", "10.0.0.1", "10.0.0.2")))
    first = firsts(names, scope("s", "net"), "web", 1)
    assert firsts(names, scope("s", "net", forwards=True), "web", 2)[1] == first[0]


def test_rotations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skep.netproxy.dns.core.zones.ROTATION_LIMIT", 3)
    names = names_of(zone("net", *(record(f"s{n}", "10.0.0.1", "10.0.0.2") for n in range(9))))
    for n in range(9):
        firsts(names, scope("s", "net"), f"s{n}", 1)
        assert len(names.views["s"].turns) <= 3


def test_a_change_touches_only_what_changes() -> None:
    many = zone("net", *(record(f"s{n}", f"10.0.{n // 250}.{n % 250}") for n in range(1000)))
    names = names_of(many)
    before = dict(names.zones["net-id"].entries)
    changed = record("s7", "10.0.0.8")
    change = NetworkChange(network_id="net-id", name="net", changed=(changed,), removed=("s9",))
    assert names.change_networks(2, (change,), (), is_whole=False) == 2
    names.check_invariants()
    after = names.zones["net-id"].entries
    assert after["s7"].record == changed
    assert "s9" not in after
    assert all(after[name] is before[name] for name in after if name != "s7")
    # The same as a whole: nothing to do.
    records = tuple(entry.record for entry in after.values())
    again = NetworkChange(network_id="net-id", name="net", changed=records, is_whole=True)
    assert names.change_networks(3, (again,), (), is_whole=True) == 0
    assert names.change_networks(4, (), ("net-id", "no-such"), is_whole=False) == 999
    assert names.version == 4


def test_a_network_may_change_its_name() -> None:
    names = names_of(FRONT)
    change = NetworkChange(network_id="front-id", name="Edge")
    names.change_networks(2, (change,), (), is_whole=False)
    assert find(names, scope("s", "front"), "web.edge") == ("10.0.0.2",)
    assert find(names, scope("s", "front"), "web.front") is UNKNOWN


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (zone("net", record("web", "10.0.0.300")), "network 'net': record 'web': .*10.0.0.300"),
        (zone("net", record("web", "fd00::1")), "record 'web'"),
        (zone("net", subnets=("10.0.0.0/33",)), "network 'net': .*10.0.0.0/33"),
    ],
)
def test_what_is_no_address_is_told_where_and_changes_nothing(bad: NetworkZone, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check(bad)
    names = names_of(zone("net", record("web", "10.0.0.1")))
    with pytest.raises(ValueError):
        names.change_networks(2, (whole(bad),), (), is_whole=True)
    names.check_invariants()
    assert find(names, scope("s", "net"), "web") == ("10.0.0.1",)
    bad_scope = scope("s", own=(record("me", "x"),))
    with pytest.raises(ValueError, match="scope 's': record 'me'"):
        check_scope(bad_scope)


# ----------------------------------------------------------------------------------- differences

RECORDS = st.lists(
    st.builds(
        Record,
        name=st.sampled_from(["web", "WEB", "db", "tasks.web", "api"]),
        addresses=st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])).map(tuple),
        reverse=st.booleans(),
    ),
    max_size=3,
).map(tuple)
WORLDS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.tuples(st.sampled_from(["x", "y"]), RECORDS, st.sampled_from([(), ("10.0.0.0/8",)])),
)


@given(st.lists(WORLDS, min_size=1, max_size=3), st.booleans())
def test_differences_lead_from_any_world_to_any_other(
    worlds: list[dict[str, tuple[str, tuple[Record, ...], tuple[str, ...]]]], whole_each: bool
) -> None:
    names = Names()
    before: dict[str, NetworkZone] = {}
    for version, world in enumerate(worlds):
        after = {
            key: NetworkZone(network_id=key, name=name, records=merge(records), subnets=subnets)
            for key, (name, records, subnets) in world.items()
        }
        changed, removed = protocol.network_changes({} if whole_each else before, after)
        names.change_networks(version, changed, removed, is_whole=whole_each)
        names.check_invariants()
        before = after
        assert names.zones.keys() == after.keys()
        for key, zone_ in names.zones.items():
            held = {name: entry.record for name, entry in zone_.entries.items()}
            assert held == after[key].records
            assert zone_.name == after[key].name
            assert tuple(map(str, zone_.subnets)) == after[key].subnets
        assert protocol.network_changes(before, dict(after)) == ((), ())


def test_the_difference_of_scopes() -> None:
    a, b, c = (Listen(scope=scope(key, "net"), address="127.0.0.1") for key in "abc")
    moved = Listen(scope=scope("b", "net"), address="127.0.0.2")
    before, after = {"a": a, "b": b, "c": c}, {"a": a, "b": moved}
    assert protocol.scope_changes(before, after) == ((moved,), ("c",))
