"""What libnftables says is in a table: its JSON, read into something that can be asked.

Anything in it that isn't as we write it makes the caller give up on the table and make it anew, so
the readers here answer None, or raise Unfamiliar, rather than guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec


class Unfamiliar(Exception):
    """The table holds something that these releases of Skep don't write."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One table: by chain, by map or set, and by counter."""

    rules: Mapping[str, list[Any]]
    """Chain to the expressions of its rules; a chain without rules is here too."""
    elements: Mapping[str, list[Any]]
    counters: Mapping[str, tuple[int, int]]
    """Packets and bytes."""
    base_chains: frozenset[str] = frozenset()
    """Those that hang on a hook of the kernel's."""

    def base_rule_count(self) -> int:
        """How many rules stand in the base chains."""
        return sum(len(self.rules[chain]) for chain in self.base_chains)


def read_listing(text: str) -> Listing:
    """A listed table in libnftables' JSON. Raises msgspec.DecodeError, KeyError for other JSON."""
    rules: dict[str, list[Any]] = {}
    elements: dict[str, list[Any]] = {}
    counters: dict[str, tuple[int, int]] = {}
    base_chains = set()
    for kind, body in _items(text):
        if kind == "chain":
            rules.setdefault(body["name"], [])
            if "hook" in body:
                base_chains.add(body["name"])
        elif kind == "rule":
            rules.setdefault(body["chain"], []).append(body["expr"])
        elif kind in ("map", "set"):
            elements[body["name"]] = body.get("elem", [])
        elif kind == "counter":
            counters[body["name"]] = (body["packets"], body["bytes"])
    return Listing(rules, elements, counters, frozenset(base_chains))


@dataclass(frozen=True, slots=True)
class DropsForwarded:
    """A chain that drops what is forwarded unless a rule of its own lets it pass."""

    family: str
    table: str
    chain: str


def read_forward_drops(text: str) -> tuple[DropsForwarded, ...]:
    """Those among listed chains that see IPv4 packets. Raises as `read_listing`."""
    return tuple(
        DropsForwarded(body["family"], body["table"], body["name"])
        for kind, body in _items(text)
        if kind == "chain"
        and body.get("hook") == "forward"
        and body.get("policy") == "drop"
        and body["family"] in ("ip", "inet")
    )


def _items(text: str) -> Iterator[tuple[str, Any]]:
    for item in msgspec.json.decode(text)["nftables"]:
        yield from item.items()


def key_of(element: Any) -> tuple[Any, ...]:
    """A key of a map as a tuple of its parts."""
    if isinstance(element, dict):
        if "concat" not in element:
            raise Unfamiliar(f"an element {element!r}")
        return tuple(element["concat"])
    return (element,)


def subnet_of(element: Any) -> str:
    """An element of a set of subnets, as a.b.c.d/n."""
    if isinstance(element, str):
        return f"{element}/32"
    match element:
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return f"{address}/{length}"
    raise Unfamiliar(f"a subnet {element!r}")


def target_of(verdict: Any) -> str:
    """Where a verdict map's element leads to."""
    match verdict:
        case {"goto": {"target": str(chain)}}:
            return chain
    raise Unfamiliar(f"a verdict {verdict!r}")
