"""`volumes:` and `tmpfs:` of a service: what is mounted into its containers."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from skep.domain.base import pairs, replace
from skep.domain.storage import Mount, MountKind
from skep.domain.validate_storage import PROPAGATIONS
from skep.stackfile import keys, values
from skep.stackfile.reader import Fields, Place
from skep.stackfile.volumes import Volumes

_OTHER_KINDS = {
    "npipe": "nodes run Linux, and pipes are Windows'",
    "cluster": "volumes of CSI plugins are Swarm's; use a volume with a driver",
    "image": "mounts of images are not supported yet; copy what you need in an image of your own",
}
_WINDOWS = re.compile(r"(?:^|:)[A-Za-z]:\\")
# What Docker Desktop and SELinux know, and nodes of a cluster don't heed.
_UNHEEDED = ("z", "Z", "cached", "delegated", "consistent")
_TMPFS_FLAGS = re.compile(
    r"(?:no)?(?:exec|suid|dev|atime|diratime|relatime)|strictatime|sync|async"
)
_TMPFS_VALUES = ("uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge")


def path_of(place: Place, text: str) -> str:
    """An absolute path, from the folder of the stack file or the user's own (`~`)."""
    if text == "~" or text.startswith("~/"):
        home = place.source.environ.get("HOME", "")
        if not home:
            raise place.error("'~' is the folder in HOME, which is not set; write the whole path")
        text = home + text[1:]
    if text.startswith("/"):
        return posixpath.normpath(text)
    if not place.source.folder:
        raise place.error(f"'{text[:60]}' is relative, but to no folder; write the whole path")
    return posixpath.normpath(posixpath.join(place.source.folder, text))


def read_mounts(fields: Fields, volumes: Volumes) -> tuple[Mount, ...]:
    """All mounts of a service, in the file's order. A later one at the same target is a problem,
    which is found with the whole spec."""
    found: list[Mount] = []
    none: list[Place] = []
    for item in fields.read("volumes", Place.items, none):
        found += item.several(functools.partial(_mounts, volumes))
    tmpfs = fields.get("tmpfs")
    if tmpfs is not None:
        items = [tmpfs] if tmpfs.is_scalar else tmpfs.attempt(Place.items, none)
        for item in items:
            found += item.several(lambda at: [at.parsed(short_tmpfs)])
    return tuple(found)


def _mounts(volumes: Volumes, place: Place) -> list[Mount]:
    return [_short(place, volumes) if place.is_scalar else _long(place, volumes)]


# ---------------------------------------------------------------------------- the short form


def _short(place: Place, volumes: Volumes) -> Mount:
    text = place.text().strip()
    if _WINDOWS.search(text):
        raise place.error(
            f"'{text[:60]}' is a path of Windows, but nodes run Linux; write /like/this"
        )
    source, target, options = _split(place, text)
    if not source:
        return replace(
            Mount(kind=MountKind.VOLUME, target=target), **_options(place, options, is_bind=False)
        )
    if source.startswith(("/", "~", ".")):
        found = _options(place, options, is_bind=True)
        return Mount(kind=MountKind.BIND, target=target, source=_bind(place, source), **found)
    found = _options(place, options, is_bind=False)
    return replace(volumes.mounted(place, source, target), **found)


