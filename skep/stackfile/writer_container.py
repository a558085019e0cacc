"""What only containers have, as a stack file has it: settings, mounts, configs and secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from skep.domain.base import Pairs
from skep.domain.container import BlockLimit, ContainerSpec, Device, DeviceRequest, Ulimit
from skep.domain.spec import RunSpec, StackSpec
from skep.domain.storage import FileUse, Mount, MountKind
from skep.stackfile import values
from skep.stackfile.files import Origin

Values = dict[str, Any]
Keys = Mapping[str, str]
"""What things are called within a file, by their full names."""


def text(of: str) -> str:
    """A text without variables in it."""
    return of.replace("$", "$$")


def texts(of: Iterable[str]) -> list[str]:
    """Texts without variables in them."""
    return [text(each) for each in of]


def pairs_of(pairs: Pairs) -> dict[str, str]:
    """Names and values; names have no variables, so that a dollar sign in them is one."""
    return {name: text(value) for name, value in pairs}


def said(**fields: Any) -> Values:
    """The fields that say something, by their names in a file."""
    return {
        key: value
        for key, value in fields.items()
        if value is not None and value not in ("", [], {})
    }


def keys_of(names: Iterable[str], prefix: str) -> dict[str, str]:
    """A key for each name; those that the stack's name stands before go without it."""
    found: dict[str, str] = {}
    for name in sorted(set(names), key=lambda each: (not each.startswith(prefix), each)):
        key = name.removeprefix(prefix) or name
        while key in found.values():
            key += "_"
        found[name] = key
    return found


# ---------------------------------------------------------------------------------- settings


def container_values(of: ContainerSpec) -> Values:
    """The keys of a service that are settings of its containers."""
    found: Values = {}
    plain = ContainerSpec()
    for name, (key, write) in _WRITERS.items():
        value = getattr(of, name)
        if value != getattr(plain, name):
            found[key] = write(value)
    block = said(weight=of.block_weight, **_block_limits(of.block_limits))
    return found | said(blkio_config=block)


def _block_limits(limits: tuple[BlockLimit, ...]) -> dict[str, list[Values]]:
    found: dict[str, list[Values]] = {}
    for limit in limits:
        name = "weight" if limit.kind.startswith("weight") else "rate"
        found.setdefault(limit.kind, []).append({"path": text(limit.path), name: limit.rate})
    return found


def requests_values(requests: tuple[DeviceRequest, ...]) -> list[Values]:
    """What stands under `deploy.resources.reservations.devices`."""
    return [
        said(
            capabilities=texts(at.capabilities),
            driver=text(at.driver),
            count="all" if at.count == -1 else at.count,
            device_ids=texts(at.device_ids),
            options=pairs_of(at.options),
        )
        for at in requests
    ]


def _ulimits(limits: tuple[Ulimit, ...]) -> Values:
    return {
        at.name: at.soft if at.soft == at.hard else {"soft": at.soft, "hard": at.hard}
        for at in limits
    }


def _devices(devices: tuple[Device, ...]) -> list[Any]:
    return [
        said(
            source=text(at.source),
            target=text(at.target),
            permissions="" if at.permissions == "rwm" else at.permissions,
        )
        for at in devices
    ]


def _swap(size: int) -> str | int:
    return size if size < 0 else values.size_text(size)


def _same(value: Any) -> Any:
    return value


_TEXTS = ("hostname", "domainname", "mac_address", "cpuset", "cgroup_parent", "runtime")
_WORDS = ("network_mode", "ipc", "pid", "uts", "userns_mode", "isolation")
_LISTS = ("dns", "dns_search", "extra_hosts", "cap_add", "cap_drop", "group_add", "security_opt")
_NUMBERS = ("oom_score_adj", "cpu_shares", "cpu_period", "cpu_quota")
_WRITERS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    **{name: (name, text) for name in (*_TEXTS, *_WORDS)},
    **{name: (name, texts) for name in (*_LISTS, "device_cgroup_rules")},
    **{name: (name, _same) for name in (*_NUMBERS, "init")},
    **{name: (name, pairs_of) for name in ("labels", "annotations", "sysctls")},
    "dns_options": ("dns_opt", texts),
    "is_read_only": ("read_only", _same),
    "is_privileged": ("privileged", _same),
    "is_tty": ("tty", _same),
    "is_stdin_open": ("stdin_open", _same),
    "is_oom_kill_disabled": ("oom_kill_disable", _same),
    "ulimits": ("ulimits", _ulimits),
    "devices": ("devices", _devices),
    "shm_bytes": ("shm_size", values.size_text),
    "memory_swap_bytes": ("memswap_limit", _swap),
    "memory_swappiness": ("mem_swappiness", _same),
    "cpu_realtime_period": ("cpu_rt_period", _same),
    "cpu_realtime_runtime": ("cpu_rt_runtime", _same),
    "cgroupns_mode": ("cgroup", text),
    "storage_options": ("storage_opt", pairs_of),
    "pull_policy": ("pull_policy", lambda policy: policy.value),
}


