"""What a container has mounted: volumes, folders of the node, memory, and its files."""

from __future__ import annotations

from typing import Any

from skep.domain.base import Struct
from skep.domain.storage import FileUse, Mount, MountKind
from skep.env import Rejected

_NUMBER_LIMIT = 2**32 - 1


class FileMount(Struct, frozen=True, kw_only=True):
    """A file of the node that a container sees at `target`."""

    source: str
    target: str


def mounts_of(mounts: tuple[Mount, ...], files: tuple[FileMount, ...]) -> dict[str, Any]:
    """The part of the API's HostConfig that is about mounts."""
    binds = [_bind(mount) for mount in mounts if _is_bind(mount)]
    memory = {mount.target: _memory(mount) for mount in mounts if _has_options(mount)}
    others = [_mount(mount) for mount in mounts if not _is_bind(mount) and not _has_options(mount)]
    others += [
        {"Type": "bind", "Source": file.source, "Target": file.target, "ReadOnly": True}
        for file in files
    ]
    return {"Binds": binds, "Mounts": others} | ({"Tmpfs": memory} if memory else {})


def _has_options(mount: Mount) -> bool:
    # The newer form of memory knows no options before API 1.46.
    return mount.kind is MountKind.TMPFS and bool(mount.driver_options)


def _memory(mount: Mount) -> str:
    options = [f"{name}={value}" if value else name for name, value in mount.driver_options]
    options += [] if mount.size_bytes is None else [f"size={mount.size_bytes}"]
    options += [] if mount.mode is None else [f"mode={mount.mode:o}"]
    return ",".join([*options, "ro"] if mount.is_read_only else options)


def _is_bind(mount: Mount) -> bool:
    # The newer form can't have the engine make a folder that isn't there; not before API 1.43.
    return mount.kind is MountKind.BIND and mount.creates_host_path


def _bind(mount: Mount) -> str:
    options = ["ro" if mount.is_read_only else "rw"]
    options += [mount.propagation] if mount.propagation else []
    return f"{mount.source}:{mount.target}:{','.join(options)}"


def _mount(mount: Mount) -> dict[str, Any]:
    body: dict[str, Any] = {"Type": mount.kind.value, "Target": mount.target}
    if mount.source:
        body["Source"] = mount.source
    if mount.is_read_only:
        body["ReadOnly"] = True
    match mount.kind:
        case MountKind.BIND if mount.propagation:
            body["BindOptions"] = {"Propagation": mount.propagation}
        case MountKind.VOLUME:
            if options := _volume_options(mount):
                body["VolumeOptions"] = options
        case MountKind.TMPFS:
            options = {"SizeBytes": mount.size_bytes, "Mode": mount.mode}
            if said := {name: value for name, value in options.items() if value is not None}:
                body["TmpfsOptions"] = said
    return body


def _volume_options(mount: Mount) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if mount.is_no_copy:
        options["NoCopy"] = True
    if mount.labels:
        options["Labels"] = dict(mount.labels)
    if mount.subpath:
        options["Subpath"] = mount.subpath
    if mount.driver or mount.driver_options:
        options["DriverConfig"] = {
            "Name": mount.driver or "local",
            "Options": dict(mount.driver_options),
        }
    return options


def owner_of(use: FileUse) -> tuple[int, int]:
    """The user and the group of a config's or a secret's file. Raises Rejected: names mean
    something in the image alone, and nobody on the node can look there."""
    numbers = []
    for text in (use.uid, use.gid):
        if not text.isdecimal() or int(text) > _NUMBER_LIMIT:
            raise Rejected(f"{use.name}: '{text}' is no number of a user or a group")
        numbers.append(int(text))
    return numbers[0], numbers[1]
