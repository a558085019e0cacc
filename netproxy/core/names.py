"""What each network's names stand for, on this node.

A service's name is its virtual address on the network, or in mode dnsrr its healthy tasks;
`tasks.<service>` is always the tasks, and `<service>.<slot>` one of them. What else a service is
called there leads where its name does. A name of a service comes before an alias that another one
has; services that share an alias share its answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from skep.domain.base import NetworkId, ServiceId
from skep.domain.endpoints import Endpoint, NetworkEntry, ServiceEndpoints
from skep.domain.objects import Vip
from skep.domain.spec import EndpointMode
from skep.netproxy.core.world import World
from skep.netproxy.dns.core.zones import NetworkZone, Record


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
    """One service's word on one network."""

    service: ServiceEndpoints
    own: tuple[Record, ...]
    aliases: tuple[Record, ...]


class Names:
    """Builds zones; what is known of a service is kept until its word changes."""

    def __init__(self, forms: Forms) -> None:
        self._forms = forms
        self._known: dict[tuple[ServiceId, NetworkId], _Said] = {}
        self._made: dict[NetworkId, tuple[NetworkEntry, list[_Said], NetworkZone]] = {}

    def zones(self, world: World) -> dict[NetworkId, NetworkZone]:
        """The zone of every network but the ingress one, on which nothing has a name."""
        before, self._known = self._known, {}
        said: dict[NetworkId, list[_Said]] = {
            network_id: []
            for network_id, network in world.networks.items()
            if not network.is_ingress
        }
        for service_id, service in sorted(world.services.items()):
            for place in service.networks:
                if place.network_id not in said:
                    continue
                key = (service_id, place.network_id)
                known = before.get(key)
                if known is None or known.service is not service:
                    known = self._listen(service, place.network_id, place.aliases)
                self._known[key] = known
                said[place.network_id].append(known)
        before_made, self._made = self._made, {}
        for network_id, words in said.items():
            entry, made = world.networks[network_id], before_made.get(network_id)
            # The same words in the same order are the same zone, also to whoever compares it.
            if made is None or made[0] != entry or not _are_same(made[1], words):
                made = (entry, words, self._zone(entry, words))
            self._made[network_id] = made
        return {network_id: made[2] for network_id, made in self._made.items()}

    def _zone(self, entry: NetworkEntry, words: list[_Said]) -> NetworkZone:
        return NetworkZone(
            network_id=entry.network_id,
            name=entry.name,
            records=_settled(words),
            subnets=self._forms.subnets(entry),
        )

    def _listen(
        self, service: ServiceEndpoints, network_id: NetworkId, aliases: tuple[str, ...]
    ) -> _Said:
        found = [(e, self._forms.task(e, network_id)) for e in service.endpoints]
        tasks = tuple(address for _, address in found if address)
        vips = tuple(self._forms.vip(v) for v in service.vips if v.network_id == network_id)
        # Without an address yet there is nothing to say, which is not the same as no such name.
        is_direct = service.endpoint_mode is EndpointMode.DNSRR
        addresses = tasks if is_direct else vips
        own = (
            Record(name=service.name, addresses=addresses, reverse=not is_direct),
            Record(name=f"tasks.{service.name}", addresses=tasks, reverse=False),
            *(Record(name=e.name, addresses=(at,)) for e, at in found if at and e.name),
        )
        others: list[Record] = []
        for alias in dict.fromkeys(each for each in aliases if each != service.name):
            others.append(Record(name=alias, addresses=addresses, reverse=False))
            others.append(Record(name=f"tasks.{alias}", addresses=tasks, reverse=False))
        return _Said(service, own, tuple(others))


def _are_same(before: list[_Said], after: list[_Said]) -> bool:
    return len(before) == len(after) and all(
        one is other for one, other in zip(before, after, strict=True)
    )


def _settled(words: list[_Said]) -> tuple[Record, ...]:
    """All records, without aliases that are the names of other services."""
    taken = {word.service.name.lower() for word in words}
    taken |= {f"tasks.{name}" for name in taken}
    return tuple(
        record
        for word in words
        for record in (*word.own, *(a for a in word.aliases if a.name.lower() not in taken))
    )


def lookup(
    zones: Mapping[NetworkId, NetworkZone], networks: tuple[NetworkId, ...], name: str
) -> tuple[NetworkId, Record] | None:
    """The first of these networks that knows a name, and what it says; None where none does."""
    wanted = name.lower()
    for network_id in networks:
        zone = zones.get(network_id)
        records = zone.records if zone is not None else ()
        found = [record for record in records if record.name.lower() == wanted]
        if found:
            addresses = tuple(dict.fromkeys(a for record in found for a in record.addresses))
            return network_id, Record(name=found[0].name, addresses=addresses)
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
