"""What a user asks for: services and stacks, as specs. Nothing here is observed or allocated.

Durations are integer nanoseconds. An optional field is absent, never zero: zero is a value.
Defaults are Docker Swarm's, except where a comment says otherwise.
"""

from __future__ import annotations

import enum

from skep.domain.base import SECOND_NS, Pairs, Struct
from skep.domain.container import ContainerSpec
from skep.domain.storage import FileUse, Mount

NAMESPACE = "default"
# What runs tasks: programs of the node itself, or containers.
PROCESS = "process"
DOCKER = "docker"
ENGINES = (PROCESS, DOCKER)


class ServiceMode(enum.Enum):
    """How many tasks a service has."""

    REPLICATED = "replicated"


class Protocol(enum.Enum):
    """The transport protocol of a port."""

    TCP = "tcp"
    UDP = "udp"


class ProxyProtocol(enum.Enum):
    """Which version of the PROXY protocol's header tells a task who its client is."""

    NONE = "none"
    V1 = "v1"
    V2 = "v2"


class EndpointMode(enum.Enum):
    """What a service's name stands for: one virtual address that its tasks share, or the
    addresses of the tasks themselves."""

    VIP = "vip"
    DNSRR = "dnsrr"


class Balance(enum.Enum):
    """How an ingress listener picks the next endpoint."""

    ROUND_ROBIN = "round_robin"
    LEAST_CONNECTIONS = "least_connections"


class PortMode(enum.Enum):
    """Where a published port listens: on every node, or only on those that run a task."""

    INGRESS = "ingress"
    HOST = "host"


class UpdateOrder(enum.Enum):
    """Whether a slot's old task stops before its new one starts, or once that one is healthy."""

    STOP_FIRST = "stop_first"
    START_FIRST = "start_first"


class FailureAction(enum.Enum):
    """What an update does when more slots have failed than it may have."""

    PAUSE = "pause"
    CONTINUE = "continue"
    ROLLBACK = "rollback"


class RestartCondition(enum.Enum):
    """Which ends of a task call for a replacement."""

    NONE = "none"
    ON_FAILURE = "on_failure"
    ANY = "any"


class Port(Struct, frozen=True, kw_only=True):
    """A published port. In mode `ingress` every node listens on it and forwards to a healthy task
    wherever that is; in mode `host` each node that runs a task listens, and forwards to that one
    alone. `published` None: the allocator picks one. With `proxy_protocol` each connection to a
    task begins with a header that names the client; `accepts_proxy_protocol` says that clients are
    load balancers that begin with such a header themselves."""

    target: int
    published: int | None = None
    protocol: Protocol = Protocol.TCP
    balance: Balance = Balance.ROUND_ROBIN
    name: str = ""
    mode: PortMode = PortMode.INGRESS
    proxy_protocol: ProxyProtocol = ProxyProtocol.NONE
    accepts_proxy_protocol: bool = False


class ExposedPort(Struct, frozen=True, kw_only=True):
    """A port that a service's tasks listen on for other services, and that isn't published.

    The relay plane opens the service's virtual address on published and exposed ports; the kernel
    plane needs no such word and takes every port.
    """

    target: int
    protocol: Protocol = Protocol.TCP


class NetworkUse(Struct, frozen=True, kw_only=True):
    """A network, by name, that a service's tasks are on, and what else the service is called
    there."""

    network: str
    aliases: tuple[str, ...] = ()


class HealthCheck(Struct, frozen=True, kw_only=True):
    """How a task's health is tested.

    `test` is ("CMD", program, argument ...) or ("CMD-SHELL", line); ("NONE",) tests nothing, and
    () is the test that a container's image brings along.
    A task is STARTING until its first success; failures within `start_period_ns` don't count;
    `retries` failures in a row make it unhealthy.
    """

    test: tuple[str, ...] = ()
    interval_ns: int = 30 * SECOND_NS
    timeout_ns: int = 30 * SECOND_NS
    retries: int = 3
    start_period_ns: int = 0
    start_interval_ns: int = 5 * SECOND_NS


class Resources(Struct, frozen=True, kw_only=True):
    """Amounts; None is "not said". CPU in billionths of a core."""

    cpu_nano: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None


class RestartPolicy(Struct, frozen=True, kw_only=True):
    """When and how soon an ended task is replaced."""

    condition: RestartCondition = RestartCondition.ANY
    delay_ns: int = 5 * SECOND_NS
    max_attempts: int | None = None
    window_ns: int | None = None


