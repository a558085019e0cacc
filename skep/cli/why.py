"""Why a service isn't as asked, as a person would explain it. Pure.

For each slot that is not well, the newest reason and what to do about it; then what its update is
at, what its ports lack, and the nodes that have to do with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from skep.cli import hints, updatewords, whyslot
from skep.cli.text import counted, span
from skep.domain.base import NodeId
from skep.domain.control import ServiceView
from skep.domain.objects import (
    Availability,
    Node,
    NodeState,
    Revision,
    Service,
    Task,
    UpdateState,
    UpdateStatus,
)
from skep.domain.spec import FailureAction, UpdateOrder
from skep.domain.states import DesiredState, TaskState

# What a person reads; the rest is most likely more of the same.
FINDINGS_LIMIT = 12
SLOTS_SHOWN = 6

# In an advice, a command ends where the advice does, or before a semicolon.
_COMMAND = re.compile("skep [a-z]+ [^;]+")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is in the way, or that explains it. `advice` says what to do, if anything."""

    about: str
    what: str
    advice: str = ""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to say of one service. `is_well`: it is as asked, and nothing is in the way."""

    service: str
    is_well: bool
    summary: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Scene:
    """What the explanation is made of, as read at one moment. `now_ns` is wall time; `at` is what
    commands need after them to be about this cluster."""

    view: ServiceView
    tasks: Sequence[Task]
    nodes: Sequence[Node]
    revisions: Sequence[Revision] = ()
    now_ns: int = 0
    at: str = ""
    name: str = field(init=False)
    by_id: dict[NodeId, Node] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.view.service.name)
        object.__setattr__(self, "by_id", {node.id: node for node in self.nodes})

    @property
    def service(self) -> Service:
        """The service itself."""
        return self.view.service


def explain(scene: Scene) -> Story:
    """Why a service is as it is."""
    service = scene.service
    if service.is_removing:
        return _removing(scene)
    findings = [*_slots(scene), *_update(scene), *_ports(scene), *_nodes(scene)]
    if not findings and not scene.view.is_converged:
        findings = [Finding(about="service", what=what) for what in scene.view.problems]
    is_well = scene.view.is_converged and not findings
    return Story(
        service=scene.name,
        is_well=is_well,
        summary=_summary(scene, is_well=is_well),
        findings=tuple(
            msgspec.structs.replace(
                each, advice=_COMMAND.sub(lambda found: found[0] + scene.at, each.advice)
            )
            for each in findings
        ),
    )


def lines(story: Story) -> list[str]:
    """A story as text: one line for what is well, and a block for each finding otherwise."""
    shown = [story.summary]
    room = max((len(each.about) for each in story.findings), default=0)
    for finding in story.findings:
        shown.append(f"  {finding.about.ljust(room)}  {finding.what}")
        if finding.advice:
            shown.append(f"  {' ' * room}  -> {finding.advice}")
    return shown


def _summary(scene: Scene, *, is_well: bool) -> str:
    view, service = scene.view, scene.service
    text = f"{scene.name}: {view.running} of {view.desired} run, revision {service.revision}"
    if not view.desired:
        text = f"{scene.name}: scaled to 0, revision {service.revision}"
    if is_well:
        update = service.update
        if update is not None and update.ended_ns is not None:
            ago = span(scene.now_ns - update.ended_ns)
            if update.state is not UpdateState.ROLLBACK_COMPLETED:
                return f"{text}, complete for {ago}; all is as asked"
            if updatewords.is_newest_word(service):
                back = f"back at the spec of revision {update.base_revision} for {ago}"
                return f"{text}, {back}; all is as asked"
        return f"{text}; all is as asked"
    if view.is_converged:
        return f"{text}; but:"
    if service.update is not None and service.update.state is UpdateState.UPDATING:
        return f"{text} (being updated)"
    return f"{text}; not as asked"


def _removing(scene: Scene) -> Story:
    left = [task for task in scene.tasks if not task.is_terminal]
    names = sorted({_node_name(scene, task) for task in left if task.node_id})
    what = f"{counted(len(left), 'task')} still to stop"
    if names:
        what += f" on {', '.join(names)}"
    finding = Finding(
        about="removal", what=what, advice="nothing is to be done; it goes when they have stopped"
    )
    return Story(
        service=scene.name,
        is_well=False,
        summary=f"{scene.name}: is being removed",
        findings=(finding,),
    )


# -------------------------------------------------------------------------------- slots


def _slots(scene: Scene) -> list[Finding]:
    """What is wrong with each slot; slots of which the same is to be said are one finding."""
    histories: dict[int, list[Task]] = {}
    for task in sorted(scene.tasks, key=lambda task: (task.created_ns, task.version, task.id)):
        if task.desired_state is not DesiredState.REMOVE:
            histories.setdefault(task.slot, []).append(task)
    said: dict[tuple[str, str], list[str]] = {}
    for slot, history in sorted(histories.items()):
        verdict = whyslot.verdict(history, scene.service, scene.by_id, scene.now_ns)
        if verdict is not None:
            said.setdefault(verdict, []).append(f"{scene.name}.{slot}")
    found = [
        Finding(about=_listed(names), what=what, advice=advice)
        for (what, advice), names in said.items()
    ]
    missing = scene.view.desired - len(histories)
    if missing > 0:
        found.append(
            Finding(
                about="slots",
                what=f"{counted(missing, 'task')} not made yet",
                advice="if this stays so, the managers' logs say why",
            )
        )
    if len(found) > FINDINGS_LIMIT:
        more = len(found) - FINDINGS_LIMIT
        rest = Finding(about="…", what=f"and {more} more", advice=f"skep service ps {scene.name}")
        found = [*found[:FINDINGS_LIMIT], rest]
    return found


def _listed(names: list[str]) -> str:
    if len(names) <= SLOTS_SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:SLOTS_SHOWN])} and {len(names) - SLOTS_SHOWN} more"


def _node_name(scene: Scene, task: Task) -> str:
    node = scene.by_id.get(task.node_id) if task.node_id else None
    return node.name if node is not None else str(task.node_id)


# ------------------------------------------------------------------------------- update


def _update(scene: Scene) -> list[Finding]:
    update = scene.service.update
    if update is None or update.state is UpdateState.COMPLETED:
        return []
    if update.state is UpdateState.ROLLBACK_COMPLETED and not updatewords.is_rolled_back(
        scene.service
    ):
        # A person asked for it, or for something else since.
        return []
    words = {
        UpdateState.UPDATING: _updating,
        UpdateState.PAUSED: _paused,
        UpdateState.ROLLBACK_STARTED: _rolling_back,
        UpdateState.ROLLBACK_PAUSED: _rollback_paused,
        UpdateState.ROLLBACK_COMPLETED: _rolled_back,
    }
    what, advice = words[update.state](scene, update)
    return [Finding(about="update", what=what, advice=advice)]


def _updating(scene: Scene, update: UpdateStatus) -> tuple[str, str]:
    policy = update.policy
    task_revision = scene.service.task_revision
    new = [
        task
        for task in scene.tasks
        if task.revision == task_revision and task.is_wanted and task.healthy_ns is not None
    ]
    order = "start first" if policy.order is UpdateOrder.START_FIRST else "stop first"
    at_once = "all at once" if policy.parallelism == 0 else f"{policy.parallelism} at a time"
    what = (
        f"to {_named(scene, update.revision)} for {span(scene.now_ns - update.started_ns)} "
        f"({at_once}, {order}): {len(new)} of {scene.view.desired} slots have a healthy new task"
        f"{_failed(update)}{_because(update)}"
    )
    allowed = f"if more than {policy.max_failure_ratio:.0%} of the slots fail"
    then = {
        FailureAction.PAUSE: f"{allowed}, it pauses",
        FailureAction.CONTINUE: "it goes on whatever fails",
        FailureAction.ROLLBACK: f"{allowed}, it goes back to {_named(scene, update.base_revision)}",
    }
    return what, f"{then[policy.failure_action]}; to go back now: {_rollback(scene)}"


def _paused(scene: Scene, update: UpdateStatus) -> tuple[str, str]:
    what = (
        f"to {_named(scene, update.revision)} paused {_ago(scene, update)}{_failed(update)}"
        f"{_because(update)}; it waits for a person"
    )
    return what, (
        f"to go on: skep service update {scene.name}; to undo: {_rollback(scene)}; "
        f"or {hints.mend(scene.name, update.message)}"
    )


def _rolling_back(scene: Scene, update: UpdateStatus) -> tuple[str, str]:
    what = (
        f"{_named(scene, update.revision)} was given up; going back to "
        f"{_named(scene, update.base_revision)} for {span(scene.now_ns - update.started_ns)}"
        f"{_failed(update)}{_because(update)}"
    )
    if not hints.has_output(update.message):
        return what, "nothing is to be done"
    return what, f"nothing is to be done; to see what was given up: {_logs(scene)}"


def _rollback_paused(scene: Scene, update: UpdateStatus) -> tuple[str, str]:
    what = (
        f"going back from revision {update.revision} to {update.base_revision} failed as well, "
        f"and paused {_ago(scene, update)}{_failed(update)}{_because(update)}"
    )
    return what, (
        f"update it to a spec that works: skep service update {scene.name} ...; what it has had: "
        f"skep service history {scene.name}"
    )


def _rolled_back(scene: Scene, update: UpdateStatus) -> tuple[str, str]:
    what = (
        f"{_named(scene, update.revision)}, the last one asked for, was given up "
        f"{_ago(scene, update)}{_because(update)}; the spec of "
        f"{_named(scene, update.base_revision)} runs again"
    )
    advice = f"{hints.mend(scene.name, update.message)}; what was asked for: "
    advice += f"skep service history {scene.name}"
    if hints.has_output(update.message):
        advice += f"; what it wrote: {_logs(scene)}"
    return what, advice


def _named(scene: Scene, number: int) -> str:
    """A revision with its release's name, where that is known."""
    for revision in scene.revisions:
        if revision.number == number and revision.spec.task.run.image:
            return f"revision {number} ({revision.spec.task.run.image})"
    return f"revision {number}"


