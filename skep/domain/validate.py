"""What a spec must satisfy before the cluster takes it: one clear error, naming the field.

The rules are those that need nothing but the spec itself; clashes with what the cluster already
holds are found where the spec is written.
"""

from __future__ import annotations

import ipaddress
import re

from skep.domain.base import SECOND_NS, Pairs, Struct, encode
from skep.domain.constraints import parse_constraint
from skep.domain.control import ENVIRONMENT_LIMIT_BYTES, LABEL_LIMIT, SPEC_LIMIT_BYTES
from skep.domain.objects import DEFAULT_ADDRESS_POOLS
from skep.domain.ports import check_exposed, check_ports, check_shared_ports
from skep.domain.refusal import refuse
from skep.domain.signals import parse_signal
from skep.domain.spec import (
    ENGINES,
    PROCESS,
    EndpointMode,
    HealthCheck,
    NetworkSpec,
    NetworkUse,
    Placement,
    PortMode,
    Resources,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    StackSpec,
    TaskSpec,
    UpdatePolicy,
)
from skep.domain.templates import check_templates
from skep.domain.validate_container import check_engine
from skep.env import Rejected

# Swarm's rule; its own form of it takes exponential time on some names.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
NAME_LIMIT = 63
PREFERENCE = re.compile(r"(?i:node\.labels\.)[!-~]{1,200}", re.ASCII)
PLATFORM = re.compile(r"[A-Za-z0-9_.-]{1,32}", re.ASCII)
LABEL_KEY = re.compile(r"[!-~]{1,200}", re.ASCII)
REQUEST_ID_LIMIT = 128
REPLICAS_LIMIT = 10_000

# By it published ports are reached; the cluster's own, and in nobody's spec.
INGRESS_NETWORK = "ingress"
DRIVER = "overlay"
# A wider network is no IPv4 range that anybody owns; a narrower one has room for two tasks at most.
WIDEST_PREFIX = 8
NARROWEST_PREFIX = 29
ALIAS_LIMIT = 253
# Of one service. Each network is an interface in each of its tasks.
# With the ingress network, as many as a namespace may know of virtual addresses on (netproxy's
# BPF programs look at each of them for every connection).
NETWORKS_LIMIT = 15
ALIASES_LIMIT = 64

# Swarm's smallest amounts: below them a task could not even start.
MIN_CPU_NANO = 1_000_000
MIN_MEMORY_BYTES = 4 * 1024 * 1024
MIN_HEALTH_TIME_NS = 1_000_000
# Longer than anybody waits; short enough that times to come still fit in 63 bits.
LONGEST_NS = 10 * 365 * 24 * 3600 * SECOND_NS


def check_stack(spec: StackSpec, field: str = "spec") -> None:
    """Refuse a stack spec that can't work. Raises Rejected."""
    _check_name(spec.name, f"{field}.name")
    names: set[str] = set()
    published: dict[tuple[int, str], tuple[str, PortMode]] = {}
    for place, service in enumerate(spec.services):
        where = f"{field}.services[{place}]"
        check_service(service, where)
        if service.name in names:
            raise refuse(f"{where}.name", f"two services are called {service.name!r}")
        names.add(service.name)
        check_shared_ports(service, published, where)
    networks: set[str] = set()
    for place, network in enumerate(spec.networks):
        where = f"{field}.networks[{place}]"
        check_network(network, where)
        if network.name in networks:
            raise refuse(f"{where}.name", f"two networks are called {network.name!r}")
        networks.add(network.name)


def check_service(spec: ServiceSpec, field: str = "spec") -> None:
    """Refuse a service spec that can't work. Raises Rejected."""
    _check_name(spec.name, f"{field}.name")
    check_labels(spec.labels, f"{field}.labels")
    if not 0 <= spec.replicas <= REPLICAS_LIMIT:
        raise refuse(f"{field}.replicas", f"{spec.replicas} is not between 0 and {REPLICAS_LIMIT}")
    check_ports(spec.ports, f"{field}.ports")
    check_exposed(spec.exposed, f"{field}.exposed")
    _check_endpoint_mode(spec, f"{field}.endpoint_mode")
    _check_policy(spec.update, f"{field}.update")
    _check_policy(spec.rollback, f"{field}.rollback")
    _check_task(spec.task, f"{field}.task")
    check_engine(spec, field)
    size = len(encode(spec))
    if size > SPEC_LIMIT_BYTES:
        raise refuse(field, f"the spec has {size} bytes, the limit is {SPEC_LIMIT_BYTES}")


