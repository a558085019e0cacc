"""`--format '{{.Spec.Name}}'`: single fields of an object, by the names that Docker has for them.

Only paths of fields; Go's template language has far more, and what isn't a path is refused. Pure.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from skep.cli.errors import Exit, Failure
from skep.cli.rows import ports_of
from skep.domain.base import SECOND_NS
from skep.domain.control import NetworkView, ServiceView
from skep.domain.objects import UpdateStatus
from skep.domain.spec import HealthCheck, Port, Resources, ServiceSpec, TaskSpec, UpdatePolicy

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_PATH = re.compile(r"(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
_ESCAPES = {"\\n": "\n", "\\t": "\t"}

Template = Sequence[tuple[str, tuple[str, ...]]]
"""Text, and the path of the field that follows it; no path at the end."""


def parse(text: str) -> Template:
    """A template of paths. Raises Failure."""
    found: list[tuple[str, tuple[str, ...]]] = []
    end = 0
    for action in _ACTION.finditer(text):
        path = action.group(1)
        if not _PATH.fullmatch(path):
            raise Failure(
                f"--format: '{{{{{path}}}}}' is not understood; only fields are, such as "
                "'{{.Spec.Name}}'; --format json has everything",
                Exit.USAGE,
            )
        found.append((_unescaped(text[end : action.start()]), tuple(path[1:].split("."))))
        end = action.end()
    if not found or "{{" in text[end:]:
        raise Failure(
            f"--format: '{text}' is not one of json and yaml, and names no field; write one like "
            "'{{.Spec.Name}}'",
            Exit.USAGE,
        )
    return [*found, (_unescaped(text[end:]), ())]


def asked(options: argparse.Namespace) -> Template | None:
    """The template that --format gives, unless it gives the whole. Raises Failure."""
    if options.format in ("json", "yaml"):
        return None
    if options.pretty:
        raise Failure("--pretty and --format exclude each other", Exit.USAGE)
    return parse(options.format)


def _unescaped(text: str) -> str:
    return re.sub(r"\\[nt]", lambda found: _ESCAPES[found.group()], text)


def fill(template: Template, *objects: Mapping[str, Any]) -> str:
    """The text, with each field from the first of the objects that has it. Raises Failure."""
    return "".join(text + (_text(_field(path, objects)) if path else "") for text, path in template)


def _field(path: tuple[str, ...], objects: Sequence[Mapping[str, Any]]) -> Any:
    best: tuple[int, list[str]] = (-1, [])
    for whole in objects:
        value: Any = whole
        for depth, name in enumerate(path):
            if not isinstance(value, Mapping) or name not in value:
                there = list(value) if isinstance(value, Mapping) else []
                best = max(best, (depth, there), key=lambda each: each[0])
                break
            value = value[name]
        else:
            return value
    depth, there = best
    at = "." + ".".join(path[:depth]) if depth else "it"
    has = f"; {at} has {', '.join(there)}" if there else f"; {at} has no fields"
    raise Failure(f"--format: there is no field .{'.'.join(path[: depth + 1])}{has}", Exit.USAGE)


def _text(value: Any) -> str:
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    return json.dumps(value)


# ----------------------------------------------------------------- as Docker names the fields


def docker_view(view: ServiceView) -> dict[str, Any]:
    """A service by Docker's names, as far as there is the same here."""
    service = view.service
    found: dict[str, Any] = {
        "ID": service.id,
        "Version": {"Index": service.version},
        "CreatedAt": time_text(service.created_ns),
        "UpdatedAt": time_text(service.updated_ns),
        "Spec": _spec(service.spec),
        "Endpoint": {
            "Spec": _endpoint(service.spec),
            "Ports": [_port(port) for port in ports_of(service)],
            "VirtualIPs": [{"NetworkID": v.network_id, "Addr": v.address} for v in service.vips],
        },
        "ServiceStatus": {"RunningTasks": view.running, "DesiredTasks": view.desired},
    }
    if service.update is not None:
        found["UpdateStatus"] = _update(service.update)
    return found


