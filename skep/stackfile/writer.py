"""A `StackSpec` as the values of a stack file that reads as the same spec again.

Only what differs from its default is written, each thing in one form and in one order, so that two
files that mean the same look the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from skep.domain.spec import (
    DOCKER,
    PROCESS,
    Balance,
    EndpointMode,
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
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    StackSpec,
    UpdatePolicy,
)
from skep.stackfile import nodes, values
from skep.stackfile.deploy import ACTIONS, CONDITIONS, ORDERS
from skep.stackfile.files import Origin
from skep.stackfile.networks import DEFAULT, ENCRYPTED
from skep.stackfile.writer_container import (
    Keys,
    Values,
    container_values,
    file_names,
    files_values,
    keys_of,
    mounts_values,
    named_volumes,
    pairs_of,
    requests_values,
    said,
    text,
    texts,
    uses_values,
    volumes_values,
)

Origins = Mapping[tuple[str, str], Origin]
"""Where configs and secrets are from, by ("config", name) or ("secret", name)."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")


class Names(NamedTuple):
    """What a stack's parts are called within the file, by their full names."""

    networks: Keys
    volumes: Keys
    configs: Keys
    secrets: Keys


def stack_values(spec: StackSpec, origins: Origins = MappingProxyType({})) -> Values:
    """The stack as plain maps, lists, texts and numbers, by Compose's keys. Configs and secrets
    whose origins aren't given are external."""
    prefix = f"{spec.name}_"
    volumes = named_volumes(spec)
    names = Names(
        _network_keys(spec),
        keys_of(volumes, prefix),
        keys_of(file_names(spec, lambda run: run.configs), prefix),
        keys_of(file_names(spec, lambda run: run.secrets), prefix),
    )
    engines = {service.task.engine for service in spec.services}
    short = {service.name.removeprefix(prefix): service for service in spec.services}
    services = {name: _service(service, name, names) for name, service in short.items()}
    if len(engines) > 1:
        services = {
            name: {**values, "x-engine": short[name].task.engine}
            for name, values in services.items()
        }
    found: Values = {"name": text(spec.name)}
    if len(engines) == 1 and engines != {PROCESS}:
        found["x-engine"] = engines.pop()
    return found | said(
        services=services,
        networks=_networks(spec, names.networks),
        volumes=volumes_values(volumes, names.volumes, prefix),
        configs=files_values("config", names.configs, origins, prefix),
        secrets=files_values("secret", names.secrets, origins, prefix),
    )


def _networks(spec: StackSpec, names: Keys) -> Values:
    prefix = f"{spec.name}_"
    made = {network.name: network for network in spec.networks}
    networks = {
        key: _network(made[name], prefix + key) if name in made else _external(name, key)
        for name, key in names.items()
    }
    # The default network needs no word unless there is something to say of it.
    is_plain = networks.get(DEFAULT) is None
    return {key: at for key, at in networks.items() if not (key == DEFAULT and is_plain)}


def _network_keys(spec: StackSpec) -> dict[str, str]:
    """What each network is called within the file, by its full name."""
    prefix = f"{spec.name}_"
    used = {use.network for service in spec.services for use in service.task.networks}
    made = sorted(network.name for network in spec.networks)
    found: dict[str, str] = {}
    # Those that the stack's name stands before get their keys first: they may have no other.
    for name in sorted((*made, *(used - set(made))), key=lambda each: not each.startswith(prefix)):
        key = name.removeprefix(prefix) if name in made else name
        while key in found.values():
            key += "_"
        found[name] = key
    return found


def _network(spec: NetworkSpec, usual_name: str) -> Values | None:
    config = said(subnet=spec.subnet, gateway=spec.gateway)
    options = {name: text(value) for name, value in spec.options}
    return (
        said(
            name="" if spec.name == usual_name else text(spec.name),
            attachable=spec.is_attachable or None,
            internal=spec.is_internal or None,
            driver_opts=options | ({ENCRYPTED: "true"} if spec.is_encrypted else {}),
            labels=pairs_of(spec.labels),
            ipam={"config": [config]} if config else {},
        )
        or None
    )


def _external(name: str, key: str) -> Values:
    return {"external": True} | ({} if name == key else {"name": text(name)})


def tree_values(node: nodes.Node) -> Any:
    """A tree as plain values, with its variables as they stand."""
    if isinstance(node, nodes.Sequence):
        return [tree_values(item) for item in node.items]
    if isinstance(node, nodes.Mapping):
        return {key.text: tree_values(value) for key, value in node.entries}
    if node.is_null:
        return None
    if node.is_plain and node.text in ("true", "false"):
        return node.text == "true"
    # Only what comes out as it went in; 010 and 1_000 stay texts.
    if node.is_plain and node.text != "-0" and _NUMBER.fullmatch(node.text):
        return int(node.text)
    return node.text


def _changed(of: Any, default: Any, **writers: Callable[[Any], Any]) -> Values:
    """The fields of a struct that differ from their defaults, each written by its writer."""
    found = {}
    for name, write in writers.items():
        value = getattr(of, name)
        if value != getattr(default, name):
            found[name.removesuffix("_ns")] = write(value)
    return found


