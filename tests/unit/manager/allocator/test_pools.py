"""Task addresses and published ports: never twice, kept where they can be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.domain.base import replace
from skep.domain.objects import Service
from skep.domain.spec import Port, PortMode, Protocol
from skep.domain.states import IllegalMove, TaskState
from skep.manager.allocator.core.pools import (
    DYNAMIC_PORT_FIRST,
    DYNAMIC_PORT_LAST,
    AddressPool,
    ports_for,
)
from skep.manager.allocator.core.tasks import allocated, waiting
from tests.unit.manager.build import service, service_spec, task

# ------------------------------------------------------------------------------- addresses


def test_addresses_lie_above_those_of_nodes_and_skip_what_looks_like_a_network() -> None:
    pool = AddressPool(64)
    taken = [pool.take(f"t{n}") for n in range(255)]
    assert taken[0] == "127.64.16.1"
    assert taken[253] == "127.64.16.254"
    assert taken[254] == "127.64.17.1"


def test_a_pool_goes_on_above_what_is_held_or_where_the_last_one_stopped() -> None:
    pool = AddressPool(0)
    pool.hold("127.0.16.9", "t1")
    assert pool.take("t2") == "127.0.16.10"
    again = AddressPool(0, pool.cursor)
    again.hold("127.0.16.200", "t3")
    assert again.take("t4") == "127.0.16.11"


def test_an_address_given_back_is_the_last_to_be_given_out_again() -> None:
    pool = AddressPool(0)
    first = pool.take("t1")
    assert first is not None
    pool = AddressPool(0, pool.cursor)
    others = [pool.take(f"x{n}") for n in range(240 * 254 - 1)]
    assert first not in others
    assert pool.take("t2") == first
    assert pool.take("t3") is None


def test_two_rows_with_one_address_are_our_own_error() -> None:
    pool = AddressPool(0)
    pool.hold("127.0.16.1", "t1")
    pool.hold("127.0.16.1", "t1")
    with pytest.raises(AssertionError, match="task=t1 and task=t2"):
        pool.hold("127.0.16.1", "t2")


@settings(deadline=None)
@given(st.lists(st.sampled_from(("take", "give back", "next pass")), max_size=40))
def test_nobody_ever_shares_an_address(steps: list[str]) -> None:
    held: dict[str, str] = {}
    pool = AddressPool(0)
    for number, step in enumerate(steps):
        if step == "take":
            address = pool.take(f"t{number}")
            assert address is not None
            assert address not in held.values()
            held[f"t{number}"] = address
        else:
            if step == "give back" and held:
                held.pop(next(iter(held)))
            pool = AddressPool(0, pool.cursor)
            for owner, address in held.items():
                pool.hold(address, owner)
        assert len(pool) == len(held)


def test_a_new_task_gets_its_address_and_may_be_placed() -> None:
    told = waiting(task(), "why not")
    assert told is not None
    given_one = allocated(told, "127.0.16.1", (), 5)
    assert given_one.status.error == ""
    assert (given_one.address, given_one.status.state, given_one.status.since_ns) == (
        "127.0.16.1",
        TaskState.PENDING,
        5,
    )


def test_a_task_that_waits_says_so_once() -> None:
    told = waiting(task(), "no address")
    assert told is not None
    assert told.status.state is TaskState.NEW
    assert told.status.error == "no address"
    assert waiting(told, "no address") is None


def test_only_new_tasks_get_addresses() -> None:
    with pytest.raises(IllegalMove):
        allocated(task(state=TaskState.PENDING), "127.0.16.1", (), 5)


# ----------------------------------------------------------------------------------- ports


def web(*asked: Port, has: tuple[Port, ...] | None = None, id_: str = "s1") -> Service:
    return service(id_, id_, spec=service_spec(id_, ports=asked), ports=has)


def numbers(of: Service, *others: Service) -> list[int | None]:
    return [port.published for port in ports_for(of, [of, *others])]


def test_ports_that_are_named_stay_and_the_others_get_the_lowest_free() -> None:
    assert numbers(web(Port(target=80, published=8080), Port(target=81), Port(target=82))) == [
        8080,
        DYNAMIC_PORT_FIRST,
        DYNAMIC_PORT_FIRST + 1,
    ]


def test_a_dynamic_port_keeps_its_number_whatever_comes_beside_it() -> None:
    has = (Port(target=81, published=30007),)
    assert numbers(web(Port(target=80), Port(target=81), has=has)) == [DYNAMIC_PORT_FIRST, 30007]


def test_a_dynamic_port_gives_way_to_one_that_is_asked_for_by_number() -> None:
    has = (Port(target=81, published=30000),)
    own = web(Port(target=80, published=30000), Port(target=81), has=has)
    assert numbers(own) == [30000, 30001]
    other = web(Port(target=80, published=30000), id_="s2")
    assert numbers(web(Port(target=81), has=has), other) == [30001]


def test_numbers_of_other_services_are_taken_given_or_asked_for() -> None:
    asks = web(Port(target=1, published=30000), id_="s2")
    has = web(Port(target=1), has=(Port(target=1, published=30001),), id_="s3")
    assert numbers(web(Port(target=80)), asks, has) == [30002]


def test_when_no_port_is_left_it_says_so() -> None:
    count = DYNAMIC_PORT_LAST - DYNAMIC_PORT_FIRST + 1
    many = tuple(
        Port(target=1, published=DYNAMIC_PORT_FIRST + n, name=str(n)) for n in range(count)
    )
    with pytest.raises(LookupError, match="no port from 30000 to 32767 is free"):
        numbers(web(Port(target=80)), web(*many, id_="s2"))


def test_what_is_filled_in_once_is_stable() -> None:
    first = web(Port(target=80), Port(target=81, name="admin"))
    filled = replace(first, ports=ports_for(first, [first]))
    assert ports_for(filled, [filled]) == filled.ports


@pytest.mark.parametrize("fixed", [(), (Port(target=80, published=30_005),)])
def test_ports_that_are_alike_keep_their_numbers_each(fixed: tuple[Port, ...]) -> None:
    alike = web(*fixed, Port(target=80), Port(target=80))
    filled = replace(alike, ports=ports_for(alike, [alike]))
    assert numbers(filled)[len(fixed) :] == [30_000, 30_001]
    assert ports_for(filled, [filled]) == filled.ports


def host(published: int | None = None) -> Port:
    return Port(target=80, published=published, mode=PortMode.HOST)


def test_services_may_share_a_host_port_that_both_ask_for() -> None:
    first, second = web(host(8080)), web(host(8080), id_="s2")
    assert numbers(first, second) == numbers(second, first) == [8080]


def test_a_dynamic_host_port_gets_a_number_that_nobody_else_has() -> None:
    fixed = web(host(30_000), id_="s2")
    given = web(host(), has=(host(30_001),), id_="s3")
    assert numbers(web(host()), fixed, given) == [30_002]
    assert numbers(web(Port(target=80)), fixed, given) == [30_002]


def test_a_dynamic_host_port_keeps_its_number_beside_an_ingress_port_of_the_same_target() -> None:
    both = web(host(), Port(target=80))
    filled = replace(both, ports=ports_for(both, [both]))
    assert numbers(filled) == [30_000, 30_001]
    assert numbers(replace(filled, spec=web(Port(target=80), host()).spec)) == [30_001, 30_000]


def test_tcp_and_udp_have_numbers_of_their_own() -> None:
    udp = Port(target=53, protocol=Protocol.UDP)
    assert numbers(web(udp, Port(target=53))) == [30_000, 30_000]
    other = web(Port(target=53), has=(Port(target=53, published=30_000),), id_="s2")
    assert numbers(web(udp, replace(udp, target=54)), other) == [30_000, 30_001]
    both = web(Port(target=53, published=30_000), replace(udp, published=30_000), id_="s2")
    assert numbers(web(udp), both) == [30_001]
