"""How two specs differ, by the names that a stack file has for their fields. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import msgspec

from skep.cli.diffcontainer import container_fields
from skep.cli.flagvalues import exposed_text, port_text
from skep.domain.base import Pairs
from skep.domain.spec import (
    Balance,
    HealthCheck,
    Placement,
    Port,
    Resources,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    UpdatePolicy,
)

# Names of a summary that fit into a row of a table.
SUMMARY_LIMIT = 4

Field = tuple[str, str]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One field, by its path in a stack file. None is "not there"."""

    field: str
    old: str | None
    new: str | None


def changes(old: ServiceSpec, new: ServiceSpec) -> list[Change]:
    """What is not the same in both, in the order of a stack file."""
    before, after = dict(_fields(old)), dict(_fields(new))
    # What only the older one has comes behind its neighbour there, not at the end.
    names = list(after)
    place = 0
    for name in before:
        if name in after:
            place = names.index(name) + 1
        else:
            names.insert(place, name)
            place += 1
    return [
        Change(field=name, old=before.get(name), new=after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def summary(found: Sequence[Change]) -> str:
    """The names of the fields that changed, each once, without their last part in lists."""
    names = list(dict.fromkeys(_short(change.field) for change in found))
    more = f" and {len(names) - SUMMARY_LIMIT} more" if len(names) > SUMMARY_LIMIT else ""
    return ", ".join(names[:SUMMARY_LIMIT]) + more


def _short(field: str) -> str:
    first, _, rest = field.partition(".")
    return rest.partition(".")[0] if first == "deploy" else first


def lines(found: Sequence[Change]) -> Iterator[str]:
    """A line for each side of each change, "-" for the older one."""
    for change in found:
        for mark, value in (("-", change.old), ("+", change.new)):
            if value is not None:
                yield f"{mark} {change.field}: {value}"


# --------------------------------------------------------------------------------- fields


def _fields(spec: ServiceSpec) -> Iterator[Field]:
    task = spec.task
    yield from _run(task.run)
    if spec.ports:
        yield "ports", ", ".join(map(_port, spec.ports))
    if spec.exposed:
        yield "expose", ", ".join(map(exposed_text, spec.exposed))
    for use in task.networks:
        yield f"networks.{use.network}", f"as {', '.join(use.aliases)}" if use.aliases else "on it"
    if task.run.health is not None:
        yield from _health(task.run.health)
    yield "deploy.replicas", str(spec.replicas)
    yield "deploy.endpoint_mode", spec.endpoint_mode.value
    yield from _named("deploy.labels", spec.labels)
    yield from _amounts("deploy.resources.limits", task.limits)
    yield from _amounts("deploy.resources.reservations", task.reservations)
    yield from _restart(task.restart)
    yield from _placement(task.placement)
    yield from _policy("deploy.update_config", spec.update)
    yield from _policy("deploy.rollback_config", spec.rollback)
    yield "x-engine", task.engine
    if task.force_update:
        yield "force", f"{task.force_update} times"


def _run(run: RunSpec) -> Iterator[Field]:
    texts = (
        ("image", run.image),
        ("image digest", run.image_digest),
        ("entrypoint", shlex.join(run.command)),
        ("command", shlex.join(run.args)),
        ("working_dir", run.working_dir),
        ("user", run.user),
    )
    yield from ((name, text) for name, text in texts if text)
    yield from _named("environment", run.env)
    if run.stop_signal:
        yield "stop_signal", run.stop_signal
    yield "stop_grace_period", duration(run.stop_grace_ns)
    yield "logging.max-size", size(run.log.max_bytes)
    yield "logging.max-file", str(run.log.max_files)
    yield from container_fields(run)


def _port(port: Port) -> str:
    name = f" ({port.name})" if port.name else ""
    is_usual = port.balance is Balance.ROUND_ROBIN
    return f"{port_text(port)}{name}{'' if is_usual else f' by {port.balance.value}'}"


def _health(health: HealthCheck) -> Iterator[Field]:
    kind, *words = health.test or ("the image's",)
    yield "healthcheck.test", words[0] if kind == "CMD-SHELL" else shlex.join(words) or kind
    for name in ("interval", "timeout", "start_period", "start_interval"):
        yield f"healthcheck.{name}", duration(getattr(health, f"{name}_ns"))
    yield "healthcheck.retries", str(health.retries)


def _amounts(path: str, amounts: Resources) -> Iterator[Field]:
    if amounts.cpu_nano is not None:
        yield f"{path}.cpus", _decimal(amounts.cpu_nano, 10**9)
    if amounts.memory_bytes is not None:
        yield f"{path}.memory", size(amounts.memory_bytes)
    if amounts.pids is not None:
        yield f"{path}.pids", str(amounts.pids)


def _restart(restart: RestartPolicy) -> Iterator[Field]:
    path = "deploy.restart_policy"
    yield f"{path}.condition", restart.condition.value.replace("_", "-")
    yield f"{path}.delay", duration(restart.delay_ns)
    if restart.max_attempts is not None:
        yield f"{path}.max_attempts", str(restart.max_attempts)
    if restart.window_ns is not None:
        yield f"{path}.window", duration(restart.window_ns)


def _placement(placement: Placement) -> Iterator[Field]:
    path = "deploy.placement"
    for name, texts in (
        ("constraints", placement.constraints),
        ("preferences", [f"spread={text}" for text in placement.preferences]),
        ("platforms", [f"{each.os}/{each.arch}" for each in placement.platforms]),
    ):
        yield from ((f"{path}.{name}", text) for text in [", ".join(texts)] if text)
    if placement.max_replicas_per_node is not None:
        yield f"{path}.max_replicas_per_node", str(placement.max_replicas_per_node)


def _policy(path: str, policy: UpdatePolicy) -> Iterator[Field]:
    yield f"{path}.parallelism", str(policy.parallelism)
    yield f"{path}.delay", duration(policy.delay_ns)
    yield f"{path}.failure_action", policy.failure_action.value
    yield f"{path}.monitor", duration(policy.monitor_ns)
    yield f"{path}.max_failure_ratio", f"{policy.max_failure_ratio:g}"
    yield f"{path}.order", policy.order.value.replace("_", "-")
    yield f"{path}.x-healthy-deadline", duration(policy.healthy_deadline_ns)


def _named(path: str, values: Pairs) -> Iterator[Field]:
    return ((f"{path}.{name}", value) for name, value in values)


def duration(span_ns: int) -> str:
    """A duration as people write it: "1m30s", "500ms", "0s"."""
    found, left_ns = "", span_ns
    for unit, length_ns in (("h", 3600 * 10**9), ("m", 60 * 10**9)):
        count, left_ns = divmod(left_ns, length_ns)
        found += f"{count}{unit}" if count else ""
    if left_ns or not found:
        is_short = 0 < left_ns < 10**9
        unit, length_ns = ("ms", 10**6) if is_short else ("s", 10**9)
        found += _decimal(left_ns, length_ns) + unit
    return found


def _decimal(amount: int, unit: int) -> str:
    return f"{amount / unit:.9f}".rstrip("0").rstrip(".")


def size(amount: int) -> str:
    """A size as people write it: "10M", "512K", "1000"."""
    for letter, factor in (("G", 2**30), ("M", 2**20), ("K", 2**10)):
        if amount >= factor and amount % factor == 0:
            return f"{amount // factor}{letter}"
    return str(amount)
