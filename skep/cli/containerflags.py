"""`service create` and `service update`: options about containers, to a spec. Pure.

All raise Failure, with the option's name, what is wrong with its text, and what to write instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from skep.cli import flagvalues
from skep.cli.errors import Exit, Failure
from skep.cli.flagvalues import named_values
from skep.domain.base import replace
from skep.domain.container import ContainerSpec, Ulimit
from skep.domain.spec import DOCKER, NetworkUse, RunSpec
from skep.domain.storage import FileUse, Mount, MountKind
from skep.stackfile import values

# Networks that are the node's or the engine's own, by the names that Docker has for them.
MODES = ("host", "bridge", "none")


def command_of(options: argparse.Namespace, engine: str) -> dict[str, Any]:
    """What a new service runs. In a container the first word is its image, unless --image is."""
    words = tuple(options.command)
    if engine != DOCKER:
        if not words:
            raise Failure("what to run is missing; add it after the options", Exit.USAGE)
        return {"args": words}
    if options.image is not None:
        return {"args": words}
    if not words:
        raise Failure("the image is missing; name it after the options", Exit.USAGE)
    return {"image": words[0], "args": words[1:]}


def split_networks(
    networks: Iterable[NetworkUse],
) -> tuple[tuple[NetworkUse, ...], str]:
    """Skep's networks, and the network mode that another name stands for."""
    found = tuple(networks)
    modes = [use.network for use in found if use.network in MODES]
    if modes and len(found) > 1:
        raise Failure(f"--network {modes[0]} can't be had with other networks", Exit.USAGE)
    return (found, "") if not modes else ((), modes[0])


def created(options: argparse.Namespace, network_mode: str) -> dict[str, Any]:
    """The fields of a new service's RunSpec that are about its container."""
    container = ContainerSpec(
        network_mode=network_mode,
        hostname=options.hostname or "",
        labels=named_values("--container-label", options.container_label),
        init=True if options.init else None,
        is_read_only=options.read_only,
        is_tty=options.tty,
        cap_add=tuple(options.cap_add),
        cap_drop=tuple(options.cap_drop),
        group_add=tuple(options.group),
        dns=tuple(options.dns),
        dns_search=tuple(options.dns_search),
        dns_options=tuple(options.dns_option),
        extra_hosts=tuple(options.host),
        sysctls=named_values("--sysctl", options.sysctl),
        ulimits=tuple(_ulimit(text) for text in options.ulimit),
        log_driver=options.log_driver or "",
    )
    return {
        "mounts": tuple(_mount("--mount", text) for text in options.mount),
        "configs": tuple(_use("--config", text) for text in options.config),
        "secrets": tuple(_use("--secret", text) for text in options.secret),
        "container": container,
    }


def edited(options: argparse.Namespace) -> Callable[[RunSpec], RunSpec]:
    """What `service update` changes of mounts, configs and secrets."""
    mounts = [_mount("--mount-add", text) for text in options.mount_add]
    configs = [_use("--config-add", text) for text in options.config_add]
    secrets = [_use("--secret-add", text) for text in options.secret_add]

    def edit(run: RunSpec) -> RunSpec:
        return replace(
            run,
            mounts=_changed("--mount-rm", run.mounts, mounts, options.mount_rm, _target),
            configs=_changed("--config-rm", run.configs, configs, options.config_rm, _name),
            secrets=_changed("--secret-rm", run.secrets, secrets, options.secret_rm, _name),
        )

    return edit


def _target(mount: Mount) -> str:
    return mount.target


def _name(use: FileUse) -> str:
    return use.name


def _changed(
    flag: str,
    old: Sequence[Any],
    added: Sequence[Any],
    removed: Sequence[str],
    key: Callable[[Any], str],
) -> tuple[Any, ...]:
    known = [key(each) for each in old]
    for name in removed:
        if name not in known:
            there = ", ".join(known) or "none"
            raise Failure(f"{flag}: there is no '{name}'; it has {there}", Exit.USAGE)
    gone = {*removed, *(key(each) for each in added)}
    return (*(each for each in old if key(each) not in gone), *added)