class Platform(Struct, frozen=True, kw_only=True):
    """What a task can run on, such as linux on amd64; an empty part fits anything."""

    os: str = ""
    arch: str = ""


class Placement(Struct, frozen=True, kw_only=True):
    """Which nodes may run the tasks: constraints such as "node.labels.disk == ssd", of which all
    must hold, and platforms, of which one must fit.

    `preferences` are what to spread over evenly before single nodes are looked at, the first one
    first: "node.labels.zone". `max_replicas_per_node` None is no limit.
    """

    constraints: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()
    max_replicas_per_node: int | None = None
    platforms: tuple[Platform, ...] = ()


class UpdatePolicy(Struct, frozen=True, kw_only=True):
    """How tasks of one revision are replaced by those of another.

    `parallelism` slots change at the same time (0: all of them), and after each there is a pause
    of `delay_ns`. A slot has failed when its new task ends within `monitor_ns` after it became
    healthy, ends before that, or isn't healthy within `healthy_deadline_ns`, to which the start
    period of its health check and the time that its predecessor takes to stop are added. More
    than `max_failure_ratio` of the slots failed call for the `failure_action`.
    """

    parallelism: int = 1
    delay_ns: int = 0
    monitor_ns: int = 5 * SECOND_NS
    max_failure_ratio: float = 0.0
    failure_action: FailureAction = FailureAction.PAUSE
    order: UpdateOrder = UpdateOrder.STOP_FIRST
    # Swarm has no such bound, and waits for good for a task that never starts.
    healthy_deadline_ns: int = 300 * SECOND_NS


class LogPolicy(Struct, frozen=True, kw_only=True):
    """How much of a task's output is kept on its node."""

    max_bytes: int = 10 * 1024 * 1024
    max_files: int = 2


class RunSpec(Struct, frozen=True, kw_only=True):
    """What to run. `command` followed by `args` is the argument vector; in a container, what is
    empty is the image's.

    `image` is the release's name; the process engine shows it and doesn't use it. Managers write
    what it stood for when it was deployed into `image_digest`, "sha256:...", as far as known.
    Strings of command, args, env values and the health test may hold templates
    such as `{{.Task.Address}}`.
    """

    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Pairs = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = "SIGTERM"
    stop_grace_ns: int = 10 * SECOND_NS
    health: HealthCheck | None = None
    log: LogPolicy = LogPolicy()
    image_digest: str = ""
    mounts: tuple[Mount, ...] = ()
    configs: tuple[FileUse, ...] = ()
    secrets: tuple[FileUse, ...] = ()
    container: ContainerSpec = ContainerSpec()


class TaskSpec(Struct, frozen=True, kw_only=True):
    """Everything about one task of a service but its place."""

    run: RunSpec
    engine: str = PROCESS
    limits: Resources = Resources()
    reservations: Resources = Resources()
    restart: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    force_update: int = 0
    networks: tuple[NetworkUse, ...] = ()


class ServiceSpec(Struct, frozen=True, kw_only=True):
    """What a user wants kept true. `update` says how tasks are brought to this spec, `rollback`
    how they are brought back when that fails."""

    name: str
    task: TaskSpec
    labels: Pairs = ()
    mode: ServiceMode = ServiceMode.REPLICATED
    replicas: int = 1
    ports: tuple[Port, ...] = ()
    update: UpdatePolicy = UpdatePolicy()
    rollback: UpdatePolicy = UpdatePolicy()
    endpoint_mode: EndpointMode = EndpointMode.VIP
    exposed: tuple[ExposedPort, ...] = ()


class NetworkSpec(Struct, frozen=True, kw_only=True):
    """What a user asks of a network.

    `subnet` is such as "10.1.2.0/24"; empty: the next free one of the cluster's pools. `gateway`
    is an address in it that no task gets; empty: the first one. Two networks may ask for the same
    subnet. Tasks that are on nothing but `is_internal` networks reach nothing outside them.
    `is_attachable` lets single containers join. `options` are kept and shown.
    """

    name: str
    driver: str = "overlay"
    subnet: str = ""
    gateway: str = ""
    is_internal: bool = False
    is_attachable: bool = False
    is_encrypted: bool = False
    labels: Pairs = ()
    options: Pairs = ()


class StackSpec(Struct, frozen=True, kw_only=True):
    """A named set of services and networks, as one object. Whoever reads a stack file puts the
    stack's name before those of its services and networks, as Swarm does; the cluster doesn't ask
    for it. Networks that services use and that aren't listed must exist."""

    name: str
    services: tuple[ServiceSpec, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
