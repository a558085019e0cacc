"""What names there are, and who may see them.

A *zone* is what one network knows; a *scope* is one asker: a task in the kernel plane, a listening
address in the relay plane. A scope sees its own records and those of its networks, in their order,
and nothing else. Zones change record by record: what one service's change costs does not depend
on how many others there are.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from zlib import crc32

from skep.domain.base import Struct
from skep.netproxy.core.steps import changed
from skep.netproxy.dns.core.wire import a_record

# Names that one scope may hold a place in the rotation for; beyond, rotations begin anew.
ROTATION_LIMIT = 4096
# More than a cluster has tasks and services; some 100 bytes each.
ADDRESSES_REMEMBERED = 100_000


class Record(Struct, frozen=True, kw_only=True):
    """A name and the IPv4 addresses that it stands for; none is an answer too (no healthy task).

    `reverse`: whether a PTR query for one of the addresses is told this name. A service's name on
    its VIP and a task's on its address should be; an alias, or `tasks.<service>`, should not.
    """

    name: str
    addresses: tuple[str, ...]
    reverse: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkZone:
    """Everything that one network knows: `records` by key, as `merge` makes them. `subnets` (CIDR)
    are what PTR queries are answered for, known or not.

    Nobody changes a zone; what a newer one costs to tell is what it differs in (`steps.changed`).
    """

    network_id: str
    name: str
    records: Mapping[str, Record] = field(default_factory=dict)
    subnets: tuple[str, ...] = ()


class NetworkChange(Struct, frozen=True, kw_only=True):
    """What changes in one network: `changed` records replace those of their names.

    `is_whole`: records that are not named go.
    """

    network_id: str
    name: str
    subnets: tuple[str, ...] = ()
    changed: tuple[Record, ...] = ()
    removed: tuple[str, ...] = ()
    is_whole: bool = False


class Scope(Struct, frozen=True, kw_only=True):
    """What one asker may see. `networks` are ids, in the order of looking.

    `search` are domains of Skep's own (a stack's name): `web.<domain>` is `web`, and what is not
    known there does not exist. Domains of the world outside don't belong here, but only into the
    text of resolv.conf. `forwards`: whether other names are asked for outside. `own` are records
    that only this scope sees, before all others.
    """

    scope_id: str
    networks: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    forwards: bool = False
    own: tuple[Record, ...] = ()


@dataclass(slots=True)
class Entry:
    """One name, ready for answers. `starts` counts the scopes that have begun to ask for it."""

    record: Record
    records_twice: bytes
    starts: int = 0

    @property
    def count(self) -> int:
        """How many addresses there are."""
        return len(self.record.addresses)

    def rotated(self, turn: int) -> bytes:
        """The A records, each of them first at one of every `count` turns."""
        length = len(self.records_twice) // 2
        if not length:
            return b""
        begin = turn % self.count * (length // self.count)
        return self.records_twice[begin : begin + length]


def check(zone: NetworkZone, checked: NetworkZone | None = None) -> None:
    """Raises ValueError, with a text for a person, for what can't be put in force. What hasn't
    changed since `checked` is not looked at again."""
    for subnet in zone.subnets:
        try:
            ipaddress.IPv4Network(subnet, strict=False)
        except ValueError:
            raise ValueError(f"network {zone.name!r}: {subnet!r} is no IPv4 subnet") from None
    keys = zone.records if checked is None else changed(checked.records, zone.records)
    fresh = (zone.records[key] for key in keys if key in zone.records)
    _check_records(f"network {zone.name!r}", fresh)


def check_scope(scope: Scope) -> None:
    """Raises ValueError, with a text for a person, for what can't be put in force."""
    _check_records(f"scope {scope.scope_id!r}", scope.own)


def _check_records(where: str, records: Iterable[Record]) -> None:
    for record in records:
        for address in record.addresses:
            if not _is_address(address):
                raise ValueError(f"{where}: record {record.name!r}: {address!r} is no IPv4 address")


def _is_address(text: str) -> bool:
    try:
        _record_of(text)
    except ValueError:
        return False
    return True


@functools.lru_cache(ADDRESSES_REMEMBERED)
def _record_of(address: str) -> bytes:
    """An address's A record; raises ValueError. Remembered, since all addresses of a name are
    looked at when one of them comes or goes."""
    return a_record(ipaddress.IPv4Address(address).packed)