def _split(place: Place, text: str) -> tuple[str, str, list[str]]:
    """Source, target and options."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise place.error(
            f"'{text[:60]}' is not understood; write SOURCE:TARGET or SOURCE:TARGET:ro"
        )
    if len(parts) == 1:
        return "", parts[0], []
    if len(parts) == 2 and parts[0].startswith("/") and not parts[1].startswith("/"):
        return "", parts[0], parts[1].split(",")
    return parts[0], parts[1], parts[2].split(",") if len(parts) == 3 else []


def _bind(place: Place, source: str) -> str:
    path = path_of(place, source)
    if not source.startswith("/"):
        place.warn(f"{path} is a path of this machine: each node that runs a task needs it there")
    return path


def _options(place: Place, words: list[str], *, is_bind: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        if word in ("ro", "rw"):
            found["is_read_only"] = word == "ro"
        elif is_bind and word in PROPAGATIONS:
            found["propagation"] = word
        elif not is_bind and word == "nocopy":
            found["is_no_copy"] = True
        elif word in _UNHEEDED:
            place.warn(f"'{word}' changes nothing here")
        else:
            hint = keys.did_you_mean(word, ("ro", "rw", "nocopy", *PROPAGATIONS))
            raise place.error(f"'{word[:40]}' is not an option of a mount{hint or '; remove it'}")
    return found


def short_tmpfs(text: str) -> Mount:
    """Memory at "/run", or "/run:size=64m,mode=1777,uid=1000,noexec". Raises BadValue."""
    target, colon, rest = text.partition(":")
    found: dict[str, Any] = {}
    more: dict[str, str] = {}
    for word in rest.split(",") if colon else ():
        name, sign, value = word.partition("=")
        if name == "size" and sign:
            found["size_bytes"] = values.size_bytes(value) or None
        elif name == "mode" and sign:
            found["mode"] = values.file_mode(value)
        elif word in ("ro", "rw"):
            found["is_read_only"] = word == "ro"
        elif (_TMPFS_FLAGS.fullmatch(name) and not sign) or (name in _TMPFS_VALUES and value):
            more[name] = value
        else:
            raise values.BadValue(
                f"'{word[:40]}' is not an option of memory; write some like 'size=64m,mode=1777'"
            )
    return Mount(kind=MountKind.TMPFS, target=target, driver_options=pairs(more), **found)


# ----------------------------------------------------------------------------- the long form


def _long(place: Place, volumes: Volumes) -> Mount:
    fields = place.fields(keys.MOUNT)
    kind = _kind(place, fields)
    target = fields.read("target", Place.text, "")
    if "target" not in fields:
        raise place.error("a mount needs 'target', its path in the container")
    for other, section in (("bind", "bind"), ("volume", "volume"), ("tmpfs", "tmpfs")):
        if section in fields and other != kind.value:
            raise fields[section].error(
                f"'{section}' says nothing of a mount of type '{kind.value}'; remove it"
            )
    mount = _SORTS[kind](place, fields, target, volumes)
    return replace(
        mount,
        is_read_only=fields.read("read_only", Place.truth, False),
        is_movable=fields.read("x-movable", Place.truth, mount.is_movable),
    )


def _kind(place: Place, fields: Fields) -> MountKind:
    word = fields.read("type", Place.text, MountKind.VOLUME.value).strip()
    if word in _OTHER_KINDS:
        raise fields["type"].error(f"type '{word}' is not there: {_OTHER_KINDS[word]}")
    known = {kind.value: kind for kind in MountKind}
    if word not in known:
        raise fields["type"].error(f"type must be {' or '.join(known)}, but this is '{word[:40]}'")
    return known[word]


def _long_bind(place: Place, fields: Fields, target: str, volumes: Volumes) -> Mount:
    if "source" not in fields:
        raise place.error("a mount of type 'bind' needs 'source', a path of the nodes")
    more = fields.section("bind", keys.BIND)
    propagation = {word: word for word in PROPAGATIONS}
    return Mount(
        kind=MountKind.BIND,
        target=target,
        source=fields.read("source", lambda at: _bind(at, at.text().strip()), "/"),
        propagation=more.read("propagation", lambda at: at.choice(propagation), ""),
        creates_host_path=more.read("create_host_path", Place.truth, False),
    )


def _long_volume(place: Place, fields: Fields, target: str, volumes: Volumes) -> Mount:
    more = fields.section("volume", keys.MOUNT_VOLUME)
    plain = Mount(kind=MountKind.VOLUME, target=target)
    return replace(
        fields.read("source", lambda at: volumes.mounted(at, at.text().strip(), target), plain),
        is_no_copy=more.read("nocopy", Place.truth, False),
        subpath=more.read("subpath", Place.text, ""),
    )


def _long_tmpfs(place: Place, fields: Fields, target: str, volumes: Volumes) -> Mount:
    if "source" in fields:
        raise fields["source"].error("memory has no source; remove it")
    more = fields.section("tmpfs", keys.TMPFS)
    return Mount(
        kind=MountKind.TMPFS,
        target=target,
        size_bytes=more.read("size", lambda at: at.parsed(values.size_bytes) or None, None),
        mode=more.read("mode", lambda at: at.parsed(values.file_mode), None),
    )


_SORTS: Mapping[MountKind, Callable[[Place, Fields, str, Volumes], Mount]] = {
    MountKind.BIND: _long_bind,
    MountKind.VOLUME: _long_volume,
    MountKind.TMPFS: _long_tmpfs,
}
