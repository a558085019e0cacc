"""Virtual addresses by address translation in a task's own namespace: what its table holds.

For kernels without the BPF programs that do this better. What the task sends to a VIP, whatever the
port, goes to one of the service's tasks in turn, and the backend sees the task's own address. The
VIP has to be routable there, by the default route or as one of the network's own addresses, since
the kernel looks for the route first.

As with published ports, an empty service refuses at once, and what leaves for a VIP untranslated is
dropped before the kernel can remember it so; see `ingress`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from skep.env import Rejected
from skep.netproxy.kernel.core import script
from skep.netproxy.kernel.core.ingress import check_address
from skep.netproxy.kernel.core.listing import Listing, Unfamiliar, target_of
from skep.netproxy.kernel.core.rotation import (
    BACKEND_LIMIT,
    MAP,
    Drawn,
    Rotations,
    Target,
    found,
    read_backends,
    read_rule,
    turn,
)
from skep.netproxy.kernel.core.script import verdict_lines

# Counts the flows of UDP to VIPs, so that it is known where there has been none to be moved.
UDP_FLOWS = "udp_flows"
BASE_RULE_COUNT = 3
# The rule about connections stands there for another reason too: in a namespace in which no rule is
# about any, as when the last VIP has gone, the kernel stops translating those that are open.
BODY = f"""\
  map vips {{
    type ipv4_addr : verdict
  }}
  map guard {{
    type ipv4_addr : verdict
  }}
{MAP}{script.GUARD_CHAINS}\
  counter {UDP_FLOWS} {{ }}
  chain output {{
    type nat hook output priority -100
    ip daddr vmap @vips
  }}
  chain leaving {{
    type filter hook output priority 0
    ct status dnat accept
    ip daddr vmap @guard
  }}
"""


@dataclass(frozen=True)
class VipTable:
    """What the table holds, by VIP."""

    rotations: Rotations[str] = field(default_factory=Rotations)
    refused: frozenset[str] = frozenset()

    def __contains__(self, vip: str) -> bool:
        """Whether it is a VIP here."""
        return vip in self.rotations.drawn or vip in self.refused

    def vips(self) -> dict[str, tuple[str, ...]]:
        """The backends of each VIP; none for those that refuse."""
        vips: dict[str, tuple[str, ...]] = dict.fromkeys(self.refused, ())
        for vip in self.rotations.drawn:
            target = self.rotations.target(vip)
            vips[vip] = target.backends if target else ()
        return dict(sorted(vips.items()))

    def check_invariants(self) -> None:
        """A VIP is either served or refused."""
        assert not self.refused & set(self.rotations.drawn)
        self.rotations.check_invariants()


EMPTY = VipTable()


@dataclass(frozen=True)
class Change:
    """One transaction: its text ("" for nothing to do), the table after it, and the VIPs whose
    backends it changes."""

    script: str
    after: VipTable
    touched: tuple[str, ...] = ()


def table_of(node: str) -> str:
    """The name of the table in the namespaces of this node's tasks."""
    return script.table_name("skepvip", node)


def chain_of(vip: str) -> str:
    """The chain of one VIP."""
    return "vip_" + vip.replace(".", "_")


def change(
    node: str, now: VipTable | None, changes: Mapping[str, tuple[str, ...] | None]
) -> Change:
    """The transaction that leads from `now` (None: no table, or one that is to be replaced) to
    these VIPs with their backends, and without those of None; others stay. Raises Rejected."""
    table = table_of(node)
    lines = script.new_table(table, BODY) if now is None else []
    before = now or VipTable()
    check_vips(changes, before)
    turned = turn(
        before.rotations,
        {vip: Target(tuple(sorted(set(b)))) if b else None for vip, b in sorted(changes.items())},
    )
    after = VipTable(
        # What is left over is cleared away with the next turn, not for its own sake.
        turned.after if turned.touched else before.rotations,
        before.refused.difference(changes).union(v for v, each in changes.items() if each == ()),
    )
    if turned.touched:
        lines += turned.lines(table, chain_of, _rules_of)
    for name, chains_of in (("vips", _chains), ("guard", _guards)):
        lines += verdict_lines(table, name, chains_of(before, changes), chains_of(after, changes))
    lines += turned.removal_lines(table, chain_of)
    touched = turned.touched | (before.refused ^ after.refused)
    return Change(
        "\n".join(lines) + "\n" if lines else "",
        after if lines else before,
        tuple(sorted(touched)),
    )


def with_gone(
    now: VipTable | None, wanted: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...] | None]:
    """`wanted` as the whole truth: all other VIPs go."""
    there = () if now is None else (*now.rotations.drawn, *now.refused)
    return {**dict.fromkeys(vip for vip in there if vip not in wanted), **wanted}


def check_vips(changes: Mapping[str, tuple[str, ...] | None], now: VipTable = EMPTY) -> None:
    """Raises Rejected for what isn't addresses, or for a VIP that leads to a VIP."""
    for vip, backends in changes.items():
        check_address(vip, "virtual address")
        if backends is None:
            continue
        if len(backends) > BACKEND_LIMIT:
            raise Rejected(f"{vip}: {len(backends)} backends; at most {BACKEND_LIMIT} fit")
        for backend in backends:
            check_address(backend, f"backend of {vip}")
            if changes.get(backend) is not None or (backend in now and backend not in changes):
                raise Rejected(f"{vip}: its backend {backend} is a virtual address itself")
    added = {vip for vip, backends in changes.items() if backends is not None and vip not in now}
    for vip, backends in now.vips().items() if added else ():
        if vip not in changes and (both := added.intersection(backends)):
            raise Rejected(f"{vip}: its backend {min(both)} is a virtual address itself")


def _rules_of(_: str, drawn: Drawn) -> tuple[str, ...]:
    return f"meta l4proto {script.UDP} counter name {UDP_FLOWS}", drawn.rule()


def _chains(table: VipTable, vips: Iterable[str]) -> dict[str, str]:
    return {vip: chain_of(vip) for vip in vips if vip in table.rotations.drawn}


def _guards(table: VipTable, vips: Iterable[str]) -> dict[str, str]:
    refusing = {vip: "refuse" for vip in vips if vip in table.refused}
    return refusing | dict.fromkeys(_chains(table, vips), "stray")


def read_table(listing: Listing) -> VipTable | None:
    """What a listed table holds; None where it isn't as this release makes it."""
    if script.layout_mark(BODY) not in listing.rules:
        return None
    if listing.base_rule_count() != BASE_RULE_COUNT:
        return None
    try:
        guards = dict(map(_pair, listing.elements["guard"]))
        drawn = {
            vip: read_rule(listing.rules[chain][-1])
            for vip, chain in map(_pair, listing.elements["vips"])
        }
        table = VipTable(
            found(drawn, read_backends(listing.elements["backends"])),
            frozenset(vip for vip, chain in guards.items() if chain == "refuse"),
        )
        table.check_invariants()
    except (Unfamiliar, AssertionError, LookupError, ValueError):
        return None
    return table if _guards(table, (*drawn, *table.refused)) == guards else None


def _pair(element: object) -> tuple[str, str]:
    match element:
        case [str(vip), verdict]:
            return vip, target_of(verdict)
    raise Unfamiliar(f"an element {element!r}")