# ------------------------------------------------------------------------------- their texts


def _parts(flag: str, text: str, known: Iterable[str]) -> list[tuple[str, str]]:
    """The `key=value` parts of an option."""
    names = tuple(known)
    parts = []
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in names:
            raise Failure(f"{flag} {text}: '{name}' is none of {', '.join(names)}", Exit.USAGE)
        parts.append((name, value))
    return parts


def _truth(flag: str, value: str) -> bool:
    # The name alone says it, too.
    return value == "" or flagvalues.read(flag, value, flagvalues.truth)


def _mount(flag: str, text: str) -> Mount:
    fields: dict[str, Any] = {"kind": MountKind.VOLUME}
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    for name, value in _parts(flag, text, _MOUNT):
        if name in ("volume-opt", "tmpfs-opt", "volume-label"):
            key, _, rest = value.partition("=")
            (labels if name == "volume-label" else options)[key] = rest
            continue
        field, read = _MOUNT[name]
        fields[field] = read(flag, value)
    if not fields.get("target"):
        raise Failure(f"{flag} {text}: target=PATH is missing", Exit.USAGE)
    return Mount(
        **fields,
        driver_options=tuple(sorted(options.items())),
        labels=tuple(sorted(labels.items())),
    )


def _kind(flag: str, value: str) -> MountKind:
    kind: MountKind = flagvalues.read(f"{flag} type", value, flagvalues.choice(*MountKind))
    return kind


def _text(flag: str, value: str) -> str:
    return value


def _size(flag: str, value: str) -> int:
    return int(flagvalues.read(flag, value, values.size_bytes))


def _mode(flag: str, value: str) -> int:
    return int(flagvalues.read(flag, value, values.file_mode))


_Reading = tuple[str, Callable[[str, str], Any]]
_MOUNT: Mapping[str, _Reading] = {
    "type": ("kind", _kind),
    "source": ("source", _text),
    "src": ("source", _text),
    "target": ("target", _text),
    "destination": ("target", _text),
    "dst": ("target", _text),
    "readonly": ("is_read_only", _truth),
    "ro": ("is_read_only", _truth),
    "movable": ("is_movable", _truth),
    "bind-propagation": ("propagation", _text),
    "bind-create-src": ("creates_host_path", _truth),
    "volume-nocopy": ("is_no_copy", _truth),
    "volume-subpath": ("subpath", _text),
    "volume-driver": ("driver", _text),
    "volume-opt": ("driver_options", _text),
    "volume-label": ("labels", _text),
    "tmpfs-opt": ("driver_options", _text),
    "tmpfs-size": ("size_bytes", _size),
    "tmpfs-mode": ("mode", _mode),
}
_USE: Mapping[str, _Reading] = {
    "source": ("name", _text),
    "src": ("name", _text),
    "target": ("target", _text),
    "uid": ("uid", _text),
    "gid": ("gid", _text),
    "mode": ("mode", _mode),
}


def _use(flag: str, text: str) -> FileUse:
    if "=" not in text:
        return FileUse(name=text)
    fields = {_USE[name][0]: _USE[name][1](flag, value) for name, value in _parts(flag, text, _USE)}
    if not fields.get("name"):
        raise Failure(f"{flag} {text}: source=NAME is missing", Exit.USAGE)
    return FileUse(**fields)


def _ulimit(text: str) -> Ulimit:
    name, mark, rest = text.partition("=")
    soft, _, hard = rest.partition(":")
    try:
        if not (name and mark):
            raise ValueError
        return Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError:
        raise Failure(
            f"--ulimit {text}: write a name and one or two numbers, as in nofile=1024:4096",
            Exit.USAGE,
        ) from None
