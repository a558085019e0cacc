"""`networks:`, at the top of a file and in its services.

As with `docker stack deploy`, a service that names none is on the stack's default network, only
networks that a service is on are made, and a service goes by its short name on each of them.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from skep.domain.base import Pairs
from skep.domain.spec import NetworkSpec, NetworkUse
from skep.domain.validate import DRIVER, NAME_LIMIT, check_network
from skep.domain.validate_container import NETWORK_MODES
from skep.env import Rejected
from skep.stackfile import keys, nodes, values
from skep.stackfile.reader import Fields, Place

DEFAULT = "default"
ENCRYPTED = "encrypted"
# Where the fields of a spec stand in a file.
_PLACES = {
    "name": "name",
    "subnet": "ipam",
    "gateway": "ipam",
    "labels": "labels",
    "options": "driver_opts",
}
_FLAGS = {"": True, "true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# What may stand beside `external`: only what says which network is meant.
_OF_EXTERNAL = ("external", "name")


class ReadNetwork(NamedTuple):
    """A network as the file has it; one that `is_external` is only referred to. `place` is where
    its key stands, if the file names it."""

    spec: NetworkSpec
    is_external: bool = False
    place: Place | None = None


@dataclass(frozen=True)
class Networks:
    """The networks that services of a stack may be on, by their keys in the file."""

    stack_name: str
    by_key: Mapping[str, ReadNetwork]

    def uses(self, place: Place | None, short_name: str) -> tuple[NetworkUse, ...]:
        """The networks of one service, by name. Their order in a file means nothing."""
        found = dict(self._named(place)) if place else {}
        if not found:
            # As in Docker, an empty list names none.
            found = {DEFAULT: ()}
        uses = {
            self.by_key[key].spec.name: tuple(dict.fromkeys((short_name, *aliases)))
            for key, aliases in found.items()
            if key in self.by_key
        }
        return tuple(NetworkUse(network=name, aliases=uses[name]) for name in sorted(uses))

    def _named(self, place: Place) -> list[tuple[str, tuple[str, ...]]]:
        none: tuple[str, ...] = ()
        rows: list[tuple[str, tuple[str, ...]]] = []
        if place.is_list:
            for item in place.items():
                key = item.attempt(Place.text, DEFAULT)
                item.attempt(functools.partial(self._check_known, key), None)
                rows.append((key, none))
            return rows
        for name, at in place.entries():
            key_place = Place(name, at.path, at.source, at.engine)
            key_place.attempt(functools.partial(self._check_known, name.text), None)
            rows.append((name.text, none if at.is_null else at.attempt(_aliases, none)))
        return rows

    def _check_known(self, key: str, place: Place) -> None:
        if key in self.by_key:
            return
        hint = keys.did_you_mean(key, self.by_key) or "; add it there"
        raise place.error(f"network '{key[:60]}' is not under 'networks:' of the file{hint}")

    def made(self, used: set[str]) -> tuple[NetworkSpec, ...]:
        """Those that are to be made, by name: the stack's own, as far as services are on them."""
        found = []
        for network in self.by_key.values():
            if network.is_external:
                continue
            if network.spec.name in used:
                found.append(network.spec)
            elif network.place is not None:
                network.place.warn("no service is on this network, so it is not made")
        return tuple(sorted(found, key=lambda spec: spec.name))

    def is_of_the_node(self, name: str) -> bool:
        """Whether a name means one of the networks that every node has for itself: Swarm's way to
        ask for `network_mode` is an external network of that name."""
        return name in NETWORK_MODES and any(
            at.is_external and at.spec.name == name for at in self.by_key.values()
        )

    def places(self) -> dict[str, str]:
        """Where each network that the file names stands, as file:line:column by its full name."""
        return {at.spec.name: at.place.where() for at in self.by_key.values() if at.place}


def read_networks(place: Place | None, stack_name: str) -> Networks:
    """What the top of a file says of networks, and the default one. What is wrong is added to the
    problems, and has its default in the answer."""
    found: dict[str, ReadNetwork] = {}
    none: list[tuple[nodes.Scalar, Place]] = []
    for key, value in place.attempt(Place.entries, none) if place else none:
        at = Place(key, value.path, value.source, value.engine)
        plain = ReadNetwork(NetworkSpec(name=f"{stack_name}_{key.text}"), place=at)
        read = functools.partial(_network, plain, key.text)
        found[key.text] = plain if says_nothing(value) else value.attempt(read, plain)
        before = at.source.problems.count
        at.attempt(functools.partial(_check_name, found[key.text]), None)
        if at.source.problems.count > before:
            # Services that are on it would be as wrong, which is one mistake and not many.
            found[key.text] = ReadNetwork(NetworkSpec(name=f"network-{len(found)}"), place=at)
    _check_clashes(found)
    usual = ReadNetwork(NetworkSpec(name=f"{stack_name}_{DEFAULT}"))
    same = (at for at in found.values() if at.spec.name == usual.spec.name)
    found.setdefault(DEFAULT, next(same, usual))
    return Networks(stack_name, found)


def _network(plain: ReadNetwork, key: str, place: Place) -> ReadNetwork:
    before = place.source.problems.count
    fields = place.fields(keys.NETWORK)
    is_external, old_name = fields.read("external", read_external, (False, ""))
    name = fields.read("name", Place.text, old_name)
    if is_external:
        refuse_beside_external(fields, "network")
        return ReadNetwork(NetworkSpec(name=name or key), is_external=True, place=plain.place)
    fields.read("driver", _check_driver, None)
    fields.read("enable_ipv4", functools.partial(_check_switch, True), None)
    fields.read("enable_ipv6", functools.partial(_check_switch, False), None)
    subnet, gateway = fields.read("ipam", _ipam, ("", ""))
    no_options: tuple[Pairs, bool] = ((), False)
    options, is_encrypted = fields.read("driver_opts", _options, no_options)
    spec = NetworkSpec(
        name=name or plain.spec.name,
        driver=DRIVER,
        subnet=subnet,
        gateway=gateway,
        is_internal=fields.read("internal", Place.truth, False),
        is_attachable=fields.read("attachable", Place.truth, False),
        is_encrypted=is_encrypted,
        labels=fields.read("labels", Place.labels, ()),
        options=options,
    )
    if place.source.problems.count == before:
        _check_whole(place, fields, spec)
    return ReadNetwork(spec, place=plain.place)