def _entry(record: Record) -> Entry:
    return Entry(record, b"".join(map(_record_of, record.addresses)) * 2)


class Zone:
    """The names of one network (or a scope's own), by name and by address."""

    def __init__(self, name: str) -> None:
        self.name = name.lower()
        self.subnets: tuple[ipaddress.IPv4Network, ...] = ()
        self.entries: dict[str, Entry] = {}
        self._names_by_address: dict[str, set[str]] = {}

    def change(self, changed: Iterable[Record], removed: Iterable[str], is_whole: bool) -> int:
        """Replace, add and remove; returns how many records were touched.

        Raises ValueError for an address that is none, and then has changed nothing.
        """
        merged = merge(changed)
        differing = {
            name: _entry(record)
            for name, record in merged.items()
            if name not in self.entries or self.entries[name].record != record
        }
        gone = [name for name in map(str.lower, removed) if name in self.entries]
        if is_whole:
            gone = [name for name in self.entries if name not in merged]
        for name in gone:
            self._forget(name)
        for name, entry in differing.items():
            if name in self.entries:
                entry.starts = self.entries[name].starts
                self._forget(name)
            self.entries[name] = entry
            if entry.record.reverse:
                for address in entry.record.addresses:
                    self._names_by_address.setdefault(address, set()).add(name)
        return len(differing) + len(gone)

    def _forget(self, name: str) -> None:
        for address in self.entries.pop(name).record.addresses:
            names = self._names_by_address.get(address)
            if names is not None:
                names.discard(name)
                if not names:
                    del self._names_by_address[address]

    def name_of(self, address: str) -> str | None:
        """The name of an address: the one that stands for the fewest, so that a task's own name
        comes before a service's; then the first by the alphabet."""
        names = self._names_by_address.get(address)
        if not names:
            return None
        return min(names, key=lambda name: (self.entries[name].count, name))

    def covers(self, address: str) -> bool:
        """Whether the address is of one of this network's subnets."""
        number = ipaddress.IPv4Address(address)
        return any(number in subnet for subnet in self.subnets)

    def check_invariants(self) -> None:
        """Called by tests after every change."""
        expected: dict[str, set[str]] = {}
        for name, entry in self.entries.items():
            assert name == name.lower() == entry.record.name
            assert len(entry.records_twice) == 2 * len(entry.rotated(0))
            if entry.record.reverse:
                for address in entry.record.addresses:
                    expected.setdefault(address, set()).add(name)
        assert self._names_by_address == expected


def key_of(name: str) -> str:
    """What a name is looked up by, however it is written."""
    return name.lower().removesuffix(".")


def merge(records: Iterable[Record]) -> dict[str, Record]:
    """The records by name in lower case, those of one name taken together, each address once."""
    merged: dict[str, Record] = {}
    for record in records:
        name = key_of(record.name)
        before = merged.get(name)
        if before is not None:
            addresses = tuple(dict.fromkeys(before.addresses + record.addresses))
            reverse = before.reverse or record.reverse
            merged[name] = Record(name=name, addresses=addresses, reverse=reverse)
        elif name != record.name or len(set(record.addresses)) != len(record.addresses):
            addresses = tuple(dict.fromkeys(record.addresses))
            merged[name] = Record(name=name, addresses=addresses, reverse=record.reverse)
        else:
            merged[name] = record
    return merged


@dataclass(slots=True)
class View:
    """A scope as it is asked: its own names, and its places in the rotations."""

    scope: Scope
    own: Zone
    search: tuple[str, ...]
    queries: int = 0
    turns: dict[tuple[str, bool], int] = field(default_factory=dict)


class Outcome(enum.Enum):
    """What becomes of a name."""

    FOUND = "found"
    UNKNOWN = "unknown"
    FORWARD = "forward"


