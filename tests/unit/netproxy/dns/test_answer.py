"""From query to answer."""

from __future__ import annotations

import pytest

from skep.netproxy.dns.core.answer import REFUSED, Answerer, reversed_address
from skep.netproxy.dns.core.protocol import whole
from skep.netproxy.dns.core.wire import Query, Rcode
from skep.netproxy.dns.core.zones import Names
from tests.unit.netproxy.dns.support import (
    AAAA,
    ANY,
    PTR,
    A,
    Message,
    query,
    read,
    record,
    scope,
    zone,
)

ZONE = zone(
    "net",
    record("web", "10.0.0.2"),
    record("empty"),
    record("x" * 63 + "." + "y" * 63, "10.0.0.7"),
    subnets=("10.0.0.0/24",),
)
LONG_NAME = "n" * 63 + "." + "m" * 63 + "." + "o" * 63


def respond(data: bytes, *, network_name: str = "net", is_udp: bool = True) -> Message | Query:
    names = Names()
    names.change_networks(1, (whole(ZONE),), (), is_whole=True)
    names.zones["net-id"].name = network_name
    view = names.put_scope(scope("s", "net", forwards=True))
    answers = Answerer(names)
    answer = answers.respond(view, data, is_udp=is_udp)
    assert answer is not None
    assert answers.counts.total() == view.queries == 1
    return answer if isinstance(answer, Query) else read(answer)


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "values"),
    [
        ("web", A, Rcode.NOERROR, ["10.0.0.2"]),
        ("web", ANY, Rcode.NOERROR, ["10.0.0.2"]),
        ("WeB.nEt", A, Rcode.NOERROR, ["10.0.0.2"]),
        ("web", AAAA, Rcode.NOERROR, []),
        ("web", 15, Rcode.NOERROR, []),
        ("web", 65, Rcode.NOERROR, []),
        ("web", PTR, Rcode.NOERROR, []),
        ("empty", A, Rcode.NOERROR, []),
        ("nobody", A, Rcode.NXDOMAIN, []),
        ("nobody", AAAA, Rcode.NXDOMAIN, []),
        ("2.0.0.10.in-addr.arpa", PTR, Rcode.NOERROR, ["web.net"]),
        ("3.0.0.10.IN-ADDR.ARPA", PTR, Rcode.NXDOMAIN, []),
    ],
)
def test_what_is_ours_is_answered_with_authority(
    name: str, kind: int, rcode: Rcode, values: list[str]
) -> None:
    message = respond(query(name, kind))
    assert isinstance(message, Message)
    assert message.question == (name, kind, 1)
    assert (message.rcode, message.is_authoritative) == (rcode, True)
    assert [value for _, _, ttl, value in message.answers if ttl == 0] == values


@pytest.mark.parametrize(
    ("name", "kind"),
    [("example.org", A), ("1.0.168.192.in-addr.arpa", PTR), ("x.ip6.arpa", PTR), ("", 2)],
)
def test_what_is_not_is_forwarded(name: str, kind: int) -> None:
    assert isinstance(respond(query(name, kind)), Query)


def test_a_name_that_has_no_room_in_dns_is_left_out() -> None:
    reverse = query("7.0.0.10.in-addr.arpa", PTR)
    message = respond(reverse, network_name=LONG_NAME)
    assert isinstance(message, Message)
    assert (message.rcode, message.answers) == (Rcode.NOERROR, ())


def test_bad_queries_are_counted_apart() -> None:
    names = Names()
    answers = Answerer(names)
    view = names.put_scope(scope("s"))
    assert answers.respond(view, b"x", is_udp=True) is None
    assert answers.counts == {REFUSED: 1}


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4"),
        ("0.0.0.10.in-addr.arpa", "10.0.0.0"),
        ("3.2.1.in-addr.arpa", None),
        ("5.4.3.2.1.in-addr.arpa", None),
        ("256.3.2.1.in-addr.arpa", None),
        ("04.3.2.1.in-addr.arpa", None),
        ("x.3.2.1.in-addr.arpa", None),
        ("².3.2.1.in-addr.arpa", None),
        ("-1.3.2.1.in-addr.arpa", None),
        (".in-addr.arpa", None),
        ("in-addr.arpa", None),
        ("4.3.2.1", None),
    ],
)
def test_the_address_in_a_reverse_name(name: str, address: str | None) -> None:
    assert reversed_address(name) == address
