"""What the simulated cluster is asked to run: services, their policies, and releases good and bad.

A release is named in its tasks' environment. What is wrong with a bad one goes wrong on every
machine, whatever the machine's own temper, and also in a world that is healed.
"""

from __future__ import annotations

import enum
from random import Random

from skep.domain.base import SECOND_NS, pairs, replace
from skep.domain.spec import (
    FailureAction,
    HealthCheck,
    Placement,
    Port,
    PortMode,
    Resources,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
    UpdatePolicy,
)

REPLICAS_LIMIT = 5
MILLI_CPU_NANO = 1_000_000
# More than any machine has.
HUGE_CPU_NANO = 1_000_000_000_000
VARIABLE = "RELEASE"
# When tasks of the releases that go wrong late do so: seconds after their start.
LATE_S = (1.0, 4.0)


class Bad(enum.Enum):
    """How a release is bad."""

    CRASH = "bad-crash"  # Its tasks crash at once,
    LATE = "bad-late"  # or after a while,
    SICK = "bad-sick"  # or turn unhealthy, where anybody looks.
    START = "bad-start"  # They can't be started,
    PLACE = "bad-place"  # or fit on no machine.
    STOP = "bad-stop"  # They don't listen when they are asked to stop; else nothing is wrong.


def badness(spec: ServiceSpec) -> Bad | None:
    """How the release is bad that a spec is of; None for a good one."""
    name = dict(spec.task.run.env).get(VARIABLE, "")
    return next((bad for bad in Bad if name.startswith(bad.value)), None)


def is_doomed(spec: ServiceSpec) -> bool:
    """Whether its tasks never run for long."""
    bad = badness(spec)
    if bad is Bad.SICK:
        return spec.task.run.health is not None
    return bad not in (None, Bad.STOP)


def released(spec: ServiceSpec, name: str, bad: Bad | None = None) -> ServiceSpec:
    """The spec with another release."""
    run = replace(spec.task.run, env=pairs({VARIABLE: f"{bad.value}-{name}" if bad else name}))
    cpu_nano = spec.task.reservations.cpu_nano
    if bad is Bad.PLACE:
        cpu_nano = HUGE_CPU_NANO
    elif cpu_nano == HUGE_CPU_NANO:
        cpu_nano = None
    return replace(
        spec, task=replace(spec.task, run=run, reservations=Resources(cpu_nano=cpu_nano))
    )


def draw_spec(dice: Random, name: str, port: int) -> ServiceSpec:
    """A service of a good release. `port` is one that no other service has."""
    health = None
    if dice.random() < 0.4:
        health = HealthCheck(
            test=("CMD", "true"), interval_ns=2 * SECOND_NS, timeout_ns=SECOND_NS, retries=2
        )
    ports: tuple[Port, ...] = ()
    if dice.random() < 0.6:
        mode = PortMode.HOST if dice.random() < 0.2 else PortMode.INGRESS
        ports = (Port(target=80, published=dice.choice((None, port)), mode=mode),)
    run = RunSpec(command=(name,), health=health, stop_grace_ns=2 * SECOND_NS)
    task = TaskSpec(
        run=run,
        reservations=Resources(cpu_nano=dice.choice((None, 50 * MILLI_CPU_NANO))),
        restart=draw_restart(dice),
    )
    return ServiceSpec(
        name=name,
        task=task,
        ports=ports,
        replicas=dice.randint(1, REPLICAS_LIMIT),
        update=draw_policy(dice),
        rollback=draw_policy(dice),
    )


def draw_restart(dice: Random) -> RestartPolicy:
    """How soon an ended task is replaced."""
    return RestartPolicy(delay_ns=dice.choice((0, SECOND_NS)))


def draw_placement(dice: Random, spec: ServiceSpec, workers: list[str]) -> Placement:
    """Where tasks may run; always somewhere, once all workers are there."""
    constraints: tuple[str, ...] = ()
    # A host port needs a machine for each of the tasks.
    if not has_host_port(spec) and dice.random() < 0.5:
        constraints = (f"node.hostname != {dice.choice(workers)}",)
    return Placement(constraints=constraints, max_replicas_per_node=dice.choice((None, 2, 3)))


def draw_policy(dice: Random) -> UpdatePolicy:
    """How a change goes, with times that pass within a run."""
    return UpdatePolicy(
        parallelism=dice.choice((0, 1, 1, 2, 3)),
        delay_ns=dice.choice((0, 0, SECOND_NS // 2, 2 * SECOND_NS)),
        monitor_ns=dice.choice((0, 1, 3, 5)) * SECOND_NS,
        max_failure_ratio=dice.choice((0.0, 0.0, 0.3, 0.5)),
        failure_action=dice.choice(tuple(FailureAction)),
        order=dice.choice(tuple(UpdateOrder)),
        healthy_deadline_ns=dice.choice((8, 12)) * SECOND_NS,
    )


def has_host_port(spec: ServiceSpec) -> bool:
    """Whether its tasks listen on ports of their nodes."""
    return any(port.mode is PortMode.HOST for port in spec.ports)
