"""What a spec is refused for, always with one field by its path; and how constraints are read."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import replace
from skep.domain.constraints import Constraint, is_met, parse_constraint
from skep.domain.objects import NodeDescription, NodeRole
from skep.domain.spec import (
    ExposedPort,
    HealthCheck,
    LogPolicy,
    NetworkSpec,
    NetworkUse,
    Placement,
    Port,
    PortMode,
    Protocol,
    ProxyProtocol,
    Resources,
    RestartPolicy,
    ServiceSpec,
    StackSpec,
)
from skep.domain.validate import (
    check_address_pools,
    check_network,
    check_service,
    check_stack,
)
from skep.env import Rejected
from tests.unit.manager.build import node, service_spec


def run_of(**changes: Any) -> ServiceSpec:
    of = service_spec()
    return replace(of, task=replace(of.task, run=replace(of.task.run, **changes)))


def task_of(**changes: Any) -> ServiceSpec:
    of = service_spec()
    return replace(of, task=replace(of.task, **changes))


def health(**changes: Any) -> ServiceSpec:
    return run_of(health=HealthCheck(**{"test": ("CMD", "true"), **changes}))


REFUSED: list[tuple[ServiceSpec, str, str]] = [
    (service_spec(""), "spec.name", "a name is required"),
    (service_spec("a" * 64), "spec.name", "more than 63 characters"),
    *[
        (service_spec(name), "spec.name", "DNS name")
        for name in ("-x", "x-", "x_", "a.b", "ä", "a b")
    ],
    # Refused at once, however long it takes Swarm's own pattern.
    (service_spec("a" * 62 + "."), "spec.name", "DNS name"),
    (service_spec(replicas=-1), "spec.replicas", "-1 is not between 0 and 10000"),
    (service_spec(replicas=10_001), "spec.replicas", "not between"),
    (service_spec(labels=tuple((f"{n:02}", "") for n in range(65))), "spec.labels", "limit is 64"),
    (service_spec(labels=(("a", "x" * 300_000),)), "spec", "the limit is 262144"),
    (service_spec(ports=(Port(target=0),)), "spec.ports[0].target", "not a port"),
    (service_spec(ports=(Port(target=65536),)), "spec.ports[0].target", "not a port"),
    (
        service_spec(ports=(Port(target=1), Port(target=1, published=0))),
        "spec.ports[1].published",
        "not a port",
    ),
    (
        service_spec(ports=(Port(target=1, published=5), Port(target=2, published=5))),
        "spec.ports[1].published",
        "published twice",
    ),
    (task_of(engine="rocket"), "spec.task.engine", "not an engine"),
    (run_of(command=()), "spec.task.run.command", "nothing to run"),
    (run_of(command=(), image="nginx"), "spec.task.run.command", "needs a container engine"),
    (run_of(args=("a\0b",)), "spec.task.run.command[1]", "NUL"),
    (run_of(env=(("A", "x" * 140_000),)), "spec.task.run.env", "the limit is 131072"),
    (run_of(env=(("", "x"),)), "spec.task.run.env", "name of a variable"),
    (run_of(env=(("A=B", "x"),)), "spec.task.run.env", "name of a variable"),
    (run_of(env=(("A", "\0"),)), "spec.task.run.env", "A: the value holds a NUL"),
    (run_of(command=("", "x")), "spec.task.run.command", "name is empty"),
    (run_of(stop_grace_ns=-1), "spec.task.run.stop_grace_ns", "negative"),
    (run_of(log=LogPolicy(max_files=0)), "spec.task.run.log", "at least 1"),
    (health(test=()), "spec.task.run.health.test", "must begin"),
    (health(test=("RUN", "x")), "spec.task.run.health.test", "must begin"),
    (health(test=("CMD",)), "spec.task.run.health.test", "needs a command"),
    (health(test=("CMD-SHELL", "a", "b")), "spec.task.run.health.test", "exactly one"),
    (health(interval_ns=999_999), "spec.task.run.health.interval_ns", "less than 1 ms"),
    (health(timeout_ns=0), "spec.task.run.health.timeout_ns", "less than 1 ms"),
    (health(start_interval_ns=0), "spec.task.run.health.start_interval_ns", "less than 1 ms"),
    (health(start_period_ns=-1), "spec.task.run.health.start_period_ns", "negative"),
    (health(retries=0), "spec.task.run.health.retries", "at least 1"),
    (task_of(limits=Resources(cpu_nano=999_999)), "spec.task.limits.cpu_nano", "smallest amount"),
    (
        task_of(reservations=Resources(memory_bytes=4 * 1024 * 1024 - 1)),
        "spec.task.reservations.memory_bytes",
        "smallest amount",
    ),
    (task_of(limits=Resources(pids=0)), "spec.task.limits.pids", "smallest amount"),
    (task_of(restart=RestartPolicy(delay_ns=-1)), "spec.task.restart.delay_ns", "negative"),
    (task_of(restart=RestartPolicy(window_ns=-1)), "spec.task.restart.window_ns", "negative"),
    (task_of(restart=RestartPolicy(max_attempts=-1)), "spec.task.restart.max_attempts", "negative"),
    (
        task_of(placement=Placement(constraints=("node.id == x", "node ~ y"))),
        "spec.task.placement.constraints[1]",
        "no operator",
    ),
]


@pytest.mark.parametrize(("spec", "field", "text"), REFUSED)
def test_what_can_not_work_is_refused_with_its_field(
    spec: ServiceSpec, field: str, text: str
) -> None:
    with pytest.raises(Rejected) as caught:
        check_service(spec)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert text in str(caught.value)


TAKEN = [
    *[service_spec(name) for name in ("a-b_c", "A1", "x", "a" * 63, "a--b")],
    service_spec(replicas=0),
    service_spec(ports=(Port(target=1), Port(target=1))),
    health(test=("NONE",), start_period_ns=0),
    task_of(restart=RestartPolicy(delay_ns=0, max_attempts=0, window_ns=0)),
    task_of(limits=Resources(cpu_nano=1_000_000, memory_bytes=4 * 1024 * 1024, pids=1)),
    run_of(image="nginx:1"),
    run_of(stop_grace_ns=0),
]


@pytest.mark.parametrize("spec", TAKEN)
def test_what_can_work_is_taken(spec: ServiceSpec) -> None:
    check_service(spec)


def test_a_stack_is_checked_as_a_whole() -> None:
    twice = StackSpec(name="shop", services=(service_spec("a"), service_spec("a")))
    port = (Port(target=1, published=80),)
    clash = StackSpec(
        name="shop", services=(service_spec("a", ports=port), service_spec("b", ports=port))
    )
    for stack, field, text in (
        (StackSpec(name="-"), "spec.name", "DNS name"),
        (twice, "spec.services[1].name", "two services are called 'a'"),
        (clash, "spec.services[1].ports", "published by 'a' too"),
    ):
        with pytest.raises(Rejected, match=text) as caught:
            check_stack(stack)
        assert caught.value.field == field
    check_stack(StackSpec(name="empty"))


# ------------------------------------------------------------------------------ constraints


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "nodeabc",
        "node.id ~ abc",
        "1node==a2",
        "no de== node1",
        "no*de==node1",
        "==node1",
        "node.id==",
        "node.id== ",
        "no$de==node1",
        "node.id!=b==c",
        "node.id==b!=c",
        "node.id==a,b",
        "node.id=={x}",
        "node.id==ä",
        # Swarm takes these, and then no node ever matches.
        "node==node1",
        "_node==_node1",
        "node.labels.==x",
        "engine.labels.disk==ssd",
        "node.abc.bcd!=high",
    ],
)
def test_what_is_no_constraint_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="constraint"):
        parse_constraint(text)


@pytest.mark.parametrize(
    ("text", "key", "is_equal", "value"),
    [
        (" node.id == node1", "node.id", True, "node1"),
        ("NoDe.Id!=node1", "NoDe.Id", False, "node1"),
        ("node.hostname==[a-b]+c*(n|b)/", "node.hostname", True, "[a-b]+c*(n|b)/"),
        ("node.hostname==node 1", "node.hostname", True, "node 1"),
        ("node.labels.com.example-x_y==z", "node.labels.com.example-x_y", True, "z"),
    ],
)
def test_what_is_one_is_read_as_swarm_reads_it(
    text: str, key: str, is_equal: bool, value: str
) -> None:
    assert parse_constraint(text) == Constraint(key=key, is_equal=is_equal, value=value)


HOST = node(
    "n-1",
    labels=(("Zone", "A"), ("disk", "SSD")),
    role=NodeRole.WORKER,
    description=NodeDescription(
        hostname="Node-1", address="186.17.9.41", os="linux", arch="x86_64"
    ),
)


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        ("node.id == n-1", True),
        ("node.id == n", False),
        ("node.id != n", True),
        ("node.hostname == nODE-1", True),
        ("node.hostname != node-1", False),
        ("node.hostname == node-*", False),
        ("node.ip == 186.17.9.41", True),
        ("node.ip != 186.17.9.41", False),
        ("node.ip == 186.17.9.42", False),
        ("node.role == WORKER", True),
        ("node.role == manager", False),
        ("node.role != worker-manager", True),
        ("node.platform.os == Linux", True),
        ("node.platform.arch == amd64", False),
        ("node.labels.disk == ssd", True),
        ("node.labels.disk != ssd", False),
        ("node.labels.Disk == ssd", False),
        ("NODE.LABELS.Zone == a", True),
        ("node.labels.none == x", False),
        ("node.labels.none != x", True),
    ],
)
def test_a_node_meets_a_constraint_or_not(text: str, is_true: bool) -> None:
    assert is_met(parse_constraint(text), HOST) is is_true


def test_a_node_that_says_no_hostname_goes_by_its_name() -> None:
    bare = node("n-1", description=NodeDescription(hostname=""))
    assert is_met(parse_constraint("node.hostname == n-1"), bare)
    assert is_met(parse_constraint("node.platform.os != linux"), bare)


# ---------------------------------------------------------------------------------- networks


def udp(**changes: Any) -> Port:
    return Port(**{"target": 53, "published": 53, "protocol": Protocol.UDP, **changes})


def use(name: str = "back", *aliases: str) -> NetworkUse:
    return NetworkUse(network=name, aliases=aliases)


USES_REFUSED: list[tuple[ServiceSpec, str, str]] = [
    (task_of(networks=(use("a"), use("a"))), "spec.task.networks[1].network", "named twice"),
    (task_of(networks=(use("a.b"),)), "spec.task.networks[0].network", "DNS name"),
    (task_of(networks=(use("ingress"),)), "spec.task.networks[0].network", "so leave it out"),
    *[
        (task_of(networks=(use("a", "ok", bad),)), "spec.task.networks[0].aliases[1]", "DNS name")
        for bad in ("", "a b", "-a", "a..b", "a.", "x" * 64, ".".join(["x" * 60] * 5))
    ],
    (
        task_of(networks=tuple(use(f"n{n}") for n in range(16))),
        "spec.task.networks",
        "16 networks, the limit is 15",
    ),
    (
        task_of(networks=(use("a", *[f"x{n}" for n in range(65)]),)),
        "spec.task.networks[0].aliases",
        "65 aliases",
    ),
    (
        service_spec(ports=(udp(proxy_protocol=ProxyProtocol.V2),)),
        "spec.ports[0].proxy_protocol",
        "udp has none",
    ),
    (
        service_spec(ports=(udp(accepts_proxy_protocol=True),)),
        "spec.ports[0].accepts_proxy_protocol",
        "publish the port as tcp",
    ),
    (
        service_spec(ports=(udp(), udp(target=54))),
        "spec.ports[1].published",
        "port 53/udp is published twice",
    ),
    (service_spec(exposed=(ExposedPort(target=0),)), "spec.exposed[0].target", "not a port"),
    (
        service_spec(exposed=(ExposedPort(target=80), ExposedPort(target=80))),
        "spec.exposed[1].target",
        "80/tcp is exposed twice",
    ),
]


@pytest.mark.parametrize(("of", "field", "text"), USES_REFUSED)
def test_what_a_service_can_not_say_of_networks(of: ServiceSpec, field: str, text: str) -> None:
    with pytest.raises(Rejected, match=text) as caught:
        check_service(of)
    assert caught.value.field == field


def test_tcp_and_udp_do_not_meet() -> None:
    both = (udp(protocol=Protocol.TCP, proxy_protocol=ProxyProtocol.V1), udp())
    exposed = (ExposedPort(target=80), ExposedPort(target=80, protocol=Protocol.UDP))
    check_service(service_spec(ports=both, exposed=exposed))
    first, second = service_spec("a", ports=both[:1]), service_spec("b", ports=both[1:])
    check_stack(StackSpec(name="s", services=(first, second)))
    with pytest.raises(Rejected, match="port 53/udp is published by 'b' too"):
        check_stack(StackSpec(name="s", services=(second, replace(second, name="c"))))
    host = replace(second, name="c", ports=(udp(mode=PortMode.HOST),))
    with pytest.raises(Rejected, match="port 53/udp is published by"):
        check_stack(StackSpec(name="s", services=(host, second)))


def test_a_service_may_be_called_many_things() -> None:
    check_service(task_of(networks=(use("a", "db", "db.example.com", "x_1"), use("b"))))


NETWORKS_REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"name": ""}, "name", "a name is required"),
    ({"name": "a.b"}, "name", "DNS name"),
    ({"name": "ingress"}, "name", "choose another name"),
    ({"driver": "bridge"}, "driver", "'bridge' is not a driver .* write overlay"),
    ({"driver": ""}, "driver", "leave it out"),
    ({"subnet": "10.0.0"}, "subnet", "not an IPv4 network such as"),
    ({"subnet": "fd00::/64"}, "subnet", "not an IPv4 network"),
    ({"subnet": "10.1.2.3/24"}, "subnet", r"write 10\.1\.2\.0/24"),
    ({"subnet": "10.1.2.0/255.255.255.0"}, "subnet", r"write 10\.1\.2\.0/24"),
    ({"subnet": "10.1.2.0"}, "subnet", "is a /32; take one from /8 to /29"),
    ({"subnet": "10.1.2.0/30"}, "subnet", "is a /30"),
    ({"subnet": "0.0.0.0/7"}, "subnet", "is a /7"),
    *[
        ({"subnet": subnet}, "subnet", "not for hosts")
        for subnet in ("127.3.0.0/16", "224.1.0.0/16", "0.1.0.0/16", "240.0.0.0/8")
    ],
    ({"gateway": "10.1.2.1"}, "gateway", "name the subnet it is in"),
    ({"subnet": "10.1.2.0/24", "gateway": "x"}, "gateway", "not an IPv4 address"),
    *[
        ({"subnet": "10.1.2.0/24", "gateway": gateway}, "gateway", r"such as 10\.1\.2\.1")
        for gateway in ("10.1.3.1", "10.1.2.0", "10.1.2.255")
    ],
    ({"labels": (("a b", ""),)}, "labels", "can't be a label's name"),
    ({"options": (("a", "\n"),)}, "options", "can't be shown"),
]


@pytest.mark.parametrize(("changes", "field", "text"), NETWORKS_REFUSED)
def test_what_a_network_is_refused_for(changes: dict[str, Any], field: str, text: str) -> None:
    of = NetworkSpec(**{"name": "back", **changes})
    with pytest.raises(Rejected, match=text) as caught:
        check_network(of)
    assert caught.value.field == f"spec.{field}"
    with pytest.raises(Rejected) as caught:
        check_stack(StackSpec(name="s", networks=(NetworkSpec(name="ok"), of)))
    assert caught.value.field == f"spec.networks[1].{field}"


@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "192.168.7.8/29", "172.16.0.0/12", ""])
def test_what_a_network_may_be(subnet: str) -> None:
    check_network(NetworkSpec(name="back", subnet=subnet))


@pytest.mark.parametrize(
    ("pools", "prefix", "field", "text"),
    [
        (("10.1.0.0/16", "10.2"), 24, "address_pools[1]", "not an IPv4 network"),
        (("10.1.0.1/16",), 24, "address_pools[0]", "write 10.1.0.0/16"),
        (("10.1.0.0/30",), 30, "address_pools[0]", "is a /30"),
        (("224.0.0.0/8",), 24, "address_pools[0]", "not for hosts"),
        (
            ("10.1.0.0/16",),
            12,
            "subnet_prefix",
            "of 12 bits don't come out of the pool 10.1.0.0/16",
        ),
        ((), 30, "subnet_prefix", "take from 8 to 29"),
    ],
)
def test_what_pools_are_refused_for(
    pools: tuple[str, ...], prefix: int, field: str, text: str
) -> None:
    with pytest.raises(Rejected, match=text) as refusal:
        check_address_pools(pools, prefix)
    assert refusal.value.field == field


def test_pools_of_ones_own_are_taken() -> None:
    check_address_pools(("172.20.0.0/14", "192.168.0.0/16"), 26)
    check_address_pools((), 24)


def test_two_networks_of_a_stack_have_two_names() -> None:
    with pytest.raises(Rejected, match="two networks are called 'a'"):
        check_stack(StackSpec(name="s", networks=(NetworkSpec(name="a"), NetworkSpec(name="a"))))
