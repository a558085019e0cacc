"""What a spec with containers is refused for, always with one field by its path."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import replace
from skep.domain.container import BlockLimit, ContainerSpec, Device, DeviceRequest, Ulimit
from skep.domain.spec import (
    EndpointMode,
    HealthCheck,
    NetworkUse,
    Port,
    Resources,
    RunSpec,
    ServiceSpec,
    TaskSpec,
)
from skep.domain.storage import FileUse, Mount, MountKind
from skep.domain.validate import check_service
from skep.domain.validate_storage import file_target
from skep.env import Rejected

PLAIN = ServiceSpec(
    name="a", task=TaskSpec(run=RunSpec(image="nginx:1", stop_signal=""), engine="docker")
)


def run(**changes: Any) -> ServiceSpec:
    return replace(PLAIN, task=replace(PLAIN.task, run=replace(PLAIN.task.run, **changes)))


def container(limits: Resources | None = None, **settings: Any) -> ServiceSpec:
    of = run(container=ContainerSpec(**settings))
    return replace(of, task=replace(of.task, limits=limits or Resources()))


def mount(kind: MountKind = MountKind.VOLUME, **changes: Any) -> ServiceSpec:
    source = {"source": "/a"} if kind is MountKind.BIND else {}
    return run(mounts=(Mount(kind=kind, **{"target": "/c", **source, **changes}),))


def process(**changes: Any) -> ServiceSpec:
    task = TaskSpec(run=RunSpec(command=("x",), **changes))
    return ServiceSpec(name="a", task=task)


MEMORY = Resources(memory_bytes=2**30)
ACCEPTED = [
    PLAIN,
    run(command=("",), args=("a",)),
    run(health=HealthCheck()),
    run(image="registry.example.com:5000/team/app:1@sha256:" + "0" * 64),
    container(network_mode="host"),
    container(MEMORY, memory_swap_bytes=2**30),
    container(memory_swap_bytes=-1),
    container(ulimits=(Ulimit(name="nofile", soft=-1, hard=-1),)),
    container(ulimits=(Ulimit(name="nofile", soft=5, hard=-1),)),
    container(sysctls=(("net.core.somaxconn", "5"), ("fs.mqueue.x", "1"), ("kernel.sem", "1 2"))),
    container(runtime="runsc", sysctls=(("kernel.panic", "1"),)),
    container(cap_add=("net_admin", "CAP_SYS_TIME", "ALL")),
    container(extra_hosts=("a:1.2.3.4", "a:::1", "b:host-gateway", "c:{{.Node.Address}}")),
    mount(source="v-{{.Task.Slot}}"),
    run(
        mounts=(Mount(kind=MountKind.BIND, source="/a", target="/c/d"),),
        configs=(FileUse(name="x", target="/c/e"),),
        secrets=(FileUse(name="x"),),
    ),
]

C = "spec.task.run.container"
M = "spec.task.run.mounts[0]"
REFUSED: list[tuple[ServiceSpec, str, str]] = [
    (run(image=""), "spec.task.run.image", "runs images; name one"),
    (run(image="Nginx"), "spec.task.run.image", "is no image's name"),
    (run(command=("", "a")), "spec.task.run.command", "the program's name is empty"),
    (run(args=("",)), "spec.task.run.command", "the program's name is empty"),
    (run(health=HealthCheck(test=("",))), "spec.task.run.health.test", "must begin with"),
    (process(health=HealthCheck()), "spec.task.run.health.test", "must begin with"),
    (process(stop_signal=""), "spec.task.run.stop_signal", "unknown signal"),
    (
        process(container=ContainerSpec(init=False)),
        f"{C}.init",
        "needs a container; use the engine",
    ),
    (
        process(mounts=(Mount(kind=MountKind.TMPFS, target="/c"),)),
        "spec.task.run.mounts",
        "mounts need",
    ),
    (process(configs=(FileUse(name="a"),)), "spec.task.run.configs", "need a container"),
    (process(secrets=(FileUse(name="a"),)), "spec.task.run.secrets", "need a container"),
    (container(network_mode="weave"), f"{C}.network_mode", "'host', 'none', 'bridge'"),
    (
        replace(
            container(network_mode="none"),
            task=replace(
                container(network_mode="none").task, networks=(NetworkUse(network="front"),)
            ),
        ),
        "spec.task.networks",
        "a service has no network and is on none",
    ),
    (
        replace(container(network_mode="bridge"), ports=(Port(target=80),)),
        f"{C}.network_mode",
        "no port of it can be published",
    ),
    (
        container(network_mode="host", sysctls=(("net.core.somaxconn", "5"),)),
        f"{C}.sysctls",
        "its node's 'net.' settings",
    ),
    (container(hostname="a b"), f"{C}.hostname", "can't be a host's name"),
    (container(hostname="a" * 65), f"{C}.hostname", "64 at most"),
    (container(hostname="{{.Task.Slt}}"), f"{C}.hostname", "unknown template"),
    (container(hostname="a", uts="host"), f"{C}.hostname", "its node's name"),
    (container(labels=(("a", "b\0"),)), f"{C}.labels", "NUL"),
    (container(dns=("x",)), f"{C}.dns[0]", "not an IP address"),
    (container(dns_search=("a b",)), f"{C}.dns_search[0]", "not a single word"),
    (container(extra_hosts=("a",)), f"{C}.extra_hosts[0]", "no name with an address"),
    (container(mac_address="x", network_mode="bridge"), f"{C}.mac_address", "no address of an"),
    (container(mac_address="02:42:ac:11:65:43"), f"{C}.mac_address", "give addresses"),
    (container(cap_add=("CHOWN", "CHOWN")), f"{C}.cap_add", "named twice"),
    (container(cap_drop=("X",)), f"{C}.cap_drop[0]", "'X' is not a capability"),
    (container(group_add=("",)), f"{C}.group_add[0]", "is empty"),
    (
        container(sysctls=(("kernel.panic", "1"),)),
        f"{C}.sysctls.kernel.panic",
        "set it on the node",
    ),
    (container(sysctls=(("net.a", ""),)), f"{C}.sysctls.net.a", "needs a name and a value"),
    (container(ulimits=(Ulimit(name="x", soft=1, hard=1),)), f"{C}.ulimits.x", "is not a limit"),
    (
        container(ulimits=(Ulimit(name="core", soft=2, hard=1),)),
        f"{C}.ulimits.core",
        "soft, 2, is above hard, 1",
    ),
    (
        container(ulimits=(Ulimit(name="core", soft=-1, hard=1),)),
        f"{C}.ulimits.core",
        "soft, -1, is above",
    ),
    (container(ulimits=(Ulimit(name="core", soft=1, hard=1),) * 2), f"{C}.ulimits", "named twice"),
    (container(devices=(Device(source="a"),)), f"{C}.devices[0].source", "must start with /"),
    (
        container(devices=(Device(source="/dev/a", permissions="rr"),)),
        f"{C}.devices[0].permissions",
        "of the letters r, w, m",
    ),
    (
        container(device_requests=(DeviceRequest(count=1),)),
        f"{C}.device_requests[0].capabilities",
        "such as gpu",
    ),
    (
        container(
            device_requests=(DeviceRequest(count=1, device_ids=("0",), capabilities=("gpu",)),)
        ),
        f"{C}.device_requests[0].count",
        "exclude each other",
    ),
    (container(device_cgroup_rules=("x",)), f"{C}.device_cgroup_rules[0]", "is no rule"),
    (container(shm_bytes=0), f"{C}.shm_bytes", "not between"),
    (container(memory_swap_bytes=5), f"{C}.memory_swap_bytes", "needs a limit of memory"),
    (container(MEMORY, memory_swap_bytes=5), f"{C}.memory_swap_bytes", "is below the limit"),
    (
        container(Resources(cpu_nano=10**9), cpu_quota=5000),
        f"{C}.cpu_quota",
        "says the same as the limit of CPUs",
    ),
    (container(cpuset="x"), f"{C}.cpuset", "names no CPUs"),
    (container(ipc="container:x"), f"{C}.ipc", "is not one of"),
    (
        container(block_limits=(BlockLimit(kind="x", path="/a", rate=1),)),
        f"{C}.block_limits[0].kind",
        "is not a limit of a device",
    ),
    (
        container(block_limits=(BlockLimit(kind="weight_device", path="/a", rate=5),)),
        f"{C}.block_limits[0].rate",
        "not between 10 and 1000",
    ),
    (container(log_options=(("a", "b"),)), f"{C}.log_options", "need a log driver"),
    (container(dns=("1.1.1.1",) * 257), f"{C}.dns", "the limit is 256"),
    (run(mounts=(Mount(kind=MountKind.TMPFS, target="/c"),) * 129), "spec.task.run.mounts", "128"),
    (mount(target="c"), f"{M}.target", "must start with /"),
    (mount(target="/a/.."), f"{M}.target", "over a container's root"),
    (
        run(mounts=tuple(Mount(kind=MountKind.TMPFS, target=at) for at in ("/c", "/a/../c/"))),
        "spec.task.run.mounts[1].target",
        "mounted at /c already",
    ),
    (mount(source="a b"), f"{M}.source", "can't be a volume's name"),
    (mount(source="{{.Task.Slt}}"), M, "unknown template"),
    (mount(MountKind.BIND, source="a"), f"{M}.source", "must be a path of the node"),
    (mount(MountKind.TMPFS, source="a"), f"{M}.source", "memory has no source"),
    (mount(MountKind.TMPFS, size_bytes=0), f"{M}.size_bytes", "at least 1"),
    (mount(MountKind.TMPFS, mode=0o10000), f"{M}.mode", "is more than 7777"),
    (mount(MountKind.TMPFS, subpath="a"), f"{M}.subpath", "'tmpfs' has no such thing"),
    (mount(MountKind.BIND, driver="x"), f"{M}.driver", "'bind' has no such thing"),
    (mount(MountKind.BIND, propagation="x"), f"{M}.propagation", "is not one of"),
    (mount(propagation="shared"), f"{M}.propagation", "'volume' has no such thing"),
    (mount(size_bytes=1), f"{M}.size_bytes", "'volume' has no such thing"),
    (mount(subpath="a"), f"{M}.subpath", "begins empty"),
    (mount(source="a", subpath="/a"), f"{M}.subpath", "must be within the volume"),
    (run(configs=(FileUse(name=""),)), "spec.task.run.configs[0].name", "required"),
    (run(configs=(FileUse(name="a", uid="me"),)), "spec.task.run.configs[0].uid", "a number"),
    (run(configs=(FileUse(name="a", mode=0o10000),)), "spec.task.run.configs[0].mode", "7777"),
    (
        run(configs=(FileUse(name="a", target="../a"),)),
        "spec.task.run.configs[0].target",
        "path of",
    ),
    (
        run(secrets=(FileUse(name="a"), FileUse(name="b", target="/run/secrets/a"))),
        "spec.task.run.secrets[1].target",
        "something else at /run/secrets/a already",
    ),
    (
        run(
            mounts=(Mount(kind=MountKind.TMPFS, target="/a"),),
            configs=(FileUse(name="a"),),
        ),
        "spec.task.run.configs[0].target",
        "something else at /a already",
    ),
]


@pytest.mark.parametrize("spec", ACCEPTED)
def test_what_can_work_is_taken(spec: ServiceSpec) -> None:
    check_service(spec)
    check_service(replace(spec, endpoint_mode=EndpointMode.DNSRR))


@pytest.mark.parametrize(("spec", "field", "text"), REFUSED)
def test_what_cannot_work_is_refused_with_its_field(
    spec: ServiceSpec, field: str, text: str
) -> None:
    with pytest.raises(Rejected) as caught:
        check_service(spec)
    assert caught.value.field.startswith(field), caught.value
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("target", "is_secret", "found"),
    [
        ("", True, "/run/secrets/n"),
        ("", False, "/n"),
        ("sub/x", True, "/run/secrets/sub/x"),
        ("/etc/x", True, "/etc/x"),
        ("etc/x", False, "/etc/x"),
    ],
)
def test_where_files_are_seen(target: str, is_secret: bool, found: str) -> None:
    assert file_target(FileUse(name="n", target=target), is_secret=is_secret) == found
