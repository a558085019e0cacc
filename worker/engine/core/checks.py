"""What the process engine can't do, found before anything is started.

These checks need the spec alone; what needs this machine (users, folders, programs) is checked by
the adapters when a task is prepared.
"""

from __future__ import annotations

from skep.domain.spec import HealthCheck, RunSpec, ServiceSpec
from skep.env import Rejected
from skep.worker.engine.core.signals import parse_signal
from skep.worker.engine.core.templates import check_templates

ENGINE = "process"
MILLISECOND_NS = 1_000_000
# A smaller log file would be rotated with nearly every line: files are cut in whole blocks.
LOG_MIN_BYTES = 64 * 1024
LOG_MAX_FILES = 100
# A process that can't hold its own libraries never gets to its first line (Docker's minimum).
MEMORY_MIN_BYTES = 6 * 1024 * 1024


def check_spec(spec: ServiceSpec) -> None:
    """Raise Rejected, with the field, for a spec that no process engine can run."""
    run = spec.task.run
    _check_command(run)
    _check_strings(run)
    parse_signal(run.stop_signal, "task.run.stop_signal")
    if run.stop_grace_ns < 0:
        _refuse("task.run.stop_grace_ns", "is a duration and can't be negative")
    if run.working_dir and not run.working_dir.startswith("/"):
        _refuse("task.run.working_dir", f'"{run.working_dir}" must start with /')
    if run.health is not None:
        check_health(run.health)
    _check_log(run)
    _check_limits(spec)
    check_templates(run)


def check_health(health: HealthCheck) -> None:
    """Raise Rejected for a health check that can't be run."""
    field = "task.run.health"
    kind, *rest = health.test or ("",)
    if kind == "NONE":
        return
    if kind not in ("CMD", "CMD-SHELL"):
        _refuse(f"{field}.test", 'must begin with "CMD", "CMD-SHELL" or "NONE"')
    if not rest or not rest[0]:
        _refuse(f"{field}.test", f'names nothing to run after "{kind}"')
    if kind == "CMD-SHELL" and len(rest) > 1:
        _refuse(f"{field}.test", '"CMD-SHELL" takes one line; "CMD" takes a program and arguments')
    for name in ("interval_ns", "timeout_ns", "start_interval_ns"):
        if getattr(health, name) < MILLISECOND_NS:
            _refuse(f"{field}.{name}", "can't be less than 1 ms")
    if health.start_period_ns < 0:
        _refuse(f"{field}.start_period_ns", "is a duration and can't be negative")
    if health.retries < 1:
        _refuse(f"{field}.retries", "can't be less than 1")


def _refuse(field: str, why: str) -> None:
    raise Rejected(f"{field} {why}", field=field)


def _check_command(run: RunSpec) -> None:
    argv = run.command + run.args
    if not argv and run.image:
        raise Rejected(
            f'engine "{ENGINE}" runs programs of the node itself: image "{run.image}" alone needs '
            "a container engine; give `command`, or `engine: docker`",
            field="task.run.image",
        )
    if not argv or not argv[0]:
        raise Rejected(
            f'engine "{ENGINE}" needs `command`: the program to run', field="task.run.command"
        )


def _check_strings(run: RunSpec) -> None:
    for name, _ in run.env:
        if not name or "=" in name:
            _refuse("task.run.env", f'"{name}" is no name of an environment variable')
    strings = {
        "task.run.command": run.command,
        "task.run.args": run.args,
        "task.run.env": tuple(part for pair in run.env for part in pair),
        "task.run.working_dir": (run.working_dir,),
        "task.run.user": (run.user,),
        "task.run.health.test": run.health.test if run.health else (),
    }
    for field, texts in strings.items():
        if any("\0" in text for text in texts):
            _refuse(field, "holds a zero byte, which no process can be given")


def _check_log(run: RunSpec) -> None:
    if run.log.max_bytes < LOG_MIN_BYTES:
        _refuse("task.run.log.max_bytes", f"can't be less than {LOG_MIN_BYTES}")
    if not 1 <= run.log.max_files <= LOG_MAX_FILES:
        _refuse("task.run.log.max_files", f"must be from 1 to {LOG_MAX_FILES}")


def _check_limits(spec: ServiceSpec) -> None:
    limits = spec.task.limits
    if limits.memory_bytes is not None and limits.memory_bytes < MEMORY_MIN_BYTES:
        _refuse("task.limits.memory_bytes", f"can't be less than {MEMORY_MIN_BYTES}")
    if limits.cpu_nano is not None and limits.cpu_nano <= 0:
        _refuse("task.limits.cpu_nano", "must be more than nothing")
    if limits.pids is not None and limits.pids <= 0:
        _refuse("task.limits.pids", "must be at least 1")