def _check_endpoint_mode(spec: ServiceSpec, field: str) -> None:
    """As in Swarm. Who publishes a port on every node has its clients spread already."""
    is_published = any(port.mode is PortMode.INGRESS for port in spec.ports)
    if spec.endpoint_mode is EndpointMode.DNSRR and is_published:
        raise refuse(
            field, "'dnsrr' can't have ports on every node; use 'vip', or ports in mode 'host'"
        )


def check_network(spec: NetworkSpec, field: str = "spec") -> None:
    """Refuse a network spec that can't work. Raises Rejected."""
    _check_name(spec.name, f"{field}.name")
    if spec.name == INGRESS_NETWORK:
        raise refuse(
            f"{field}.name",
            f"{INGRESS_NETWORK!r} is the cluster's own network, by which published ports are "
            "reached; choose another name",
        )
    if spec.driver != DRIVER:
        raise refuse(
            f"{field}.driver",
            f"{spec.driver!r} is not a driver of networks that span nodes; leave it out, or "
            f"write {DRIVER}",
        )
    check_labels(spec.labels, f"{field}.labels")
    check_labels(spec.options, f"{field}.options")
    if spec.subnet:
        _check_subnet(spec.subnet, spec.gateway, field)
    elif spec.gateway:
        raise refuse(
            f"{field}.gateway", f"{spec.gateway} is in no subnet; name the subnet it is in as well"
        )


def check_address_pools(pools: tuple[str, ...], subnet_prefix: int) -> None:
    """Refuse pools (none: the default ones) from which no network could get a range. Raises
    Rejected."""
    for number, pool in enumerate(pools or DEFAULT_ADDRESS_POOLS):
        net = _check_range(pool, f"address_pools[{number}]")
        if not net.prefixlen <= subnet_prefix <= NARROWEST_PREFIX:
            raise refuse(
                "subnet_prefix",
                f"networks of {subnet_prefix} bits don't come out of the pool {pool}; take from "
                f"{net.prefixlen} to {NARROWEST_PREFIX}",
            )


def _check_subnet(subnet: str, gateway: str, field: str) -> None:
    net = _check_range(subnet, f"{field}.subnet")
    if not gateway:
        return
    where = f"{field}.gateway"
    try:
        address = ipaddress.IPv4Address(gateway)
    except ValueError:
        raise refuse(where, f"{gateway!r} is not an IPv4 address") from None
    if address not in net or address in (net.network_address, net.broadcast_address):
        raise refuse(where, f"{gateway} can't be a host of {subnet}; take one such as {net[1]}")


def _check_range(subnet: str, where: str) -> ipaddress.IPv4Network:
    try:
        net = ipaddress.IPv4Network(subnet, strict=False)
    except ValueError:
        raise refuse(where, f"{subnet!r} is not an IPv4 network such as 10.1.2.0/24") from None
    if not WIDEST_PREFIX <= net.prefixlen <= NARROWEST_PREFIX:
        raise refuse(
            where,
            f"{subnet} is a /{net.prefixlen}; take one from /{WIDEST_PREFIX} to "
            f"/{NARROWEST_PREFIX}",
        )
    if subnet != str(net):
        raise refuse(where, f"{subnet!r} is not the network's own form; write {net}")
    if net.is_loopback or net.is_multicast or net.is_reserved or net[0].packed[0] == 0:
        raise refuse(
            where, f"{subnet} is not for hosts; take one such as 10.1.2.0/24 or 192.168.7.0/24"
        )
    return net


def _check_name(name: str, field: str) -> None:
    if not name:
        raise refuse(field, "a name is required")
    if len(name) > NAME_LIMIT:
        raise refuse(field, f"'{name[:NAME_LIMIT]}...' has more than {NAME_LIMIT} characters")
    if not NAME.fullmatch(name):
        raise refuse(
            field, f"{name!r} can't be a DNS name; use letters, digits, and - or _ between them"
        )


def check_labels(labels: Pairs, field: str) -> None:
    """Refuse labels that can't be shown or told apart. Raises Rejected."""
    if len(labels) > LABEL_LIMIT:
        raise refuse(field, f"{len(labels)} labels, the limit is {LABEL_LIMIT}")
    for key, value in labels:
        if not LABEL_KEY.fullmatch(key):
            raise refuse(field, f"{key[:NAME_LIMIT]!r} can't be a label's name")
        if not value.isprintable():
            raise refuse(field, f"{key}: the value holds characters that can't be shown")


