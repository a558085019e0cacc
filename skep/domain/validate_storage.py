"""What the mounts, configs and secrets of a spec must satisfy."""

from __future__ import annotations

import posixpath
import re

from skep.domain.refusal import refuse
from skep.domain.spec import RunSpec
from skep.domain.storage import FileUse, Mount, MountKind

# Each is a mount of its own in every one of a service's containers.
MOUNTS_LIMIT = 128
FILES_LIMIT = 128
PATH_LIMIT = 4096
SECRETS_FOLDER = "/run/secrets"

# Docker's rule.
VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_NUMBER = re.compile(r"[0-9]{1,10}")
_MODE_LIMIT = 0o7777

# Fields that only mounts of one kind have.
_OF_KIND = {
    MountKind.BIND: ("propagation", "creates_host_path"),
    MountKind.VOLUME: ("is_no_copy", "subpath", "driver", "labels"),
    MountKind.TMPFS: ("size_bytes", "mode"),
}


def check_mounts(mounts: tuple[Mount, ...], field: str) -> None:
    """Refuse mounts that can't be made. Raises Rejected."""
    if len(mounts) > MOUNTS_LIMIT:
        raise refuse(field, f"{len(mounts)} mounts, the limit is {MOUNTS_LIMIT}")
    seen: set[str] = set()
    for place, mount in enumerate(mounts):
        where = f"{field}[{place}]"
        target = _check_target(mount.target, f"{where}.target")
        if target in seen:
            raise refuse(f"{where}.target", f"something is mounted at {target} already")
        seen.add(target)
        _check_kind(mount, where)
        _check_source(mount, f"{where}.source")


def _check_target(target: str, where: str) -> str:
    if not target.startswith("/"):
        raise refuse(where, f"{target[:80]!r} must start with /")
    if "\0" in target or len(target) > PATH_LIMIT:
        raise refuse(where, f"holds a NUL character, or has more than {PATH_LIMIT} characters")
    found = posixpath.normpath(target)
    if found in ("/", "//"):
        raise refuse(where, "nothing can be mounted over a container's root")
    return found


def _check_kind(mount: Mount, where: str) -> None:
    plain = Mount(kind=mount.kind, target=mount.target)
    for kind, names in _OF_KIND.items():
        for name in names:
            if kind is not mount.kind and getattr(mount, name) != getattr(plain, name):
                raise refuse(
                    f"{where}.{name}", f"a mount of kind {mount.kind.value!r} has no such thing"
                )
    if mount.driver_options and mount.kind is MountKind.BIND:
        raise refuse(f"{where}.driver_options", "a mount of kind 'bind' has no driver")
    if mount.propagation and mount.propagation not in PROPAGATIONS:
        raise refuse(
            f"{where}.propagation",
            f"{mount.propagation!r} is not one of {', '.join(PROPAGATIONS)}",
        )
    if mount.subpath and (mount.subpath.startswith("/") or ".." in mount.subpath.split("/")):
        raise refuse(f"{where}.subpath", f"{mount.subpath!r} must be within the volume")
    if mount.subpath and not mount.source:
        raise refuse(f"{where}.subpath", "a volume without a name begins empty; name one")
    if mount.size_bytes is not None and mount.size_bytes < 1:
        raise refuse(f"{where}.size_bytes", "must be at least 1")
    if mount.mode is not None and not 0 <= mount.mode <= _MODE_LIMIT:
        raise refuse(f"{where}.mode", f"{mount.mode:o} is more than {_MODE_LIMIT:o}")


def _check_source(mount: Mount, where: str) -> None:
    source = mount.source
    if mount.kind is MountKind.TMPFS:
        if source:
            raise refuse(where, "memory has no source; leave it out")
    elif mount.kind is MountKind.BIND:
        if not source.startswith("/") or "\0" in source or len(source) > PATH_LIMIT:
            raise refuse(where, f"{source[:80]!r} must be a path of the node, starting with /")
    # What templates make of a name is known on the node alone.
    elif source and "{{" not in source and not VOLUME_NAME.fullmatch(source):
        raise refuse(
            where,
            f"{source[:80]!r} can't be a volume's name; use letters, digits, '_', '.' and '-'",
        )


def check_files(run: RunSpec, field: str) -> None:
    """Refuse configs and secrets that can't be given to a container. Raises Rejected."""
    taken = {posixpath.normpath(mount.target) for mount in run.mounts}
    for kind, uses in (("configs", run.configs), ("secrets", run.secrets)):
        if len(uses) > FILES_LIMIT:
            raise refuse(f"{field}.{kind}", f"{len(uses)} {kind}, the limit is {FILES_LIMIT}")
        for place, use in enumerate(uses):
            where = f"{field}.{kind}[{place}]"
            _check_file(use, where)
            target = file_target(use, is_secret=kind == "secrets")
            if target in taken:
                raise refuse(f"{where}.target", f"there is something else at {target} already")
            taken.add(target)


def file_target(use: FileUse, *, is_secret: bool) -> str:
    """Where a container finds a config or a secret."""
    folder = SECRETS_FOLDER if is_secret else "/"
    return posixpath.normpath(posixpath.join(folder, use.target or use.name))


def _check_file(use: FileUse, where: str) -> None:
    if not use.name:
        raise refuse(f"{where}.name", "a name is required")
    if "\0" in use.target or ".." in use.target.split("/") or use.target.endswith("/"):
        raise refuse(f"{where}.target", f"{use.target[:80]!r} is not the path of a file")
    for name in ("uid", "gid"):
        value = getattr(use, name)
        if not _NUMBER.fullmatch(value):
            raise refuse(f"{where}.{name}", f"{value[:80]!r} must be a number")
    if not 0 <= use.mode <= _MODE_LIMIT:
        raise refuse(f"{where}.mode", f"{use.mode:o} is more than {_MODE_LIMIT:o}")
