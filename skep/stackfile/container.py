"""The keys of a service that are settings of its containers."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from skep.domain.base import Pairs
from skep.domain.container import ContainerSpec, DeviceRequest, PullPolicy
from skep.domain.spec import LogPolicy
from skep.domain.validate_container import NETWORK_MODES
from skep.stackfile import devices, values
from skep.stackfile.envfiles import read_env_files
from skep.stackfile.logs import ReadLog, read_log
from skep.stackfile.mounts import path_of
from skep.stackfile.reader import Fields, Place

_INT64_MAX = 2**63 - 1
_PULL_POLICIES = {
    "missing": PullPolicy.MISSING,
    "if_not_present": PullPolicy.MISSING,
    "always": PullPolicy.ALWAYS,
    "never": PullPolicy.NEVER,
}
_SHARED = re.compile(r"(service|container):")
_SECCOMP = re.compile(r"seccomp[=:](?P<file>.+)")
_SECCOMP_WORDS = ("unconfined", "builtin")
_OLD_SIGN = re.compile(r"(apparmor|label|seccomp|systempaths|no-new-privileges):")


def read_container(place: Place, fields: Fields, reservations: Fields) -> ContainerSpec:
    """The settings of a service's containers; of a service without any, there are none."""
    found: dict[str, Any] = {}
    for key, (name, how) in _READINGS.items():
        at = fields.get(key)
        value = None if at is None else at.attempt(how, None)
        if value is not None:
            found[name] = value
    no_requests: tuple[DeviceRequest, ...] = ()
    requests = (
        *fields.read("gpus", devices.read_gpus, no_requests),
        *reservations.read("devices", devices.read_requests, no_requests),
    )
    plain: ReadLog = (LogPolicy(), "", ())
    _, driver, options = fields.read("logging", read_log, plain)
    no_limits: dict[str, Any] = {}
    return ContainerSpec(
        **found,
        **fields.read("blkio_config", devices.read_block_io, no_limits),
        labels=_labels(fields),
        device_requests=requests,
        log_driver=driver,
        log_options=options,
    )


def _labels(fields: Fields) -> Pairs:
    """A container's labels; those of files come before those that the stack file itself has."""
    if "label_file" not in fields and "labels" not in fields:
        return ()
    from_files: dict[str, str] = fields.read("label_file", read_env_files, {})
    own: Pairs = fields.read("labels", Place.labels, ())
    return tuple(sorted((from_files | dict(own)).items()))


def _listed(place: Place) -> tuple[str, ...]:
    """A list of texts, or one of them alone."""
    return (place.text(),) if place.is_scalar else place.texts()


def _unique(place: Place) -> tuple[str, ...]:
    return tuple(dict.fromkeys(place.texts()))


def _size(place: Place) -> int | None:
    """As in Docker, 0 is the engine's own size."""
    return place.parsed(values.size_bytes) or None


def _swap(place: Place) -> int | None:
    return -1 if place.text().strip() == "-1" else _size(place)


def _number(least: int, most: int) -> Callable[[Place], int]:
    return lambda place: place.integer(least, most)


def _amount(place: Place) -> int | None:
    """As in Docker, an amount of 0 is none."""
    return place.integer(0, _INT64_MAX) or None


def _swappiness(place: Place) -> int | None:
    found = place.integer(-1, 100)
    return None if found < 0 else found


def _microseconds(place: Place) -> int | None:
    """Microseconds, or a duration with its unit."""
    text = place.text().strip()
    if text.isdecimal():
        return place.integer(0, _INT64_MAX) or None
    return place.duration() // 1000 or None


def _hosts(place: Place) -> tuple[str, ...]:
    """Names and their addresses, as "name:address"."""
    rows: list[str] = []
    if place.is_list:
        for item in place.items():
            rows += item.several(lambda at: [_host(*_parted(at))])
        return tuple(dict.fromkeys(rows))
    for key, at in place.entries():
        for item in at.items() if at.is_list else [at]:
            rows += item.several(functools.partial(_address, key.text))
    return tuple(dict.fromkeys(rows))


def _address(name: str, place: Place) -> list[str]:
    return [_host(name, place.text())]


def _parted(place: Place) -> tuple[str, str]:
    text = place.text().strip()
    found = re.match(r"(?P<name>[^=:]+)[=:](?P<address>.+)", text)
    if not found:
        raise place.error(f"'{text[:60]}' is no name with an address; write it like 'db=10.1.2.3'")
    return found["name"], found["address"]


def _host(name: str, address: str) -> str:
    address = address.strip()
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    return f"{name.strip()}:{address}"


