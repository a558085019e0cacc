"""resolv.conf, both ways."""

from __future__ import annotations

import pytest

from skep.netproxy.dns.core.resolv import Resolver, resolv_conf, resolvers, usable


def test_what_a_task_is_given() -> None:
    assert resolv_conf("127.0.0.11", ("stack", "corp.example")) == (
        "# Names of services are answered here; others are asked for outside.\n"
        "nameserver 127.0.0.11\n"
        "search stack corp.example\n"
        "options ndots:0\n"
    )
    assert "search" not in resolv_conf("127.0.0.11")
    assert resolvers(resolv_conf("127.0.0.11")) == (Resolver("127.0.0.11", 53),)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 10.0.0.1\nnameserver\t10.0.0.2 \n", [("10.0.0.1", 53), ("10.0.0.2", 53)]),
        ("nameserver fd00::1\nnameserver fe80::1%eth0\n", [("fd00::1", 53), ("fe80::1%eth0", 53)]),
        ("nameserver [10.0.0.1]:5353\n", [("10.0.0.1", 5353)]),
        ("nameserver 10.0.0.1\nnameserver 10.0.0.1\n", [("10.0.0.1", 53)]),
        ("# nameserver 10.0.0.1\n; nameserver 10.0.0.1\nsearch x\nnameserver\n", []),
        ("nameserver [10.0.0.1]:99999\nnameserver ns.example\nnameserver [x]:1\n", []),
        ("", []),
    ],
)
def test_what_the_node_has(text: str, found: list[tuple[str, int]]) -> None:
    assert list(resolvers(text)) == found


def test_we_ask_neither_ourselves_nor_too_many() -> None:
    found = tuple(Resolver(f"10.0.0.{n}", 53) for n in range(6))
    own = frozenset({("10.0.0.1", 53), ("10.0.0.2", 5300)})
    assert usable(found, own) == (found[0], found[2], found[3])
