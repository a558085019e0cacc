"""Layouts, slots, and the way from what the maps hold to what they should."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.env import Rejected, Retryable
from skep.netproxy.kernel.core import programs, vips
from skep.netproxy.kernel.core.programs import Kind
from skep.netproxy.kernel.core.slots import REST_NS, Slots
from skep.netproxy.kernel.core.vips import Entry, Held, Writes

WEB, API = vips.parse_key(7, "10.0.1.2"), vips.parse_key(7, "10.0.1.3")
ONE, TWO, THREE = (bytes((10, 0, 1, last)) for last in (21, 22, 23))


# ---------------------------------------------------------------------------------- slots


def test_slots_rest_before_they_are_taken_again() -> None:
    slots = Slots(4)
    assert slots.take(2, 0) == 0
    assert slots.take(2, 0) == 2
    slots.give(0, 2, 100)
    with pytest.raises(Retryable, match=r"no 1 free places side by side \(0 are free, 2 will be"):
        slots.take(1, 99 + REST_NS)
    assert slots.take(2, 100 + REST_NS) == 0


def test_slots_side_by_side_become_one_range_again() -> None:
    slots = Slots(6, used=[(0, 2), (2, 2), (4, 2)])
    for first in (0, 4, 2):
        slots.give(first, 2, 0)
    assert slots.take(6, REST_NS) == 0


@given(st.lists(st.integers(0, 9), max_size=60))
def test_no_slot_is_taken_twice(draws: list[int]) -> None:
    slots, taken, now = Slots(40), list[tuple[int, int]](), 0
    for draw in draws:
        now += REST_NS // 3
        if draw < 3 and taken:
            first, count = taken.pop(draw % len(taken))
            slots.give(first, count, now)
        else:
            try:
                first = slots.take(draw, now)
            except Retryable:
                continue
            wanted = set(range(first, first + draw))
            assert max(wanted, default=0) < 40
            assert not any(wanted & set(range(f, f + c)) for f, c in taken)
            if draw:
                taken.append((first, draw))
        slots.check_invariants()


# --------------------------------------------------------------------------------- parsing


def test_a_scope_is_read_as_it_was_written() -> None:
    networks = ((7, "10.0.1.0/24"), (8, "10.1.0.0/16"))
    value = vips.parse_scope(4711, networks)
    assert len(value) == programs.MAPS["skep_scopes"].value_bytes
    assert vips.read_scope(value) == (4711, networks)


@pytest.mark.parametrize(
    ("networks", "why"),
    [
        (tuple((n, f"10.0.{n}.0/24") for n in range(1, 18)), "on 16 networks with VIPs, not 17"),
        (((7, "10.0.1.5/24"),), "'10.0.1.5/24' is not an IPv4 network: .*host bits"),
        (((7, "0.0.0.0/0"),), "would hold every address"),
        (((0, "10.0.1.0/24"),), "network number 0"),
        (((7, "10.0.0.0/16"), (8, "10.0.1.0/24")), "10.0.0.0/16 and 10.0.1.0/24 .* overlap"),
    ],
)
def test_a_wrong_scope_is_refused(networks: vips.Networks, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        vips.parse_scope(4711, networks)


def test_wrong_addresses_and_numbers_are_refused() -> None:
    with pytest.raises(Rejected, match="'web' is not an IPv4 address"):
        vips.parse_key(7, "web")
    with pytest.raises(Rejected, match="network number 4294967296"):
        vips.parse_key(2**32, "10.0.1.2")
    with pytest.raises(Rejected, match="0 is not the cookie"):
        vips.parse_cookie(0)


def test_backends_are_sorted_and_there_once() -> None:
    assert vips.parse_backends(("10.0.1.22", "10.0.1.21", "10.0.1.22")) == (ONE, TWO)


# -------------------------------------------------------------------------------- planning


@dataclass
class Maps:
    """The maps, as Python has them; writes may stop anywhere, as a process may."""

    slots: dict[int, bytes] = field(default_factory=dict)
    members: set[bytes] = field(default_factory=set)
    counters: set[bytes] = field(default_factory=set)
    services: dict[bytes, bytes] = field(default_factory=dict)

    def held(self) -> Held:
        entries = {}
        for key, value in self.services.items():
            first, count = vips.read_place(value)
            contents = b"".join(self.slots[first + n] for n in range(count))
            entries[key] = Entry(first, count, vips.read_slots(key, contents))
        return Held(entries, set(self.members), set(self.counters))

    def write(self, writes: Writes, steps: int = 7) -> None:
        size = vips.SLOT_BYTES
        if steps > 0:
            for first, contents in writes.slots:
                for n in range(len(contents) // size):
                    self.slots[first + n] = contents[n * size : (n + 1) * size]
        if steps > 1:
            self.members -= set(writes.members_gone)
        if steps > 2:
            self.members |= {member for member, _ in writes.members}
        if steps > 3:
            self.counters |= {key for key, _ in writes.counters}
        if steps > 4:
            self.services.update(writes.services)
        if steps > 5:
            for key in writes.services_gone:
                del self.services[key]
        if steps > 6:
            self.counters -= set(writes.counters_gone)


def test_an_update_takes_fresh_slots_and_gives_the_old_ones_back() -> None:
    maps, slots = Maps(), Slots(100)
    maps.write(vips.plan(maps.held(), {WEB: (ONE, TWO)}, slots, 1))
    writes = vips.plan(maps.held(), {WEB: (TWO, THREE)}, slots, 2)
    assert [first for first, _ in writes.slots] == [2]
    assert writes.members_gone == (WEB + ONE,)
    assert [member for member, _ in writes.members] == [WEB + THREE]
    assert writes.counters == ()
    assert writes.slots_freed == ((0, 2),)
    ((_, value),) = writes.services
    assert (vips.read_place(value), vips.read_generation(value)) == ((2, 2), 2)


def test_what_is_as_it_should_be_is_not_written() -> None:
    maps, slots = Maps(), Slots(100)
    wanted: dict[bytes, tuple[bytes, ...] | None] = {WEB: (ONE,), API: ()}
    maps.write(vips.plan(maps.held(), wanted, slots, 1))
    assert vips.plan(maps.held(), wanted, slots, 2) == Writes()


def test_a_service_that_goes_leaves_nothing() -> None:
    maps, slots = Maps(), Slots(100)
    maps.write(vips.plan(maps.held(), {WEB: (ONE,), API: (TWO,)}, slots, 1))
    wanted = vips.with_gone({API: (TWO,)}, maps.held())
    writes = vips.plan(maps.held(), wanted, slots, 2)
    maps.write(writes)
    assert writes.slots_freed == ((0, 1),)
    assert (set(maps.services), maps.members, maps.counters) == ({API}, {API + TWO}, {API})


backends = st.sets(st.sampled_from([ONE, TWO, THREE])).map(lambda some: tuple(sorted(some)))
wishes = st.dictionaries(st.sampled_from([WEB, API]), backends)


@given(st.lists(st.tuples(wishes, st.integers(0, 7)), max_size=8), wishes)
def test_a_pass_puts_right_whatever_broken_off_passes_have_left(
    broken: list[tuple[dict[bytes, tuple[bytes, ...]], int]],
    last: dict[bytes, tuple[bytes, ...]],
) -> None:
    maps = Maps()
    for now, (wanted, steps) in enumerate([*broken, (last, 7)]):
        # As a new process would: from what the maps hold.
        places = [vips.read_place(value) for value in maps.services.values()]
        held = maps.held()
        writes = vips.plan(held, vips.with_gone(wanted, held), Slots(100, places), now)
        maps.write(writes, steps)
    held = maps.held()
    assert {key: entry.backends for key, entry in held.services.items()} == last
    assert held.counters == last.keys()
    assert held.members == {key + one for key, several in last.items() for one in several}


# -------------------------------------------------------------------------------- programs


def test_the_layouts_fit_the_maps() -> None:
    specs = programs.MAPS
    held = Held({}, set(), set())
    writes = vips.plan(held, {WEB: (ONE,)}, Slots(10), 1)
    assert len(writes.slots[0][1]) == vips.SLOT_BYTES == specs["skep_backends"].value_bytes
    for name, entries in (
        ("skep_members", writes.members),
        ("skep_counters", writes.counters),
        ("skep_services", writes.services),
    ):
        ((key, value),) = entries
        assert (len(key), len(value)) == (specs[name].key_bytes, specs[name].value_bytes), name


def test_names_fit_and_are_known_again() -> None:
    for kind in Kind:
        assert len(programs.name(kind)) <= 15
        assert programs.is_ours(programs.name(kind))
    assert not programs.is_ours("skep_probe")
    assert not programs.is_ours("sd_devices")
    assert programs.map_names(Kind.SENDMSG4) == programs.MAPS.keys()
    assert all(len(name) <= 15 for name in programs.MAPS)
