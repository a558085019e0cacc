"""`service create` and `service update`: options to a spec. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from skep.cli.errors import Exit, Failure
from skep.domain.base import Pairs, Struct, pairs, replace
from skep.domain.spec import (
    HealthCheck,
    Placement,
    Port,
    RestartCondition,
    RunSpec,
    ServiceSpec,
    TaskSpec,
)
from skep.stackfile import values
from skep.stackfile.ports import short_ports

T = TypeVar("T")
S = TypeVar("S", bound=Struct)

_CONDITIONS = {
    "none": RestartCondition.NONE,
    "on-failure": RestartCondition.ON_FAILURE,
    "any": RestartCondition.ANY,
}
_COUNT_LIMIT = 2**31 - 1


Reading = tuple[str, str, Callable[[str], Any]]
"""An option, the field it sets, and how its text is read."""


def _count(text: str) -> int:
    return _whole(text, 1)


def _count_from_zero(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, minimum: int) -> int:
    if text.isascii() and text.isdigit() and len(text) > len(str(_COUNT_LIMIT)):
        raise values.BadValue(f"'{text}' is too large; the limit is {_COUNT_LIMIT}")
    return values.integer(text, minimum, _COUNT_LIMIT)


def _shell_test(line: str) -> tuple[str, str]:
    if not line.strip():
        raise values.BadValue("the command is empty; --no-healthcheck turns the check off")
    return "CMD-SHELL", line


def _condition(text: str) -> RestartCondition:
    if text not in _CONDITIONS:
        raise values.BadValue(f"'{text}' is not one of none, on-failure and any")
    return _CONDITIONS[text]


def _amount(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    """As in a stack file, an amount of 0 means none."""
    return lambda text: parse(text) or None


_RUN: tuple[Reading, ...] = (
    ("image", "image", str),
    ("workdir", "working_dir", str),
    ("user", "user", str),
    ("stop_signal", "stop_signal", values.signal_name),
    ("stop_grace_period", "stop_grace_ns", values.duration_ns),
)
_HEALTH: tuple[Reading, ...] = (
    ("health_cmd", "test", _shell_test),
    ("health_interval", "interval_ns", values.duration_ns),
    ("health_timeout", "timeout_ns", values.duration_ns),
    ("health_start_period", "start_period_ns", values.duration_ns),
    ("health_start_interval", "start_interval_ns", values.duration_ns),
    ("health_retries", "retries", _count),
)
_RESTART: tuple[Reading, ...] = (
    ("restart_condition", "condition", _condition),
    ("restart_delay", "delay_ns", values.duration_ns),
    ("restart_max_attempts", "max_attempts", _amount(_count_from_zero)),
    ("restart_window", "window_ns", _amount(values.duration_ns)),
)
_LIMITS: tuple[Reading, ...] = (
    ("limit_cpu", "cpu_nano", _amount(values.cpu_nano)),
    ("limit_memory", "memory_bytes", _amount(values.size_bytes)),
    ("limit_pids", "pids", _amount(_count_from_zero)),
)
_RESERVATIONS: tuple[Reading, ...] = (
    ("reserve_cpu", "cpu_nano", _amount(values.cpu_nano)),
    ("reserve_memory", "memory_bytes", _amount(values.size_bytes)),
)


def created(options: argparse.Namespace) -> ServiceSpec:
    """The spec that `service create` asks for. Raises Failure."""
    spec = ServiceSpec(
        name=options.name,
        labels=_named_values("--label", options.label),
        ports=_ports("--publish", options.publish),
        task=TaskSpec(
            run=RunSpec(command=tuple(options.command), env=_named_values("--env", options.env)),
            placement=Placement(constraints=tuple(options.constraint)),
        ),
    )
    return _described(options)(spec)


def edited(options: argparse.Namespace) -> Callable[[ServiceSpec], ServiceSpec]:
    """What `service update` asks for, as a change of any spec. Raises Failure."""
    env, labels = (
        _named_values("--env-add", options.env_add),
        _named_values("--label-add", options.label_add),
    )
    ports_added = _ports("--publish-add", options.publish_add)
    ports_removed = _ports("--publish-rm", options.publish_rm)
    describe = _described(options)

    def edit(spec: ServiceSpec) -> ServiceSpec:
        run, placement = spec.task.run, spec.task.placement
        if options.command:
            run = replace(run, command=tuple(options.command), args=())
        run = replace(run, env=_merged(run.env, env, options.env_rm))
        taken = [port.published for port in ports_added]
        kept = tuple(
            port
            for port in spec.ports
            if port.published not in taken
            and not any(_is_meant(port, removed) for removed in ports_removed)
        )
        constraints = [
            text
            for text in placement.constraints
            if text not in options.constraint_rm and text not in options.constraint_add
        ]
        task = replace(
            spec.task,
            run=run,
            placement=Placement(constraints=(*constraints, *options.constraint_add)),
            force_update=spec.task.force_update + (1 if options.force else 0),
        )
        return describe(
            replace(
                spec,
                task=task,
                labels=_merged(spec.labels, labels, options.label_rm),
                ports=(*kept, *ports_added),
            )
        )

    return edit


def _described(options: argparse.Namespace) -> Callable[[ServiceSpec], ServiceSpec]:
    """The changes that options which both commands have ask for; what isn't given stays."""
    run, health, restart, limits, reservations = (
        _given(options, readings) for readings in (_RUN, _HEALTH, _RESTART, _LIMITS, _RESERVATIONS)
    )

    def describe(spec: ServiceSpec) -> ServiceSpec:
        task = spec.task
        found = _health(task.run.health, health, is_off=options.no_healthcheck)
        task = replace(
            task,
            run=replace(task.run, health=found, **run),
            restart=replace(task.restart, **restart),
            limits=replace(task.limits, **limits),
            reservations=replace(task.reservations, **reservations),
        )
        replicas = spec.replicas if options.replicas is None else options.replicas
        return replace(spec, task=task, replicas=replicas)

    return describe


