"""Whole stack files: what is read, and what is refused where."""

from __future__ import annotations

import textwrap

import pytest

from skep.domain.spec import (
    Balance,
    ExposedPort,
    HealthCheck,
    LogPolicy,
    NetworkSpec,
    NetworkUse,
    Placement,
    Port,
    Protocol,
    ProxyProtocol,
    Resources,
    RestartCondition,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    StackSpec,
    TaskSpec,
)
from skep.stackfile import StackFileError, decode, parse

S = 1_000_000_000

FULL = """\
version: "3.9"
x-log: &log
  logging: {driver: json-file, options: {max-size: 1m, max-file: "3"}}
services:
  web:
    <<: *log
    image: shop/web:1.2
    entrypoint: python3 -u
    command: ["web.py", "{{.Task.Address}}", "${MODE:-fast}", 22:22, no]
    environment:
      ON: yes
      PORT: 8080
      TZ:
      GONE:
    working_dir: app
    user: "1000"
    stop_signal: INT
    stop_grace_period: 1m30s
    healthcheck:
      test: ["CMD", "python3", "probe.py"]
      interval: 2s
      timeout: 1s
      retries: 5
      start_period: 3s
      start_interval: 500ms
    ports:
      - 8080:80
      - "81"
      - 9000-9001:90-91/tcp
      - target: 443
        published: "8443"
        protocol: tcp
        mode: ingress
        name: https
        x-balance: least_connections
        x-proxy-protocol: {send: v2, accept: true}
      - "53:53/udp"
    expose: ["9100", 53/udp]
    networks:
      front: {aliases: [www]}
      outside:
    deploy:
      mode: replicated
      replicas: 3
      labels: {team: shop, empty: }
      resources:
        limits: {cpus: "0.50", memory: 100M, pids: 20}
        reservations: {cpus: 0.1, memory: 10M}
      restart_policy: {condition: on-failure, delay: 0s, max_attempts: 3, window: 1m}
      placement:
        constraints: [node.labels.disk == ssd, node.hostname!=w1]
    x-engine: process
    x-note: for somebody else
networks:
  front:
    driver: overlay
    driver_opts: {encrypted: "", mtu: 1400}
    attachable: true
    internal: true
    enable_ipv6: false
    labels: {team: shop}
    ipam: {driver: default, config: [{subnet: 10.7.0.0/16, gateway: 10.7.0.9}]}
  outside: {external: true, name: public}
"""


def read(text: str, **environ: str) -> StackSpec:
    return parse(textwrap.dedent(text), file="s.yml", name="shop", environ=environ)


def refusal(text: str, **environ: str) -> str:
    with pytest.raises(StackFileError) as caught:
        read(text, **environ)
    error = caught.value
    assert f"s.yml:{error.line}:{error.column}" in str(error)
    assert "\n" not in str(error)
    return str(error)