def _check_whole(place: Place, fields: Fields, spec: NetworkSpec) -> None:
    """What only the finished spec shows, by the rules the cluster itself goes by."""
    try:
        check_network(spec, "network")
    except Rejected as error:
        where = _PLACES.get(error.field.removeprefix("network."), "")
        text = str(error).removeprefix(f"{error.field}: ")
        at = fields.get(where) or place
        raise at.error(f"{where}: {text}" if where else text) from None


def read_external(place: Place) -> tuple[bool, str]:
    """Whether something is external, and its name if it is said here: also in the form of older
    files, `external: {name: x}`."""
    if place.is_scalar:
        return place.truth(), ""
    return True, place.fields(keys.EXTERNAL).read("name", Place.text, "")


def refuse_beside_external(fields: Fields, what: str, but: tuple[str, ...] = ()) -> None:
    """Refuse what would change something that is external. What is wrong is added to the
    problems."""
    for key, place in fields.found.items():
        if key not in (*_OF_EXTERNAL, *but) and not says_nothing(place):
            place.source.problems.add(
                place.error(
                    f"an external {what} is there already, and '{key}' can't change it; remove "
                    "this, or 'external'"
                )
            )


def _check_driver(place: Place) -> None:
    word = place.text().strip()
    if word != DRIVER:
        raise place.error(
            f"driver '{word[:40]}' makes no network that spans machines; write '{DRIVER}', or "
            "remove the key"
        )


def _check_switch(only: bool, place: Place) -> None:
    if place.truth() is not only:
        raise place.error("networks have IPv4 addresses, and IPv6 is not there yet; remove the key")


def _options(place: Place) -> tuple[Pairs, bool]:
    """A driver's options, and whether one of them asks for encryption."""
    found = place.labels()
    is_encrypted = False
    for name, value in found:
        if name == ENCRYPTED:
            if value.lower() not in _FLAGS:
                raise place.error(f"{ENCRYPTED} must be true or false, but this is '{value[:40]}'")
            is_encrypted = _FLAGS[value.lower()]
    return tuple(pair for pair in found if pair[0] != ENCRYPTED), is_encrypted


def _ipam(place: Place) -> tuple[str, str]:
    """The subnet and the gateway."""
    if says_nothing(place):
        # Older releases of Compose write an empty one.
        return "", ""
    fields = place.fields(keys.IPAM)
    driver = fields.read("driver", Place.text, DEFAULT)
    if driver != DEFAULT:
        raise fields["driver"].error(
            f"ipam driver '{driver[:40]}' is not supported; addresses are the cluster's own to "
            "give: remove the key"
        )
    if "config" not in fields:
        return "", ""
    found = [item for item in fields["config"].items() if not says_nothing(item)]
    for item in found[1:]:
        item.source.problems.add(
            item.error("a network has one subnet, of IPv4 addresses; remove the others")
        )
    return _subnet(found[0]) if found else ("", "")


def _subnet(place: Place) -> tuple[str, str]:
    fields = place.fields(keys.SUBNET)
    subnet = fields.read("subnet", lambda at: at.parsed(values.subnet), None)
    gateway = fields.read("gateway", lambda at: at.parsed(values.ipv4), "")
    if gateway and subnet is not None:
        if ipaddress.ip_address(gateway) not in subnet:
            raise fields["gateway"].error(f"gateway {gateway} is not in the subnet {subnet}")
    elif gateway and "subnet" not in fields:
        raise fields["gateway"].error("a gateway needs 'subnet', which it is in")
    return "" if subnet is None else str(subnet), gateway


def _aliases(place: Place) -> tuple[str, ...]:
    if says_nothing(place):
        return ()
    none: tuple[str, ...] = ()
    return place.fields(keys.NETWORK_USE).read("aliases", _names, none)


def _names(place: Place) -> tuple[str, ...]:
    for item in place.items():
        item.attempt(_check_alias, None)
    return place.texts()


def _check_alias(place: Place) -> None:
    if not values.DNS_NAME.fullmatch(place.text()):
        raise place.error(
            f"'{place.text()[:60]}' can't be a name; use letters, digits, '-', '_' and dots between"
        )


def _check_name(network: ReadNetwork, place: Place) -> None:
    name = network.spec.name
    if len(name) > NAME_LIMIT or not values.NAME.fullmatch(name):
        raise place.error(
            f"'{name[:80]}' can't be a network's name; use up to {NAME_LIMIT} letters, digits, "
            "'-' and '_', with a letter or digit at both ends"
        )


def _check_clashes(found: Mapping[str, ReadNetwork]) -> None:
    first: dict[str, Place] = {}
    for network in found.values():
        place, name = network.place, network.spec.name
        assert place is not None
        if name in first:
            place.source.problems.add(
                place.error(
                    f"network '{name}' stands here for the second time (first: "
                    f"{first[name].where()}); remove one, or give it another 'name'"
                )
            )
        first.setdefault(name, place)


def says_nothing(place: Place) -> bool:
    """Whether this is empty, or an empty map."""
    node = place.node
    return place.is_null or (isinstance(node, nodes.Mapping) and not node.entries)
