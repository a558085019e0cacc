"""The scenarios of the whole cluster: a storm to survive, and calm days without excuses."""

from __future__ import annotations

import asyncio

from skep.domain.endpoints import is_serving
from skep.domain.objects import Node, Revision, Service, Task
from skep.domain.states import DesiredState, TaskState
from skep.manager.control.core.views import service_view
from skep.manager.store.actor import Store
from skep.manager.store.core.tables import Tables
from tests.sim.cluster import (
    SimCluster,
    calm_plane,
    errors_are_problems,
    make_nemesis,
    run_operator,
)
from tests.sim.connected import why_not_connected
from tests.sim.engine import EngineTemper
from tests.sim.networks import leftovers, why_not_right
from tests.sim.operator import Operator, is_as_acknowledged
from tests.sim.plane import targets
from tests.sim.releases import has_host_port
from tests.sim.world import Violation, World

STORM_S = 30.0
CALM_S = 40.0
# After healing: elections and re-registration take a few seconds, a node that was judged down a
# grace of 6 s, and a slot whose predecessor never said that it stopped half a minute.
CONVERGED_WITHIN_S = 100.0
LOOK_S = 0.5
# How many worlds end with everything removed: it takes its time, and is much the same each time.
EMPTIED = 0.1


async def storm(world: World) -> None:
    """Every fault there is while services come, change and go; then peace, and all must be well."""
    with errors_are_problems(world):
        cluster = SimCluster(world)
        nemesis = make_nemesis(cluster)
        cluster.boot()
        operator = await run_operator(cluster, world.now() + STORM_S)
        await nemesis.run(STORM_S)
        nemesis.heal()
        for worker in cluster.workers:
            worker.host.temper = EngineTemper()
            calm_plane(worker.plane_temper)
        await converge(cluster, operator)
        await empty(cluster, operator)


async def calm(world: World) -> None:
    """No faults at all: then no task is asked to end while a netproxy may still send to it."""
    await _calm_days(world, is_restless=False)


async def drains(world: World) -> None:
    """The same, while nodes are drained and taken back all the time."""
    await _calm_days(world, is_restless=True)


async def _calm_days(world: World, *, is_restless: bool) -> None:
    with errors_are_problems(world):
        cluster = SimCluster(world, is_calm=True)
        cluster.boot()
        operator = await run_operator(cluster, world.now() + CALM_S)
        operator.is_restless = is_restless
        await asyncio.sleep(CALM_S)
        await converge(cluster, operator)
        await empty(cluster, operator)
        for what, found in (
            ("signalled while in use", cluster.signals_in_use),
            ("two processes of one slot", cluster.doubles),
            ("nodes judged down", ["some"] * cluster.judge.nodes_down),
        ):
            if found:
                raise Violation(f"{what}: {'; '.join(found[:5])}")


async def converge(cluster: SimCluster, operator: Operator) -> float:
    """Wait until everything is as it was last acknowledged; the seconds it took."""
    world = cluster.world
    begin = world.now()
    while why := why_not_converged(cluster, operator):
        if world.now() - begin > CONVERGED_WITHIN_S:
            raise Violation(f"not converged after {CONVERGED_WITHIN_S} s: {'; '.join(why[:8])}")
        await asyncio.sleep(LOOK_S)
        world.check()
    for node in cluster.managers.values():
        node.store.tables.check_invariants()
    took_s = world.now() - begin
    ends = sorted((state.value, count) for state, count in cluster.judge.updates.ends.items())
    world.trace.note("end", f"converged after {took_s:.1f} s, of changes {dict(ends)}")
    return took_s


async def empty(cluster: SimCluster, operator: Operator) -> None:
    """At times, remove everything; then everything must have been given back."""
    if cluster.world.dice("end").random() >= EMPTIED:
        return
    await operator.empty(cluster.world.node("cleaner").boot())
    await converge(cluster, operator)
    leader = cluster.leader()
    assert leader is not None
    if left := leftovers(leader.store.tables):
        raise Violation(f"left behind: {', '.join(left)}")


