"""What a service says of its containers beyond what any process has.

The names are the compose specification's; each is what the engine's API calls it in other words.
Only the Docker engine heeds them: a service that runs plain processes may have none.
"""

from __future__ import annotations

import enum

from skep.domain.base import Pairs, Struct


class PullPolicy(enum.Enum):
    """When a node asks a registry for an image: if it lacks it, before each task, or never."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


class Ulimit(Struct, frozen=True, kw_only=True):
    """One resource limit of a container's processes; -1 is unlimited."""

    name: str
    soft: int
    hard: int


class Device(Struct, frozen=True, kw_only=True):
    """A device of the node that a container sees at `target`; or, where `source` is no path, the
    name of a CDI device."""

    source: str
    target: str = ""
    permissions: str = "rwm"


class DeviceRequest(Struct, frozen=True, kw_only=True):
    """Devices of a kind, such as GPUs, that the engine's driver picks: `count` of them (-1: all),
    or those in `device_ids`. `capabilities` must all be had."""

    driver: str = ""
    count: int | None = None
    device_ids: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    options: Pairs = ()


class BlockLimit(Struct, frozen=True, kw_only=True):
    """A limit of one block device of the node; `kind` is the key of the compose specification, such
    as "device_read_bps"; the rate is in bytes or operations per second, a weight is 10-1000."""

    kind: str
    path: str
    rate: int


class ContainerSpec(Struct, frozen=True, kw_only=True):
    """Settings of a service's containers; absent is "as the engine does it", never zero.

    `network_mode` is "" for Skep's own networks, or "host", "none", or "bridge" for the engine's
    default bridge. `extra_hosts` are "name:address". `log_driver` "" keeps output where `skep logs`
    finds it, within the limits of `RunSpec.log`. Of the strings, `hostname`, `labels` and
    `extra_hosts` may hold templates.
    """

    hostname: str = ""
    domainname: str = ""
    labels: Pairs = ()
    annotations: Pairs = ()
    network_mode: str = ""
    mac_address: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    init: bool | None = None
    is_read_only: bool = False
    is_privileged: bool = False
    is_tty: bool = False
    is_stdin_open: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    sysctls: Pairs = ()
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[Device, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    shm_bytes: int | None = None
    memory_swap_bytes: int | None = None
    memory_swappiness: int | None = None
    oom_score_adj: int | None = None
    is_oom_kill_disabled: bool = False
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpu_realtime_period: int | None = None
    cpu_realtime_runtime: int | None = None
    cpuset: str = ""
    block_weight: int | None = None
    block_limits: tuple[BlockLimit, ...] = ()
    cgroup_parent: str = ""
    cgroupns_mode: str = ""
    ipc: str = ""
    pid: str = ""
    uts: str = ""
    userns_mode: str = ""
    isolation: str = ""
    runtime: str = ""
    storage_options: Pairs = ()
    pull_policy: PullPolicy = PullPolicy.MISSING
    log_driver: str = ""
    log_options: Pairs = ()
