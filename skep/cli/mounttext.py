"""Mounts, configs and secrets in the form that their options take. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from skep.domain.storage import FILE_MODE, FileUse, Mount, MountKind
from skep.stackfile import values


def mount_text(mount: Mount) -> str:
    """A mount as `--mount` takes it."""
    return ",".join(_words(mount))


def _words(mount: Mount) -> Iterator[str]:
    yield f"type={mount.kind.value}"
    if mount.source:
        yield f"source={mount.source}"
    yield f"target={mount.target}"
    for name, is_so in (
        ("readonly", mount.is_read_only),
        ("movable", mount.is_movable),
        ("bind-create-src", mount.creates_host_path),
        ("volume-nocopy", mount.is_no_copy),
    ):
        if is_so:
            yield name
    for name, text in (
        ("bind-propagation", mount.propagation),
        ("volume-subpath", mount.subpath),
        ("volume-driver", mount.driver),
    ):
        if text:
            yield f"{name}={text}"
    option = "tmpfs-opt" if mount.kind is MountKind.TMPFS else "volume-opt"
    for name, value in mount.driver_options:
        yield f"{option}={name}={value}" if value else f"{option}={name}"
    for name, value in mount.labels:
        yield f"volume-label={name}={value}"
    if mount.size_bytes is not None:
        yield f"tmpfs-size={values.size_text(mount.size_bytes)}"
    if mount.mode is not None:
        yield f"tmpfs-mode={mount.mode:04o}"


def use_text(use: FileUse) -> str:
    """A config or a secret as `--config` and `--secret` take it."""
    words = [f"source={use.name}", f"target={use.target or use.name}"]
    words += [
        f"{name}={value}" for name, value in (("uid", use.uid), ("gid", use.gid)) if value != "0"
    ]
    return ",".join(words if use.mode == FILE_MODE else [*words, f"mode={use.mode:04o}"])
