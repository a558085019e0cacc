"""Exact round robin over changing backends, without a moment in which there is no answer.

All the services of a table share one map, `backends`: a number to an address. The one rule of a
service's chain draws the next number of a run, and sends the connection to the address there:

    dnat to numgen inc mod 3 offset 8192 map @backends

A packet that is in the middle of such a chain while a transaction is committed goes on in the old
chain, but looks things up in the maps as they are by now. Had the old run gone from the map, the
look-up would fail, the packet would leave as it came, and the kernel would remember that connection
as one that isn't translated. So a new run is written beside the old one, which stays for one more
transaction: nobody draws from it by the time it goes. For that a service has a block of numbers
with two halves, used in turn.

Named maps are also what keeps transactions of several threads apart in libnftables, which numbers
the nameless ones by one counter for the whole process.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from skep.netproxy.kernel.core import script
from skep.netproxy.kernel.core.listing import Unfamiliar

# Far more than a service of Swarm's has had; a block is two halves of this many numbers.
BACKEND_LIMIT = 4096
BLOCK = 2 * BACKEND_LIMIT
# All numbers, and the sum of offset and modulus, fit into the kernel's 32 bits.
BLOCK_LIMIT = 2**32 // BLOCK - 1

MAP = "  map backends {\n    typeof numgen inc mod 2 : ip daddr\n  }\n"

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the connections of one service go: addresses, and the port there (None: as it was)."""

    backends: tuple[str, ...]
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """The run of numbers that a service's rule draws from, and the port that it sets."""

    offset: int
    count: int
    port: int | None = None

    def rule(self) -> str:
        """The rule, as nftables is given it."""
        port = "" if self.port is None else f" : {self.port}"
        return f"dnat to numgen inc mod {self.count} offset {self.offset} map @backends{port}"


@dataclass(frozen=True)
class Rotations(Generic[K]):
    """The runs of a table's services, and all that is in its map of backends."""

    drawn: Mapping[K, Drawn] = field(default_factory=dict)
    elements: Mapping[int, str] = field(default_factory=dict)

    def target(self, key: K) -> Target | None:
        """Where this service's connections go; None where the table doesn't have it."""
        drawn = self.drawn.get(key)
        if drawn is None:
            return None
        numbers = range(drawn.offset, drawn.offset + drawn.count)
        return Target(tuple(self.elements[number] for number in numbers), drawn.port)

    def check_invariants(self) -> None:
        """Each run is filled, in a half of its own, and in no other service's block."""
        blocks = [drawn.offset // BLOCK for drawn in self.drawn.values()]
        assert len(set(blocks)) == len(blocks), "two services in one block"
        for key, drawn in self.drawn.items():
            assert drawn.offset % BACKEND_LIMIT == 0, (key, drawn)
            assert 0 < drawn.count <= BACKEND_LIMIT, (key, drawn)
            assert self.target(key) is not None


@dataclass(frozen=True)
class Turn(Generic[K]):
    """One transaction's part in the runs."""

    after: Rotations[K]
    added: tuple[K, ...]
    changed: tuple[K, ...]
    removed: tuple[K, ...]
    put: Mapping[int, str]
    taken: tuple[int, ...]

    def lines(
        self,
        table: str,
        chain_of: Callable[[K], str],
        rules_of: Callable[[K, Drawn], tuple[str, ...]],
    ) -> list[str]:
        """The transaction's lines about backends and chains; those that lead to a chain are the
        caller's."""
        lines = script.delete_elements(table, "backends", map(str, self.taken))
        lines += script.add_elements(
            table, "backends", (f"{number} : {address}" for number, address in self.put.items())
        )
        lines += [f"add chain ip {table} {chain_of(key)}" for key in self.added]
        lines += [f"flush chain ip {table} {chain_of(key)}" for key in self.changed]
        for key in (*self.added, *self.changed):
            for rule in rules_of(key, self.after.drawn[key]):
                lines.append(f"add rule ip {table} {chain_of(key)} {rule}")
        return lines

    def removal_lines(self, table: str, chain_of: Callable[[K], str]) -> list[str]:
        """The lines that remove chains, once nothing leads to them."""
        return [f"delete chain ip {table} {chain_of(key)}" for key in self.removed]


def turn(now: Rotations[K], wanted: Mapping[K, Target]) -> Turn[K]:
    """What to change so that each service goes to its target; targets without backends are the
    caller's. Services are taken in the order of `wanted`."""
    taken = _not_drawn(now)
    elements = {number: a for number, a in now.elements.items() if number not in taken}
    drawn = dict(now.drawn)
    put: dict[int, str] = {}
    added, changed = [], []
    # A block is free only when nothing is left in it, so that no late packet draws from another's.
    blocks = _free_blocks(now)
    for key, target in wanted.items():
        assert 0 < len(target.backends) <= BACKEND_LIMIT, (key, len(target.backends))
        if now.target(key) == target:
            continue
        old = now.drawn.get(key)
        if old is None:
            added.append(key)
            offset = next(blocks) * BLOCK
        else:
            changed.append(key)
            offset = old.offset ^ BACKEND_LIMIT
        drawn[key] = Drawn(offset, len(target.backends), target.port)
        put.update(enumerate(target.backends, offset))
    removed = tuple(key for key in now.drawn if key not in wanted)
    for key in removed:
        del drawn[key]
    after = Rotations(drawn, elements | put)
    return Turn(after, tuple(added), tuple(changed), removed, put, tuple(sorted(taken)))


def _not_drawn(now: Rotations[K]) -> set[int]:
    in_use: set[int] = set()
    for drawn in now.drawn.values():
        in_use.update(range(drawn.offset, drawn.offset + drawn.count))
    return set(now.elements) - in_use


def _free_blocks(now: Rotations[K]) -> Iterator[int]:
    used = {number // BLOCK for number in now.elements}
    return (block for block in range(BLOCK_LIMIT) if block not in used)


def read_rule(expressions: list[Any]) -> Drawn:
    """The run that a service's rule draws from. Raises Unfamiliar."""
    match expressions[-1] if expressions else None:
        case {
            "dnat": {
                "addr": {
                    "map": {
                        "key": {
                            "numgen": {"mode": "inc", "mod": int(count), "offset": int(offset)}
                        },
                        "data": "@backends",
                    }
                },
                **rest,
            }
        }:
            port = rest.get("port")
            return Drawn(offset, count, port if isinstance(port, int) else None)
    raise Unfamiliar(f"a rule {expressions!r}")


def read_backends(elements: list[Any]) -> dict[int, str]:
    """The map of backends. Raises Unfamiliar."""
    found: dict[int, str] = {}
    for element in elements:
        match element:
            case [int(number), str(address)]:
                found[number] = address
            case _:
                raise Unfamiliar(f"a backend {element!r}")
    return found