def test_every_supported_key() -> None:
    found = parse(FULL, file="s.yml", name="shop", environ={"TZ": "UTC"}, folder="/srv")
    web = ServiceSpec(
        name="shop_web",
        labels=(("empty", ""), ("team", "shop")),
        replicas=3,
        ports=(
            Port(target=80, published=8080),
            Port(target=81),
            Port(target=90, published=9000),
            Port(target=91, published=9001),
            Port(
                target=443,
                published=8443,
                balance=Balance.LEAST_CONNECTIONS,
                name="https",
                proxy_protocol=ProxyProtocol.V2,
                accepts_proxy_protocol=True,
            ),
            Port(target=53, published=53, protocol=Protocol.UDP),
        ),
        task=TaskSpec(
            run=RunSpec(
                image="shop/web:1.2",
                command=("python3", "-u"),
                args=("web.py", "{{.Task.Address}}", "fast", "22:22", "no"),
                env=(("ON", "yes"), ("PORT", "8080"), ("TZ", "UTC")),
                working_dir="/srv/app",
                user="1000",
                stop_signal="SIGINT",
                stop_grace_ns=90 * S,
                health=HealthCheck(
                    test=("CMD", "python3", "probe.py"),
                    interval_ns=2 * S,
                    timeout_ns=S,
                    retries=5,
                    start_period_ns=3 * S,
                    start_interval_ns=S // 2,
                ),
                log=LogPolicy(max_bytes=2**20, max_files=3),
            ),
            limits=Resources(cpu_nano=S // 2, memory_bytes=100 * 2**20, pids=20),
            reservations=Resources(cpu_nano=S // 10, memory_bytes=10 * 2**20),
            restart=RestartPolicy(
                condition=RestartCondition.ON_FAILURE, delay_ns=0, max_attempts=3, window_ns=60 * S
            ),
            placement=Placement(constraints=("node.labels.disk == ssd", "node.hostname!=w1")),
            networks=(
                NetworkUse(network="public", aliases=("web",)),
                NetworkUse(network="shop_front", aliases=("web", "www")),
            ),
        ),
        exposed=(ExposedPort(target=9100), ExposedPort(target=53, protocol=Protocol.UDP)),
    )
    assert found == StackSpec(
        name="shop",
        services=(web,),
        networks=(
            NetworkSpec(
                name="shop_front",
                subnet="10.7.0.0/16",
                gateway="10.7.0.9",
                is_attachable=True,
                is_encrypted=True,
                is_internal=True,
                labels=(("team", "shop"),),
                options=(("mtu", "1400"),),
            ),
        ),
    )


def test_defaults_are_the_domains() -> None:
    found = read("services: {a: {command: sleep 1}}")
    use = NetworkUse(network="shop_default", aliases=("a",))
    task = TaskSpec(run=RunSpec(args=("sleep", "1")), networks=(use,))
    assert found.services == (ServiceSpec(name="shop_a", task=task),)


def test_zero_amounts_mean_no_limit_as_in_swarm() -> None:
    found = read(
        """
        services:
          a:
            command: [x]
            deploy:
              replicas: 0
              resources: {limits: {cpus: 0, memory: 0, pids: 0}}
              restart_policy: {max_attempts: 0, window: 0s}
        """
    ).services[0]
    assert found.replicas == 0
    assert (found.task.limits, found.task.restart) == (Resources(), RestartPolicy())


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("given", "name: own\nservices: {a: {command: x}}", "given"),
        ("", "name: ${N}\nservices: {a: {command: x}}", "var"),
    ],
)
def test_the_stacks_name(name: str, text: str, expected: str) -> None:
    found = parse(text, file="f", name=name, environ={"N": "var"})
    assert (found.name, found.services[0].name) == (expected, f"{expected}_a")


def test_a_list_of_variables() -> None:
    found = read("services: {a: {command: x, environment: [A=1=2, B, C]}}", B="b")
    assert found.services[0].task.run.env == (("A", "1=2"), ("B", "b"))


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ("{test: curl -f x}", HealthCheck(test=("CMD-SHELL", "curl -f x"))),
        ("{test: [CMD-SHELL, a b]}", HealthCheck(test=("CMD-SHELL", "a b"))),
        ("{test: [NONE]}", HealthCheck(test=("NONE",))),
        ("{disable: true}", HealthCheck(test=("NONE",))),
    ],
)
def test_health_checks(health: str, expected: HealthCheck) -> None:
    found = read(f"services: {{a: {{command: x, healthcheck: {health}}}}}")
    assert found.services[0].task.run.health == expected


def test_an_unset_variable_is_told() -> None:
    told: list[str] = []
    parse("services: {a: {command: 'x $NO'}}", file="f", name="s", environ={}, warn=told.append)
    assert told == ["f:1:28: variable 'NO' is not set; it becomes empty"]