def _health(
    old: HealthCheck | None, changes: dict[str, Any], *, is_off: bool
) -> HealthCheck | None:
    if is_off:
        if changes:
            raise Failure("--no-healthcheck and --health-... exclude each other", Exit.USAGE)
        return HealthCheck(test=("NONE",))
    if not changes:
        return old
    if old is None and "test" not in changes:
        raise Failure("there is no health check to change; add --health-cmd", Exit.USAGE)
    return replace(old, **changes) if old else HealthCheck(**changes)


def _given(options: argparse.Namespace, readings: Iterable[Reading]) -> dict[str, Any]:
    """New values, by field, for the options that were given."""
    found = {}
    for option, name, parse in readings:
        text = getattr(options, option)
        if text is not None:
            found[name] = _read(f"--{option.replace('_', '-')}", text, parse)
    return found


def _read(flag: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except values.BadValue as error:
        raise Failure(f"{flag}: {error}", Exit.USAGE) from None


def _ports(flag: str, texts: Iterable[str]) -> tuple[Port, ...]:
    found: list[Port] = []
    for text in texts:
        found += _read(flag, text, short_ports)
    return tuple(found)


def _is_meant(port: Port, removed: Port) -> bool:
    """Whether a port is the one to remove: both of its sides if both were given, else any."""
    if port.protocol is not removed.protocol:
        return False
    if removed.published is None:
        return removed.target in (port.published, port.target)
    return (port.published, port.target) == (removed.published, removed.target)


def _named_values(flag: str, texts: Iterable[str]) -> Pairs:
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not name or not sign:
            lack = "value" if name else "name"
            raise Failure(f"{flag}: '{text}' has no {lack}; write NAME=VALUE", Exit.USAGE)
        found[name] = value
    return pairs(found)


def _merged(old: Pairs, added: Pairs, removed: Iterable[str]) -> Pairs:
    gone = set(removed)
    return pairs({name: value for name, value in (*old, *added) if name not in gone})
