"""What the settings of a service's containers must satisfy, by the rules of Docker's engine and of
the runtime below it: what they would refuse on a node is refused where the spec is written."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterable

from skep.domain.base import Pairs
from skep.domain.container import BlockLimit, ContainerSpec, Device, DeviceRequest, Ulimit
from skep.domain.imagename import parse_image
from skep.domain.refusal import refuse
from skep.domain.spec import PROCESS, Resources, RunSpec, ServiceSpec, TaskSpec
from skep.domain.validate_storage import check_files, check_mounts
from skep.env import Rejected

NETWORK_MODES = ("host", "none", "bridge")
LIST_LIMIT = 256

_CAPABILITIES = """
ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE
MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG
SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE
SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
"""
CAPABILITIES = frozenset(_CAPABILITIES.split())
_ULIMITS = """
core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack
"""
ULIMITS = frozenset(_ULIMITS.split())
BLOCK_RATES = ("device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops")
BLOCK_WEIGHT = "weight_device"

# As runc has it: others belong to no namespace, so that a container would change its node's.
_OWN_SYSCTLS = """
kernel.domainname kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax
kernel.shmmni kernel.shm_rmid_forced
"""
_SYSCTLS = frozenset(_OWN_SYSCTLS.split())
_SYSCTL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")
_NET = "net."
_MQUEUE = "fs.mqueue."

_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
# Linux has no longer ones.
_HOSTNAME_LIMIT = 64
_MAC_ADDRESS = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")
_HOST_GATEWAY = "host-gateway"
_PERMISSIONS = re.compile(r"(?!.*(.).*\1)[rwm]{1,3}")
_DEVICE_RULE = re.compile(r"[acb] (?:[0-9]+|\*):(?:[0-9]+|\*) [rwm]{1,3}")
_CPUSET = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?){0,511}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}")
_USERNS_MODES = ("", "host")

_CONTAINER = "a container; use the engine 'docker'"

# Of each number the least and the most, as the engine or the kernel has them.
_INT64_MAX = 2**63 - 1
_BOUNDS = {
    "shm_bytes": (1, _INT64_MAX),
    "memory_swap_bytes": (-1, _INT64_MAX),
    "memory_swappiness": (0, 100),
    "oom_score_adj": (-1000, 1000),
    "cpu_shares": (2, 262_144),
    "cpu_period": (1_000, 1_000_000),
    "cpu_quota": (1_000, _INT64_MAX),
    "cpu_realtime_period": (1, _INT64_MAX),
    "cpu_realtime_runtime": (1, _INT64_MAX),
    "block_weight": (10, 1000),
}
_WORDS = {
    "cgroupns_mode": ("", "host", "private"),
    "ipc": ("", "none", "private", "shareable", "host"),
    "pid": ("", "host"),
    "uts": ("", "host"),
    "userns_mode": _USERNS_MODES,
    "isolation": ("", "default"),
    "network_mode": ("", *NETWORK_MODES),
}


def check_engine(spec: ServiceSpec, field: str) -> None:
    """Refuse what a service's engine can't do, or settings of containers that can't work. Raises
    Rejected."""
    task = spec.task
    if task.engine == PROCESS:
        _check_process(task.run, f"{field}.task.run")
        return
    where = f"{field}.task.run"
    if not task.run.image:
        raise refuse(f"{where}.image", "the engine 'docker' runs images; name one")
    try:
        parse_image(task.run.image)
    except Rejected as error:
        raise refuse(f"{where}.image", str(error)) from None
    check_mounts(task.run.mounts, f"{where}.mounts")
    check_files(task.run, where)
    _check_container(task.run.container, f"{where}.container")
    _check_amounts(task, f"{where}.container")
    if task.run.container.network_mode:
        _check_network_mode(spec, field)


def _check_process(run: RunSpec, field: str) -> None:
    plain = ContainerSpec()
    for name in ContainerSpec.__struct_fields__:
        if getattr(run.container, name) != getattr(plain, name):
            raise refuse(f"{field}.container.{name}", f"this needs {_CONTAINER}")
    for name in ("mounts", "configs", "secrets"):
        if getattr(run, name):
            raise refuse(f"{field}.{name}", f"{name} need {_CONTAINER}")


def _check_network_mode(spec: ServiceSpec, field: str) -> None:
    mode = spec.task.run.container.network_mode
    whose = {"host": "its node's network", "none": "no network"}.get(
        mode, "the engine's own bridge"
    )
    if spec.task.networks:
        raise refuse(
            f"{field}.task.networks",
            f"in network mode {mode!r} a service has {whose} and is on none of the cluster's; "
            "leave out one of the two",
        )
    if spec.ports:
        raise refuse(
            f"{field}.task.run.container.network_mode",
            f"in network mode {mode!r} a service has {whose}, so that no port of it can be "
            "published; leave out one of the two",
        )
    container = spec.task.run.container
    if mode == "host" and any(name.startswith(_NET) for name, _ in container.sysctls):
        raise refuse(
            f"{field}.task.run.container.sysctls",
            "in network mode 'host' a container would change its node's 'net.' settings; set them "
            "on the node",
        )


def _check_container(of: ContainerSpec, field: str) -> None:
    for name in ContainerSpec.__struct_fields__:
        value = getattr(of, name)
        if isinstance(value, tuple) and len(value) > LIST_LIMIT:
            raise refuse(f"{field}.{name}", f"{len(value)} of them, the limit is {LIST_LIMIT}")
    for name, (least, most) in _BOUNDS.items():
        value = getattr(of, name)
        if value is not None and not least <= value <= most:
            raise refuse(f"{field}.{name}", f"{value} is not between {least} and {most}")
    for name, words in _WORDS.items():
        value = getattr(of, name)
        if value not in words:
            shown = ", ".join(repr(word) for word in words if word)
            raise refuse(f"{field}.{name}", f"{value!r} is not one of {shown}")
    _check_names(of, field)
    _check_rights(of, field)
    _check_resolving(of, field)
    _check_sysctls(of, f"{field}.sysctls")
    _check_ulimits(of.ulimits, f"{field}.ulimits")
    _check_devices(of.devices, f"{field}.devices")
    for place, request in enumerate(of.device_requests):
        _check_request(request, f"{field}.device_requests[{place}]")
    for place, rule in enumerate(of.device_cgroup_rules):
        if not _DEVICE_RULE.fullmatch(rule):
            raise refuse(
                f"{field}.device_cgroup_rules[{place}]",
                f"{rule!r} is no rule; write one like 'c 188:* rmw'",
            )
    _check_block_limits(of.block_limits, f"{field}.block_limits")
    if of.log_options and not of.log_driver:
        raise refuse(f"{field}.log_options", "options need a log driver that takes them")


def _check_names(of: ContainerSpec, field: str) -> None:
    for name in ("hostname", "domainname"):
        value = getattr(of, name)
        # What templates make of it is known on the node alone.
        if value and "{{" not in value and not _is_hostname(value):
            raise refuse(
                f"{field}.{name}",
                f"{value!r} can't be a host's name; use letters, digits, '-' and dots, "
                f"{_HOSTNAME_LIMIT} at most",
            )
    if of.uts and of.hostname:
        raise refuse(f"{field}.hostname", "in uts mode 'host' a container has its node's name")
    for name in ("labels", "annotations", "storage_options", "log_options"):
        _check_pairs(getattr(of, name), f"{field}.{name}")
    for name in ("runtime", "log_driver"):
        value = getattr(of, name)
        if value and not _WORD.fullmatch(value):
            raise refuse(f"{field}.{name}", f"{value!r} can't be a name")
    if "\0" in of.cgroup_parent:
        raise refuse(f"{field}.cgroup_parent", "holds a NUL character")
    if of.cpuset and not _CPUSET.fullmatch(of.cpuset):
        raise refuse(f"{field}.cpuset", f"{of.cpuset!r} names no CPUs; write one like '0-2,5'")


def _is_hostname(text: str) -> bool:
    return len(text) <= _HOSTNAME_LIMIT and bool(_HOSTNAME.fullmatch(text))


def _check_pairs(pairs: Pairs, field: str) -> None:
    for key, value in pairs:
        if not key or "\0" in key or "\0" in value:
            raise refuse(field, f"{key!r}: a name is required, and NUL characters are not allowed")


def _check_rights(of: ContainerSpec, field: str) -> None:
    for name in ("cap_add", "cap_drop"):
        for place, capability in enumerate(getattr(of, name)):
            if capability.upper().removeprefix("CAP_") not in CAPABILITIES:
                raise refuse(
                    f"{field}.{name}[{place}]",
                    f"{capability!r} is not a capability; write one like NET_ADMIN, or ALL",
                )
        _check_unique(getattr(of, name), f"{field}.{name}")
    for name in ("group_add", "security_opt"):
        for place, word in enumerate(getattr(of, name)):
            if not word or "\0" in word:
                raise refuse(f"{field}.{name}[{place}]", "is empty, or holds a NUL character")


def _check_unique(words: Iterable[str], field: str) -> None:
    seen: set[str] = set()
    for word in words:
        if word in seen:
            raise refuse(field, f"{word!r} is named twice")
        seen.add(word)


def _check_resolving(of: ContainerSpec, field: str) -> None:
    for place, server in enumerate(of.dns):
        if not _is_address(server):
            raise refuse(f"{field}.dns[{place}]", f"{server!r} is not an IP address")
    for name in ("dns_search", "dns_options"):
        for place, word in enumerate(getattr(of, name)):
            if not word or not word.isprintable() or " " in word:
                raise refuse(f"{field}.{name}[{place}]", f"{word!r} is not a single word")
    for place, host in enumerate(of.extra_hosts):
        name, colon, address = host.partition(":")
        is_known = "{{" in host or address == _HOST_GATEWAY or _is_address(address)
        if not (name and colon and is_known and host.isprintable()):
            raise refuse(
                f"{field}.extra_hosts[{place}]",
                f"{host!r} is no name with an address; write it like 'db:10.1.2.3'",
            )
    if of.mac_address and not _MAC_ADDRESS.fullmatch(of.mac_address):
        raise refuse(
            f"{field}.mac_address",
            f"{of.mac_address!r} is no address of an interface; write one like 02:42:ac:11:65:43",
        )
    if of.mac_address and of.network_mode != "bridge":
        raise refuse(
            f"{field}.mac_address",
            "the cluster's networks give addresses to their interfaces themselves; leave it out",
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_sysctls(of: ContainerSpec, field: str) -> None:
    for name, value in of.sysctls:
        if not _SYSCTL_NAME.fullmatch(name) or not value or not value.isprintable():
            raise refuse(f"{field}.{name[:80]}", "a kernel's setting needs a name and a value")
        dotted = name if "." in name else name.replace("/", ".")
        is_own = dotted in _SYSCTLS or dotted.startswith((_NET, _MQUEUE))
        # Other runtimes have kernels of their own.
        if not is_own and not of.runtime:
            raise refuse(
                f"{field}.{name}",
                "is no setting that a container has for itself; set it on the node",
            )


def _check_ulimits(ulimits: tuple[Ulimit, ...], field: str) -> None:
    _check_unique((limit.name for limit in ulimits), field)
    for limit in ulimits:
        where = f"{field}.{limit.name[:80]}"
        if limit.name not in ULIMITS:
            raise refuse(where, f"is not a limit; known are {', '.join(sorted(ULIMITS))}")
        if min(limit.soft, limit.hard) < -1 or max(limit.soft, limit.hard) > _INT64_MAX:
            raise refuse(where, "must be -1 (unlimited) or more")
        if limit.hard >= 0 and not 0 <= limit.soft <= limit.hard:
            raise refuse(where, f"soft, {limit.soft}, is above hard, {limit.hard}")


def _check_devices(devices: tuple[Device, ...], field: str) -> None:
    targets: set[str] = set()
    for place, device in enumerate(devices):
        where = f"{field}[{place}]"
        if not device.source.startswith("/"):
            if "=" not in device.source:
                raise refuse(f"{where}.source", f"{device.source!r} must start with /")
            continue
        target = device.target or device.source
        if not target.startswith("/"):
            raise refuse(f"{where}.target", f"{target!r} must start with /")
        if posixpath.normpath(target) in targets:
            raise refuse(f"{where}.target", f"{target!r} is named twice")
        targets.add(posixpath.normpath(target))
        if not _PERMISSIONS.fullmatch(device.permissions):
            raise refuse(
                f"{where}.permissions", f"{device.permissions!r} must be of the letters r, w, m"
            )


def _check_request(request: DeviceRequest, field: str) -> None:
    if request.count is not None and request.count < -1:
        raise refuse(f"{field}.count", f"{request.count} must be -1 (all) or more")
    if request.count is not None and request.device_ids:
        raise refuse(f"{field}.count", "count and device_ids exclude each other")
    if not request.capabilities:
        raise refuse(f"{field}.capabilities", "say what the devices must be able to, such as gpu")


def _check_block_limits(limits: tuple[BlockLimit, ...], field: str) -> None:
    for place, limit in enumerate(limits):
        where = f"{field}[{place}]"
        if limit.kind not in (*BLOCK_RATES, BLOCK_WEIGHT):
            raise refuse(f"{where}.kind", f"{limit.kind!r} is not a limit of a device")
        if not limit.path.startswith("/"):
            raise refuse(f"{where}.path", f"{limit.path!r} must start with /")
        is_weight = limit.kind == BLOCK_WEIGHT
        least, most = _BOUNDS["block_weight"] if is_weight else (1, _INT64_MAX)
        if not least <= limit.rate <= most:
            raise refuse(f"{where}.rate", f"{limit.rate} is not between {least} and {most}")


def _check_amounts(task: TaskSpec, field: str) -> None:
    """What depends on the task's limits."""
    of, limits = task.run.container, task.limits
    swap, memory = of.memory_swap_bytes, limits.memory_bytes
    if swap is not None and swap > 0:
        if memory is None:
            raise refuse(f"{field}.memory_swap_bytes", "needs a limit of memory, which it includes")
        if swap < memory:
            raise refuse(
                f"{field}.memory_swap_bytes",
                f"{swap} is below the limit of memory, {memory}, which it includes",
            )
    _check_cpu(of, limits, field)


def _check_cpu(of: ContainerSpec, limits: Resources, field: str) -> None:
    if limits.cpu_nano is not None:
        for name in ("cpu_period", "cpu_quota"):
            if getattr(of, name) is not None:
                raise refuse(
                    f"{field}.{name}", "says the same as the limit of CPUs; leave one of them out"
                )
