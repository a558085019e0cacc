"""What only containers have, read into the spec, or refused at its place."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import pairs
from skep.domain.container import (
    BlockLimit,
    ContainerSpec,
    Device,
    DeviceRequest,
    PullPolicy,
    Ulimit,
)
from skep.domain.spec import (
    HealthCheck,
    LogPolicy,
    Resources,
    RestartCondition,
    RestartPolicy,
    RunSpec,
)
from skep.stackfile import keys
from tests.unit.stackfile.files import container, refused, service, told


def run_of(*lines: str, **environ: str) -> RunSpec:
    return told(container(*lines), **environ).only.task.run


# What stands in a file, and the settings it makes.
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("hostname: web-{{.Task.Slot}}", {"hostname": "web-{{.Task.Slot}}"}),
    ("domainname: example.com", {"domainname": "example.com"}),
    ("labels: [a=1, b]", {"labels": (("a", "1"), ("b", ""))}),
    (
        "label_file: labels",
        {"labels": (("com.example.a", "b"),)},
    ),
    ("annotations: {a: x}", {"annotations": (("a", "x"),)}),
    ("network_mode: host", {"network_mode": "host"}),
    ("network_mode: default", {}),
    ("dns: 1.1.1.1", {"dns": ("1.1.1.1",)}),
    ("dns: [1.1.1.1, '2606:4700::1']", {"dns": ("1.1.1.1", "2606:4700::1")}),
    ("dns_search: [a.b, c]", {"dns_search": ("a.b", "c")}),
    ("dns_opt: ['ndots:2']", {"dns_options": ("ndots:2",)}),
    (
        "extra_hosts: ['a:1.2.3.4', b=1.2.3.5, 'c=[::1]', 'd:::1', 'e=host-gateway']",
        {"extra_hosts": ("a:1.2.3.4", "b:1.2.3.5", "c:::1", "d:::1", "e:host-gateway")},
    ),
    (
        "extra_hosts: {a: 1.2.3.4, b: ['::1', 1.2.3.5]}",
        {"extra_hosts": ("a:1.2.3.4", "b:::1", "b:1.2.3.5")},
    ),
    ("init: true", {"init": True}),
    ("init: false", {"init": False}),
    ("read_only: true", {"is_read_only": True}),
    ("privileged: true", {"is_privileged": True}),
    ("tty: true", {"is_tty": True}),
    ("stdin_open: true", {"is_stdin_open": True}),
    ("cap_add: [NET_ADMIN, CAP_SYS_TIME]", {"cap_add": ("NET_ADMIN", "CAP_SYS_TIME")}),
    ("cap_drop: [ALL]", {"cap_drop": ("ALL",)}),
    ("group_add: [mail, 5]", {"group_add": ("mail", "5")}),
    ("security_opt: ['no-new-privileges:true']", {"security_opt": ("no-new-privileges=true",)}),
    (
        "security_opt: ['seccomp:seccomp.json', seccomp=unconfined]",
        {
            "security_opt": (
                'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',
                "seccomp=unconfined",
            )
        },
    ),
    ("sysctls: [net.core.somaxconn=1024]", {"sysctls": (("net.core.somaxconn", "1024"),)}),
    ("sysctls: {net.core.somaxconn: 1024}", {"sysctls": (("net.core.somaxconn", "1024"),)}),
    (
        "ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}, memlock: -1}",
        {
            "ulimits": (
                Ulimit(name="nproc", soft=65535, hard=65535),
                Ulimit(name="nofile", soft=20000, hard=40000),
                Ulimit(name="memlock", soft=-1, hard=-1),
            )
        },
    ),
    (
        "devices: [/dev/a, '/dev/b:/dev/c', '/dev/d:/dev/e:r', '/dev/f:rw', nvidia.com/gpu=all]",
        {
            "devices": (
                Device(source="/dev/a"),
                Device(source="/dev/b", target="/dev/c"),
                Device(source="/dev/d", target="/dev/e", permissions="r"),
                Device(source="/dev/f", permissions="rw"),
                Device(source="nvidia.com/gpu=all"),
            )
        },
    ),
    (
        "devices: [{source: /dev/a, target: /dev/b, permissions: rw}]",
        {"devices": (Device(source="/dev/a", target="/dev/b", permissions="rw"),)},
    ),
    ("gpus: all", {"device_requests": (DeviceRequest(count=-1, capabilities=("gpu",)),)}),
    (
        "gpus: [{count: 2, driver: nvidia, capabilities: [compute]}]",
        {
            "device_requests": (
                DeviceRequest(count=2, driver="nvidia", capabilities=("compute", "gpu")),
            )
        },
    ),
    (
        "deploy: {resources: {reservations: {devices: [{capabilities: [x], device_ids: ['0']}]}}}",
        {"device_requests": (DeviceRequest(capabilities=("x",), device_ids=("0",)),)},
    ),
    ("device_cgroup_rules: ['c 188:* rmw']", {"device_cgroup_rules": ("c 188:* rmw",)}),
    ("shm_size: 64m", {"shm_bytes": 64 * 2**20}),
    ("shm_size: 268435456", {"shm_bytes": 2**28}),
    ("memswap_limit: -1", {"memory_swap_bytes": -1}),
    ("mem_swappiness: 0", {"memory_swappiness": 0}),
    ("oom_score_adj: -500", {"oom_score_adj": -500}),
    ("oom_kill_disable: true", {"is_oom_kill_disabled": True}),
    ("cpu_shares: 512", {"cpu_shares": 512}),
    ("cpu_period: 100ms", {"cpu_period": 100_000}),
    ("cpu_quota: 50000", {"cpu_quota": 50_000}),
    ("cpu_rt_period: '1400us'", {"cpu_realtime_period": 1400}),
    ("cpu_rt_runtime: 95000", {"cpu_realtime_runtime": 95_000}),
    ("cpuset: 0-2,5", {"cpuset": "0-2,5"}),
    (
        "blkio_config: {weight: 300, weight_device: [{path: /dev/a, weight: 400}], "
        "device_read_bps: [{path: /dev/a, rate: 12mb}], device_write_iops: [{path: /b, rate: 30}]}",
        {
            "block_weight": 300,
            "block_limits": (
                BlockLimit(kind="weight_device", path="/dev/a", rate=400),
                BlockLimit(kind="device_read_bps", path="/dev/a", rate=12 * 2**20),
                BlockLimit(kind="device_write_iops", path="/b", rate=30),
            ),
        },
    ),
    ("cgroup_parent: m-executor-abcd", {"cgroup_parent": "m-executor-abcd"}),
    ("cgroup: host", {"cgroupns_mode": "host"}),
    ("cgroupns_mode: private", {"cgroupns_mode": "private"}),
    ("ipc: shareable", {"ipc": "shareable"}),
    ("pid: host", {"pid": "host"}),
    ("uts: host", {"uts": "host"}),
    ("userns_mode: host", {"userns_mode": "host"}),
    ("isolation: default", {"isolation": "default"}),
    ("runtime: runsc", {"runtime": "runsc"}),
    ("storage_opt: {size: 1G}", {"storage_options": (("size", "1G"),)}),
    ("pull_policy: always", {"pull_policy": PullPolicy.ALWAYS}),
    ("pull_policy: if_not_present", {}),
    (
        "logging: {driver: syslog, options: {syslog-address: 'udp://a:1'}}",
        {"log_driver": "syslog", "log_options": (("syslog-address", "udp://a:1"),)},
    ),
    ("logging: {driver: none}", {"log_driver": "none"}),
]


@pytest.mark.parametrize(("line", "expected"), SETTINGS)
def test_a_setting(line: str, expected: dict[str, Any]) -> None:
    found = told(container(line))
    assert found.only.task.run.container == ContainerSpec(**expected)
    assert found.only.task.engine == "docker"
    assert found.warnings == ()


def test_every_key_of_containers_is_tried() -> None:
    lines = " ".join(line for line, _ in SETTINGS)
    elsewhere = {"mac_address", "build", "volumes", "tmpfs", "configs", "secrets"}
    tried = {key for key in keys.SERVICE.container if f"{key}:" in lines}
    assert tried | elsewhere == keys.SERVICE.container


@pytest.mark.parametrize("key", sorted(keys.SERVICE.container))
def test_a_process_has_no_such_thing(key: str) -> None:
    (line,) = refused(service(f"{key}: x"))
    assert line == (
        f"engine 'process' can't do '{key}' (a.yml:4:5): it needs a container engine; remove the "
        "key, or write 'x-engine: docker'"
    )


@pytest.mark.parametrize("key", sorted(keys.SERVICE.container - {"build"}))
@pytest.mark.parametrize("value", ["{a: {b: {c: d}}}", "[[[a]]]", "[{a: {b: c}}]"])
def test_a_shape_that_no_setting_has(key: str, value: str) -> None:
    for line in refused(container(f"{key}: {value}")):
        assert line.startswith("a.yml:5:"), line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hostname: a_", "a.yml:5:15: hostname: 'a_' can't be a host's name"),
        ("hostname: '{{.Task.Slt}}'", "unknown template {{.Task.Slt}}"),
        ("network_mode: service:db", "a.yml:5:19: 'service:db' is the network of another"),
        ("network_mode: weave", "must be 'host', 'none' or 'bridge'"),
        ("mac_address: 02:42:ac:11:65:43", "a.yml:5:18: mac_address: the cluster's networks give"),
        ("dns: ns.example.com", "'ns.example.com' is not an IP address"),
        ("extra_hosts: [db]", "a.yml:5:19: 'db' is no name with an address"),
        ("extra_hosts: {db: example.com}", "'db:example.com' is no name with an address"),
        ("cap_add: [NET_ADMN]", "a.yml:5:15: cap_add: 'NET_ADMN' is not a capability"),
        ("sysctls: {kernel.panic: 1}", "sysctls: is no setting that a container has for itself"),
        ("sysctls: {net.core.somaxconn: }", "a kernel's setting needs a name and a value"),
        ("ulimits: {nofiles: 5}", "is not a limit; known are core"),
        ("ulimits: {nofile: {soft: 5, hard: 3}}", "soft, 5, is above hard, 3"),
        ("ulimits: {nofile: {soft: 5}}", "needs 'soft' and 'hard'"),
        ("devices: [ttyUSB0]", "'ttyUSB0' is no device"),
        ("devices: ['/dev/a:/dev/b:x']", "of the letters r, w, m"),
        ("devices: [/dev/a, '/dev/b:/dev/a']", "'/dev/a' is named twice"),
        ("gpus: some", "gpus must be 'all' or a list"),
        ("gpus: [{count: 1, device_ids: ['0']}]", "count and device_ids exclude each other"),
        ("device_cgroup_rules: [x]", "'x' is no rule"),
        ("memswap_limit: 1g", "needs a limit of memory"),
        ("mem_swappiness: 101", "101 is out of range"),
        ("cpuset: a", "'a' names no CPUs"),
        ("ipc: service:db", "is another container's"),
        ("pid: private", "pid must be 'host', but this is 'private'"),
        ("isolation: hyperv", "isolation must be 'default'"),
        ("pull_policy: build", "a cluster builds no images"),
        ("pull_policy: daily", "use 'always'"),
        ("security_opt: ['seccomp:none.json']", "a.yml:5:20: /srv/none.json: No such file"),
        ("security_opt: ['seccomp:site.conf']", "/srv/site.conf: not JSON"),
        ("blkio_config: {device_read_bps: [{path: /a}]}", "needs 'path' and 'rate'"),
        ("blkio_config: {weight: 5}", "5 is not between 10 and 1000"),
        ("credential_spec: {file: x}", "nodes run Linux"),
        ("logging: {options: {max-sise: 1m}}", "did you mean 'max-size'?"),
        ("deploy: {resources: {reservations: {devices: [{}]}}}", "needs 'capabilities'"),
    ],
)
def test_a_setting_is_refused(line: str, expected: str) -> None:
    (found,) = refused(container(line))
    assert expected in found
    assert found.startswith("a.yml:5:")


# ------------------------------------------------------------------------------ what is run


def test_what_is_not_said_is_the_images() -> None:
    run = run_of()
    assert run == RunSpec(image="nginx:1", stop_signal="")


def test_an_empty_entrypoint_takes_the_images_away() -> None:
    assert run_of("entrypoint: []").command == ("",)
    assert run_of("entrypoint: ''", "command: a b").command == ("",)
    assert run_of("entrypoint: [a]").command == ("a",)


def test_a_health_check_may_leave_the_test_to_the_image() -> None:
    assert run_of("healthcheck: {retries: 5}").health == HealthCheck(retries=5)
    assert run_of("healthcheck: {disable: true}").health == HealthCheck(test=("NONE",))


def test_a_folder_is_one_of_the_container() -> None:
    assert run_of("working_dir: /app").working_dir == "/app"
    assert "must start with /" in refused(container("working_dir: app"))[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "services: {a: {x-engine: docker, command: x}}",
            "a.yml:1:15: engine 'docker' runs images",
        ),
        ("services: {a: {x-engine: docker, build: .}}", "a.yml:1:41: a cluster builds no images"),
        ("services: {a: {x-engine: docker, image: A}}", "image: 'A' is no image's name"),
        ("services: {a: {image: nginx}}", "write 'x-engine: docker' to run the image, or add a"),
    ],
)
def test_an_image_is_needed(text: str, expected: str) -> None:
    assert expected in refused(text)[0]


def test_a_service_may_have_another_engine_than_its_file() -> None:
    found = told(
        """\
        x-engine: docker
        services:
          a: {image: nginx}
          b: {command: x, x-engine: process}
        """
    )
    assert [each.task.engine for each in found.spec.services] == ["docker", "process"]


def test_limits_by_their_older_names() -> None:
    lines = ("cpus: 0.5", "mem_limit: 100M", "mem_reservation: 50M", "pids_limit: 9", "scale: 3")
    found = told(container(*lines, "memswap_limit: 200M")).only
    assert found.task.limits == Resources(cpu_nano=5 * 10**8, memory_bytes=100 * 2**20, pids=9)
    assert found.task.reservations == Resources(memory_bytes=50 * 2**20)
    assert found.replicas == 3
    assert told(container("cpus: 0.5", "deploy: {resources: {limits: {cpus: '0.50'}}}"))
    (line,) = refused(container("cpus: 1", "deploy: {resources: {limits: {cpus: '0.5'}}}"))
    assert line == "a.yml:5:11: deploy.resources.limits.cpus says something else; remove one"
    assert "deploy.replicas says" in refused(container("scale: 1", "deploy: {replicas: 2}"))[0]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("no", RestartPolicy(condition=RestartCondition.NONE)),
        ("always", RestartPolicy()),
        ("unless-stopped", RestartPolicy()),
        ("on-failure", RestartPolicy(condition=RestartCondition.ON_FAILURE)),
        ("on-failure:3", RestartPolicy(condition=RestartCondition.ON_FAILURE, max_attempts=3)),
    ],
)
def test_restarts_by_their_older_name(word: str, expected: RestartPolicy) -> None:
    assert told(container(f"restart: {word}")).only.task.restart == expected


def test_restart_beside_a_policy_changes_nothing() -> None:
    found = told(container("restart: always", "deploy: {restart_policy: {condition: none}}"))
    assert found.only.task.restart.condition is RestartCondition.NONE
    assert "changes nothing beside deploy.restart_policy" in found.warnings[0]
    assert "restart must be" in refused(container("restart: sometimes"))[0]


def test_output_that_the_node_keeps() -> None:
    lines = "logging: {driver: json-file, options: {max-size: 1m, max-file: 3, tag: x}}"
    found = told(container(lines))
    run = found.only.task.run
    assert (run.log, run.container.log_driver) == (LogPolicy(max_bytes=2**20, max_files=3), "")
    assert "'tag': changes nothing here" in found.warnings[0]


def test_variables_from_files() -> None:
    lines = ("env_file: [web.env, more.env]", "environment: {E: 5, A: 0}")
    assert run_of(*lines, HOME="/h").env == pairs({"A": "0", "B": "3", "C": "/h", "E": "5"})
    assert run_of("env_file: web.env").env == pairs({"A": "1", "B": "1-2"})
    line = "env_file: [{path: none.env, required: false}, {path: raw.env, format: raw}]"
    assert run_of(line).env == (("D", "$A 'x'"),)
    assert told(service("env_file: web.env")).only.task.run.env == run_of("env_file: web.env").env


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("none.env", "a.yml:5:15: /srv/none.env: No such file"),
        ("[{path: none.env}]", "/srv/none.env: No such file"),
        ("[{required: true}]", "needs 'path'"),
        ("[{path: web.env, format: toml}]", "format must be 'raw'"),
        ("latin1", "/srv/latin1: not UTF-8 text"),
        ("site.conf", "site.conf:1:8: '=' is missing after 'listen'"),
    ],
)
def test_files_of_variables_that_are_refused(value: str, expected: str) -> None:
    assert expected in refused(container(f"env_file: {value}"))[0]


# ------------------------------------------------------------------------------- networks


def test_the_networks_of_a_node_by_either_way() -> None:
    by_mode = told(container("network_mode: host")).only.task
    top = "networks: {hostnet: {external: true, name: host}, none: {external: true}}"
    by_name = told(container("networks: [hostnet]", top=top)).only.task
    assert by_name == by_mode
    assert (by_mode.networks, by_mode.run.container.network_mode) == ((), "host")
    assert (
        told(container("networks: [none]", top=top)).only.task.run.container.network_mode == "none"
    )
    # A network of the stack's own may be called so.
    own = told(container("networks: [host]", top="networks: {host: }")).only.task
    assert [use.network for use in own.networks] == ["shop_host"]


def test_the_networks_of_a_node_exclude_others() -> None:
    top = "networks: {host: {external: true}, a: }"
    assert "one of each node alone" in refused(container("networks: [host, a]", top=top))[0]
    (line,) = refused(container("network_mode: host", "networks: [a]", top=top))
    assert line.startswith("a.yml:6:15: network_mode 'host' is a network of each node alone")
    (line,) = refused(container("network_mode: none", "ports: ['80:80']"))
    assert "no port of it can be published" in line
    line = refused(container("network_mode: host", "sysctls: {net.core.somaxconn: 5}"))[0]
    assert line.startswith("a.yml:6:14: sysctls: in network mode 'host'")


def test_an_address_of_an_interface_is_for_the_engines_own_bridge() -> None:
    run = run_of("network_mode: bridge", "mac_address: 02:42:ac:11:65:43")
    assert run.container.mac_address == "02:42:ac:11:65:43"


# ---------------------------------------------------------------- what changes nothing, is told


@pytest.mark.parametrize("key", sorted(keys.SERVICE.ignored))
def test_a_key_that_changes_nothing(key: str) -> None:
    for text in (container(f"{key}: x"), service(f"{key}: {{a: {{condition: b}}}}")):
        (line,) = told(text).warnings
        assert f"'{key}' changes nothing here: " in line
    assert told(container(f"{key}: ")).warnings == ()


def test_nothing_is_built() -> None:
    found = told(container("build: {context: .}"))
    assert found.warnings == (
        "a.yml:5:12: nothing is built here: each node gets the image from its registry",
    )


def test_profiles() -> None:
    text = """\
    services:
      a: {command: x}
      b: {command: x, profiles: [debug, test]}
    """
    found = told(text)
    assert [each.name for each in found.spec.services] == ["shop_a"]
    assert found.warnings == (
        "a.yml:3:3: left out, since none of its profiles is in COMPOSE_PROFILES: debug, test",
    )
    for wanted in ("test", "x,debug", "*"):
        assert len(told(text, COMPOSE_PROFILES=wanted).spec.services) == 2