def with_service(*lines: str) -> str:
    return "\n".join(["services:", "  a:", "    command: x", *(f"    {line}" for line in lines)])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "cap_add: [NET_ADMIN]",
            "engine 'process' can't do 'cap_add' (s.yml:4:5): it needs a container engine; "
            "remove the key, or write 'x-engine: docker'",
        ),
        ("privileged: true", "engine 'process' can't do 'privileged' (s.yml:4:5)"),
        ("volumes: [a:/b]", "engine 'process' can't do 'volumes' (s.yml:4:5)"),
        ("volumes_from: [b]", "s.yml:4:5: 'volumes_from' is not supported yet; name a volume"),
        ("extends: b", "s.yml:4:5: 'extends' is not supported yet; remove the key"),
        ("deploy: {mode: global}", "s.yml:4:20: mode 'global' is not supported yet"),
        ("enviroment: {}", "unknown key 'enviroment' in a service; did you mean 'environment'?"),
        ("frobnicate: 1", "s.yml:4:5: unknown key 'frobnicate' in a service; remove it"),
        ("x-engin: process", "unknown key 'x-engin' in a service; did you mean 'x-engine'?"),
        ("x-engine: rocket", "there is no engine 'rocket'; there are 'process' and 'docker'"),
        ("deploy: {replica: 1}", "unknown key 'replica' in deploy; did you mean 'replicas'?"),
        ("deploy: {replicas: -1}", "replicas: -1 is out of range"),
        ("deploy: {replicas: 1.5}", "replicas: '1.5' is not a whole number"),
        ("deploy: [a]", "s.yml:4:13: deploy must be a map, but this is a list"),
        ("user: [a]", "s.yml:4:11: user must be text, but this is a list"),
        ("ports: 80", "ports must be a list, but this is '80'"),
        ("ports: ['0:80']", "s.yml:4:13: ports[0]: port 0 is out of range"),
        ("ports: ['80:70000']", "port 70000 is out of range; ports are 1 to 65535"),
        ("ports: ['80:x']", "'x' is not a port number; a port is '8080:80'"),
        ("ports: ['127.0.0.1:80:80']", "write '80:80'"),
        ("ports: ['53:53/sctp']", "protocol 'sctp' is not supported yet; use 'tcp' or 'udp'"),
        (
            "ports: [{target: 53, protocol: udp, x-proxy-protocol: v2}]",
            "s.yml:4:59: x-proxy-protocol is for connections, and UDP has none; remove it, or",
        ),
        ("ports: [{target: 80, x-proxy-protocol: v3}]", "must be 'none' or 'v1' or 'v2', but"),
        ("ports: [{target: 80, x-proxy-protocol: {sent: v2}}]", "did you mean 'send'?"),
        ("expose: ['80:80']", "s.yml:4:14: expose[0]: '80:80' is published, not exposed; write it"),
        ("expose: [80/sctp]", "protocol 'sctp' is not supported yet"),
        ("expose: [x]", "'x' is not a port number; an exposed port is '80' or '53/udp'"),
        ("expose: ['1-2000']", "expose fewer"),
        ("ports: ['80/tpc']", "'tpc' is not a protocol"),
        ("ports: ['1-3:1-2']", "pairs 3 published ports with 2"),
        ("ports: ['1-65535']", "publish fewer"),
        ("ports: ['1-900', '1-900']", "publish fewer"),
        ("ports: [{published: 80}]", "a port needs 'target'"),
        ("ports: [{target: 80, mode: hots}]", "s.yml:4:32: mode must be 'ingress' or 'host'"),
        ("ports: [{target: 80, mode: host, x-balance: round_robin}]", "remove x-balance"),
        ("ports: [{target: 010}]", "'010' begins with 0, which some read as octal"),
        ("ports: ['080:80']", "'080' begins with 0"),
        ("ports: [{target: 80, x-balance: luck}]", "'round_robin' or 'least_connections'"),
        ("ports: [{target: 80, host_ip: 1.2.3.4}]", "'host_ip' is not supported yet"),
        ("stop_grace_period: 10", "stop_grace_period: '10' has no unit; write '10s'"),
        ("stop_signal: SIGTREM", "'SIGTREM' is not a signal"),
        ("healthcheck: {interval: 1s}", "can't do 'healthcheck without test'"),
        ("healthcheck: {test: [curl, x]}", "s.yml:4:25: test must be a line for the shell"),
        ("healthcheck: {test: x, interval: 0s}", "interval must be 1ms or longer"),
        ("healthcheck: {test: x, retries: 0}", "retries: 0 is out of range"),
        ("healthcheck: {disable: maybe}", "disable must be true or false"),
        ("logging: {driver: syslog}", "log driver 'syslog' is not supported"),
        ("logging: {options: {tag: x}}", "unknown key 'tag' in options"),
        ("logging: {options: {max-size: 0}}", "max-size must be more than 0"),
        ("deploy: {resources: {limits: {memory: much}}}", "memory: 'much' is not a size"),
        ("deploy: {resources: {limits: {cpus: -1}}}", "cpus: '-1' is not a number of CPUs"),
        ("deploy: {placement: {constraints: [ssd]}}", "constraint 'ssd' has no operator"),
        ("deploy: {resources: {limits: {memory: 1M}}}", "s.yml:4:43: memory must be 4M or more"),
        ("deploy: {resources: {limits: {cpus: 0.0001}}}", "cpus must be 0.001 or more"),
        ("environment: {A: '" + "x" * 131072 + "'}", "s.yml:4:18: environment: the env"),
        ("deploy: {restart_policy: {condition: always}}", "'none' or 'on-failure' or 'any'"),
        ("environment: ['=x']", "write NAME=value"),
        ("environment: [[a]]", "must be text, but this is a list"),
        ("entrypoint: 'x ${A:?no tag}'", "variable 'A' must be set: no tag"),
        ("working_dir: $(pwd)", "s.yml:4:18: '$' is not followed by a variable's name"),
        ("user: !rest null", "tag '!rest' is not supported"),
    ],
)
def test_a_service_is_refused(line: str, expected: str) -> None:
    assert expected in refusal(with_service(line))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "s.yml:1:1: the file is empty"),
        ("- a", "s.yml:1:1: the file must be a map, but this is a list"),
        ("hello", "the file must be a map, but this is 'hello'"),
        ("version: '3'", "the stack has no services"),
        ("services: {}", "the stack has no services"),
        ("services: {a: }", "s.yml:1:12: service 'a' is empty"),
        ("services: {a: {image: nginx}}", "can't do 'image alone' (s.yml:1:23)"),
        ("services: {a: {user: me}}", "nothing to run; add 'command'"),
        ("services: {a: {command: []}}", "nothing to run"),
        ("services: {a: {command: ['']}}", "it can't be empty"),
        ("services: {a/b: {command: x}}", "'a/b' can't be a service's name"),
        ("services: {" + "a" * 62 + "!: {command: x}}", "can't be a service's name"),
        ("services: {" + "a" * 60 + ": {command: x}}", "63 is the limit"),
        ("service: {a: {command: x}}", "s.yml:1:1: unknown key 'service' in the file; did you"),
        ("services: {a: {command: x}}\nvolumes: {v: 1}", "s.yml:2:14: v must be a map, but"),
        ("services: {a: {command: x}}\nconfigs: {v: }", "s.yml:2:14: v must be a map, but"),
        ("a: 1\na: 2", "s.yml:2:1: key 'a' stands here for the second time (first: s.yml:1:1)"),
        ("a: [", "s.yml:1:5: not YAML"),
        ("services:\n  a: [\n\n", "s.yml:2:7: not YAML"),
        ("a: b: c", "s.yml:1:5: not YAML: mapping values are not allowed"),
        ("a: \x07", "s.yml:1:4: character '\\x07' is not allowed"),
        ("a: \ud800", "character '\\ud800' is not allowed"),
        ("a: *b", "'*b' has no '&b' before it"),
        ("a: &a [*a]", "'*a' stands inside '&a' itself"),
        ("[a]: b", "a key must be a word"),
        ("<<: 1", "'<<' takes a map"),
        ("a: 1\n---\nb: 2", "a second document begins"),
        ("a: " + "[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("a: " + "x" * 1048576, "1048579 bytes, but a stack file may have no more than 1048576"),
    ],
)
def test_a_file_is_refused(text: str, expected: str) -> None:
    assert expected in refusal(text)