def _ago(scene: Scene, update: UpdateStatus) -> str:
    since = update.ended_ns if update.ended_ns is not None else update.started_ns
    return f"{span(scene.now_ns - since)} ago"


def _failed(update: UpdateStatus) -> str:
    if not update.failed_slots:
        return ""
    what = "slot" if len(update.failed_slots) == 1 else "slots"
    return f", {what} {', '.join(map(str, update.failed_slots))} failed"


def _because(update: UpdateStatus) -> str:
    why = updatewords.reason(update)
    return f": {why}" if why else ""


def _rollback(scene: Scene) -> str:
    return f"skep service rollback {scene.name}"


def _logs(scene: Scene) -> str:
    return f"skep service logs {scene.name}"


# ---------------------------------------------------------------------- ports and nodes


def _ports(scene: Scene) -> list[Finding]:
    """What netproxies can't put in force, and ports that nobody has picked yet."""
    found = []
    names = {node.name for node in scene.nodes}
    for problem in scene.view.problems:
        about, _, what = problem.partition(": ")
        if about in names:
            found.append(
                Finding(
                    about=f"port on {about}",
                    what=what,
                    advice="if another program holds it, stop that one, or publish another port"
                    f"{hints.republish(scene.service, what)}",
                )
            )
    for port in scene.service.ports or scene.service.spec.ports:
        if port.published is None:
            found.append(
                Finding(about=f"port {port.target}", what="no published port was picked yet")
            )
    return found


