"""What the API is asked to create for one task: everything that its spec says of its container."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from skep.domain.attach import AttachResponse
from skep.domain.base import SECOND_NS
from skep.domain.container import ContainerSpec
from skep.domain.session import Assignment
from skep.domain.signals import parse_signal
from skep.domain.spec import LogPolicy, RunSpec, TaskSpec
from skep.env import Rejected
from skep.worker.engine.docker.core.daemonfile import RUNTIME
from skep.worker.engine.docker.core.health import merged_health
from skep.worker.engine.docker.core.image import ImageFacts
from skep.worker.engine.docker.core.mounts import FileMount, mounts_of
from skep.worker.engine.docker.core.records import (
    CLUSTER_LABEL,
    NODE_LABEL,
    RECORD_FORMAT,
    RECORD_LABEL,
    TASK_LABEL,
    ContainerRecord,
    encode_record,
)

# Where a task of the kernel's data plane asks for names.
TASK_DNS = "127.0.0.11"
# So that names without a dot, which services have, are asked for as they are.
DNS_OPTIONS = ("ndots:0",)
# The tree of version 2: beside those of version 1, or alone.
CGROUP_ROOTS = ("/sys/fs/cgroup/unified/", "/sys/fs/cgroup/")
DEFAULT_STOP_SIGNAL = RunSpec().stop_signal
# Docker's own for containers that give none is as long, and of their id.
HOSTNAME_LENGTH = 12
_BLOCK_LIMITS = {
    "device_read_bps": "BlkioDeviceReadBps",
    "device_read_iops": "BlkioDeviceReadIOps",
    "device_write_bps": "BlkioDeviceWriteBps",
    "device_write_iops": "BlkioDeviceWriteIOps",
    "weight_device": "BlkioWeightDevice",
}


@dataclass(frozen=True)
class Owner:
    """Whose containers these are: nobody touches those of another node."""

    node_id: str
    cluster_id: str


@dataclass(frozen=True)
class Creation:
    """All that a container is made of. `run` is the spec's with its templates resolved."""

    assignment: Assignment
    run: RunSpec
    image: ImageFacts
    joined: AttachResponse
    owner: Owner
    files: tuple[FileMount, ...] = ()


def cgroup_parent(cgroup: str) -> str:
    """Where a container's control groups must be so that what hangs at the one above `cgroup`, by
    which virtual addresses are its tasks', is for the container as well: in a folder beside it.
    runc has them at the same path in the trees of both versions."""
    for root in CGROUP_ROOTS:
        if cgroup.startswith(root):
            return "/" + posixpath.dirname(cgroup.removeprefix(root)) + "/containers"
    return ""


def container_name(assignment: Assignment) -> str:
    """What Docker Swarm calls it: service, slot and id of the task."""
    return f"{assignment.task.name}.{assignment.task.id}"


def record_of(of: Creation) -> ContainerRecord:
    """What the engine must know of a container once it is there."""
    task = of.assignment.task
    stop_signal = of.run.stop_signal
    if stop_signal in ("", DEFAULT_STOP_SIGNAL):
        stop_signal = of.image.stop_signal or DEFAULT_STOP_SIGNAL
    parse_signal(stop_signal, "spec.task.run.stop_signal")
    return ContainerRecord(
        format=RECORD_FORMAT,
        task_id=task.id,
        name=container_name(of.assignment),
        stop_signal=stop_signal,
        stop_grace_ns=of.run.stop_grace_ns,
        health=merged_health(of.run.health, of.image.health),
        memory_bytes=of.assignment.spec.task.limits.memory_bytes,
        namespace=of.joined.namespace,
        cgroup_parent=cgroup_parent(of.joined.cgroup),
    )


