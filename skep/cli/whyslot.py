"""Why one slot of a service isn't well: its leading task tells, and those before it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skep.cli import hints
from skep.cli.text import counted, span
from skep.domain.base import NodeId
from skep.domain.objects import Availability, Node, NodeState, Service, Task
from skep.domain.spec import RestartCondition
from skep.domain.states import DesiredState, TaskState

Verdict = tuple[str, str]
"""What is wrong, and what to do about it."""

_FAILURES = (TaskState.FAILED, TaskState.REJECTED)
_ON_THE_WAY = (
    TaskState.ASSIGNED,
    TaskState.ACCEPTED,
    TaskState.PREPARING,
    TaskState.READY,
    TaskState.STARTING,
)


def verdict(
    history: Sequence[Task], service: Service, nodes: Mapping[NodeId, Node], now_ns: int
) -> Verdict | None:
    """Why a slot isn't as asked; None where it is. `history` is the slot's tasks, oldest first."""
    if any(_serves(task, service, nodes) for task in history):
        return None
    task = _lead(history, service)
    is_newest = task is history[-1]
    history = history[: history.index(task) + 1]
    if task.is_terminal:
        return _ended(history, service, now_ns, is_newest=is_newest)
    if not task.is_wanted:
        return f"{_task(task, nodes)} is stopping; a new one follows", ""
    if task.start_at_ns is not None and task.start_at_ns > now_ns:
        wait = f"restart delay: the next attempt starts in {span(task.start_at_ns - now_ns)}"
        return _and_failures(wait, history, service, now_ns)
    before = next((old for old in reversed(history[:-1]) if not old.is_terminal), None)
    if before is not None and task.desired_state is DesiredState.READY:
        return _waits(before, service, nodes, now_ns)
    state = task.status.state
    if state in (TaskState.NEW, TaskState.PENDING):
        return _unplaced(task, service, now_ns)
    if state in _ON_THE_WAY:
        return _starting(history, service, nodes, now_ns)
    return _running(task, service, nodes, now_ns)


def _serves(task: Task, service: Service, nodes: Mapping[NodeId, Node]) -> bool:
    """Whether a task is as the service's spec says, on a node that it may stay on."""
    node = nodes.get(task.node_id) if task.node_id else None
    return (
        task.is_wanted
        and task.status.state is TaskState.RUNNING
        and task.status.is_healthy
        and task.revision == service.task_revision
        and node is not None
        and node.state is not NodeState.DOWN
        and node.availability is not Availability.DRAIN
    )


def _lead(history: Sequence[Task], service: Service) -> Task:
    """The task that tells the slot's story: what was tried and rolled back is another story."""
    right = [task for task in history if task.revision == service.task_revision]
    fallback = (right or history)[-1]
    return next((task for task in reversed(history) if task.is_wanted), fallback)


def _running(
    task: Task, service: Service, nodes: Mapping[NodeId, Node], now_ns: int
) -> Verdict | None:
    node = nodes.get(task.node_id) if task.node_id else None
    if node is None or node.state is NodeState.DOWN:
        name = task.node_id if node is None else node.name
        return f"its node {name} is down; it is being replaced", ""
    if not task.status.is_healthy:
        ago = span(now_ns - task.status.since_ns)
        return (
            f"{_task(task, nodes)} is unhealthy: its health check fails (it runs for {ago}); it is "
            "being replaced",
            f"what it wrote: skep service logs {service.name}",
        )
    if node.availability is Availability.DRAIN:
        return f"its node {node.name} is drained; it is being moved", ""
    if task.revision == service.task_revision:
        return None
    update = service.update
    if update is not None and not update.state.is_paused and task.slot in update.failed_slots:
        return (
            f"runs the spec of revision {task.revision}: the update failed in this slot",
            f"what it wrote: skep service logs {service.name}",
        )
    if update is not None and update.state.is_paused:
        return f"runs the spec of revision {task.revision}; the update is paused", ""
    return f"runs the spec of revision {task.revision}; its turn in the update comes", ""


def _waits(before: Task, service: Service, nodes: Mapping[NodeId, Node], now_ns: int) -> Verdict:
    """A replacement that is held back until its predecessor has stopped."""
    node = nodes.get(before.node_id) if before.node_id else None
    if node is not None and node.state is NodeState.DOWN:
        return f"waits a while for {_task(before, nodes)}, whose node is down", ""
    grace = span(service.spec.task.run.stop_grace_ns)
    since = span(now_ns - before.updated_ns)
    return (
        f"waits until {_task(before, nodes)} has stopped: told so {since} ago; connections are "
        f"let go first, then it has {grace} of stop grace",
        "if it ignores its stop signal, a shorter --stop-grace-period helps",
    )


def _starting(
    history: Sequence[Task], service: Service, nodes: Mapping[NodeId, Node], now_ns: int
) -> Verdict:
    task = history[-1]
    since = span(now_ns - (task.status.since_ns or task.updated_ns))
    node = nodes.get(task.node_id) if task.node_id else None
    if node is not None and node.state is NodeState.DOWN:
        return f"its node {node.name} went down while it was to start; it is being replaced", ""
    if task.status.state is TaskState.STARTING and service.spec.task.run.health is not None:
        what = f"{_task(task, nodes)} has been started {since} ago, and is not healthy yet"
    else:
        state, message = task.status.state.value, task.status.message
        reason = f": {message}" if message not in ("", state) else ""
        what = f"{_task(task, nodes)} is {state} since {since}{reason}"
    return _and_failures(what, history, service, now_ns)


