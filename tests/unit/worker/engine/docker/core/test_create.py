"""Whole bodies of what the API is asked to create."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.attach import AttachResponse
from skep.domain.base import SECOND_NS, NetworkId, ServiceId, TaskId, replace
from skep.domain.container import (
    BlockLimit,
    ContainerSpec,
    Device,
    DeviceRequest,
    Ulimit,
)
from skep.domain.objects import Attachment, Task
from skep.domain.session import Assignment
from skep.domain.spec import HealthCheck, LogPolicy, Resources, RunSpec, ServiceSpec, TaskSpec
from skep.domain.storage import FileUse, Mount, MountKind
from skep.env import Rejected
from skep.worker.engine.docker.core.create import Creation, Owner, create_body, record_of
from skep.worker.engine.docker.core.image import ImageFacts
from skep.worker.engine.docker.core.mounts import FileMount, owner_of
from skep.worker.engine.docker.core.records import decode_record

IMAGE = ImageFacts(id="sha256:1", reference="nginx:1", command=("nginx",))
NOT_JOINED = AttachResponse()
JOINED = AttachResponse(namespace="/run/skep/n1/netns/t1", address="0.0.0.0")
TASK = Task(
    id=TaskId("t1aaaaaaaaaaaaaaaaaaaaaaa"),
    service_id=ServiceId("s1"),
    service_name="web",
    revision=1,
    slot=3,
    attachments=(Attachment(network_id=NetworkId("net"), address="10.0.1.7"),),
)
NAME = f"web.3.{TASK.id}"


def creation(run: RunSpec, joined: AttachResponse = NOT_JOINED, **task: Any) -> Creation:
    run = replace(run, image="nginx:1")
    spec = ServiceSpec(name="web", task=TaskSpec(run=run, engine="docker", **task))
    assignment = Assignment(task=TASK, spec=spec, stack="shop")
    return Creation(assignment, run, IMAGE, joined, Owner("n1", "c1"))


def body_of(of: Creation) -> dict[str, Any]:
    """The body, without the label that holds the record."""
    body = create_body(of, record_of(of))
    del body["Labels"]["io.skep.record"]
    return body


PLAIN = {
    "Image": "nginx:1",
    "Hostname": "t1aaaaaaaaaa",
    "Domainname": "",
    "Env": [],
    "Labels": {
        "com.docker.stack.namespace": "shop",
        "com.docker.swarm.node.id": "n1",
        "com.docker.swarm.service.id": "s1",
        "com.docker.swarm.service.name": "web",
        "com.docker.swarm.task": "",
        "com.docker.swarm.task.id": TASK.id,
        "com.docker.swarm.task.name": NAME,
        "io.skep.cluster": "c1",
        "io.skep.node": "n1",
    },
    "StopSignal": "SIGTERM",
    "StopTimeout": 10,
    "Healthcheck": {"Test": ["NONE"]},
    "HostConfig": {
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10485760", "max-file": "2"}},
        "NetworkMode": "bridge",
        "Binds": [],
        "Mounts": [],
    },
}


def test_a_service_that_says_nothing_of_its_container() -> None:
    assert body_of(creation(RunSpec())) == PLAIN


def test_a_container_on_skeps_networks() -> None:
    container = ContainerSpec(
        dns=("9.9.9.9",), dns_search=("corp",), extra_hosts=("db=10.1.1.1", "six:::1")
    )
    body = body_of(creation(RunSpec(container=container), JOINED))
    assert body["HostConfig"] == {
        **{key: PLAIN["HostConfig"][key] for key in ("RestartPolicy", "LogConfig")},  # type: ignore[index]
        "NetworkMode": "none",
        "Runtime": "skep",
        "Dns": ["127.0.0.11", "9.9.9.9"],
        "DnsSearch": ["corp"],
        "DnsOptions": ["ndots:0"],
        "ExtraHosts": ["t1aaaaaaaaaa:10.0.1.7", "db:10.1.1.1", "six:::1"],
        "Binds": [],
        "Mounts": [],
    }


def test_everything_that_a_service_can_say() -> None:
    container = ContainerSpec(
        hostname="h",
        domainname="d",
        labels=(("a", "b"), ("io.skep.node", "forged")),
        annotations=(("x", "y"),),
        network_mode="host",
        mac_address="02:00:00:00:00:01",
        dns_options=("timeout:1",),
        init=False,
        is_read_only=True,
        is_privileged=True,
        is_tty=True,
        is_stdin_open=True,
        cap_add=("NET_ADMIN",),
        cap_drop=("ALL",),
        group_add=("7",),
        security_opt=("no-new-privileges",),
        sysctls=(("net.core.somaxconn", "9"),),
        ulimits=(Ulimit(name="nofile", soft=1, hard=-1),),
        devices=(
            Device(source="/dev/fuse"),
            Device(source="/dev/a", target="/dev/b", permissions="r"),
            Device(source="vendor.com/gpu=all"),
        ),
        device_requests=(
            DeviceRequest(capabilities=("gpu",)),
            DeviceRequest(driver="nvidia", device_ids=("0",), capabilities=("gpu", "nvidia")),
        ),
        device_cgroup_rules=("c 1:1 r",),
        shm_bytes=1,
        memory_swap_bytes=-1,
        memory_swappiness=0,
        oom_score_adj=0,
        is_oom_kill_disabled=True,
        cpu_shares=2,
        cpu_period=3,
        cpu_quota=4,
        cpu_realtime_period=5,
        cpu_realtime_runtime=6,
        cpuset="0-1",
        block_weight=10,
        block_limits=(
            BlockLimit(kind="device_read_bps", path="/dev/a", rate=1),
            BlockLimit(kind="device_read_bps", path="/dev/b", rate=2),
            BlockLimit(kind="weight_device", path="/dev/a", rate=3),
        ),
        cgroup_parent="/p",
        cgroupns_mode="private",
        ipc="host",
        pid="host",
        uts="host",
        userns_mode="host",
        isolation="default",
        runtime="runsc",
        storage_options=(("size", "1G"),),
        log_driver="syslog",
        log_options=(("tag", "t"),),
    )
    run = RunSpec(
        command=("/entry",),
        args=("a", "b"),
        env=(("A", "1=2"),),
        working_dir="/w",
        user="u",
        stop_signal="SIGINT",
        stop_grace_ns=SECOND_NS * 3 // 2,
        log=LogPolicy(max_bytes=5, max_files=6),
        container=container,
    )
    of = creation(
        run,
        limits=Resources(cpu_nano=1, memory_bytes=2, pids=3),
        reservations=Resources(cpu_nano=1, memory_bytes=1),
    )
    labels = {**PLAIN["Labels"], "a": "b"}  # type: ignore[dict-item]
    assert body_of(of) == {
        "Image": "nginx:1",
        "Entrypoint": ["/entry"],
        "Cmd": ["a", "b"],
        "Hostname": "h",
        "Domainname": "d",
        "MacAddress": "02:00:00:00:00:01",
        "Env": ["A=1=2"],
        "Labels": labels,
        "User": "u",
        "WorkingDir": "/w",
        "Tty": True,
        "OpenStdin": True,
        "StopSignal": "SIGINT",
        "StopTimeout": 2,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "syslog", "Config": {"tag": "t"}},
            "NetworkMode": "host",
            "Runtime": "runsc",
            "DnsOptions": ["timeout:1"],
            "NanoCpus": 1,
            "Memory": 2,
            "PidsLimit": 3,
            "MemoryReservation": 1,
            "MemorySwap": -1,
            "MemorySwappiness": 0,
            "OomScoreAdj": 0,
            "OomKillDisable": True,
            "CpuShares": 2,
            "CpuPeriod": 3,
            "CpuQuota": 4,
            "CpuRealtimePeriod": 5,
            "CpuRealtimeRuntime": 6,
            "CpusetCpus": "0-1",
            "BlkioWeight": 10,
            "BlkioDeviceReadBps": [
                {"Path": "/dev/a", "Rate": 1},
                {"Path": "/dev/b", "Rate": 2},
            ],
            "BlkioWeightDevice": [{"Path": "/dev/a", "Weight": 3}],
            "ShmSize": 1,
            "Init": False,
            "ReadonlyRootfs": True,
            "Privileged": True,
            "CapAdd": ["NET_ADMIN"],
            "CapDrop": ["ALL"],
            "GroupAdd": ["7"],
            "SecurityOpt": ["no-new-privileges"],
            "Sysctls": {"net.core.somaxconn": "9"},
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": -1}],
            "CgroupParent": "/p",
            "CgroupnsMode": "private",
            "IpcMode": "host",
            "PidMode": "host",
            "UTSMode": "host",
            "UsernsMode": "host",
            "Isolation": "default",
            "StorageOpt": {"size": "1G"},
            "Annotations": {"x": "y"},
            "Devices": [
                {
                    "PathOnHost": "/dev/fuse",
                    "PathInContainer": "/dev/fuse",
                    "CgroupPermissions": "rwm",
                },
                {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"},
            ],
            "DeviceRequests": [
                {
                    "Driver": "",
                    "Count": -1,
                    "DeviceIDs": [],
                    "Capabilities": [["gpu"]],
                    "Options": {},
                },
                {
                    "Driver": "nvidia",
                    "Count": 0,
                    "DeviceIDs": ["0"],
                    "Capabilities": [["gpu", "nvidia"]],
                    "Options": {},
                },
                {"Driver": "cdi", "DeviceIDs": ["vendor.com/gpu=all"]},
            ],
            "DeviceCgroupRules": ["c 1:1 r"],
            "Binds": [],
            "Mounts": [],
        },
    }


def test_what_is_mounted() -> None:
    mounts = (
        Mount(kind=MountKind.VOLUME, source="v", target="/v"),
        Mount(kind=MountKind.VOLUME, target="/anonymous"),
        Mount(
            kind=MountKind.VOLUME,
            source="w",
            target="/w",
            is_read_only=True,
            is_no_copy=True,
            subpath="s",
            driver="nfs",
            driver_options=(("o", "p"),),
            labels=(("k", "l"),),
        ),
        Mount(kind=MountKind.BIND, source="/a", target="/b", propagation="rslave"),
        Mount(
            kind=MountKind.BIND,
            source="/c",
            target="/d",
            is_read_only=True,
            creates_host_path=True,
            propagation="shared",
        ),
        Mount(kind=MountKind.TMPFS, target="/t", size_bytes=9, mode=0o1777),
        Mount(kind=MountKind.TMPFS, target="/u"),
    )
    of = creation(RunSpec(mounts=mounts))
    file = FileMount(source="/run/f", target="/run/secrets/f")
    host = body_of(Creation(of.assignment, of.run, of.image, of.joined, of.owner, (file,)))[
        "HostConfig"
    ]
    assert host["Binds"] == ["/c:/d:ro,shared"]
    assert host["Mounts"] == [
        {"Type": "volume", "Source": "v", "Target": "/v"},
        {"Type": "volume", "Target": "/anonymous"},
        {
            "Type": "volume",
            "Source": "w",
            "Target": "/w",
            "ReadOnly": True,
            "VolumeOptions": {
                "NoCopy": True,
                "Subpath": "s",
                "Labels": {"k": "l"},
                "DriverConfig": {"Name": "nfs", "Options": {"o": "p"}},
            },
        },
        {"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"Propagation": "rslave"}},
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 9, "Mode": 0o1777}},
        {"Type": "tmpfs", "Target": "/u"},
        {"Type": "bind", "Source": "/run/f", "Target": "/run/secrets/f", "ReadOnly": True},
    ]


def test_the_record_goes_along() -> None:
    health = HealthCheck(test=("CMD", "true"))
    of = creation(RunSpec(health=health), JOINED, limits=Resources(memory_bytes=5))
    record = record_of(of)
    assert (record.name, record.health, record.memory_bytes, record.namespace) == (
        NAME,
        health,
        5,
        JOINED.namespace,
    )
    assert decode_record(create_body(of, record)["Labels"]["io.skep.record"]) == record
    assert decode_record("{}") is None
    assert decode_record('{"format": 99, "task_id": "t", "name": "n"}') is None


@pytest.mark.parametrize(
    ("spec", "image", "found"),
    [
        ("SIGTERM", "", "SIGTERM"),
        ("SIGTERM", "SIGQUIT", "SIGQUIT"),
        ("SIGINT", "SIGQUIT", "SIGINT"),
    ],
)
def test_the_stop_signal_is_the_images_unless_the_service_has_one(
    spec: str, image: str, found: str
) -> None:
    of = creation(RunSpec(stop_signal=spec))
    of = Creation(of.assignment, of.run, replace(IMAGE, stop_signal=image), of.joined, of.owner)
    assert record_of(of).stop_signal == found


def test_what_can_be_no_container() -> None:
    of = creation(RunSpec(container=ContainerSpec(runtime="runsc")), JOINED)
    with pytest.raises(Rejected, match="runtime 'runsc' can't be had on Skep's networks"):
        body_of(of)
    of = creation(RunSpec())
    empty = Creation(of.assignment, of.run, replace(IMAGE, command=()), of.joined, of.owner)
    with pytest.raises(Rejected, match="nginx:1 names no command"):
        body_of(empty)


def test_files_belong_to_numbers() -> None:
    assert owner_of(FileUse(name="n", uid="5", gid="6")) == (5, 6)
    with pytest.raises(Rejected, match="n: 'www' is no number of a user or a group"):
        owner_of(FileUse(name="n", uid="www"))
