"""A `StackSpec` as the values of a stack file that reads as the same spec again.

Only what differs from its default is written, each thing in one form and in one order, so that two
files that mean the same look the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from skep.domain.base import Pairs
from skep.domain.spec import (
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
from skep.stackfile.networks import DEFAULT, ENCRYPTED

Values = dict[str, Any]

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")


def stack_values(spec: StackSpec) -> Values:
    """The stack as plain maps, lists, texts and numbers, by Compose's keys."""
    prefix = f"{spec.name}_"
    names = _network_keys(spec)
    short = {service.name.removeprefix(prefix): service for service in spec.services}
    services = {name: _service(service, name, names) for name, service in short.items()}
    made = {network.name: network for network in spec.networks}
    networks = {
        key: _network(made[name], prefix + key) if name in made else _external(name, key)
        for name, key in names.items()
    }
    # The default network needs no word unless there is something to say of it.
    is_plain = networks.get(DEFAULT) is None
    shown = {key: at for key, at in networks.items() if not (key == DEFAULT and is_plain)}
    found = {"name": _text(spec.name), "services": services}
    return found | ({"networks": shown} if shown else {})


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
    config = _said(subnet=spec.subnet, gateway=spec.gateway)
    options = {name: _text(value) for name, value in spec.options}
    return (
        _said(
            name="" if spec.name == usual_name else _text(spec.name),
            attachable=spec.is_attachable or None,
            internal=spec.is_internal or None,
            driver_opts=options | ({ENCRYPTED: "true"} if spec.is_encrypted else {}),
            labels=_pairs(spec.labels),
            ipam={"config": [config]} if config else {},
        )
        or None
    )


def _external(name: str, key: str) -> Values:
    return {"external": True} | ({} if name == key else {"name": _text(name)})


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


def _text(text: str) -> str:
    return text.replace("$", "$$")


def _texts(texts: tuple[str, ...]) -> list[str]:
    return [_text(text) for text in texts]


def _pairs(pairs: Pairs) -> dict[str, str]:
    # Keys have no variables, so that a dollar sign in them is one.
    return {name: _text(value) for name, value in pairs}


def _said(**fields: Any) -> Values:
    """The fields that say something, by their names in a file."""
    return {
        key: value
        for key, value in fields.items()
        if value is not None and value not in ("", [], {})
    }


def _changed(of: Any, default: Any, **writers: Callable[[Any], Any]) -> Values:
    """The fields of a struct that differ from their defaults, each written by its writer."""
    found = {}
    for name, write in writers.items():
        value = getattr(of, name)
        if value != getattr(default, name):
            found[name.removesuffix("_ns")] = write(value)
    return found


def _service(spec: ServiceSpec, short_name: str, networks: Mapping[str, str]) -> Values:
    run = spec.task.run
    uses = {
        networks[use.network]: _use(use, short_name)
        for use in sorted(spec.task.networks, key=lambda use: networks[use.network])
    }
    platforms = spec.task.placement.platforms
    return _said(
        image=_text(run.image),
        platform="/".join(part for part in (platforms[0].os, platforms[0].arch) if part)
        if platforms
        else None,
        entrypoint=_texts(run.command),
        command=_texts(run.args),
        environment=_pairs(run.env),
        working_dir=_text(run.working_dir),
        user=_text(run.user),
        **_stops(run),
        healthcheck=None if run.health is None else _health(run.health),
        ports=[_port(port) for port in spec.ports],
        expose=[_exposed(port) for port in spec.exposed],
        networks={} if uses == {DEFAULT: None} else uses,
        logging=_log(run.log),
        deploy=_deploy(spec),
    )


def _use(use: NetworkUse, short_name: str) -> Values | None:
    # Its short name is an alias of every service, whatever a file says.
    aliases = [_text(alias) for alias in use.aliases if alias != short_name]
    return {"aliases": aliases} if aliases else None


def _exposed(port: ExposedPort) -> str:
    return f"{port.target}{'' if port.protocol is Protocol.TCP else f'/{port.protocol.value}'}"


def _stops(run: RunSpec) -> Values:
    found = _changed(run, RunSpec(), stop_signal=str, stop_grace_ns=values.duration_text)
    return {{"stop_grace": "stop_grace_period"}.get(key, key): at for key, at in found.items()}


def _health(health: HealthCheck) -> Values:
    times = ("interval_ns", "timeout_ns", "start_period_ns", "start_interval_ns")
    return {
        "test": _texts(health.test) if health.test[0] != "CMD-SHELL" else _text(health.test[1]),
        **_changed(
            health,
            HealthCheck(test=()),
            **dict.fromkeys(times, values.duration_text),
            retries=int,
        ),
    }


def _port(port: Port) -> Values:
    found = _said(
        target=port.target,
        published=port.published,
        protocol=port.protocol.value,
        mode=port.mode.value,
        name=_text(port.name),
    )
    if port.balance is not Balance.ROUND_ROBIN:
        found["x-balance"] = port.balance.value
    if port.accepts_proxy_protocol:
        found["x-proxy-protocol"] = {"send": port.proxy_protocol.value, "accept": True}
    elif port.proxy_protocol is not ProxyProtocol.NONE:
        found["x-proxy-protocol"] = port.proxy_protocol.value
    return found


def _log(log: LogPolicy) -> Values:
    default = LogPolicy()
    options: Values = {}
    if log.max_bytes != default.max_bytes:
        options["max-size"] = values.size_text(log.max_bytes)
    if log.max_files != default.max_files:
        options["max-file"] = log.max_files
    return {"options": options} if options else {}


def _deploy(spec: ServiceSpec) -> Values:
    task = spec.task
    return _said(
        mode=spec.mode.value,
        replicas=spec.replicas,
        labels=_pairs(spec.labels),
        endpoint_mode="" if spec.endpoint_mode is EndpointMode.VIP else spec.endpoint_mode.value,
        update_config=_policy(spec.update),
        rollback_config=_policy(spec.rollback),
        restart_policy=_restart(task.restart),
        resources=_said(limits=_resources(task.limits), reservations=_resources(task.reservations)),
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
    return _said(
        cpus=None if amounts.cpu_nano is None else values.cpu_text(amounts.cpu_nano),
        memory=None if amounts.memory_bytes is None else values.size_text(amounts.memory_bytes),
        pids=amounts.pids,
    )


def _placement(placement: Placement) -> Values:
    return _said(
        constraints=_texts(placement.constraints),
        preferences=[{"spread": _text(at)} for at in placement.preferences],
        max_replicas_per_node=placement.max_replicas_per_node,
    )