def _ended(history: Sequence[Task], service: Service, now_ns: int, *, is_newest: bool) -> Verdict:
    """Nothing alive in the slot: a new task is about to be made, or the policy makes no more."""
    task = history[-1]
    # One of before an update that is being taken back: the rollback brings another.
    is_back = not is_newest and service.update is not None and service.update.state.is_active
    if task.is_wanted or task.revision != service.task_revision or is_back:
        what = f"ended {_when(task, now_ns)} ({_end(task)}); a new task follows"
        return _and_failures(what, history, service, now_ns)
    policy = service.spec.task.restart
    again = hints.look(service.name, _end(task))
    if not hints.lacks_program(_end(task)):
        again = f"to run it once more: skep service update {service.name} --force; {again}"
    if task.status.state is TaskState.COMPLETE:
        what = f"done: it ended by itself {_when(task, now_ns)} ({_end(task)})"
    else:
        what = f"given up {_when(task, now_ns)}: {_end(task)}"
    if policy.condition is RestartCondition.NONE:
        return f"{what}; its restart condition is none", again
    if policy.condition is RestartCondition.ON_FAILURE and task.status.state is TaskState.COMPLETE:
        return f"{what}; its restart condition is on-failure", again
    if policy.max_attempts:
        return f"{what}; its restart policy allows {counted(policy.max_attempts, 'attempt')}", again
    return f"{what}; its restart policy tries no more", again


def _and_failures(what: str, history: Sequence[Task], service: Service, now_ns: int) -> Verdict:
    """What is, and after it how often the slot has failed under the present spec."""
    revision = history[-1].revision
    failed = [t for t in history if t.status.state in _FAILURES and t.revision == revision]
    if not failed:
        return what, ""
    # The history is cut; the attempts are counted through.
    last = history[-1]
    count = max(len(failed), last.attempt + (1 if last.is_terminal else 0))
    first_ns = failed[0].ended_ns or failed[0].status.since_ns
    often = "failed once" if count == 1 else f"failed {count} times"
    if len(failed) > 1:
        shown = "" if len(failed) == count else f", the last {len(failed)}"
        often += f"{shown} within {span(now_ns - first_ns)}"
    advice = hints.look(service.name, _end(failed[-1]))
    if service.previous_revision is not None and not _ever_ran(history, revision):
        advice += f"; back to revision {service.previous_revision}: skep service rollback "
        advice += service.name
    return f"{what}; {often}, last: {_end(failed[-1])}", advice


def _ever_ran(history: Sequence[Task], revision: int) -> bool:
    return any(t.revision == revision and t.healthy_ns is not None for t in history)


def _unplaced(task: Task, service: Service, now_ns: int) -> Verdict:
    since = span(now_ns - (task.status.since_ns or task.created_ns))
    reason = task.status.error or task.status.message or "the managers haven't come to it yet"
    if task.status.state is TaskState.NEW:
        return f"waits for addresses and ports for {since}: {reason}", ""
    advice = [words for mark, words in _advice(service) if mark in reason]
    return f"waits for a node for {since}: {reason}", "; ".join(advice)


def _advice(service: Service) -> list[tuple[str, str]]:
    """What helps against each of the scheduler's reasons."""
    task = service.spec.task
    reserved = []
    if task.reservations.cpu_nano:
        reserved.append(f"{task.reservations.cpu_nano / 1e9:g} CPUs")
    if task.reservations.memory_bytes:
        reserved.append(_size(task.reservations.memory_bytes))
    constraints = " and ".join(task.placement.constraints) or "none"
    most = task.placement.max_replicas_per_node
    return [
        ("not available", "start nodes that are down, or make drained and paused ones active"),
        (
            "insufficient resources",
            f"each task reserves {' and '.join(reserved) or 'nothing'}: reserve less, scale down, "
            "or add a node",
        ),
        ("engine missing", f"no other node has the engine '{task.engine}'"),
        (
            "network is encrypted",
            "install wireguard-go where the kernel has no WireGuard; each node says what it lacks: "
            "skep node inspect NODE --pretty",
        ),
        (
            "constraints",
            f"its constraints are {constraints}: change them, or a node's labels: "
            "skep node update NODE --label-add KEY=VALUE",
        ),
        ("max replicas", f"at most {most} may run on one node: allow more, or add a node"),
        (
            "unsupported platform",
            "its platforms: "
            + ", ".join(
                f"{each.os or 'any'}/{each.arch or 'any'}" for each in task.placement.platforms
            ),
        ),
        (
            "host-mode port",
            "a port in mode host is taken on the others: one task per node is all it allows",
        ),
    ]


def _size(size_bytes: int) -> str:
    if size_bytes < 2**30:
        return f"{size_bytes / 2**20:.0f} MiB"
    return f"{size_bytes / 2**30:.1f} GiB"


def _task(task: Task, nodes: Mapping[NodeId, Node]) -> str:
    node = nodes.get(task.node_id) if task.node_id else None
    where = f" on {node.name}" if node is not None else ""
    return f"task {task.id[:12]}{where}"


def _when(task: Task, now_ns: int) -> str:
    at_ns = task.ended_ns or task.status.since_ns or task.updated_ns
    return f"{span(now_ns - at_ns)} ago"


def _end(task: Task) -> str:
    """How a task ended."""
    status = task.status
    code = "" if status.exit_code is None else f"exit code {status.exit_code}"
    if not status.error:
        return code or status.message or status.state.value
    is_told = not code or "exit code" in status.error or str(status.exit_code) in status.error
    return status.error if is_told else f"{status.error} ({code})"