def test_a_port_published_twice_names_both_places() -> None:
    text = """\
        services:
          a: {command: x, ports: ["8080:80"]}
          b:
            command: x
            ports:
              - "8079-8080:79-80"
        """
    assert refusal(text) == (
        "s.yml:6:9: port 8080 is already published at s.yml:2:27; publish one of them elsewhere"
    )


def test_aliases_cannot_blow_up() -> None:
    lines = ["x0: &x0 [" + ", ".join(["a"] * 10) + "]"]
    lines += [f"x{n}: &x{n} [" + ", ".join([f"*x{n - 1}"] * 10) + "]" for n in range(1, 10)]
    assert "aliases blow this up" in refusal("\n".join(lines))


def test_the_first_of_two_merged_maps_wins_and_own_keys_win_over_both() -> None:
    text = """\
        x-a: &a {user: a, stop_signal: INT, command: a}
        x-b: &b {user: b, working_dir: /b}
        services:
          s: {<<: [*a, *b], command: own}
        """
    run = read(text).services[0].task.run
    assert (run.user, run.stop_signal, run.working_dir, run.args) == ("a", "SIGINT", "/b", ("own",))


@pytest.mark.parametrize(
    "data", ["a: ü".encode(), "a: ü".encode("utf-8-sig"), "a: ü".encode("utf-16")]
)
def test_encodings(data: bytes) -> None:
    assert decode(data, file="f") == "a: ü"


def test_an_unknown_encoding_is_refused_with_its_place() -> None:
    with pytest.raises(StackFileError) as caught:
        decode(b"a: 1\nb: \xff", file="f.yml")
    assert str(caught.value) == "f.yml:2:4: not utf-8 text; save the file as UTF-8"
