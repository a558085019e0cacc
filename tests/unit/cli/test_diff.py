"""How two specs differ, by the names of a stack file."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from skep.cli import diff
from skep.domain.base import replace
from skep.domain.container import BlockLimit, ContainerSpec, Device, DeviceRequest, Ulimit
from skep.domain.spec import (
    ExposedPort,
    HealthCheck,
    NetworkUse,
    Placement,
    Platform,
    Port,
    Protocol,
    ProxyProtocol,
    Resources,
    RestartPolicy,
    RunSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from skep.domain.storage import FileUse, Mount, MountKind

CONTAINER = ContainerSpec(
    labels=(("a", "b"),),
    annotations=(("a", "b"),),
    dns=("1.1.1.1",),
    dns_search=("a.b",),
    dns_options=("ndots:2",),
    extra_hosts=("a:1.2.3.4",),
    cap_add=("CHOWN",),
    cap_drop=("ALL",),
    group_add=("mail",),
    security_opt=("label=$a",),
    sysctls=(("net.a", "1"),),
    ulimits=(Ulimit(name="core", soft=1, hard=2),),
    devices=(Device(source="/dev/a", target="/dev/b", permissions="r"),),
    device_requests=(
        DeviceRequest(
            driver="d", count=1, device_ids=("0",), capabilities=("gpu",), options=(("a", "b"),)
        ),
    ),
    device_cgroup_rules=("c 1:* r",),
    block_limits=(BlockLimit(kind="device_read_bps", path="/dev/a", rate=5),),
    storage_options=(("a", "b"),),
    log_driver="syslog",
    log_options=(("a", "b"),),
)
FULL = ServiceSpec(
    name="web",
    labels=(("team", "shop"),),
    ports=(
        Port(target=80, published=8080, name="http"),
        Port(target=81, proxy_protocol=ProxyProtocol.V1, accepts_proxy_protocol=True),
    ),
    exposed=(ExposedPort(target=9100),),
    task=TaskSpec(
        run=RunSpec(
            image="v1",
            command=("env",),
            args=("serve", "a b"),
            env=(("A", "1"),),
            working_dir="/srv",
            user="me",
            health=HealthCheck(test=("CMD-SHELL", "probe me")),
            image_digest="sha256:1",
            mounts=(
                Mount(
                    kind=MountKind.VOLUME,
                    source="data",
                    target="/a",
                    subpath="b",
                    propagation="c",
                    driver="nfs",
                    driver_options=(("o", "p"),),
                    labels=(("l", "m"),),
                    size_bytes=5,
                    mode=0o700,
                ),
            ),
            configs=(FileUse(name="conf", id="1", target="/etc/a"),),
            secrets=(FileUse(name="key", id="2", target="key"),),
            container=CONTAINER,
        ),
        limits=Resources(cpu_nano=10**9, memory_bytes=2**30, pids=7),
        reservations=Resources(cpu_nano=10**8, memory_bytes=2**20, pids=1),
        restart=RestartPolicy(max_attempts=3, window_ns=10**9),
        placement=Placement(
            constraints=("node.role == worker",),
            preferences=("node.labels.zone",),
            max_replicas_per_node=2,
            platforms=(Platform(os="linux", arch="amd64"),),
        ),
        force_update=1,
        networks=(
            NetworkUse(network="front", aliases=("www",)),
            NetworkUse(network="back", aliases=("db",)),
        ),
    ),
)


def others(of: msgspec.Struct, path: str = "") -> Iterator[tuple[str, Any]]:
    """Copies of it with one field changed, however deep, and that field's path."""
    for name in of.__struct_fields__:
        value = getattr(of, name)
        at = f"{path}.{name}"
        for changed_at, changed in changed_values(value, at):
            yield changed_at, replace(of, **{name: changed})  # type: ignore[type-var]


def changed_values(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, msgspec.Struct):
        yield from others(value, at)
    elif isinstance(value, enum.Enum):
        yield from ((at, other) for other in type(value) if other is not value)
    elif isinstance(value, tuple):
        is_pair = at.endswith("]")
        if not is_pair:
            yield at, ()
        for place, item in enumerate(value):
            for deeper, changed in changed_values(item, f"{at}[{place}]"):
                yield deeper, (*value[:place], changed, *value[place + 1 :])
    elif isinstance(value, str):
        yield at, value + "x"
    elif isinstance(value, int | float):
        yield at, not value if isinstance(value, bool) else value + 1
    else:
        assert value is None
        yield at, 1


# What a diff can't tell: the name never changes, and of these there is only one so far.
ALONE = (".name", ".mode", "protocol")
CHANGED = [(at, spec) for at, spec in others(FULL) if at not in ALONE and "test" not in at]


def test_no_field_is_left_out() -> None:
    assert [len(ServiceMode), len(Protocol)] == [1, 2]
    silent = [at for at, spec in CHANGED if not diff.changes(FULL, spec)]
    assert silent == []
    assert len(CHANGED) > 60


def test_the_same_is_no_difference() -> None:
    assert diff.changes(FULL, FULL) == []
    assert diff.summary([]) == ""


def test_what_is_gone_stands_where_it_was() -> None:
    old = replace(FULL, task=replace(FULL.task, run=replace(FULL.task.run, env=(("B", "2"),))))
    bare = replace(FULL.task.run, health=None, image="")
    new = replace(FULL, replicas=5, task=replace(FULL.task, run=bare))
    found = diff.changes(old, new)
    assert [change.field for change in found] == [
        "image",
        "environment.B",
        "environment.A",
        "healthcheck.test",
        "healthcheck.interval",
        "healthcheck.timeout",
        "healthcheck.start_period",
        "healthcheck.start_interval",
        "healthcheck.retries",
        "deploy.replicas",
    ]
    assert list(diff.lines(found))[:4] == [
        "- image: v1",
        "- environment.B: 2",
        "+ environment.A: 1",
        "- healthcheck.test: probe me",
    ]
    assert list(diff.lines(found))[-2:] == ["- deploy.replicas: 1", "+ deploy.replicas: 5"]
    assert diff.summary(found) == "image, environment, healthcheck, replicas"
    more = diff.changes(old, replace(new, labels=(), ports=()))
    assert diff.summary(more) == "image, environment, ports, healthcheck and 2 more"


@pytest.mark.parametrize(
    ("span_ns", "text"),
    [
        (0, "0s"),
        (90 * 10**9, "1m30s"),
        (3600 * 10**9, "1h"),
        (3601 * 10**9, "1h1s"),
        (1_500_000_000, "1.5s"),
        (500_000_000, "500ms"),
        (100, "0.0001ms"),
        (60 * 10**9 + 5_000_000, "1m5ms"),
    ],
)
def test_durations(span_ns: int, text: str) -> None:
    assert diff.duration(span_ns) == text


def test_sizes() -> None:
    sizes = [10 * 2**20, 2**30, 1536 * 2**20, 1000, 512 * 1024]
    assert [diff.size(amount) for amount in sizes] == ["10M", "1G", "1536M", "1000", "512K"]