def _check_networks(uses: tuple[NetworkUse, ...], field: str) -> None:
    if len(uses) > NETWORKS_LIMIT:
        raise refuse(field, f"{len(uses)} networks, the limit is {NETWORKS_LIMIT}")
    seen: set[str] = set()
    for place, use in enumerate(uses):
        where = f"{field}[{place}]"
        _check_name(use.network, f"{where}.network")
        if use.network == INGRESS_NETWORK:
            raise refuse(
                f"{where}.network",
                f"{INGRESS_NETWORK!r} is the cluster's own; a service is on it when it publishes "
                "a port in mode ingress, so leave it out",
            )
        if use.network in seen:
            raise refuse(f"{where}.network", f"{use.network!r} is named twice")
        seen.add(use.network)
        if len(use.aliases) > ALIASES_LIMIT:
            count = len(use.aliases)
            raise refuse(f"{where}.aliases", f"{count} aliases, the limit is {ALIASES_LIMIT}")
        for number, alias in enumerate(use.aliases):
            _check_alias(alias, f"{where}.aliases[{number}]")


def _check_alias(alias: str, field: str) -> None:
    labels = alias.split(".")
    is_name = all(len(part) <= NAME_LIMIT and NAME.fullmatch(part) for part in labels)
    if not is_name or len(alias) > ALIAS_LIMIT:
        raise refuse(
            field,
            f"{alias[:ALIAS_LIMIT]!r} can't be a DNS name; use letters, digits, and - or _ "
            "between them, in parts of up to 63 characters with dots between",
        )


def _check_task(task: TaskSpec, field: str) -> None:
    if task.engine not in ENGINES:
        raise refuse(
            f"{field}.engine", f"{task.engine!r} is not an engine; known are {', '.join(ENGINES)}"
        )
    _check_run(task.run, f"{field}.run", task.engine)
    for name, amounts in (("limits", task.limits), ("reservations", task.reservations)):
        _check_resources(amounts, f"{field}.{name}")
    for name in ("cpu_nano", "memory_bytes"):
        limit, reserved = getattr(task.limits, name), getattr(task.reservations, name)
        if limit is not None and reserved is not None and reserved > limit:
            raise refuse(f"{field}.reservations.{name}", f"{reserved} is above the limit, {limit}")
    _check_restart(task.restart, f"{field}.restart")
    for place, text in enumerate(task.placement.constraints):
        try:
            parse_constraint(text)
        except Rejected as error:
            raise refuse(f"{field}.placement.constraints[{place}]", str(error)) from None
    _check_placement(task.placement, f"{field}.placement")
    _check_networks(task.networks, f"{field}.networks")


def _check_placement(placement: Placement, field: str) -> None:
    for place, preference in enumerate(placement.preferences):
        if not PREFERENCE.fullmatch(preference):
            raise refuse(
                f"{field}.preferences[{place}]",
                f"{preference!r} is nothing to spread over; write node.labels.NAME",
            )
    most = placement.max_replicas_per_node
    if most is not None and most < 1:
        raise refuse(f"{field}.max_replicas_per_node", "must be at least 1")
    for place, platform in enumerate(placement.platforms):
        for part in (platform.os, platform.arch):
            if part and not PLATFORM.fullmatch(part):
                raise refuse(
                    f"{field}.platforms[{place}]", f"{part!r} is none; write one like linux/amd64"
                )


def _check_policy(policy: UpdatePolicy, field: str) -> None:
    if not 0 <= policy.parallelism <= REPLICAS_LIMIT:
        raise refuse(
            f"{field}.parallelism", f"{policy.parallelism} is not between 0 and {REPLICAS_LIMIT}"
        )
    # Written so that "not a number" is refused as well.
    if not 0.0 <= policy.max_failure_ratio <= 1.0:
        raise refuse(
            f"{field}.max_failure_ratio", f"{policy.max_failure_ratio:g} is not between 0 and 1"
        )
    _check_duration(policy.delay_ns, 0, f"{field}.delay_ns")
    _check_duration(policy.monitor_ns, 0, f"{field}.monitor_ns")
    _check_duration(policy.healthy_deadline_ns, MIN_HEALTH_TIME_NS, f"{field}.healthy_deadline_ns")


