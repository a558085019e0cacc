"""`networks:`, which name nothing but the one network that every service is on.

`docker compose config` writes it out in full, so that it has to be read.
"""

from __future__ import annotations

from skep.stackfile import keys, nodes
from skep.stackfile.errors import Mark, StackFileError
from skep.stackfile.reader import Place

DEFAULT = "default"


def check_networks(place: Place) -> None:
    """Refuse what the top of a file says of networks, but for the default one and its name."""
    for key, value in place.entries():
        if key.text != DEFAULT:
            raise _refused(value, key.mark)
        if not _says_nothing(value):
            # Older releases of Compose write an empty `ipam` to say nothing.
            said = {key.text for key, at in value.entries() if not _says_nothing(at)}
            value.fields(keys.NETWORK, but=frozenset({"ipam"} - said))


def check_used_networks(place: Place) -> None:
    """Refuse a service's networks, but for the default one."""
    if place.is_list:
        for item in place.items():
            if item.text() != DEFAULT:
                raise _refused(item, item.node.mark)
        return
    for key, value in place.entries():
        if key.text != DEFAULT:
            raise _refused(value, key.mark)
        if not _says_nothing(value):
            value.fields(keys.NETWORK_USE)


def _says_nothing(place: Place) -> bool:
    node = place.node
    return place.is_null or (isinstance(node, nodes.Mapping) and not node.entries)


def _refused(place: Place, mark: Mark) -> StackFileError:
    return place.needs_container("networks", "every service reaches every other; remove it", mark)