class Names:
    """All zones and scopes of one node."""

    def __init__(self) -> None:
        self.version = 0
        self.zones: dict[str, Zone] = {}
        self.views: dict[str, View] = {}

    def change_networks(
        self, version: int, changes: Iterable[NetworkChange], removed: Iterable[str], is_whole: bool
    ) -> int:
        """Put changes in force; returns how many records were touched. `is_whole`: networks that
        are not named go. Raises ValueError; what came before the fault is in force then."""
        touched = 0
        named = set()
        for change in changes:
            named.add(change.network_id)
            subnets = tuple(
                ipaddress.IPv4Network(subnet, strict=False) for subnet in change.subnets
            )
            zone = self.zones.get(change.network_id) or Zone(change.name)
            touched += zone.change(change.changed, change.removed, change.is_whole)
            zone.name, zone.subnets = change.name.lower(), subnets
            self.zones[change.network_id] = zone
        gone = [key for key in self.zones if key not in named] if is_whole else removed
        for network_id in gone:
            if (dropped := self.zones.pop(network_id, None)) is not None:
                touched += len(dropped.entries)
        self.version = version
        return touched

    def put_scope(self, scope: Scope) -> View:
        """Add or replace a scope; one that stays keeps its rotations. Raises ValueError."""
        view = self.views.get(scope.scope_id)
        if view is not None and view.scope == scope:
            return view
        own = Zone("")
        own.change(scope.own, (), is_whole=True)
        search = tuple(domain.lower().strip(".") for domain in scope.search if domain.strip("."))
        if view is None:
            view = self.views[scope.scope_id] = View(scope, own, search)
        else:
            view.scope, view.own, view.search = scope, own, search
        return view

    def drop_scope(self, scope_id: str) -> None:
        """Forget a scope; an unknown one is fine."""
        self.views.pop(scope_id, None)

    def find(self, view: View, name: str) -> tuple[Outcome, Entry | None]:
        """Look a name (in lower case, no dot at its end) up for one scope."""
        entry = self._find(view, name)
        if entry is not None:
            return Outcome.FOUND, entry
        for domain in view.search:
            if name == domain or name.endswith(f".{domain}"):
                entry = self._find(view, name[: -len(domain) - 1])
                # A resolver tries these domains for every name by itself: never wait for that.
                return (Outcome.UNKNOWN, None) if entry is None else (Outcome.FOUND, entry)
        # The root has no dot, and is no name of ours either.
        is_outside = "." in name or not name
        return (Outcome.FORWARD if is_outside and view.scope.forwards else Outcome.UNKNOWN), None

    def _find(self, view: View, name: str) -> Entry | None:
        entry = view.own.entries.get(name)
        if entry is not None:
            return entry
        for zone in self._zones(view):
            entry = zone.entries.get(name)
            if entry is not None:
                return entry
        for zone in self._zones(view):
            if name.endswith(f".{zone.name}"):
                entry = zone.entries.get(name[: -len(zone.name) - 1])
                if entry is not None:
                    return entry
        return None

    def find_address(self, view: View, address: str) -> tuple[Outcome, str | None]:
        """The name of an address for one scope, with its network's name behind it."""
        name = view.own.name_of(address)
        if name is not None:
            return Outcome.FOUND, name
        for zone in self._zones(view):
            name = zone.name_of(address)
            if name is not None:
                return Outcome.FOUND, f"{name}.{zone.name}"
        if not view.scope.forwards or any(zone.covers(address) for zone in self._zones(view)):
            return Outcome.UNKNOWN, None
        return Outcome.FORWARD, None

    def _zones(self, view: View) -> Iterator[Zone]:
        for network_id in view.scope.networks:
            zone = self.zones.get(network_id)
            if zone is not None:
                yield zone

    @staticmethod
    def turn(view: View, entry: Entry, is_udp: bool) -> bytes:
        """The A records of an entry, rotated by one with every call.

        Each scope has its own place, since two that ask by turns would each see but every second
        address first; and UDP and TCP have theirs, since a long answer is asked for over both.
        Where a scope begins differs from scope to scope: most tasks ask just once.
        """
        if entry.count < 2:
            return entry.rotated(0)
        key = (entry.record.name, is_udp)
        turn = view.turns.get(key)
        if turn is None:
            if len(view.turns) >= ROTATION_LIMIT:
                view.turns.clear()
            # The first node's first asker, and the next node's, should not meet either.
            turn = entry.starts + crc32(view.scope.scope_id.encode())
            entry.starts += 1
        view.turns[key] = turn + 1
        return entry.rotated(turn)

    def check_invariants(self) -> None:
        """Called by tests after every change."""
        for zone in self.zones.values():
            zone.check_invariants()
        for scope_id, view in self.views.items():
            assert view.scope.scope_id == scope_id
            assert len(view.turns) <= ROTATION_LIMIT
            view.own.check_invariants()