def _service(spec: ServiceSpec, short_name: str, names: Names) -> Values:
    run = spec.task.run
    networks = names.networks
    is_container = spec.task.engine == DOCKER
    uses = {
        networks[use.network]: _use(use, short_name)
        for use in sorted(spec.task.networks, key=lambda use: networks[use.network])
    }
    platforms = spec.task.placement.platforms
    return said(
        image=text(run.image),
        platform="/".join(part for part in (platforms[0].os, platforms[0].arch) if part)
        if platforms
        else None,
        entrypoint=texts(run.command) if run.command != ("",) else None,
        command=texts(run.args),
        environment=pairs_of(run.env),
        working_dir=text(run.working_dir),
        user=text(run.user),
        **_stops(run, is_container=is_container),
        healthcheck=None if run.health is None else _health(run.health),
        ports=[_port(port) for port in spec.ports],
        expose=[_exposed(port) for port in spec.exposed],
        networks={} if uses == {DEFAULT: None} else uses,
        logging=_log(run),
        **container_values(run.container),
        **mounts_values(run.mounts, names.volumes),
        configs=uses_values(run.configs, names.configs),
        secrets=uses_values(run.secrets, names.secrets),
        deploy=_deploy(spec),
    ) | ({"entrypoint": []} if run.command == ("",) else {})


def _use(use: NetworkUse, short_name: str) -> Values | None:
    # Its short name is an alias of every service, whatever a file says.
    aliases = [text(alias) for alias in use.aliases if alias != short_name]
    return {"aliases": aliases} if aliases else None


def _exposed(port: ExposedPort) -> str:
    return f"{port.target}{'' if port.protocol is Protocol.TCP else f'/{port.protocol.value}'}"


def _stops(run: RunSpec, *, is_container: bool) -> Values:
    # A container without a signal of its own has its image's.
    plain = RunSpec(stop_signal="") if is_container else RunSpec()
    found = _changed(run, plain, stop_signal=str, stop_grace_ns=values.duration_text)
    return {{"stop_grace": "stop_grace_period"}.get(key, key): at for key, at in found.items()}


def _health(health: HealthCheck) -> Values:
    times = ("interval_ns", "timeout_ns", "start_period_ns", "start_interval_ns")
    found = _changed(
        health, HealthCheck(), **dict.fromkeys(times, values.duration_text), retries=int
    )
    if not health.test:
        return found
    is_line = health.test[0] == "CMD-SHELL"
    return {"test": text(health.test[1]) if is_line else texts(health.test), **found}


def _port(port: Port) -> Values:
    found = said(
        target=port.target,
        published=port.published,
        protocol=port.protocol.value,
        mode=port.mode.value,
        name=text(port.name),
    )
    if port.balance is not Balance.ROUND_ROBIN:
        found["x-balance"] = port.balance.value
    if port.accepts_proxy_protocol:
        found["x-proxy-protocol"] = {"send": port.proxy_protocol.value, "accept": True}
    elif port.proxy_protocol is not ProxyProtocol.NONE:
        found["x-proxy-protocol"] = port.proxy_protocol.value
    return found


def _log(run: RunSpec) -> Values:
    if run.container.log_driver:
        options = pairs_of(run.container.log_options)
        return said(driver=text(run.container.log_driver), options=options)
    default, log = LogPolicy(), run.log
    found: Values = {}
    if log.max_bytes != default.max_bytes:
        found["max-size"] = values.size_text(log.max_bytes)
    if log.max_files != default.max_files:
        found["max-file"] = log.max_files
    return {"options": found} if found else {}


def _deploy(spec: ServiceSpec) -> Values:
    task = spec.task
    return said(
        mode=spec.mode.value,
        replicas=spec.replicas,
        labels=pairs_of(spec.labels),
        endpoint_mode="" if spec.endpoint_mode is EndpointMode.VIP else spec.endpoint_mode.value,
        update_config=_policy(spec.update),
        rollback_config=_policy(spec.rollback),
        restart_policy=_restart(task.restart),
        resources=said(
            limits=_resources(task.limits),
            reservations=_resources(task.reservations)
            | said(devices=requests_values(task.run.container.device_requests)),
        ),
        placement=_placement(task.placement),
    )


def _policy(policy: UpdatePolicy) -> Values:
    words = {action: word for word, action in ACTIONS.items()}
    orders = {order: word for word, order in ORDERS.items()}
    found = _changed(
        policy,
        UpdatePolicy(),
        parallelism=int,
        delay_ns=values.duration_text,
        monitor_ns=values.duration_text,
        failure_action=words.__getitem__,
        max_failure_ratio=float,
        order=orders.__getitem__,
        healthy_deadline_ns=values.duration_text,
    )
    deadline = found.pop("healthy_deadline", None)
    return found | ({"x-healthy-deadline": deadline} if deadline else {})


def _restart(restart: RestartPolicy) -> Values:
    words = {condition: word for word, condition in CONDITIONS.items()}
    return _changed(
        restart,
        RestartPolicy(),
        condition=words.__getitem__,
        delay_ns=values.duration_text,
        max_attempts=int,
        window_ns=values.duration_text,
    )


def _resources(amounts: Resources) -> Values:
    return said(
        cpus=None if amounts.cpu_nano is None else values.cpu_text(amounts.cpu_nano),
        memory=None if amounts.memory_bytes is None else values.size_text(amounts.memory_bytes),
        pids=amounts.pids,
    )


def _placement(placement: Placement) -> Values:
    return said(
        constraints=texts(placement.constraints),
        preferences=[{"spread": text(at)} for at in placement.preferences],
        max_replicas_per_node=placement.max_replicas_per_node,
    )