# ------------------------------------------------------------------------------------- mounts


def mounts_values(mounts: tuple[Mount, ...], volumes: Keys) -> Values:
    """`volumes` and `tmpfs` of a service."""
    return said(
        volumes=[_mount(at, volumes) for at in mounts if not _is_short(at)],
        tmpfs=[_tmpfs(at) for at in mounts if _is_short(at)],
    )


def _is_short(mount: Mount) -> bool:
    # The long form of memory knows no options.
    return mount.kind is MountKind.TMPFS and bool(mount.driver_options)


def _mount(mount: Mount, volumes: Keys) -> Values:
    source = mount.source
    return said(
        type=mount.kind.value,
        source=text(volumes.get(source, source) if mount.kind is MountKind.VOLUME else source),
        target=text(mount.target),
        read_only=mount.is_read_only or None,
        bind=said(propagation=mount.propagation, create_host_path=mount.creates_host_path or None),
        volume=said(nocopy=mount.is_no_copy or None, subpath=text(mount.subpath)),
        tmpfs=said(
            size=None if mount.size_bytes is None else values.size_text(mount.size_bytes),
            mode=None if mount.mode is None else f"{mount.mode:04o}",
        ),
        **({"x-movable": True} if mount.is_movable else {}),
    )


def _tmpfs(mount: Mount) -> str:
    words = [f"{name}={value}" if value else name for name, value in mount.driver_options]
    if mount.size_bytes is not None:
        words.append(f"size={values.size_text(mount.size_bytes)}")
    if mount.mode is not None:
        words.append(f"mode={mount.mode:04o}")
    if mount.is_read_only:
        words.append("ro")
    return text(f"{mount.target}:{','.join(words)}")


def named_volumes(spec: StackSpec) -> dict[str, Mount]:
    """For each volume that a stack's services name, one mount of it."""
    mounts = (mount for service in spec.services for mount in service.task.run.mounts)
    return {at.source: at for at in mounts if at.kind is MountKind.VOLUME and at.source}


def volumes_values(named: Mapping[str, Mount], volumes: Keys, prefix: str) -> Values:
    """`volumes` at the top of a file."""
    return {
        key: said(
            name="" if name == prefix + key else text(name),
            driver=text(named[name].driver),
            driver_opts=pairs_of(named[name].driver_options),
            labels=pairs_of(named[name].labels),
        )
        or None
        for name, key in volumes.items()
    }


# -------------------------------------------------------------------------- configs and secrets


def uses_values(uses: tuple[FileUse, ...], files: Keys) -> list[Any]:
    """`configs` or `secrets` of a service."""
    return [_use(use, files[use.name]) for use in uses]


def _use(use: FileUse, key: str) -> Any:
    plain = FileUse(name=use.name, id=use.id, target=key)
    if use == plain:
        return text(key)
    return said(
        source=text(key),
        target="" if use.target == key else text(use.target or use.name),
        uid="" if use.uid == plain.uid else use.uid,
        gid="" if use.gid == plain.gid else use.gid,
        mode="" if use.mode == plain.mode else f"{use.mode:04o}",
    )


def file_names(spec: StackSpec, of: Callable[[RunSpec], tuple[FileUse, ...]]) -> set[str]:
    """The names of the configs, or of the secrets, that a stack's services use."""
    return {use.name for service in spec.services for use in of(service.task.run)}


def files_values(
    kind: str, files: Keys, origins: Mapping[tuple[str, str], Origin], prefix: str
) -> Values:
    """`configs` or `secrets` at the top of a file."""
    found: Values = {}
    for name, key in files.items():
        origin = origins.get((kind, name))
        usual = key if origin is None else prefix + key
        found[key] = said(
            external=True if origin is None else None,
            **({} if origin is None else {origin.key: text(origin.value)}),
            name="" if name == usual else text(name),
            labels=pairs_of(origin.labels) if origin else {},
        )
    return found
