"""What each network's names stand for, on this node.

A service's name is its virtual address on the network, or in mode dnsrr its healthy tasks;
`tasks.<service>` is always the tasks, and `<service>.<slot>` one of them. What else a service is
called there leads where its name does. A name of a service comes before an alias that another one
has; services that share an alias share its answers.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Protocol

from skep.domain.base import NetworkId, ServiceId
from skep.domain.endpoints import Endpoint, NetworkEntry, ServiceEndpoints
from skep.domain.objects import Vip
from skep.domain.spec import EndpointMode
from skep.netproxy.core.steps import Stepped, changed
from skep.netproxy.core.world import World
from skep.netproxy.dns.core.zones import NetworkZone, Record, key_of, merge

# More than a node of a large cluster hears of; some 300 bytes each.
_TASKS_REMEMBERED = 1 << 17


class Forms(Protocol):
    """The addresses of this node's data plane."""

    def vip(self, vip: Vip) -> str:
        """Where a virtual address is reached from this node."""
        ...

    def task(self, endpoint: Endpoint, network_id: NetworkId) -> str:
        """Where a task is reached from this node; "" for one that isn't on the network."""
        ...

    def subnets(self, network: NetworkEntry) -> tuple[str, ...]:
        """What all addresses of a network are in, on this node."""
        ...


@dataclass(frozen=True, slots=True)
class _Said:
    """One service's word on one network: its own names and its aliases there, by key. `titles` are
    the names that no alias of another service may have."""

    own: Mapping[str, Record]
    aliases: Mapping[str, Record]
    titles: tuple[str, ...]

    @property
    def keys(self) -> Set[str]:
        """All names that it speaks of."""
        return self.own.keys() | self.aliases.keys() if self.aliases else self.own.keys()

    def of(self, key: str, *, is_title: bool) -> Iterator[Record]:
        """What it says of one name, which is (`is_title`) some service's own or not."""
        if key in self.own:
            yield self.own[key]
        if key in self.aliases and not is_title:
            yield self.aliases[key]


_SILENCE = _Said({}, {}, ())


class Names:
    """Builds zones, name by name: what a change costs depends on what changes, and hardly on how
    many services there are."""

    def __init__(self, forms: Forms) -> None:
        self._forms = forms
        self._services: Mapping[ServiceId, ServiceEndpoints] = {}
        self._networks: dict[NetworkId, _Network] = {}

    def zones(self, world: World) -> dict[NetworkId, NetworkZone]:
        """The zone of every network but the ingress one, on which nothing has a name. One that is
        as it was is the very same object."""
        told = changed(self._services, world.services)
        self._services = world.services
        before, self._networks = self._networks, {}
        for network_id, entry in world.networks.items():
            if entry.is_ingress:
                continue
            network = before.get(network_id)
            told_here: Iterable[ServiceId] = told
            if network is None:
                network, told_here = _Network(self._forms, entry), world.services
            network.follow(entry, {each: world.services.get(each) for each in told_here})
            self._networks[network_id] = network
        return {network_id: network.zone for network_id, network in self._networks.items()}

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        for network in self._networks.values():
            network.check_invariants()


class _Network:
    """One network's names, and who says what about them."""

    def __init__(self, forms: Forms, entry: NetworkEntry) -> None:
        self._forms = forms
        self._said: dict[ServiceId, _Said] = {}
        self._speakers: dict[str, set[ServiceId]] = {}
        self._titles: Counter[str] = Counter()
        self._records: Stepped[str, Record] = Stepped()
        self.zone = self._zone(entry)

    def follow(
        self, entry: NetworkEntry, changed: Mapping[ServiceId, ServiceEndpoints | None]
    ) -> None:
        """Take these services' word in place of their former one; None of those that are gone."""
        spoken_of: set[str] = set()
        for service_id, service in changed.items():
            spoken_of.update(self._take(service_id, service))
        records = self._records.after({key: self._record(key) for key in spoken_of})
        subnets = self._forms.subnets(entry)
        is_same = (entry.name, subnets) == (self.zone.name, self.zone.subnets)
        if records is not self._records or not is_same:
            self._records = records
            self.zone = self._zone(entry)

    def _zone(self, entry: NetworkEntry) -> NetworkZone:
        return NetworkZone(
            network_id=entry.network_id,
            name=entry.name,
            records=self._records,
            subnets=self._forms.subnets(entry),
        )

    def _take(self, service_id: ServiceId, service: ServiceEndpoints | None) -> Iterable[str]:
        """All names of which the service said something else before."""
        network_id = NetworkId(self.zone.network_id)
        before = self._said.pop(service_id, _SILENCE)
        now = _SILENCE
        places = [] if service is None else service.networks
        aliases = [p.aliases for p in places if p.network_id == network_id]
        if service is not None and aliases:
            now = _listen(self._forms, service, network_id, itertools.chain(*aliases))
            self._said[service_id] = now
        if now.titles != before.titles:
            self._titles.subtract(before.titles)
            self._titles.update(now.titles)
        for key in before.keys - now.keys:
            self._speakers[key].discard(service_id)
        for key in now.keys - before.keys:
            self._speakers.setdefault(key, set()).add(service_id)
        return (*_differing(before.own, now.own), *_differing(before.aliases, now.aliases))

    def _record(self, key: str) -> Record | None:
        """What a name stands for; None for one that nobody speaks of any more."""
        is_title = self._titles[key] > 0
        speakers = sorted(self._speakers[key])
        if not speakers:
            del self._speakers[key]
            del self._titles[key]
        found = [each for s in speakers for each in self._said[s].of(key, is_title=is_title)]
        return merge(found).get(key)

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        titles = Counter(title for said in self._said.values() for title in said.titles)
        assert +self._titles == titles
        speakers: dict[str, set[ServiceId]] = {}
        for service_id, said in self._said.items():
            for key in said.keys:
                speakers.setdefault(key, set()).add(service_id)
        assert self._speakers == speakers
        records = {key: self._record(key) for key in speakers}
        assert self.zone.records == {key: r for key, r in records.items() if r is not None}


