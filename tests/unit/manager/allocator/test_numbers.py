"""Numbers, addresses and ranges, each given out once, and the longest at rest first."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.manager.allocator.core.numbers import (
    HostAddresses,
    Numbers,
    Subnets,
    address_number,
    address_text,
    do_overlap,
    span_of,
)


@given(st.integers(0, 2**32 - 1))
def test_addresses_are_numbers(number: int) -> None:
    assert address_text(number) == str(ipaddress.IPv4Address(number))
    assert address_number(address_text(number)) == number


@given(st.integers(0, 2**32 - 1), st.integers(8, 29), st.integers(0, 2**32 - 1))
def test_ranges_are_what_python_says_they_are(number: int, prefix: int, other: int) -> None:
    net = ipaddress.IPv4Network((number, prefix), strict=False)
    assert span_of(str(net)) == (int(net[0]), int(net[-1]))
    twin = ipaddress.IPv4Network((other, 12), strict=False)
    assert do_overlap(str(net), str(twin)) == net.overlaps(twin)


def test_numbers_go_round_and_end() -> None:
    numbers = Numbers(5, 7)
    assert [numbers.take() for _ in range(4)] == [5, 6, 7, None]
    again = Numbers(5, 7, numbers.cursor)
    again.hold(6, "a")
    assert [again.take() for _ in range(3)] == [5, 7, None]
    with pytest.raises(AssertionError, match="number=6 of b is another's too"):
        again.hold(6, "b")


def test_numbers_go_on_above_what_is_held_unless_they_are_told() -> None:
    numbers = Numbers(1, 100)
    numbers.hold(50, "a")
    assert numbers.take() == 51
    told = Numbers(1, 100, 7)
    told.hold(50, "a")
    assert told.take() == 7


def test_a_network_gives_all_but_its_ends_and_its_gateway() -> None:
    hosts = HostAddresses("10.0.0.0/29", "10.0.0.3")
    assert hosts.size == 5
    taken = []
    while not hosts.is_full:
        taken.append(hosts.take("t"))
    assert taken == [f"10.0.0.{n}" for n in (1, 2, 4, 5, 6)]


def test_an_address_given_back_is_the_last_to_be_given_out_again() -> None:
    hosts = HostAddresses("10.0.0.0/24", "10.0.0.1")
    first = hosts.take("t1")
    again = HostAddresses("10.0.0.0/24", "10.0.0.1", hosts.cursor)
    others = [again.take(f"x{n}") for n in range(252)]
    assert first not in others
    assert (again.take("t2"), again.is_full) == (first, True)


def test_two_owners_of_one_address_are_our_own_error() -> None:
    hosts = HostAddresses("10.0.0.0/24", "10.0.0.1")
    hosts.hold("10.0.0.9", "a")
    hosts.hold("10.0.0.9", "a")
    with pytest.raises(AssertionError, match=r"10\.0\.0\.9 of a and b"):
        hosts.hold("10.0.0.9", "b")
    assert hosts.take("c") == "10.0.0.10"


def test_ranges_come_from_one_pool_after_the_other() -> None:
    subnets = Subnets(("10.0.0.0/30", "10.8.0.0/23", "192.168.0.0/24"))
    assert [subnets.take(24) for _ in range(4)] == [
        "10.8.0.0/24",
        "10.8.1.0/24",
        "192.168.0.0/24",
        None,
    ]


def test_what_others_have_or_ask_for_is_passed_over() -> None:
    subnets = Subnets(("10.0.0.0/8",))
    subnets.hold("10.0.0.0/9", is_asked=True)
    subnets.hold("10.128.0.64/26", is_asked=True)
    assert subnets.take(24) == "10.128.1.0/24"
    assert subnets.take(16) == "10.129.0.0/16"


def test_a_range_rests_before_it_is_given_again() -> None:
    subnets = Subnets(("10.0.0.0/22",))
    first = subnets.take(24)
    assert first == "10.0.0.0/24"
    again = Subnets(("10.0.0.0/22",), subnets.cursor)
    assert [again.take(24) for _ in range(5)] == [
        "10.0.1.0/24",
        "10.0.2.0/24",
        "10.0.3.0/24",
        first,
        None,
    ]


def test_a_new_leader_goes_on_above_what_was_given_out() -> None:
    subnets = Subnets(("10.0.0.0/8",))
    subnets.hold("10.0.4.0/24", is_asked=False)
    subnets.hold("10.200.0.0/16", is_asked=True)
    assert subnets.take(24) == "10.0.5.0/24"


def test_a_range_is_free_if_it_is_in_a_pool_and_nobodys() -> None:
    subnets = Subnets(("10.0.0.0/8",))
    assert subnets.is_free("10.255.0.0/16")
    assert not subnets.is_free("11.0.0.0/16")
    subnets.hold("10.255.7.0/24", is_asked=True)
    assert not subnets.is_free("10.255.0.0/16")


@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(24, 28)), max_size=12),
    st.integers(22, 28),
)
def test_what_is_given_overlaps_with_nothing(held: list[tuple[int, int]], prefix: int) -> None:
    subnets = Subnets(("10.0.0.0/22",))
    nets = []
    for place, width in held:
        net = ipaddress.IPv4Network((address_number("10.0.0.0") + place * 64, width), strict=False)
        subnets.hold(str(net), is_asked=bool(place % 2))
        nets.append(net)
    while (text := subnets.take(prefix)) is not None:
        taken = ipaddress.IPv4Network(text)
        assert taken.subnet_of(ipaddress.IPv4Network("10.0.0.0/22"))
        assert not any(taken.overlaps(net) for net in nets)
        nets.append(taken)
    free = [
        net
        for net in ipaddress.IPv4Network("10.0.0.0/22").subnets(new_prefix=prefix)
        if not any(net.overlaps(other) for other in nets)
    ]
    assert not free