def _nodes(scene: Scene) -> list[Finding]:
    """Nodes that are down, drained or paused, where that has to do with this service: they hold
    its tasks, or it looks for a node."""
    found = []
    is_short = any(
        task.is_wanted and task.status.state is TaskState.PENDING for task in scene.tasks
    )
    for node in scene.nodes:
        if not node.runs_tasks:
            continue
        held = [t for t in scene.tasks if t.node_id == node.id and not t.is_terminal]
        if not held and not is_short:
            continue
        ago = span(scene.now_ns - node.updated_ns)
        tasks = f"{counted(len(held), 'task')} of it there" if held else "it gets no tasks"
        if node.state is not NodeState.READY:
            state = "down" if node.state is NodeState.DOWN else "not heard of yet"
            was = "it was " if node.message.startswith("silent ") else ""
            reason = f": {was}{node.message}" if node.message else ""
            what = f"{state} since {ago}{reason}; {tasks}"
            advice = "start it, or forget it: skep node rm " + node.name
        elif node.availability is Availability.DRAIN and (held or is_short):
            what = f"drained; {tasks}"
            advice = f"to use it again: skep node update {node.name} --availability active"
        elif node.availability is Availability.PAUSE and is_short:
            what = "paused: it takes no new tasks"
            advice = f"to use it again: skep node update {node.name} --availability active"
        else:
            continue
        found.append(Finding(about=f"node {node.name}", what=what, advice=advice))
    return found
