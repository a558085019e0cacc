"""All reconcilers over one database, driven in any order through whatever may happen.

What must hold after each commit is checked by `tests.trace.support.promises`: legal moves, one
wanted task per slot, unique addresses and ports, no node over its reservations. What must come of
it in the end is checked by `tests.trace.support.life`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from skep.domain.base import SECOND_NS, replace
from skep.domain.objects import Availability
from skep.domain.spec import (
    EndpointMode,
    FailureAction,
    NetworkUse,
    Placement,
    Port,
    Resources,
    RestartCondition,
    RestartPolicy,
    ServiceSpec,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.states import TaskState
from tests.trace.support.life import GIB, NAMES, NETWORKS, NODES, REPORTS, Life
from tests.trace.support.stage import ACTORS, spec

CONSTRAINTS: tuple[tuple[str, ...], ...] = ((), ("node.labels.disk == ssd",))
MEMORY = (None, GIB, 3 * GIB)
DELAYS_NS = (0, 5 * SECOND_NS)
ATTEMPTS = (None, 1, 2)
WINDOWS_NS = (None, 20 * SECOND_NS)
PORTS: tuple[tuple[Port, ...], ...] = (
    (),
    (Port(target=80),),
    (Port(target=80, published=30000),),
    (Port(target=81), Port(target=82, published=30001)),
)
USES: tuple[tuple[NetworkUse, ...], ...] = (
    (),
    (NetworkUse(network="one"),),
    (NetworkUse(network="one", aliases=("www",)),),
    (NetworkUse(network="other"), NetworkUse(network="far")),
    # Their addresses can't be told apart, so that it is refused.
    (NetworkUse(network="other"), NetworkUse(network="one")),
)
POLICIES = tuple(
    UpdatePolicy(
        parallelism=parallelism,
        delay_ns=delay_s * SECOND_NS,
        monitor_ns=monitor_s * SECOND_NS,
        max_failure_ratio=ratio,
        failure_action=action,
        order=order,
        healthy_deadline_ns=deadline_s * SECOND_NS,
    )
    for order in UpdateOrder
    for action, parallelism, delay_s, monitor_s, ratio, deadline_s in (
        (FailureAction.PAUSE, 1, 0, 5, 0.0, 300),
        (FailureAction.PAUSE, 1, 10, 5, 0.0, 10),
        (FailureAction.ROLLBACK, 2, 1, 10, 0.0, 300),
        (FailureAction.ROLLBACK, 0, 0, 0, 0.5, 10),
        (FailureAction.CONTINUE, 1, 0, 5, 0.0, 20),
    )
)
# Enough for all replicas of the specs here on the nodes that there are in the end.
MOST_PER_NODE = (None, None, 2, 3)
LIMITS = (1, 3, 400)
DISKS = ("ssd", "spinning")
SECONDS = (0.5, 5.0, 45.0)
JUMPS_S = (-3600.0, 3600.0)

SPECS = st.builds(
    lambda constraints, most, memory, restart, networks, **direct: spec(
        networks=networks,
        placement=Placement(constraints=constraints, max_replicas_per_node=most),
        reservations=Resources(memory_bytes=memory),
        restart=restart,
        **direct,
    ),
    name=st.sampled_from(NAMES),
    image=st.sampled_from(("v1", "v2", "v3")),
    replicas=st.integers(0, 4),
    constraints=st.sampled_from(CONSTRAINTS),
    most=st.sampled_from(MOST_PER_NODE),
    memory=st.sampled_from(MEMORY),
    networks=st.sampled_from(USES),
    endpoint_mode=st.sampled_from(EndpointMode),
    restart=st.builds(
        RestartPolicy,
        condition=st.sampled_from(RestartCondition),
        delay_ns=st.sampled_from(DELAYS_NS),
        max_attempts=st.sampled_from(ATTEMPTS),
        window_ns=st.sampled_from(WINDOWS_NS),
    ),
    ports=st.sampled_from(PORTS),
    update=st.sampled_from(POLICIES),
    rollback=st.sampled_from(POLICIES),
)


class Reconcilers(RuleBasedStateMachine):
    """Hypothesis chooses what happens."""

    life: Life | None = None

    @initialize(limit=st.sampled_from(LIMITS), first=SPECS, is_settled=st.booleans())
    def begin(self, limit: int, first: ServiceSpec, is_settled: bool) -> None:
        self.life = Life(limit)
        self.life.deploy(replace(first, replicas=first.replicas + 1))
        if is_settled:
            self.life.stage.run()

    @rule(of=SPECS)
    def deploy(self, of: ServiceSpec) -> None:
        self.alive.deploy(of)

    @rule(name=st.sampled_from(NAMES), replicas=st.integers(0, 4))
    def scale(self, name: str, replicas: int) -> None:
        self.alive.scale(name, replicas)

    @rule(name=st.sampled_from(NAMES), revision=st.one_of(st.none(), st.integers(1, 8)))
    def roll_back(self, name: str, revision: int | None) -> None:
        self.alive.roll_back(name, revision)

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        self.alive.remove(name)

    @rule(name=st.sampled_from(tuple(NETWORKS)))
    def create_network(self, name: str) -> None:
        self.alive.create_network(name)

    @rule(name=st.sampled_from(tuple(NETWORKS)))
    def remove_network(self, name: str) -> None:
        self.alive.remove_network(name)

    @rule(pick=st.integers(0, 50))
    def remove_task(self, pick: int) -> None:
        self.alive.remove_task(pick)

    @rule(node=st.sampled_from(NODES), availability=st.sampled_from(Availability))
    def set_availability(self, node: str, availability: Availability) -> None:
        self.alive.set_availability(node, availability)

    @rule(node=st.sampled_from(NODES), disk=st.sampled_from(DISKS))
    def label(self, node: str, disk: str) -> None:
        self.alive.label(node, disk)

    @rule(node=st.sampled_from(NODES))
    def remove_node(self, node: str) -> None:
        self.alive.remove_node(node)

    @rule(node=st.sampled_from(NODES))
    def register(self, node: str) -> None:
        self.alive.register(node)

    @rule(node=st.sampled_from(NODES), is_dead=st.booleans())
    def lose(self, node: str, is_dead: bool) -> None:
        self.alive.lose(node, is_dead)

    @rule()
    def work(self) -> None:
        self.alive.work()

    @rule(pick=st.integers(0, 50), state=st.sampled_from(REPORTS), is_lost=st.booleans())
    def report(self, pick: int, state: TaskState, is_lost: bool) -> None:
        self.alive.report(pick, state, is_lost)

    @rule(node=st.sampled_from(NODES), place=st.integers(0, 100))
    def resend(self, node: str, place: int) -> None:
        self.alive.resend(node, place)

    @rule(name=st.sampled_from(tuple(ACTORS)))
    def step(self, name: str) -> None:
        self.alive.step(name)

    @rule()
    def settle(self) -> None:
        self.alive.settle()

    @rule(seconds=st.sampled_from(SECONDS))
    def advance(self, seconds: float) -> None:
        self.alive.advance(seconds)

    @rule(seconds=st.sampled_from(JUMPS_S))
    def jump_wall(self, seconds: float) -> None:
        self.alive.jump_wall(seconds)

    @rule(name=st.sampled_from(tuple(ACTORS)))
    def restart(self, name: str) -> None:
        self.alive.restart(name)

    @rule()
    def change_leader(self) -> None:
        self.alive.change_leader()

    @property
    def alive(self) -> Life:
        assert self.life is not None
        return self.life

    def teardown(self) -> None:
        if self.life is not None:
            self.life.end()


def test_whatever_happens_the_promises_hold_and_it_comes_to_rest() -> None:
    options: Any = settings(
        max_examples=60,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Reconcilers, settings=options)


def any_spec(dice: Random) -> ServiceSpec:
    """Mostly services that are to go on for ever, since only those must never have a hole."""
    is_steady = dice.random() < 0.7
    restart = RestartPolicy(
        condition=RestartCondition.ANY if is_steady else dice.choice(list(RestartCondition)),
        delay_ns=dice.choice(DELAYS_NS),
        max_attempts=None if is_steady else dice.choice(ATTEMPTS),
        window_ns=dice.choice(WINDOWS_NS),
    )
    return spec(
        name=dice.choice(NAMES),
        image=dice.choice(("v1", "v2", "v3")),
        replicas=dice.randrange(5),
        placement=Placement(
            constraints=dice.choice((*CONSTRAINTS, ())),
            max_replicas_per_node=dice.choice(MOST_PER_NODE),
        ),
        reservations=Resources(memory_bytes=dice.choice(MEMORY)),
        restart=restart,
        ports=dice.choice(PORTS),
        networks=dice.choice(USES),
        endpoint_mode=dice.choice(list(EndpointMode)),
        update=dice.choice(POLICIES),
        rollback=dice.choice(POLICIES),
    )


def act(life: Life, dice: Random) -> None:
    """One thing that happens, the common ones more often."""
    node, name, pick = dice.choice(NODES), dice.choice(NAMES), dice.randrange(50)
    actor, network = dice.choice(tuple(ACTORS)), dice.choice(tuple(NETWORKS))
    actions: tuple[tuple[int, Callable[[], object]], ...] = (
        (8, lambda: life.step(actor)),
        (4, life.settle),
        (6, life.work),
        (4, lambda: life.report(pick, dice.choice(REPORTS), dice.random() < 0.2)),
        (4, lambda: life.report(pick, TaskState.FAILED, dice.random() < 0.2)),
        (3, lambda: life.advance(dice.choice(SECONDS))),
        (2, lambda: life.deploy(any_spec(dice))),
        (2, lambda: life.scale(name, dice.randrange(5))),
        (1, lambda: life.roll_back(name, dice.choice((None, None, 1, 2, 3)))),
        (1, lambda: life.remove(name)),
        (2, lambda: life.remove_task(pick)),
        (2, lambda: life.set_availability(node, dice.choice(list(Availability)))),
        (1, lambda: life.label(node, dice.choice(DISKS))),
        (1, lambda: life.remove_node(node)),
        (3, lambda: life.register(node)),
        (2, lambda: life.lose(node, dice.random() < 0.7)),
        (1, lambda: life.resend(node, pick)),
        (1, lambda: life.jump_wall(dice.choice(JUMPS_S))),
        (1, lambda: life.restart(actor)),
        (1, life.change_leader),
        (2, lambda: life.create_network(network)),
        (1, lambda: life.remove_network(network)),
    )
    dice.choices([do for _, do in actions], [weight for weight, _ in actions])[0]()


@pytest.mark.parametrize("seed", range(40))
def test_a_long_life_keeps_every_promise(seed: int) -> None:
    dice = Random(seed)
    life = Life(dice.choice(LIMITS))
    for _ in range(100):
        act(life, dice)
    life.end()
