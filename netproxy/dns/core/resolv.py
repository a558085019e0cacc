"""resolv.conf: what a task is given, and what the node's own says."""

from __future__ import annotations

import re
from typing import NamedTuple

DNS_PORT = 53
# As the C library does (MAXNS): what stands behind the third is not asked.
RESOLVER_LIMIT = 3
_WITH_PORT = re.compile(r"\[(?P<host>[^]]+)\]:(?P<port>[0-9]{1,5})")
_HOST = re.compile(r"[0-9a-fA-F.:]+(%[0-9A-Za-z_.-]+)?")


class Resolver(NamedTuple):
    """Where a name server is."""

    host: str
    port: int


def resolv_conf(address: str, search: tuple[str, ...] = ()) -> str:
    """The text of /etc/resolv.conf of a task whose DNS server is at `address`, port 53.

    `ndots:0` makes resolvers ask for `web` as it is before they append a search domain. With the
    usual 1 they append first, and a name without a dot, which is what services have, would cost a
    query for each domain; some (busybox) would then ask for nothing else, and musl would leave the
    name to the domain's owner. The server understands Skep's own search domains in any case.
    """
    lines = ["# Names of services are answered here; others are asked for outside."]
    lines.append(f"nameserver {address}")
    if search:
        lines.append(f"search {' '.join(search)}")
    lines.append("options ndots:0")
    return "\n".join(lines) + "\n"


def resolvers(text: str) -> tuple[Resolver, ...]:
    """The name servers in a resolv.conf, in order, each once.

    A line that can't be read is passed over, as the C library does. `[address]:port`, which
    OpenBSD allows, is understood too.
    """
    found: dict[Resolver, None] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        match = _WITH_PORT.fullmatch(words[1])
        host, port = (match["host"], int(match["port"])) if match else (words[1], DNS_PORT)
        if _HOST.fullmatch(host) and 0 < port < 65536:
            found[Resolver(host, port)] = None
    return tuple(found)


def usable(found: tuple[Resolver, ...], own: frozenset[tuple[str, int]]) -> tuple[Resolver, ...]:
    """Those to ask: not ourselves, which would go round in a circle, and not too many."""
    return tuple(one for one in found if one not in own)[:RESOLVER_LIMIT]