def _check_words(run: RunSpec, field: str, engine: str) -> None:
    if engine == PROCESS and not run.command and not run.args:
        what = f"image {run.image!r} needs a container engine" if run.image else "nothing to run"
        raise refuse(
            f"{field}.command", f"{what}; the engine 'process' runs a command, so give one"
        )
    # A container's single empty word takes the image's entrypoint away, as Docker has it.
    if (*run.command, *run.args)[:1] == ("",) and (engine == PROCESS or run.command != ("",)):
        raise refuse(f"{field}.command", "the program's name is empty")
    for place, word in enumerate((*run.command, *run.args)):
        if "\0" in word:
            raise refuse(f"{field}.command[{place}]", "holds a NUL character")


def _check_environment(env: Pairs, field: str) -> None:
    size = sum(len(f"{key}={value}".encode()) + 1 for key, value in env)
    if size > ENVIRONMENT_LIMIT_BYTES:
        limit = ENVIRONMENT_LIMIT_BYTES
        raise refuse(field, f"the environment has {size} bytes, the limit is {limit}")
    for key, value in env:
        if not key or "=" in key or "\0" in key:
            raise refuse(field, f"{key!r} can't be the name of a variable")
        if "\0" in value:
            raise refuse(field, f"{key}: the value holds a NUL character")


def _check_run(run: RunSpec, field: str, engine: str) -> None:
    _check_words(run, field, engine)
    _check_environment(run.env, f"{field}.env")
    check_templates(run, field)
    # A container without one has its image's.
    if run.stop_signal or engine == PROCESS:
        parse_signal(run.stop_signal, f"{field}.stop_signal")
    if run.working_dir and not run.working_dir.startswith("/"):
        raise refuse(f"{field}.working_dir", f"{run.working_dir!r} must start with /")
    _check_duration(run.stop_grace_ns, 0, f"{field}.stop_grace_ns")
    if run.log.max_bytes < 1 or run.log.max_files < 1:
        raise refuse(f"{field}.log", "max_bytes and max_files must be at least 1")
    if run.health is not None:
        _check_health(run.health, f"{field}.health", engine)


def _check_health(health: HealthCheck, field: str, engine: str) -> None:
    # Without a test, a container's is its image's.
    known = ("NONE", "CMD", "CMD-SHELL") if engine == PROCESS else ("NONE", "CMD", "CMD-SHELL", "")
    kind = health.test[0] if health.test else ""
    if kind not in known or health.test[:1] == ("",):
        raise refuse(f"{field}.test", "must begin with NONE, CMD or CMD-SHELL")
    if kind in ("CMD", "CMD-SHELL") and len(health.test) < 2:
        raise refuse(f"{field}.test", f"{kind} needs a command")
    if kind == "CMD-SHELL" and len(health.test) != 2:
        raise refuse(f"{field}.test", "CMD-SHELL takes exactly one string")
    for name in ("interval_ns", "timeout_ns", "start_interval_ns"):
        _check_duration(getattr(health, name), MIN_HEALTH_TIME_NS, f"{field}.{name}")
    _check_duration(health.start_period_ns, 0, f"{field}.start_period_ns")
    if health.retries < 1:
        raise refuse(f"{field}.retries", "must be at least 1")


def _check_resources(amounts: Resources, field: str) -> None:
    least = {"cpu_nano": MIN_CPU_NANO, "memory_bytes": MIN_MEMORY_BYTES, "pids": 1}
    for name, smallest in least.items():
        value = getattr(amounts, name)
        if value is not None and value < smallest:
            raise refuse(f"{field}.{name}", f"{value} is below the smallest amount, {smallest}")


def _check_restart(restart: RestartPolicy, field: str) -> None:
    _check_duration(restart.delay_ns, 0, f"{field}.delay_ns")
    if restart.window_ns is not None:
        _check_duration(restart.window_ns, 0, f"{field}.window_ns")
    if restart.max_attempts is not None and restart.max_attempts < 0:
        raise refuse(f"{field}.max_attempts", "can't be negative")


def _check_duration(value_ns: int, least_ns: int, field: str) -> None:
    if value_ns < least_ns:
        least = "can't be negative" if least_ns == 0 else "can't be less than 1 ms"
        raise refuse(field, least)
    if value_ns > LONGEST_NS:
        raise refuse(field, "can't be more than 10 years")


def check_request_id(request: Struct) -> None:
    """Refuse a mutation without a client's request id. Raises Rejected."""
    request_id = getattr(request, "request_id", "")
    if not request_id:
        raise refuse("request_id", "required: a fresh random id per intention, kept on retries")
    if len(request_id) > REQUEST_ID_LIMIT:
        raise refuse("request_id", f"longer than {REQUEST_ID_LIMIT} characters")