def _listen(
    forms: Forms, service: ServiceEndpoints, network_id: NetworkId, aliases: Iterable[str]
) -> _Said:
    found = [(e, forms.task(e, network_id)) for e in service.endpoints]
    tasks = tuple(address for _, address in found if address)
    vips = tuple(forms.vip(v) for v in service.vips if v.network_id == network_id)
    # Without an address yet there is nothing to say, which is not the same as no such name.
    is_direct = service.endpoint_mode is EndpointMode.DNSRR
    addresses = tasks if is_direct else vips
    by_name = (
        Record(name=service.name, addresses=addresses, reverse=not is_direct),
        Record(name=f"tasks.{service.name}", addresses=tasks, reverse=False),
    )
    own = dict(_task_record(e.name, at) for e, at in found if at and e.name)
    titles = tuple(key_of(each.name) for each in by_name)
    if len(own) < len(tasks) or not own.keys().isdisjoint(titles):
        # Names that are equal, or that some don't have.
        own = merge(Record(name=e.name, addresses=(at,)) for e, at in found if at and e.name)
        own = merge((*by_name, *own.values()))
    else:
        own.update(merge(by_name))
    others: list[Record] = []
    for alias in dict.fromkeys(each for each in aliases if each != service.name):
        others.append(Record(name=alias, addresses=addresses, reverse=False))
        others.append(Record(name=f"tasks.{alias}", addresses=tasks, reverse=False))
    return _Said(own, merge(others), titles)


@functools.lru_cache(_TASKS_REMEMBERED)
def _task_record(name: str, address: str) -> tuple[str, Record]:
    """A task's own name, as `merge` has it. Remembered, since all tasks of a service are looked at
    when one of them comes or goes."""
    key = key_of(name)
    return key, Record(name=key, addresses=(address,))


def _differing(before: Mapping[str, Record], now: Mapping[str, Record]) -> Iterator[str]:
    yield from (key for key, record in now.items() if before.get(key) != record)
    yield from before.keys() - now.keys()


def lookup(
    zones: Mapping[NetworkId, NetworkZone], networks: tuple[NetworkId, ...], name: str
) -> tuple[NetworkId, Record] | None:
    """The first of these networks that knows a name, and what it says; None where none does."""
    for network_id in networks:
        zone = zones.get(network_id)
        record = zone.records.get(key_of(name)) if zone is not None else None
        if record is not None:
            return network_id, record
    return None


def meaning(
    world: World, networks: tuple[NetworkId, ...], name: str
) -> tuple[ServiceEndpoints, bool] | None:
    """The service that a name leads to from these networks, and whether by its virtual address;
    None for a name that none of them knows."""
    wanted = name.lower()
    plain = wanted.removeprefix("tasks.")
    for network_id in networks:
        by_alias: ServiceEndpoints | None = None
        for service in sorted(world.services.values(), key=lambda s: s.service_id):
            for place in service.networks:
                if place.network_id != network_id:
                    continue
                is_vip = plain == wanted and service.endpoint_mode is EndpointMode.VIP
                if plain == service.name.lower():
                    return service, is_vip
                if wanted in {e.name.lower() for e in service.endpoints}:
                    return service, False
                if by_alias is None and plain in {alias.lower() for alias in place.aliases}:
                    by_alias = service
        if by_alias is not None:
            return by_alias, plain == wanted and by_alias.endpoint_mode is EndpointMode.VIP
    return None


def whereabouts(world: World, name: str) -> str:
    """Where else a name is known, for whoever asked for it in vain."""
    found = []
    for service in world.services.values():
        for place in service.networks:
            network = world.networks.get(place.network_id)
            if network is not None and name.lower() in {
                service.name.lower(),
                *(alias.lower() for alias in place.aliases),
            }:
                found.append(f"service {service.name} on network {network.name}")
    if found:
        listed = ", ".join(sorted(found))
        return f"known as {listed}, which the asking task is not on"
    if any(service.name.lower() == name.lower() for service in world.services.values()):
        return f"service {name} is on no network"
    return "no service is called that on any network"


def reaches_world(networks: Iterable[NetworkEntry]) -> bool:
    """Whether a task on these networks, the ingress one apart, may reach what is outside of the
    cluster, and ask for its names: unless all of them are internal."""
    found = [network.is_internal for network in networks]
    return not found or not all(found)