def _spec(spec: ServiceSpec) -> dict[str, Any]:
    return {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "TaskTemplate": _task(spec.task),
        "Mode": {"Replicated": {"Replicas": spec.replicas}},
        "UpdateConfig": _policy(spec.update),
        "RollbackConfig": _policy(spec.rollback),
        "EndpointSpec": _endpoint(spec),
    }


def _endpoint(spec: ServiceSpec) -> dict[str, Any]:
    return {"Mode": spec.endpoint_mode.value, "Ports": [_port(port) for port in spec.ports]}


def docker_network(view: NetworkView) -> dict[str, Any]:
    """A network by Docker's names, as far as there is the same here."""
    network = view.network
    spec = network.spec
    subnet = {"Subnet": network.subnet, "Gateway": network.gateway}
    return {
        "Name": network.name,
        "Id": network.id,
        "ID": network.id,
        "Created": time_text(network.created_ns),
        "Scope": "swarm",
        "Driver": spec.driver,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Config": [subnet] if network.subnet else []},
        "Internal": spec.is_internal,
        "Attachable": spec.is_attachable,
        "Ingress": network.is_ingress,
        "Options": dict(spec.options) | ({"encrypted": "true"} if spec.is_encrypted else {}),
        "Labels": dict(spec.labels),
    }


def _task(task: TaskSpec) -> dict[str, Any]:
    run, restart, placement = task.run, task.restart, task.placement
    return {
        "ContainerSpec": {
            "Image": run.image,
            "Command": list(run.command),
            "Args": list(run.args),
            "Env": [f"{name}={value}" for name, value in run.env],
            "Dir": run.working_dir,
            "User": run.user,
            "StopSignal": run.stop_signal,
            "StopGracePeriod": run.stop_grace_ns,
            "Healthcheck": _health(run.health) if run.health else None,
        },
        "Resources": {
            "Limits": _amounts(task.limits),
            "Reservations": _amounts(task.reservations),
        },
        "RestartPolicy": {
            "Condition": restart.condition.value.replace("_", "-"),
            "Delay": restart.delay_ns,
            "MaxAttempts": restart.max_attempts or 0,
            "Window": restart.window_ns or 0,
        },
        "Placement": {
            "Constraints": list(placement.constraints),
            "Preferences": [{"Spread": {"SpreadDescriptor": s}} for s in placement.preferences],
            "MaxReplicas": placement.max_replicas_per_node or 0,
            "Platforms": [{"OS": p.os, "Architecture": p.arch} for p in placement.platforms],
        },
        "Networks": [{"Target": u.network, "Aliases": list(u.aliases)} for u in task.networks],
        "ForceUpdate": task.force_update,
    }


def _health(health: HealthCheck) -> dict[str, Any]:
    return {
        "Test": list(health.test),
        "Interval": health.interval_ns,
        "Timeout": health.timeout_ns,
        "StartPeriod": health.start_period_ns,
        "StartInterval": health.start_interval_ns,
        "Retries": health.retries,
    }


def _amounts(amounts: Resources) -> dict[str, int]:
    return {
        "NanoCPUs": amounts.cpu_nano or 0,
        "MemoryBytes": amounts.memory_bytes or 0,
        "Pids": amounts.pids or 0,
    }


def _policy(policy: UpdatePolicy) -> dict[str, Any]:
    return {
        "Parallelism": policy.parallelism,
        "Delay": policy.delay_ns,
        "FailureAction": policy.failure_action.value,
        "Monitor": policy.monitor_ns,
        "MaxFailureRatio": policy.max_failure_ratio,
        "Order": policy.order.value.replace("_", "-"),
    }


def _port(port: Port) -> dict[str, Any]:
    return {
        "Name": port.name,
        "Protocol": port.protocol.value,
        "TargetPort": port.target,
        "PublishedPort": port.published or 0,
        "PublishMode": port.mode.value,
    }


def _update(update: UpdateStatus) -> dict[str, Any]:
    return {
        "State": update.state.value,
        "StartedAt": time_text(update.started_ns),
        "CompletedAt": time_text(update.ended_ns) if update.ended_ns is not None else None,
        "Message": update.message,
    }


def time_text(at_ns: int) -> str:
    """A wall time as Docker writes it."""
    seconds, rest = divmod(at_ns, SECOND_NS)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
