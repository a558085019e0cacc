"""What one object's change from old to new means, as phrases for a person. Pure.

An object without an old form is new, or was changed before anybody looked; what is told then is
what it says of itself.
"""

from __future__ import annotations

from skep.cli import updatewords
from skep.domain.base import Pairs, replace
from skep.domain.objects import (
    Network,
    Node,
    NodeDescription,
    NodeState,
    Service,
    Stack,
    Task,
    UpdateState,
    UpdateStatus,
)
from skep.domain.spec import ServiceSpec, TaskSpec
from skep.domain.states import DesiredState, TaskState

_UPDATE_WORDS = {
    UpdateState.UPDATING: "update to revision {} started",
    UpdateState.PAUSED: "update to revision {} paused",
    UpdateState.COMPLETED: "update to revision {} completed",
    UpdateState.ROLLBACK_STARTED: "rollback from revision {} started",
    UpdateState.ROLLBACK_PAUSED: "rollback from revision {} paused",
    UpdateState.ROLLBACK_COMPLETED: "rollback from revision {} completed",
}

_WANTED_WORDS = {
    DesiredState.READY: "waits for its turn to start",
    DesiredState.RUNNING: "may start",
    DesiredState.SHUTDOWN: "is to be stopped",
    DesiredState.REMOVE: "is to be stopped and removed",
}
_ON_THE_WAY = (
    TaskState.NEW,
    TaskState.PENDING,
    TaskState.ASSIGNED,
    TaskState.ACCEPTED,
    TaskState.PREPARING,
    TaskState.READY,
    TaskState.STARTING,
)


def of_task(old: Task | None, new: Task) -> list[str]:
    """A task: its state with the reason, its health, what is wanted of it."""
    words = []
    status = new.status
    if old is None or old.status.state is not status.state:
        before = "" if old is None else f"{old.status.state.value} -> "
        words.append(_because(f"{before}{status.state.value}", _reason(new)))
    elif old.status.error != status.error and status.error:
        words.append(_because(status.state.value, status.error))
    if old is not None and old.status.is_healthy != status.is_healthy:
        words.append("healthy again" if status.is_healthy else "unhealthy")
    before_wanted = DesiredState.RUNNING if old is None else old.desired_state
    if new.desired_state is not before_wanted and not new.is_terminal:
        words.append(_WANTED_WORDS[new.desired_state])
    return words


def is_step(new: Task) -> bool:
    """Whether a task is on its way to run, with nothing in it."""
    status = new.status
    return new.is_wanted and not status.error and status.state in _ON_THE_WAY


def _reason(task: Task) -> str:
    """Why a task is in its state, where the state alone doesn't say it all."""
    status = task.status
    if status.error:
        is_told = status.exit_code is None or str(status.exit_code) in status.error
        return status.error if is_told else f"{status.error} (exit {status.exit_code})"
    if status.state in (TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED):
        return "" if status.exit_code is None else f"exit {status.exit_code}"
    return ""


def of_service(old: Service | None, new: Service) -> list[str]:
    """A service: its spec, its update, its ports, its end."""
    words = []
    if old is None:
        words.append(f"revision {new.revision}, {new.spec.replicas} wanted")
    elif old.revision != new.revision:
        words.append(", ".join([f"revision {new.revision}", *_spec(old.spec, new.spec)]))
    words += _update(old.update if old else None, new.update)
    if new.is_removing and not (old and old.is_removing):
        words.append("is being removed")
    ports = [
        f"{port.published}->{port.target}/{port.protocol.value}"
        for port in new.ports or ()
        if port.published is not None
    ]
    if old is not None and old.ports != new.ports and ports:
        words.append(f"published {', '.join(ports)}")
    return words


def _spec(old: ServiceSpec, new: ServiceSpec) -> list[str]:
    words = []
    if old.replicas != new.replicas:
        words.append(f"scaled {old.replicas} -> {new.replicas}")
    before, after = old.task.run.image, new.task.run.image
    if before != after:
        words.append(f"image {before or 'none'} -> {after or 'none'}")
    if old.task.force_update != new.task.force_update:
        words.append("forced")
    plain_old = replace(old, replicas=new.replicas, task=_unmarked(old, after))
    if plain_old != replace(new, task=_unmarked(new, after)):
        words.append("spec changed")
    return words


def _unmarked(spec: ServiceSpec, image: str) -> TaskSpec:
    return replace(spec.task, run=replace(spec.task.run, image=image), force_update=0)


def _update(old: UpdateStatus | None, new: UpdateStatus | None) -> list[str]:
    if new is None or new == old:
        return []
    is_same = old is not None and (old.state, old.revision) == (new.state, new.revision)
    if not is_same:
        what = _UPDATE_WORDS[new.state].format(new.revision)
        why = updatewords.reason(new)
        # Why it was rolled back was told when that began.
        told = updatewords.reason(old) if old is not None and old.revision == new.revision else ""
        if told:
            why = "" if why == told else why.removeprefix(f"{told}; ")
        return [_because(what, why)]
    fresh = sorted(set(new.failed_slots) - set(old.failed_slots if old else ()))
    if fresh:
        named = ", ".join(map(str, fresh))
        return [_because(f"slot {named} failed in the update", updatewords.reason(new))]
    return [new.message] if old and new.message != old.message and new.message else []


def of_node(old: Node | None, new: Node) -> list[str]:
    """A node: whether it is there, what the operator allows, its labels."""
    words = []
    if old is None or old.state is not new.state:
        before = "" if old is None else f"{old.state.value} -> "
        reason = new.message if new.state is NodeState.DOWN else ""
        words.append(_because(f"{before}{new.state.value}", reason))
    if old is None:
        return words
    if old.availability is not new.availability:
        words.append(f"availability {old.availability.value} -> {new.availability.value}")
    words += [f"label {key}={value}" for key, value in new.labels if (key, value) not in old.labels]
    kept = {key for key, _ in new.labels}
    words += [f"label {key} removed" for key, _ in old.labels if key not in kept]
    if _told(old.description) != _told(new.description):
        words.append("describes itself anew")
    return words


def _told(description: NodeDescription) -> NodeDescription:
    # Notes may hold what changes from one start to the next, and says nothing of the machine.
    return replace(description, notes=())


def of_stack(old: Stack | None, new: Stack) -> list[str]:
    """A stack: its revisions."""
    if old is not None and old.revision == new.revision:
        return []
    count = len(new.spec.services)
    return [f"revision {new.revision}, {count} service{'' if count == 1 else 's'}"]


def of_network(old: Network | None, new: Network) -> list[str]:
    """A network: its addresses, its labels, its end."""
    words = []
    if new.vni is not None and (old is None or old.vni is None):
        words.append(f"subnet {new.subnet}, VXLAN id {new.vni}")
    elif old is None:
        words.append("waits for its addresses")
    if new.message and (old is None or old.message != new.message):
        words.append(new.message)
    if old is not None and old.spec.labels != new.spec.labels:
        words.append("labels changed")
    if new.is_removing and not (old and old.is_removing):
        words.append("is being removed")
    return words


def of_file(old: Pairs | None, new: Pairs) -> list[str]:
    """A config or a secret: its labels, since nothing else of it ever changes."""
    return ["labels changed"] if old is not None and old != new else []


def _because(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else what
