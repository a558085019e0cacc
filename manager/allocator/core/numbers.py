"""Numbers, and ranges of addresses, given out in turn.

Nothing here outlives a pass but where to go on (`cursor`), so that what is given back rests for as
long as possible before it is somebody else's. One that isn't told where to go on begins above what
is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# What a range of addresses is known by here: its first and its last, as numbers.
Span = tuple[int, int]


def address_number(text: str) -> int:
    """The number of "10.1.2.3"."""
    a, b, c, d = text.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


def address_text(number: int) -> str:
    """The address of a number."""
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def span_of(subnet: str) -> Span:
    """The first and last number of "10.1.2.0/24"."""
    address, _, prefix = subnet.partition("/")
    first = address_number(address)
    return first, first + (1 << 32 - int(prefix)) - 1


class Numbers:
    """The numbers from `first` to `last`, each at most once."""

    def __init__(self, first: int, last: int, cursor: int | None = None) -> None:
        self._first = first
        self._last = last
        self._held: set[int] = set()
        self._is_told = cursor is not None
        self._next = first if cursor is None else cursor

    @property
    def cursor(self) -> int:
        """Where the next one should go on."""
        return self._next

    def hold(self, number: int, owner: str) -> None:
        """A number that a row names. Two rows with one are our own error."""
        assert number not in self._held, f"number={number} of {owner} is another's too"
        self._held.add(number)
        if not self._is_told:
            self._next = max(self._next, number + 1)

    def take(self) -> int | None:
        """The next free number; None when all are taken."""
        if len(self._held) > self._last - self._first:
            return None
        while True:
            number = self._next if self._first <= self._next <= self._last else self._first
            self._next = number + 1
            if number not in self._held:
                self._held.add(number)
                return number


class HostAddresses:
    """A network's addresses but for its first and last, which mean all of it."""

    def __init__(self, subnet: str, gateway: str, cursor: int | None = None) -> None:
        first, last = span_of(subnet)
        self._first, self._last = first + 1, last - 1
        self._owners: dict[str, str] = {gateway: "the gateway"}
        self._is_told = cursor is not None
        self._next = self._first if cursor is None else cursor

    @property
    def cursor(self) -> int:
        """Where the next one should go on."""
        return self._next

    @property
    def size(self) -> int:
        """How many there are to be given out."""
        return self._last - self._first

    @property
    def is_full(self) -> bool:
        """Whether all are taken."""
        return len(self._owners) > self.size

    def hold_all(self, owners: Mapping[str, str]) -> None:
        """Addresses of many rows, each with its owner. None may be held yet."""
        assert not owners.keys() & self._owners.keys(), owners.keys() & self._owners.keys()
        self._owners.update(owners)
        if not self._is_told and owners:
            self._next = max(self._next, max(map(address_number, owners)) + 1)

    def hold(self, address: str, owner: str) -> None:
        """An address that a row names. Two rows with one are our own error."""
        other = self._owners.setdefault(address, owner)
        assert other == owner, f"address={address} of {other} and {owner}"
        if not self._is_told:
            self._next = max(self._next, address_number(address) + 1)

    def take_lowest(self, owner: str) -> str:
        """The lowest free address, whatever the turn; there must be one."""
        assert not self.is_full
        number = self._first
        while (address := address_text(number)) in self._owners:
            number += 1
        self._owners[address] = owner
        return address

    def take(self, owner: str) -> str:
        """The next free address; there must be one."""
        assert not self.is_full
        while True:
            number = self._next if self._first <= self._next <= self._last else self._first
            self._next = number + 1
            address = address_text(number)
            if address not in self._owners:
                self._owners[address] = owner
                return address


class Subnets:
    """The cluster's pools, of which networks get their ranges."""

    def __init__(self, pools: Iterable[str], cursor: int | None = None) -> None:
        self._pools = tuple(span_of(pool) for pool in pools)
        self._held: list[Span] = []
        self._is_told = cursor is not None
        self._next = cursor or 0

    @property
    def cursor(self) -> int:
        """Where the next one should go on."""
        return self._next

    def hold(self, subnet: str, *, is_asked: bool) -> None:
        """A range that a network has, or asks for (`is_asked`): others may ask for it, too."""
        span = span_of(subnet)
        self._held.append(span)
        if not self._is_told and not is_asked:
            self._next = max(self._next, span[1] + 1)

    def take(self, prefix: int) -> str | None:
        """The next range of this many bits that overlaps with none; None when there is none."""
        size = 1 << 32 - prefix
        for begin in (self._next, 0):
            for first, last in self._pools:
                found = self._free(max(first, begin), last, size)
                if found is not None:
                    self._held.append((found, found + size - 1))
                    self._next = found + size
                    return f"{address_text(found)}/{prefix}"
        return None

    def is_free(self, subnet: str) -> bool:
        """Whether a range lies in a pool, and overlaps with none that is held."""
        first, last = span_of(subnet)
        is_ours = any(begin <= first and last <= end for begin, end in self._pools)
        return is_ours and self._clash(first, last) is None

    def _free(self, begin: int, end: int, size: int) -> int | None:
        first = -(-begin // size) * size
        while first + size - 1 <= end:
            clash = self._clash(first, first + size - 1)
            if clash is None:
                return first
            # Beyond what is in the way, so that a wide range is passed in one step.
            first = -(-(clash + 1) // size) * size
        return None

    def _clash(self, first: int, last: int) -> int | None:
        """Where what overlaps ends."""
        ends = (end for begin, end in self._held if begin <= last and first <= end)
        return max(ends, default=None)


def do_overlap(one: str, other: str) -> bool:
    """Whether two ranges have an address in common."""
    (first, last), (begin, end) = span_of(one), span_of(other)
    return begin <= last and first <= end
