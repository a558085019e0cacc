"""`networks:`, which name nothing but the one network that every service is on.

`docker compose config` writes it out in full, so that it has to be read.
"""

from __future__ import annotations

from skep.stackfile import keys, nodes
from skep.stackfile.errors import StackFileError
from skep.stackfile.reader import Place

DEFAULT = "default"


def check_networks(place: Place) -> None:
    """Refuse what the top of a file says of networks, but for the default one and its name."""
    for key, value in place.entries():
        if key.text != DEFAULT:
            place.source.problems.add(_refused(value, key.text, key))
        elif not _says_nothing(value):
            value.attempt(_check_default, None)


def _check_default(place: Place) -> None:
    # Older releases of Compose write an empty `ipam` to say nothing.
    said = {key.text for key, value in place.entries() if not _says_nothing(value)}
    place.fields(keys.NETWORK, but=frozenset({"ipam"} - said))


def check_used_networks(place: Place) -> None:
    """Refuse a service's networks, but for the default one."""
    if place.is_list:
        for item in place.items():
            if item.text() != DEFAULT:
                place.source.problems.add(_refused(item, item.text(), None))
        return
    for key, value in place.entries():
        if key.text != DEFAULT:
            place.source.problems.add(_refused(value, key.text, key))
        elif not _says_nothing(value):
            value.fields(keys.NETWORK_USE)


def _says_nothing(place: Place) -> bool:
    node = place.node
    return place.is_null or (isinstance(node, nodes.Mapping) and not node.entries)


def _refused(place: Place, name: str, key: nodes.Scalar | None) -> StackFileError:
    return place.needs_container(
        f"network '{name[:40]}'",
        "every service reaches every other, so remove it",
        key.mark if key else None,
    )