def network_mode(place: Place) -> str:
    """Which of the networks that every node has for itself; "" for the stack's own."""
    word = place.text().strip()
    if word == "default":
        return ""
    if _SHARED.match(word):
        raise place.error(
            f"'{word[:60]}' is the network of another container, which may be on another node; put "
            "both on a network under 'networks'"
        )
    if word not in NETWORK_MODES:
        raise place.error(
            f"network_mode must be 'host', 'none' or 'bridge', but this is '{word[:40]}'; other "
            "networks go under 'networks'"
        )
    return word


def _namespace(*known: str) -> Callable[[Place], str]:
    def read(place: Place) -> str:
        word = place.text().strip()
        name = place.path.rpartition(".")[2]
        if _SHARED.match(word):
            raise place.error(
                f"'{word[:60]}' is another container's, which may be on another node; remove the "
                "key"
            )
        if word not in known:
            shown = " or ".join(f"'{each}'" for each in known)
            raise place.error(f"{name} must be {shown}, but this is '{word[:40]}'")
        return word

    return read


def _pull_policy(place: Place) -> PullPolicy:
    word = place.text().strip()
    if word == "build":
        raise place.error("a cluster builds no images; build and push it, and remove the key")
    if word in ("daily", "weekly") or word.startswith("every_"):
        raise place.error(f"pull_policy '{word[:40]}' is not supported yet; use 'always'")
    return place.choice(_PULL_POLICIES)


def _security(place: Place) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.attempt(_security_option, "?") for item in place.items()))


def _security_option(place: Place) -> str:
    """As Docker's client does, the profile that an option names is sent instead of its name."""
    text = _OLD_SIGN.sub(lambda found: f"{found[1]}=", place.text().strip(), count=1)
    found = _SECCOMP.fullmatch(text)
    if not found or found["file"] in _SECCOMP_WORDS or found["file"].startswith("{"):
        return text
    path = path_of(place, found["file"])
    try:
        profile = json.loads(place.file(path))
    except ValueError:
        raise place.error(f"{path}: not JSON, as a profile for seccomp is") from None
    return f"seccomp={json.dumps(profile, separators=(',', ':'))}"


_TEXTS = ("hostname", "domainname", "mac_address", "cpuset", "cgroup_parent", "runtime")
_FLAGS = {
    "init": "init",
    "read_only": "is_read_only",
    "privileged": "is_privileged",
    "tty": "is_tty",
    "stdin_open": "is_stdin_open",
    "oom_kill_disable": "is_oom_kill_disabled",
}
_CGROUP = ("cgroupns_mode", _namespace("host", "private"))

# The key of a file, the field of the spec, and how it is read.
_READINGS: Mapping[str, tuple[str, Callable[[Place], Any]]] = {
    **{key: (key, Place.text) for key in _TEXTS},
    **{key: (name, Place.truth) for key, name in _FLAGS.items()},
    "annotations": ("annotations", Place.labels),
    "network_mode": ("network_mode", network_mode),
    "dns": ("dns", _listed),
    "dns_search": ("dns_search", _listed),
    "dns_opt": ("dns_options", _listed),
    "extra_hosts": ("extra_hosts", _hosts),
    "cap_add": ("cap_add", _unique),
    "cap_drop": ("cap_drop", _unique),
    "group_add": ("group_add", _unique),
    "security_opt": ("security_opt", _security),
    "sysctls": ("sysctls", Place.labels),
    "ulimits": ("ulimits", devices.read_ulimits),
    "devices": ("devices", devices.read_devices),
    "device_cgroup_rules": ("device_cgroup_rules", _unique),
    "shm_size": ("shm_bytes", _size),
    "memswap_limit": ("memory_swap_bytes", _swap),
    "mem_swappiness": ("memory_swappiness", _swappiness),
    "oom_score_adj": ("oom_score_adj", _number(-1000, 1000)),
    "cpu_shares": ("cpu_shares", _amount),
    "cpu_period": ("cpu_period", _microseconds),
    "cpu_quota": ("cpu_quota", _microseconds),
    "cpu_rt_period": ("cpu_realtime_period", _microseconds),
    "cpu_rt_runtime": ("cpu_realtime_runtime", _microseconds),
    "cgroup": _CGROUP,
    "cgroupns_mode": _CGROUP,
    "ipc": ("ipc", _namespace("none", "private", "shareable", "host")),
    "pid": ("pid", _namespace("host")),
    "uts": ("uts", _namespace("host")),
    "userns_mode": ("userns_mode", _namespace("host")),
    "isolation": ("isolation", _namespace("default")),
    "storage_opt": ("storage_options", Place.labels),
    "pull_policy": ("pull_policy", _pull_policy),
}