def why_not_converged(cluster: SimCluster, operator: Operator) -> list[str]:
    """What is still missing, for a person."""
    if operator.waits_for:
        why = _slots(cluster, operator)
        return [f"the operator waits for {operator.waits_for}", *why]
    leader = cluster.leader()
    if leader is None or len(cluster.up_managers()) < len(cluster.managers):
        return ["no leader, or not all managers are up"]
    why = [
        f"{name} is at {node.store.version}, the leader at {leader.store.version}"
        for name, node in cluster.managers.items()
        if node.store.version != leader.store.version
    ]
    why += _services(operator, leader.store.tables)
    why += why_not_right(operator.networks, leader.store.tables)
    why += _machines(cluster, list(leader.store.tables.all(Task)))
    why += _proxies(cluster, leader.store)
    if not why:
        states = {node.store.snapshot() for node in cluster.up_managers()}
        why += ["the managers' states differ"] if len(states) > 1 else []
    return why


def _services(operator: Operator, tables: Tables) -> list[str]:
    """Every service is as it was last acknowledged, and all of it runs."""
    services = {service.name: service for service in tables.all(Service)}
    why = []
    if services.keys() != operator.wanted.keys():
        why.append(f"services are {sorted(services)}, wanted {sorted(operator.wanted)}")
    for name, spec in operator.wanted.items():
        service = services.get(name)
        if service is None:
            continue
        rows = tuple(row for row in tables.all(Revision) if row.service_id == service.id)
        if not is_as_acknowledged(service, spec, rows):
            raise Violation(f"{name} has lost an acknowledged spec")
        if not service_view(tables, service).is_converged:
            why.append(_story(service, tables))
        tasks = list(tables.tasks_of_service(service.id))
        right = [task for task in tasks if is_serving(task)]
        right = [task for task in right if task.revision == service.task_revision]
        others = [task for task in tasks if not task.is_terminal and task not in right]
        if len(right) != service.spec.replicas or others:
            text = ", ".join(_tell(task) for task in others)
            why.append(f"{name} has {len(right)}, and {text or 'no others'}")
    return why


def _slots(cluster: SimCluster, operator: Operator) -> list[str]:
    """How far the services are that the operator waits for."""
    leader = cluster.leader()
    if leader is None:
        return []
    tables = leader.store.tables
    waiting = operator.waits_for.split(", ")
    return [_story(each, tables) for each in tables.all(Service) if each.name in waiting]


def _story(service: Service, tables: Tables) -> str:
    status = service.update
    tasks = [task for task in tables.tasks_of_service(service.id) if task.is_wanted]
    text = "never updated"
    if status is not None:
        text = f"{status.state.value} ({status.message}; {status.policy})"
    return (
        f"{service.name} is at {service.revision} (tasks {service.task_revision}) of "
        f"{service.spec.replicas} replicas, {text}, with {'; '.join(_tell(task) for task in tasks)}"
    )


def _tell(task: Task) -> str:
    return (
        f"{task.name}/{task.id[:5]} {task.status.state.value}/{task.desired_state.value} on "
        f"{task.node_id} r{task.revision} {task.status.error}"
    )


def _machines(cluster: SimCluster, tasks: list[Task]) -> list[str]:
    """What really runs is what is wanted, and nothing is left of what is forgotten."""
    why = []
    known = {task.id for task in tasks}
    for worker in cluster.workers:
        wanted = {
            task.id
            for task in tasks
            if task.node_id == worker.name
            and task.desired_state is DesiredState.RUNNING
            and task.status.state is TaskState.RUNNING
        }
        running = worker.host.running()
        if running != wanted:
            why.append(f"{worker.name} runs {sorted(running - wanted)} too many")
            why.append(f"{worker.name} lacks {sorted(wanted - running)}")
        if leftovers := worker.host.all_held() - known:
            why.append(f"{worker.name} has leftovers of {sorted(leftovers)}")
    return why


def _proxies(cluster: SimCluster, store: Store) -> list[str]:
    """Every netproxy has the last version in force, and sends connections where it says."""
    serving: list[tuple[Task, bool]] = []
    for task in store.tables.all(Task):
        service = store.tables.get(Service, task.service_id)
        if service is not None and service.ports and is_serving(task):
            serving.append((task, has_host_port(service.spec)))
    why = []
    for worker in cluster.workers:
        version = worker.progress.applied_version
        # A port of a node leads to what runs there.
        right = {
            task.id for task, is_local in serving if not is_local or task.node_id == worker.name
        }
        if version != store.version or targets(worker.plane.desired) != right:
            why.append(f"netproxy of {worker.name} is at {version}, not {store.version}")
        node = store.tables.get(Node, worker.name)
        if node is not None:
            running = worker.host.running()
            why += why_not_connected(store.tables, node, worker.kernel, running)
    return why
