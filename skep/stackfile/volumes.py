"""`volumes:` at the top of a file."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from skep.domain.base import Pairs
from skep.domain.storage import Mount, MountKind
from skep.domain.validate_storage import VOLUME_NAME
from skep.stackfile import keys
from skep.stackfile.networks import read_external, refuse_beside_external, says_nothing
from skep.stackfile.reader import Place


class ReadVolume(NamedTuple):
    """A volume by its full name, and what a node makes it with where it lacks it."""

    name: str
    place: Place
    driver: str = ""
    driver_options: Pairs = ()
    labels: Pairs = ()
    is_movable: bool = False


@dataclass(frozen=True)
class Volumes:
    """The volumes that services of a stack may use, by their keys in the file."""

    by_key: Mapping[str, ReadVolume]

    def mounted(self, place: Place, key: str, target: str) -> Mount:
        """The volume with this key, mounted at a target."""
        found = self.by_key.get(key)
        if found is None:
            hint = keys.did_you_mean(key, self.by_key) or (
                f"; add it there, or write './{key}' for a folder"
            )
            raise place.error(f"volume '{key[:60]}' is not under 'volumes:' of the file{hint}")
        return Mount(
            kind=MountKind.VOLUME,
            target=target,
            source=found.name,
            driver=found.driver,
            driver_options=found.driver_options,
            labels=found.labels,
            is_movable=found.is_movable,
        )

    def warn_of_unused(self, used: Iterable[str]) -> None:
        """Tell of those that no service has."""
        names = set(used)
        for volume in self.by_key.values():
            if volume.name not in names:
                volume.place.warn("no service has this volume, so it is not made")


def read_volumes(place: Place | None, stack_name: str) -> Volumes:
    """What the top of a file says of volumes. What is wrong is added to the problems."""
    found: dict[str, ReadVolume] = {}
    for key, value in place.several(Place.entries) if place else []:
        at = Place(key, value.path, value.source, value.engine)
        plain = ReadVolume(f"{stack_name}_{key.text}", at)
        read = functools.partial(_volume, plain, key.text)
        volume = plain if says_nothing(value) else value.attempt(read, plain)
        at.attempt(functools.partial(_check_name, volume.name), None)
        found[key.text] = volume
    return Volumes(found)


def _volume(plain: ReadVolume, key: str, place: Place) -> ReadVolume:
    fields = place.fields(keys.VOLUME)
    is_external, old_name = fields.read("external", read_external, (False, ""))
    name = fields.read("name", Place.text, old_name)
    is_movable = fields.read("x-movable", Place.truth, False)
    if is_external:
        refuse_beside_external(fields, "volume", ("x-movable",))
        return ReadVolume(name or key, plain.place, is_movable=is_movable)
    driver = fields.read("driver", Place.text, "").strip()
    return ReadVolume(
        name or plain.name,
        plain.place,
        driver="" if driver in ("default", "local") else driver,
        driver_options=fields.read("driver_opts", Place.labels, ()),
        labels=fields.read("labels", Place.labels, ()),
        is_movable=is_movable,
    )


def _check_name(name: str, place: Place) -> None:
    # What templates make of a name is known on the node alone.
    if "{{" not in name and not VOLUME_NAME.fullmatch(name):
        raise place.error(
            f"'{name[:80]}' can't be a volume's name; use letters, digits, '_', '.' and '-'"
        )
