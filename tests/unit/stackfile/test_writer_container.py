"""What is written of containers reads as the same stack again."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from skep.cli.output import to_yaml
from skep.domain import container, spec, storage
from skep.domain.base import pairs, replace
from skep.domain.spec import ServiceSpec, StackSpec
from skep.domain.storage import MountKind
from skep.stackfile import Reading, ReadStack, StackText, read, stack_values
from tests.unit.stackfile.files import BESIDE, told
from tests.unit.stackfile.files import container as a_container
from tests.unit.stackfile.test_storage import FILES, TOP
from tests.unit.stackfile.test_writer import FULL_TEXT, LABELS, WORDS, health, tasks

PATHS = st.sampled_from(["/a", "/a/b", "/c d", "/e$f", "/x:y"])
WORD = st.sampled_from(["a", "b-1", "no", "null", "5", "a.b", "~"])
NUMBERS = st.none() | st.integers(1, 1000)


def each(*words: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(words)


def several(of: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=3, unique=True).map(tuple)


ulimits = st.dictionaries(each("core", "nofile", "nproc"), st.integers(0, 9), max_size=2).map(
    lambda found: tuple(
        container.Ulimit(name=name, soft=number, hard=each_hard)
        for name, number in found.items()
        for each_hard in [number + len(name) % 2]
    )
)
devices = st.lists(
    st.builds(
        container.Device,
        source=each("/dev/a", "/dev/b:c"),
        target=each("", "/dev/x"),
        permissions=each("rwm", "r"),
    )
    | st.just(container.Device(source="nvidia.com/gpu=all")),
    max_size=2,
    unique_by=lambda device: device.target or device.source,
).map(tuple)
requests = st.builds(
    container.DeviceRequest,
    driver=each("", "nvidia"),
    count=st.integers(-1, 5),
    capabilities=each(("gpu",), ("gpu", "compute"), ("tpu",)),
    options=LABELS,
) | st.builds(
    container.DeviceRequest,
    device_ids=each(("0",), ("a", "b")),
    capabilities=st.just(("gpu",)),
)
block_limits = st.builds(
    container.BlockLimit,
    kind=each("weight_device", "device_read_bps", "device_write_iops"),
    path=each("/dev/a", "/dev/$b"),
    rate=st.integers(10, 1000),
)
plain = st.builds(
    container.ContainerSpec,
    hostname=each("", "web", "{{.Task.Slot}}.a"),
    domainname=each("", "example.com"),
    labels=LABELS,
    annotations=LABELS,
    dns=each((), ("1.1.1.1", "::1")),
    dns_search=each((), ("a.b",)),
    dns_options=each((), ("ndots:2",)),
    extra_hosts=several(each("a:1.2.3.4", "a:::1", "b:host-gateway")),
    init=each(None, True, False),
    is_read_only=st.booleans(),
    is_privileged=st.booleans(),
    is_tty=st.booleans(),
    is_stdin_open=st.booleans(),
    cap_add=several(each("ALL", "CHOWN", "CAP_KILL")),
    cap_drop=several(each("ALL", "CHOWN")),
    group_add=several(WORD),
    security_opt=several(each("label=user:$a", "seccomp=unconfined", "no-new-privileges=true")),
    sysctls=each((), (("net.core.somaxconn", "5"), ("net.ipv4.ip_local_port_range", "1 2"))),
    ulimits=ulimits,
    devices=devices,
    device_requests=st.lists(requests, max_size=2).map(tuple),
    device_cgroup_rules=each((), ("c 1:* rwm",)),
    shm_bytes=each(None, 64 * 2**20, 12345),
    memory_swap_bytes=each(None, -1),
    memory_swappiness=each(None, 0, 60),
    oom_score_adj=each(None, -5, 0, 5),
    is_oom_kill_disabled=st.booleans(),
    cpu_shares=each(None, 2, 512),
    cpu_realtime_period=NUMBERS,
    cpu_realtime_runtime=NUMBERS,
    cpuset=each("", "0-2,5"),
    block_weight=each(None, 10, 500),
    # One of a kind; kinds are written together.
    block_limits=st.lists(block_limits, max_size=1).map(tuple),
    cgroup_parent=each("", "/a$b"),
    cgroupns_mode=each("", "host", "private"),
    ipc=each("", "host", "shareable", "none"),
    pid=each("", "host"),
    userns_mode=each("", "host"),
    isolation=each("", "default"),
    runtime=each("", "runsc"),
    storage_options=LABELS,
    pull_policy=st.sampled_from(container.PullPolicy),
)
VOLUMES: list[dict[str, Any]] = [
    {"source": ""},
    {"source": "s_data"},
    {"source": "data", "driver": "nfs", "driver_options": pairs({"o": "$a"}), "is_movable": True},
    {"source": "out-{{.Task.Slot}}", "labels": pairs({"a": "b"})},
]
volume_mounts = st.builds(
    lambda more, **fields: storage.Mount(kind=MountKind.VOLUME, **fields, **more),
    each(*VOLUMES),
    target=PATHS,
    is_read_only=st.booleans(),
    is_no_copy=st.booleans(),
)
bind_mounts = st.builds(
    storage.Mount,
    kind=st.just(MountKind.BIND),
    source=PATHS,
    target=PATHS,
    is_read_only=st.booleans(),
    is_movable=st.booleans(),
    propagation=each("", "rslave"),
    creates_host_path=st.booleans(),
)
memory_mounts = st.builds(
    storage.Mount,
    kind=st.just(MountKind.TMPFS),
    target=each("/t", "/t/u"),
    is_read_only=st.booleans(),
    size_bytes=each(None, 64 * 2**20, 5),
    mode=each(None, 0, 0o1777),
    driver_options=each((), pairs({"exec": "", "uid": "5"})),
)
mounts = st.lists(
    volume_mounts | bind_mounts | memory_mounts, max_size=4, unique_by=lambda mount: mount.target
).map(lambda found: tuple(sorted(found, key=_is_short)))


def _is_short(mount: storage.Mount) -> bool:
    return mount.kind is MountKind.TMPFS and bool(mount.driver_options)


def uses(*names: str) -> st.SearchStrategy[tuple[storage.FileUse, ...]]:
    use = st.builds(
        lambda name, target, **more: storage.FileUse(name=name, target=f"/{name}{target}", **more),
        each(*names),
        each("", "/x"),
        uid=each("0", "5"),
        gid=each("0", "6"),
        mode=each(0o444, 0o400, 0),
    )
    return st.lists(use, max_size=2, unique_by=lambda at: at.name).map(tuple)


@st.composite
def services(draw: st.DrawFn) -> ServiceSpec:
    task = draw(tasks)
    settings_ = draw(plain)
    log = draw(st.booleans())
    if log:
        settings_ = replace(settings_, log_driver="syslog", log_options=draw(LABELS))
    mode = draw(each("", "host", "none"))
    if mode:
        settings_ = replace(settings_, network_mode=mode, sysctls=())
    run = replace(
        task.run,
        image=draw(each("nginx", "a.b:5/c@sha256:" + "0" * 64)),
        command=draw(WORDS | st.just(("",))),
        args=draw(WORDS),
        working_dir=draw(each("", "/$a")),
        stop_signal=draw(each("", "SIGTERM", "SIGQUIT")),
        health=draw(st.none() | health | health.map(lambda found: replace(found, test=()))),
        log=spec.LogPolicy() if log else task.run.log,
        container=settings_,
        mounts=draw(mounts),
        configs=draw(uses("s_site", "site", "s_s_site")),
        secrets=draw(uses("s_key", "key")),
    )
    if (*run.command, *run.args)[:1] == ("",) and run.command != ("",):
        run = replace(run, args=())
    networks = (spec.NetworkUse(network="s_default", aliases=("a",)),)
    return ServiceSpec(
        name="s_a",
        task=replace(task, run=run, engine="docker", networks=() if mode else networks),
        labels=draw(LABELS),
    )


def again(values: Any) -> ReadStack:
    reading = Reading({"KEY": "k"}, folder="/elsewhere", open=BESIDE.__getitem__)
    return read([StackText("again.yml", to_yaml(values, shows_all=False))], reading)


@given(services())
@settings(max_examples=150, deadline=None)
def test_any_containers_read_as_they_were_written(service: ServiceSpec) -> None:
    used = bool(service.task.networks)
    networks = (spec.NetworkSpec(name="s_default"),) if used else ()
    stack = StackSpec(name="s", services=(service,), networks=networks)
    assert again(stack_values(stack)).spec == stack


@given(FULL_TEXT)
def test_any_user_reads_as_it_was_written(user: str) -> None:
    run = spec.RunSpec(image="a", stop_signal="", user=user)
    task = spec.TaskSpec(run=run, engine="docker", networks=(spec.NetworkUse(network="n"),))
    service = ServiceSpec(name="s_a", task=replace(task, networks=_named("n", "a")))
    stack = StackSpec(name="s", services=(service,))
    assert again(stack_values(stack)).spec == stack


def _named(network: str, alias: str) -> tuple[spec.NetworkUse, ...]:
    return (spec.NetworkUse(network=network, aliases=(alias,)),)


def test_what_is_made_with_a_stack_is_written_by_where_it_is_from() -> None:
    lines = ("configs: [site, greet]", "secrets: [key, file, outer]")
    found = told(a_container(*lines, top=FILES), WHO="$you", KEY="k").read
    values = stack_values(found.spec, found.origins)
    assert values["configs"] == {
        "site": {"file": "/srv/site.conf", "labels": {"a": "b"}},
        "greeting": {"content": "hello $$you\n", "name": "greeting"},
    }
    assert values["secrets"] == {
        "key": {"environment": "KEY"},
        "file": {"file": "/srv/site.conf"},
        "outer-key": {"external": True},
    }
    second = again(values)
    assert (second.configs, second.secrets, second.spec) == (
        found.configs,
        found.secrets,
        found.spec,
    )


def test_volumes_are_written_by_their_keys() -> None:
    line = "volumes: ['data:/a', 'named:/b', 'out:/c', '/d']"
    found = told(a_container(line, top=TOP)).read
    values = stack_values(found.spec)
    assert values["volumes"] == {
        "data": None,
        "out": {"name": "out"},
        "shared": {
            "name": "shared",
            "driver": "nfs",
            "driver_opts": {"share": "a:/b"},
            "labels": {"x": "y"},
        },
    }
    assert values["x-engine"] == "docker"
    assert again(values).spec == found.spec


def test_services_of_two_engines_are_written_with_theirs() -> None:
    found = told(
        """\
        services:
          a: {image: nginx, x-engine: docker}
          b: {command: x}
        """
    ).spec
    values = stack_values(found)
    assert [each["x-engine"] for each in values["services"].values()] == ["docker", "process"]
    assert again(values).spec == found
