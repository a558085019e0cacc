"""Options that say what a service's tasks are; `service create` and `service update` have them.

The defaults in their help are those of the spec itself.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from skep.cli.options import Parser, count
from skep.domain.base import SECOND_NS
from skep.domain.spec import (
    EndpointMode,
    FailureAction,
    HealthCheck,
    LogPolicy,
    RestartCondition,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
    UpdatePolicy,
)

# An option, what stands for its value, what it means, and its default where that is worth saying.
Row = tuple[str, str, str, str]

_SHORT = {"user": ("-u",), "workdir": ("-w",)}

# Options that come several times, with what their values look like.
LISTS: tuple[tuple[str, str, str], ...] = (
    (
        "publish",
        "8080:80",
        "a port to publish, and the task's own; 53:53/udp; or published=8080,target=80,...",
    ),
    ("expose", "PORT", "a port for other services alone, such as 80 or 53/udp"),
    ("network", "NETWORK", "a network to be on; name=NETWORK,alias=NAME,... has other names there"),
    ("env", "NAME=VALUE", "a variable of the tasks' environment"),
    ("label", "KEY=VALUE", "a label of the service"),
    ("constraint", "EXPRESSION", "nodes that may run it, such as node.labels.disk==ssd"),
    ("placement-pref", "spread=node.labels.NAME", "spread tasks over the values of a label"),
)
# How `service update` is told which of them to remove.
REMOVED: dict[str, tuple[str, str]] = {
    "publish": ("PORT", "a port no longer to publish: 8080:80, or one of the two"),
    "expose": ("PORT", "a port no longer to expose"),
    "network": ("NETWORK", "a network to leave"),
    "env": ("NAME", "a variable to remove"),
    "label": ("KEY", "a label to remove"),
    "constraint": ("EXPRESSION", "a constraint to remove, as it was given"),
    "placement-pref": ("spread=node.labels.NAME", "a preference to remove, as it was given"),
}


def add_to(command: Parser, *, is_new: bool) -> None:
    """Add them; durations, sizes and amounts are as in a stack file. Of an existing service what
    isn't given stays: the defaults are told where it `is_new`."""
    service = ServiceSpec(name="", task=TaskSpec(run=RunSpec()))
    text = _text("how many tasks", str(service.replicas), is_new)
    command.add_argument("--replicas", type=count, metavar="N", help=text)
    for flag, metavar, meaning, default in _rows(service):
        names = (f"--{flag}", *_SHORT.get(flag, ()))
        command.add_argument(*names, metavar=metavar, help=_text(meaning, default, is_new))
    command.add_argument(
        "--no-healthcheck", action="store_true", help="no health check, a running task is healthy"
    )
    log = LogPolicy()
    default = f"max-size={log.max_bytes >> 20}M, max-file={log.max_files}"
    command.add_argument(
        "--log-opt",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=_text("max-size or max-file: how much output is kept", default, is_new),
    )


def _text(meaning: str, default: str, is_new: bool) -> str:
    return f"{meaning} (default: {default})" if default and is_new else meaning


def _rows(service: ServiceSpec) -> Iterable[Row]:
    run = service.task.run
    return (
        ("image", "NAME", "the release's name; the process engine shows it, and runs no image", ""),
        ("entrypoint", "WORDS", "what goes before the command's words", ""),
        ("workdir", "FOLDER", "the tasks' working folder", ""),
        ("user", "USER", "who the tasks run as", ""),
        ("stop-signal", "SIGNAL", "what asks a task to end", run.stop_signal),
        (
            "stop-grace-period",
            "DURATION",
            "how long a task may take to end before it is killed",
            _duration(run.stop_grace_ns),
        ),
        (
            "endpoint-mode",
            _choices(EndpointMode),
            "whether its name stands for one virtual address, or for those of its tasks",
            _word(service.endpoint_mode),
        ),
        *_health_rows(HealthCheck(test=())),
        *_restart_rows(service.task.restart),
        ("limit-cpu", "CPUS", "CPUs that a task may use at most, such as 0.5", "no limit"),
        ("limit-memory", "SIZE", "memory that a task may use at most, such as 64M", "no limit"),
        ("limit-pids", "N", "processes that a task may have at most", "no limit"),
        ("reserve-cpu", "CPUS", "CPUs that a node must have left for a task", "none"),
        ("reserve-memory", "SIZE", "memory that a node must have left for a task", "none"),
        ("replicas-max-per-node", "N", "tasks on one node at most; 0: no limit", "no limit"),
        *_policy_rows("update", service.update, FailureAction),
        # There is nothing that a rollback could be rolled back to.
        *_policy_rows("rollback", service.rollback, (FailureAction.PAUSE, FailureAction.CONTINUE)),
    )


def _health_rows(health: HealthCheck) -> Iterable[Row]:
    return (
        ("health-cmd", "LINE", "a shell's line that ends with 0 while a task is healthy", ""),
        ("health-interval", "DURATION", "the time between checks", _duration(health.interval_ns)),
        ("health-timeout", "DURATION", "how long a check may take", _duration(health.timeout_ns)),
        (
            "health-start-period",
            "DURATION",
            "how long failures don't count after the start",
            _duration(health.start_period_ns),
        ),
        (
            "health-start-interval",
            "DURATION",
            "the time between checks within the start period",
            _duration(health.start_interval_ns),
        ),
        ("health-retries", "N", "failures in a row that make it unhealthy", str(health.retries)),
    )


def _restart_rows(restart: RestartPolicy) -> Iterable[Row]:
    return (
        (
            "restart-condition",
            _choices(RestartCondition),
            "which ended tasks are replaced",
            _word(restart.condition),
        ),
        (
            "restart-delay",
            "DURATION",
            "the time before a task is replaced",
            _duration(restart.delay_ns),
        ),
        ("restart-max-attempts", "N", "replacements before it is given up; 0: no end", "no end"),
        ("restart-window", "DURATION", "attempts count within this time; 0: ever", "ever"),
    )


def _policy_rows(
    prefix: str, policy: UpdatePolicy, actions: Iterable[FailureAction]
) -> Iterable[Row]:
    parallelism = str(policy.parallelism)
    share = f"{policy.max_failure_ratio:g}"
    deadline = _duration(policy.healthy_deadline_ns)
    rows = (
        ("parallelism", "N", "tasks replaced at the same time; 0: all", parallelism),
        ("delay", "DURATION", "the pause after each replaced task", _duration(policy.delay_ns)),
        (
            "monitor",
            "DURATION",
            "how long a new task is watched for failure",
            _duration(policy.monitor_ns),
        ),
        ("max-failure-ratio", "SHARE", "failed tasks to put up with, 0 to 1", share),
        (
            "failure-action",
            _choices(actions),
            "what to do when more have failed",
            _word(policy.failure_action),
        ),
        (
            "order",
            _choices(UpdateOrder),
            "whether the old task stops before the new one starts",
            _word(policy.order),
        ),
        ("healthy-deadline", "DURATION", "a new task not healthy by then has failed", deadline),
    )
    return ((f"{prefix}-{flag}", shown, text, default) for flag, shown, text, default in rows)


def _choices(values: Iterable[enum.Enum]) -> str:
    return "|".join(map(_word, values))


def _word(value: enum.Enum) -> str:
    return str(value.value).replace("_", "-")


def _duration(ns: int) -> str:
    span_s = ns / SECOND_NS
    return f"{span_s / 60:g}m" if span_s and span_s % 60 == 0 else f"{span_s:g}s"
