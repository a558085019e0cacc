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

A long run would cost too much to be written anew for each of its backends that comes or goes: 20 ms
of CPU for a thousand. It is mended where it stands: who goes is replaced by who comes or by the
last one, and what is beyond the new end stays for one more transaction. A packet whose look-up
falls between the kernel's removing the old address and its adding the new one, of the same
transaction, finds none, and is dropped by the guard; its sender repeats it.

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
# From this length on a run is mended rather than written anew.
MENDED_FROM = 64
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

    @property
    def numbers(self) -> range:
        """All of the run."""
        return range(self.offset, self.offset + self.count)

    def rule(self) -> str:
        """The rule, as nftables is given it."""
        port = "" if self.port is None else f" : {self.port}"
        return f"dnat to numgen inc mod {self.count} offset {self.offset} map @backends{port}"


@dataclass(frozen=True)
class Rotations(Generic[K]):
    """The runs of a table's services, and all that is in its map of backends. `left` are the
    numbers there that nobody draws by now, which the next turn takes away."""

    drawn: Mapping[K, Drawn] = field(default_factory=dict)
    elements: Mapping[int, str] = field(default_factory=dict)
    left: frozenset[int] = frozenset()

    def target(self, key: K) -> Target | None:
        """Where this service's connections go; None where the table doesn't have it."""
        drawn = self.drawn.get(key)
        if drawn is None:
            return None
        return Target(tuple(map(self.elements.__getitem__, drawn.numbers)), drawn.port)

    def check_invariants(self) -> None:
        """Each run is filled, in a half of its own, and in no other service's block."""
        blocks = [drawn.offset // BLOCK for drawn in self.drawn.values()]
        assert len(set(blocks)) == len(blocks), "two services in one block"
        for key, drawn in self.drawn.items():
            assert drawn.offset % BACKEND_LIMIT == 0, (key, drawn)
            assert 0 < drawn.count <= BACKEND_LIMIT, (key, drawn)
            assert self.target(key) is not None
        in_use = {number for drawn in self.drawn.values() for number in drawn.numbers}
        assert self.left == self.elements.keys() - in_use


def found(drawn: Mapping[K, Drawn], elements: Mapping[int, str]) -> Rotations[K]:
    """What a table turns out to hold."""
    in_use = {number for each in drawn.values() for number in each.numbers}
    return Rotations(drawn, elements, frozenset(elements.keys() - in_use))


@dataclass(frozen=True)
class Turn(Generic[K]):
    """One transaction's part in the runs. `mended` are services whose rules stay as they are."""

    after: Rotations[K]
    added: tuple[K, ...]
    changed: tuple[K, ...]
    mended: tuple[K, ...]
    removed: tuple[K, ...]
    put: Mapping[int, str]
    taken: tuple[int, ...]

    @property
    def touched(self) -> frozenset[K]:
        """The services whose backends change."""
        return frozenset((*self.added, *self.changed, *self.mended, *self.removed))

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


def turn(now: Rotations[K], wanted: Mapping[K, Target | None]) -> Turn[K]:
    """What to change so that each of these services goes to its target, or (None) nowhere any more;
    others stay. Targets without backends are the caller's. Services are taken in their order."""
    taken = set(now.left)
    drawn, left = dict(now.drawn), set[int]()
    put: dict[int, str] = {}
    added: list[K] = []
    changed: list[K] = []
    mended: list[K] = []
    removed: list[K] = []
    # A block is free only when nothing is left in it, so that no late packet draws from another's.
    blocks = _free_blocks(now)
    for key, target in wanted.items():
        before, old = now.target(key), now.drawn.get(key)
        if target is None:
            if old is not None:
                removed.append(key)
                left.update(old.numbers)
                del drawn[key]
            continue
        assert 0 < len(target.backends) <= BACKEND_LIMIT, (key, len(target.backends))
        count = len(target.backends)
        if before is None or old is None:
            added.append(key)
            drawn[key] = Drawn(next(blocks) * BLOCK, count, target.port)
            put.update(zip(drawn[key].numbers, target.backends, strict=True))
        elif _is_same(before, target):
            continue
        elif min(old.count, count) >= MENDED_FROM:
            drawn[key] = Drawn(old.offset, count, target.port)
            run = zip(drawn[key].numbers, _mend(before.backends, target.backends), strict=True)
            stays = dict(zip(old.numbers, before.backends, strict=True))
            put.update((number, address) for number, address in run if stays.get(number) != address)
            left.update(old.numbers[count:])
            (mended if drawn[key] == old else changed).append(key)
        else:
            changed.append(key)
            drawn[key] = Drawn(old.offset ^ BACKEND_LIMIT, count, target.port)
            put.update(zip(drawn[key].numbers, target.backends, strict=True))
            left.update(old.numbers)
    taken |= put.keys() & now.elements.keys()
    elements = dict(now.elements)
    for number in taken:
        del elements[number]
    elements.update(put)
    return Turn(
        after=Rotations(drawn, elements, frozenset(left)),
        added=tuple(added),
        changed=tuple(changed),
        mended=tuple(mended),
        removed=tuple(removed),
        put=put,
        taken=tuple(sorted(taken)),
    )


def with_gone(now: Rotations[K], wanted: Mapping[K, Target]) -> dict[K, Target | None]:
    """`wanted` as the whole truth: all other services go."""
    return {**dict.fromkeys(key for key in now.drawn if key not in wanted), **wanted}


def _is_same(one: Target, other: Target) -> bool:
    """Whatever the order: a run that was mended has its own."""
    return one.port == other.port and sorted(one.backends) == sorted(other.backends)


def _mend(run: tuple[str, ...], backends: tuple[str, ...]) -> list[str]:
    """These backends, as many of them as possible where they are in the run."""
    stays, was = set(backends), set(run)
    count = len(backends)
    spare = iter([a for a in run[count:] if a in stays] + [a for a in backends if a not in was])
    return [*(a if a in stays else next(spare) for a in run[:count]), *spare]


def _free_blocks(now: Rotations[K]) -> Iterator[int]:
    """They are looked for when the first one is asked for."""
    used = {number // BLOCK for number in now.elements}
    yield from (block for block in range(BLOCK_LIMIT) if block not in used)


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
