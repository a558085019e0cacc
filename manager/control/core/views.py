"""What reads show: services with how far they are, and lists in the order people expect."""

from __future__ import annotations

from skep.domain.base import replace
from skep.domain.control import ListTasksRequest, ServiceView
from skep.domain.objects import (
    Node,
    NodeState,
    Service,
    Stack,
    Task,
)
from skep.domain.spec import RestartCondition
from skep.domain.states import DesiredState, TaskState
from skep.manager.allocator.core.networks import vip_networks
from skep.manager.control.core.find import find
from skep.manager.orchestrator.core.slots import Scene
from skep.manager.revisions import spec_of
from skep.manager.store.core.tables import View

# Different problems of one service that are worth telling.
PROBLEMS_LIMIT = 5


def service_view(view: View, service: Service) -> ServiceView:
    """A service and how far reality has come."""
    tasks = tuple(view.tasks_of_service(service.id))
    scene = _scene(view, service, tasks)
    right = {task.id for task in tasks if _is_right(scene, task)}
    leftovers = [
        task
        for task in tasks
        if not task.is_terminal and task.id not in right and _is_reachable(view, task)
    ]
    desired = 0 if service.is_removing else service.spec.replicas
    done = _done(service, tasks)
    vipless = _networks_without_vip(view, service)
    return ServiceView(
        service=service,
        # A slot that is handing over has two tasks, and is one copy all the same.
        running=len({task.slot for task in tasks if _is_up(task)}),
        desired=desired,
        is_converged=(
            len(right) + len(done) == desired
            and not leftovers
            and not service.is_removing
            and _has_its_ports(service)
            and not vipless
            and not _is_under_way(service)
        ),
        problems=(*_problems(service, tasks), *vipless)[:PROBLEMS_LIMIT],
        given_up=len(_given_up(service, tasks) - done),
        completed=len(done),
    )


def select_tasks(view: View, request: ListTasksRequest) -> tuple[Task, ...]:
    """The tasks asked for: by service name, slot, and newest first."""
    tasks = tuple(view.all(Task))
    if request.service is not None:
        tasks = tuple(view.tasks_of_service(find(view, Service, request.service).id))
    if request.node is not None:
        node = find(view, Node, request.node)
        tasks = tuple(task for task in tasks if task.node_id == node.id)
    if request.stack is not None:
        stack = find(view, Stack, request.stack)
        ids = {service.id for service in view.all(Service) if service.stack_id == stack.id}
        tasks = tuple(task for task in tasks if task.service_id in ids)
    if not request.is_all:
        tasks = tuple(task for task in tasks if task.is_wanted or not task.is_terminal)
    return tuple(
        sorted(tasks, key=lambda task: (task.service_name, task.slot, -task.created_ns, task.id))
    )


def _is_up(task: Task) -> bool:
    return task.is_wanted and task.status.state is TaskState.RUNNING and task.status.is_healthy


def _is_right(scene: Scene, task: Task) -> bool:
    """Whether it runs as the spec says, where the spec and the operator let it."""
    return (
        _is_up(task)
        and task.revision == scene.service.task_revision
        and scene.loss(task) is None
        and scene.misplacement(task) is None
    )


def _scene(view: View, service: Service, tasks: tuple[Task, ...]) -> Scene:
    on = {task.node_id for task in tasks if task.node_id is not None}
    nodes = {node_id: view.get(Node, node_id) for node_id in on}
    return Scene(
        service=service,
        tasks=tasks,
        nodes={node_id: node for node_id, node in nodes.items() if node is not None},
        now_ns=0,
        new_id=str,
        spec_of=lambda revision: spec_of(view, service.id, revision),
    )


def _is_reachable(view: View, task: Task) -> bool:
    if task.node_id is None:
        return True
    node = _node(view, task)
    return node is not None and node.state is not NodeState.DOWN


def _node(view: View, task: Task) -> Node | None:
    return None if task.node_id is None else view.get(Node, task.node_id)


def _has_its_ports(service: Service) -> bool:
    """Whether the allocator has filled in the ports of the present spec."""
    ports, asked = service.ports, service.spec.ports
    return (
        ports is not None
        and len(ports) == len(asked)
        and all(
            given.published is not None
            and given == replace(wanted, published=wanted.published or given.published)
            for given, wanted in zip(ports, asked, strict=True)
        )
    )


def _networks_without_vip(view: View, service: Service) -> tuple[str, ...]:
    """Where the service is to have a virtual address and has none, as problems."""
    has = {vip.network_id for vip in service.vips}
    lacking = [network for network in vip_networks(view, service) if network.id not in has]
    return tuple(f"no virtual address on network {row.name} yet" for row in lacking)


def _is_under_way(service: Service) -> bool:
    """Whether its tasks are being changed, or that waits for a person."""
    update = service.update
    return update is not None and (update.state.is_active or update.state.is_paused)


def _done(service: Service, tasks: tuple[Task, ...]) -> set[int]:
    """Slots that were to run once, and did."""
    if service.spec.task.restart.condition is RestartCondition.ANY:
        return set()
    return {
        slot
        for slot, task in _newest(tasks).items()
        if task.status.state is TaskState.COMPLETE and task.revision == service.task_revision
    }


def _given_up(service: Service, tasks: tuple[Task, ...]) -> set[int]:
    """Slots whose newest task, of the present spec, has ended, and that nobody tries again."""
    return {
        slot
        for slot, task in _newest(tasks).items()
        if task.is_terminal and not task.is_wanted and task.revision == service.task_revision
    }


def _problems(service: Service, tasks: tuple[Task, ...]) -> tuple[str, ...]:
    """The newest word of each slot that is not well. What went wrong under an older spec, or in a
    slot that runs again, is history."""
    present = tuple(task for task in tasks if task.revision == service.task_revision)
    failed = _newest(tuple(task for task in present if task.is_terminal and task.status.error))
    found: dict[str, str] = {}
    for slot, task in _newest(present).items():
        if _is_up(task):
            continue
        error = task.status.error or (failed[slot].status.error if slot in failed else "")
        if error:
            found.setdefault(error, f"{task.name}: {error}")
    return tuple(found.values())


def _newest(tasks: tuple[Task, ...]) -> dict[int, Task]:
    """The newest task of each slot, but for those that are to be removed."""
    kept = (task for task in tasks if task.desired_state is not DesiredState.REMOVE)
    return {task.slot: task for task in sorted(kept, key=lambda task: (task.created_ns, task.id))}