def create_body(of: Creation, record: ContainerRecord) -> dict[str, Any]:
    """The body of POST /containers/create. Raises Rejected for what can't be a container here."""
    run, container = of.run, of.run.container
    if not (run.command or run.args or of.image.entrypoint or of.image.command):
        raise Rejected(
            f"image {run.image} names no command to run, and neither does the service",
            field="spec.task.run.command",
        )
    body: dict[str, Any] = {
        "Image": of.image.reference,
        "Hostname": hostname_of(of) if _has_own_name(container) else "",
        "Domainname": container.domainname,
        "Env": [f"{name}={value}" for name, value in run.env],
        "Labels": _labels(of, record),
        "StopSignal": record.stop_signal,
        "StopTimeout": -(-record.stop_grace_ns // SECOND_NS),
        # Skep asks, so that a test counts in the same way whatever runs a task.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(of),
    }
    if run.command:
        body["Entrypoint"] = list(run.command)
    if run.args:
        body["Cmd"] = list(run.args)
    return body | _said(
        User=run.user,
        WorkingDir=run.working_dir,
        Tty=container.is_tty,
        OpenStdin=container.is_stdin_open,
        MacAddress=container.mac_address,
    )


def hostname_of(of: Creation) -> str:
    """What a container is called inside."""
    return of.run.container.hostname or of.assignment.task.id[:HOSTNAME_LENGTH]


def _has_own_name(container: ContainerSpec) -> bool:
    is_nodes = "host" in (container.uts, container.network_mode)
    return bool(container.hostname) or not is_nodes


def _labels(of: Creation, record: ContainerRecord) -> dict[str, str]:
    task, stack = of.assignment.task, of.assignment.stack
    return {
        **dict(of.run.container.labels),
        **({"com.docker.stack.namespace": stack} if stack else {}),
        "com.docker.swarm.node.id": of.owner.node_id,
        "com.docker.swarm.service.id": task.service_id,
        "com.docker.swarm.service.name": task.service_name,
        "com.docker.swarm.task": "",
        TASK_LABEL: task.id,
        "com.docker.swarm.task.name": record.name,
        NODE_LABEL: of.owner.node_id,
        CLUSTER_LABEL: of.owner.cluster_id,
        RECORD_LABEL: encode_record(record),
    }


def _host_config(of: Creation) -> dict[str, Any]:
    run, container = of.run, of.run.container
    return {
        "RestartPolicy": {"Name": "no"},
        "LogConfig": _log_config(container, run.log),
        **_network(of),
        **_limits(of.assignment.spec.task, container),
        **_security(container),
        **_devices(container),
        **mounts_of(run.mounts, of.files),
        **_said(CgroupParent=cgroup_parent(of.joined.cgroup) or container.cgroup_parent),
    }


def _network(of: Creation) -> dict[str, Any]:
    container, joined = of.run.container, of.joined
    hosts = [_extra_host(text) for text in container.extra_hosts]
    dns, options = list(container.dns), list(container.dns_options)
    if not joined.namespace:
        mode = {"NetworkMode": container.network_mode or "bridge"}
        runtime = _said(Runtime=container.runtime)
    else:
        if container.runtime:
            raise Rejected(
                f"runtime '{container.runtime}' can't be had on Skep's networks, which need one of "
                "their own; use `network_mode: host` or `none` with it",
                field="spec.task.run.container.runtime",
            )
        mode, runtime = {"NetworkMode": "none"}, {"Runtime": RUNTIME}
        own = of.assignment.task.attachments[:1]
        hosts = [f"{hostname_of(of)}:{each.address}" for each in own] + hosts
        dns, options = [TASK_DNS, *dns], options or list(DNS_OPTIONS)
    return {
        **mode,
        **runtime,
        **_said(Dns=dns, DnsSearch=list(container.dns_search), DnsOptions=options),
        **_said(ExtraHosts=hosts),
    }


def _extra_host(text: str) -> str:
    # The compose specification has "name=address" as well, which the API doesn't know.
    name, mark, address = text.partition("=")
    return f"{name}:{address}" if mark and ":" not in name else text


def _limits(task: TaskSpec, container: ContainerSpec) -> dict[str, Any]:
    blocks: dict[str, list[dict[str, Any]]] = {}
    for limit in container.block_limits:
        key = _BLOCK_LIMITS[limit.kind]
        amount = "Weight" if limit.kind == "weight_device" else "Rate"
        blocks.setdefault(key, []).append({"Path": limit.path, amount: limit.rate})
    limits = task.limits
    return blocks | _given(
        NanoCpus=limits.cpu_nano,
        Memory=limits.memory_bytes,
        PidsLimit=limits.pids,
        MemoryReservation=task.reservations.memory_bytes,
        MemorySwap=container.memory_swap_bytes,
        MemorySwappiness=container.memory_swappiness,
        OomScoreAdj=container.oom_score_adj,
        OomKillDisable=container.is_oom_kill_disabled or None,
        CpuShares=container.cpu_shares,
        CpuPeriod=container.cpu_period,
        CpuQuota=container.cpu_quota,
        CpuRealtimePeriod=container.cpu_realtime_period,
        CpuRealtimeRuntime=container.cpu_realtime_runtime,
        CpusetCpus=container.cpuset or None,
        BlkioWeight=container.block_weight,
        ShmSize=container.shm_bytes,
    )


def _security(container: ContainerSpec) -> dict[str, Any]:
    ulimits = [
        {"Name": each.name, "Soft": each.soft, "Hard": each.hard} for each in container.ulimits
    ]
    return _given(Init=container.init) | _said(
        ReadonlyRootfs=container.is_read_only,
        Privileged=container.is_privileged,
        CapAdd=list(container.cap_add),
        CapDrop=list(container.cap_drop),
        GroupAdd=list(container.group_add),
        SecurityOpt=list(container.security_opt),
        Sysctls=dict(container.sysctls),
        Ulimits=ulimits,
        CgroupnsMode=container.cgroupns_mode,
        IpcMode=container.ipc,
        PidMode=container.pid,
        UTSMode=container.uts,
        UsernsMode=container.userns_mode,
        Isolation=container.isolation,
        StorageOpt=dict(container.storage_options),
        Annotations=dict(container.annotations),
    )


def _devices(container: ContainerSpec) -> dict[str, Any]:
    paths = [each for each in container.devices if each.source.startswith("/")]
    devices = [
        {
            "PathOnHost": each.source,
            "PathInContainer": each.target or each.source,
            "CgroupPermissions": each.permissions,
        }
        for each in paths
    ]
    requests: list[dict[str, Any]] = [
        {
            "Driver": each.driver,
            "Count": -1 if each.count is None and not each.device_ids else each.count or 0,
            "DeviceIDs": list(each.device_ids),
            "Capabilities": [list(each.capabilities)],
            "Options": dict(each.options),
        }
        for each in container.device_requests
    ]
    names = [each.source for each in container.devices if not each.source.startswith("/")]
    if names:
        requests.append({"Driver": "cdi", "DeviceIDs": names})
    return _said(
        Devices=devices,
        DeviceRequests=requests,
        DeviceCgroupRules=list(container.device_cgroup_rules),
    )


def _log_config(container: ContainerSpec, log: LogPolicy) -> dict[str, Any]:
    options = dict(container.log_options)
    if container.log_driver:
        return {"Type": container.log_driver, "Config": options}
    kept = {"max-size": str(log.max_bytes), "max-file": str(log.max_files)}
    return {"Type": "json-file", "Config": kept | options}


def _said(**values: Any) -> dict[str, Any]:
    """What isn't empty."""
    return {name: value for name, value in values.items() if value}


def _given(**values: Any) -> dict[str, Any]:
    """What isn't absent: zero is a value."""
    return {name: value for name, value in values.items() if value is not None}
