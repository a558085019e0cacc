"""`service inspect --pretty` and the like: what people look for. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from skep.cli.diff import duration, size
from skep.cli.flagvalues import exposed_text
from skep.cli.netpretty import Line, Scene, service_lines
from skep.cli.output import printable
from skep.cli.rows import NS_PER_S, age_text, port_row, ports_of, ports_text
from skep.domain.control import ServiceView
from skep.domain.objects import Node, UpdateStatus
from skep.domain.spec import HealthCheck, Resources, TaskSpec, UpdatePolicy

DATA_PLANES = {
    "kernel": "kernel: networks are apart from each other",
    "relay": "relay: names are by network, but every task can reach every other",
}
STATES = {
    "updating": "updating",
    "paused": "paused",
    "completed": "completed",
    "rollback_started": "rolling back",
    "rollback_paused": "rollback paused",
    "rollback_completed": "rolled back",
}


def service_text(view: ServiceView, now_s: float, scene: Scene) -> str:
    """One service."""
    return text_of(_service(view, now_s, scene))


def node_text(node: Node, leader_id: str | None) -> str:
    """One node."""
    return text_of(_node(node, node.id == leader_id))


def text_of(lines: Iterable[Line]) -> str:
    """Lines as text."""
    return "\n".join(map(_text, lines))


def _text(line: Line) -> str:
    indent, name, value = line
    head = f"{' ' * indent}{name}:"
    return f"{head.ljust(24)} {printable(value)}".rstrip() if value else head


def _service(view: ServiceView, now_s: float, scene: Scene) -> Iterator[Line]:
    service, spec = view.service, view.service.spec
    yield 0, "ID", service.id
    yield 0, "Name", service.name
    if spec.labels:
        yield 0, "Labels", ""
        yield from ((1, name, value or '""') for name, value in spec.labels)
    yield 0, "Service Mode", spec.mode.value.capitalize()
    yield 1, "Replicas", f"{spec.replicas} ({view.running} running)"
    yield 0, "Revision", str(service.revision)
    for problem in view.problems:
        yield 0, "Problem", problem
    if service.update is not None:
        yield from _update(service.update, now_s)
    yield from _policy("UpdateConfig", spec.update)
    yield from _policy("RollbackConfig", spec.rollback)
    yield from _task(spec.task)
    yield from service_lines(view, scene)
    if spec.ports:
        yield 0, "Ports", ports_text(port_row(port) for port in ports_of(service))
    if spec.exposed:
        yield 0, "Exposed", ", ".join(map(exposed_text, spec.exposed))


def _node(node: Node, is_leader: bool) -> Iterator[Line]:
    told = node.description
    yield 0, "ID", node.id
    yield 0, "Name", node.name
    yield 0, "Hostname", told.hostname
    if node.labels:
        yield 0, "Labels", ""
        yield from ((1, name, value or '""') for name, value in node.labels)
    yield 0, "Role", f"{node.role.value}{', leads' if is_leader else ''}"
    yield 0, "State", node.state.value
    if node.message:
        yield 0, "Message", node.message
    yield 0, "Availability", node.availability.value if node.runs_tasks else "runs no tasks"
    yield 0, "Address", told.address or node.control_address
    yield 0, "Platform", "/".join(part for part in (told.os, told.arch) if part)
    if told.cpu_nano or told.memory_bytes:
        amounts = f"{told.cpu_nano / 1e9:g} CPUs, {told.memory_bytes / 2**30:.1f}G of memory"
        yield 0, "Resources", amounts
    if told.engines:
        yield 0, "Engines", ", ".join(told.engines)
    yield 0, "Data plane", DATA_PLANES.get(told.plane, told.plane)
    if node.ingress_address:
        yield 0, "Ingress address", node.ingress_address
    if told.notes:
        yield 0, "Notes", ""
        yield from ((1, name, value) for name, value in told.notes)


def _update(update: UpdateStatus, now_s: float) -> Iterator[Line]:
    yield 0, "UpdateStatus", ""
    yield 1, "State", STATES[update.state.value]
    yield 1, "Started", _ago(update.started_ns, now_s)
    if update.ended_ns is not None:
        ended = "Paused" if "paused" in update.state.value else "Completed"
        yield 1, ended, _ago(update.ended_ns, now_s)
    if update.message:
        yield 1, "Message", update.message
    if update.failed_slots:
        yield 1, "Failed slots", ", ".join(map(str, update.failed_slots))


def _ago(at_ns: int, now_s: float) -> str:
    return f"{age_text(now_s - at_ns / NS_PER_S)} ago"


def _policy(name: str, policy: UpdatePolicy) -> Iterator[Line]:
    yield 0, name, ""
    yield 1, "Parallelism", str(policy.parallelism) if policy.parallelism else "all at once"
    yield 1, "Delay", duration(policy.delay_ns)
    yield 1, "On failure", policy.failure_action.value
    yield 1, "Monitoring period", duration(policy.monitor_ns)
    yield 1, "Max failure ratio", f"{policy.max_failure_ratio:g}"
    yield 1, "Order", policy.order.value.replace("_", "-")
    yield 1, "Healthy within", duration(policy.healthy_deadline_ns)


def _task(task: TaskSpec) -> Iterator[Line]:
    run, restart, placement = task.run, task.restart, task.placement
    yield 0, "Task", ""
    for name, value in (
        ("Image", run.image),
        ("Entrypoint", shlex.join(run.command)),
        ("Command", shlex.join(run.args)),
        ("Env", " ".join(shlex.quote(f"{key}={value}") for key, value in run.env)),
        ("Folder", run.working_dir),
        ("User", run.user),
    ):
        if value:
            yield 1, name, value
    yield 1, "Stop", f"{run.stop_signal}, {duration(run.stop_grace_ns)} to end"
    if run.health is not None:
        yield 1, "Health check", _health(run.health)
    tries = f", {restart.max_attempts} attempts" if restart.max_attempts is not None else ""
    window = f" in {duration(restart.window_ns)}" if restart.window_ns is not None else ""
    when = restart.condition.value.replace("_", "-")
    yield 1, "Restart", f"{when}, after {duration(restart.delay_ns)}{tries}{window}"
    for name, amounts in (("Limits", task.limits), ("Reservations", task.reservations)):
        if amounts != Resources():
            yield 1, name, _amounts(amounts)
    if placement.constraints:
        yield 1, "Constraints", ", ".join(placement.constraints)
    if placement.preferences:
        yield 1, "Spread over", ", ".join(placement.preferences)
    if placement.max_replicas_per_node is not None:
        yield 1, "Max per node", str(placement.max_replicas_per_node)


def _health(health: HealthCheck) -> str:
    kind, *words = health.test
    if kind == "NONE":
        return "none"
    line = words[0] if kind == "CMD-SHELL" else shlex.join(words)
    return f"{line}, every {duration(health.interval_ns)}, {health.retries} failures are too many"


def _amounts(amounts: Resources) -> str:
    found = []
    if amounts.cpu_nano is not None:
        found.append(f"{amounts.cpu_nano / 1e9:g} CPUs")
    if amounts.memory_bytes is not None:
        found.append(f"{size(amounts.memory_bytes)} of memory")
    if amounts.pids is not None:
        found.append(f"{amounts.pids} processes")
    return ", ".join(found)
