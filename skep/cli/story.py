"""How far services are, and why they didn't get further, in a person's words. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from skep.cli import hints, updatewords
from skep.cli.output import printable, short_id
from skep.client import (
    ClientError,
    GivenUp,
    RolledBack,
    Superseded,
    UpdatePaused,
)
from skep.client.cluster import replacement_text
from skep.client.outcome import ROLLBACKS
from skep.domain.base import SECOND_NS, NodeId
from skep.domain.control import LogLine, ServiceView
from skep.domain.objects import Service, Task, UpdateState, UpdateStatus
from skep.domain.states import TaskState

# As many of a failed task's last lines as help; all of them are one command away.
LINES_SHOWN = 10
# Of many services that failed, the first ones' output is enough to begin with.
TASKS_SHOWN = 3

Step = tuple[str, str]
"""A command to type next, and what it does."""


def progress_line(view: ServiceView, stable_s: float = 0.0, tasks: Sequence[Task] = ()) -> str:
    """How far one service is, that is watched for `stable_s` once it runs. While it `is_changing`,
    its living `tasks` tell what of it has changed."""
    name, update = view.service.name, view.service.update
    if update is not None and is_changing(view) and _is_under_way(view):
        return printable(f"{name}: {_changing(view, update, tasks)}")
    is_watched = view.is_converged and view.running and stable_s
    watched = f", watching {stable_s:g} s (monitor)" if is_watched else ""
    return printable(f"{name} {view.running}/{view.desired}: {_doing(view)}{watched}")


def is_changing(view: ServiceView) -> bool:
    """Whether tasks of one revision are being replaced by those of another."""
    return view.service.update is not None and view.service.update.state.is_active


def _is_under_way(view: ServiceView) -> bool:
    return not view.is_converged and not view.service.is_removing


def _doing(view: ServiceView) -> str:
    update = view.service.update
    problems = f" ({'; '.join(view.problems)})" if view.problems else ""
    if view.service.is_removing:
        return f"removing{problems}"
    if view.is_converged:
        return "completed" if view.completed and not view.running else "running"
    if update is not None and update.state.is_paused:
        return update.message or update.state.value.replace("_", " ")
    if view.running > view.desired:
        return f"stopping {view.running - view.desired}{problems}"
    ended = view.given_up + view.completed
    return f"starting{f', {ended} ended' if ended else ''}{problems}"


def _changing(view: ServiceView, update: UpdateStatus, tasks: Sequence[Task]) -> str:
    up, in_flight, old = _changed(view, tasks)
    failed = f", {len(update.failed_slots)} failed" if update.failed_slots else ""
    moving = f" ({in_flight} in flight)" if in_flight else ""
    is_all = up >= view.desired and not in_flight and not old
    watched = f", watching {update.policy.monitor_ns / SECOND_NS:g} s (monitor)" if is_all else ""
    # Old tasks count as well: what is not updated yet serves all the same.
    end = f"{moving}, {view.running}/{view.desired} running{watched}{failed}"
    if update.state is UpdateState.UPDATING:
        return f"updated {up}/{view.desired}{end}"
    why = updatewords.reason(update)
    back = f"rolled back {up}/{view.desired} to revision {update.base_revision}"
    return f"{back}{end}{f': {why}' if why else ''}"


def _changed(view: ServiceView, tasks: Sequence[Task]) -> tuple[int, int, int]:
    """How many slots run their new task, how many new tasks are on their way to that, and how many
    old ones are left."""
    right = [task for task in tasks if task.revision == view.service.task_revision]
    well = {task.slot for task in right if task.is_wanted and _runs(task)}
    late = {task.slot for task in right if task.is_wanted and not _runs(task)} - well
    return len(well), len(late), len(tasks) - len(right)


def verified(views: Sequence[ServiceView]) -> str:
    """The last word on services that are as asked."""
    if len(views) == 1:
        (view,) = views
        end = "completed" if view.completed and not view.running else "converged"
        return f"verify: service {view.service.name} {end}"
    counts = ", ".join(f"{v.service.name} {v.running}/{v.desired}" for v in views)
    return f"verify: {len(views)} services converged: {counts}" if views else "no services"


def drain_line(name: str, node_id: NodeId, tasks: Sequence[Task]) -> str:
    """What is left on a node that has to become empty. `tasks` are all that have not ended."""
    left = [task for task in tasks if task.node_id == node_id]
    if not left:
        return f"{name}: no tasks left"
    what = "; ".join(replacement_text(task, tasks) for task in left[:TASKS_SHOWN])
    more = "; ..." if len(left) > TASKS_SHOWN else ""
    head = f"{name}: {len(left)} task{'' if len(left) == 1 else 's'} left"
    return printable(f"{head}: {what}{more}")


# --------------------------------------------------------------------------- what went wrong


def is_at_fault(view: ServiceView, error: ClientError) -> bool:
    """Whether a wait that ended so has to do with this service."""
    return re.search(rf"(?<![\w-]){re.escape(view.service.name)}[: ]", str(error)) is not None


def failing_task(service: Service, tasks: Iterable[Task], told: str) -> Task | None:
    """The task to look at: of what was asked for, the failed one that was `told` of, or the newest,
    or else one that is still on its way."""
    update = service.update
    asked = service.task_revision
    if update is not None and update.state in ROLLBACKS:
        asked = update.revision
    found = tuple(tasks)
    own = [task for task in found if task.revision == asked] or found
    failed = [t for t in own if t.status.state in (TaskState.FAILED, TaskState.REJECTED)]
    failed = [task for task in failed if short_id(task.id) in told] or failed
    placed = [t for t in own if t.is_wanted and t.node_id is not None and not t.is_terminal]
    late = [task for task in placed if not _runs(task)]
    return max(failed or late, key=lambda t: (t.status.since_ns, t.created_ns, t.id), default=None)


def _runs(task: Task) -> bool:
    return task.status.state is TaskState.RUNNING and task.status.is_healthy


def evidence(
    task: Task, lines: Sequence[LogLine], nodes: Mapping[str, str], told: str
) -> list[str]:
    """Why a task failed, unless that has been `told`, and what it wrote last."""
    where = f" on {nodes.get(task.node_id, task.node_id)}" if task.node_id is not None else ""
    found = []
    error = task.status.error or task.status.message
    if error and error not in told:
        found.append(printable(f"{task.name}{where}: {error}"))
    if lines:
        found.append(f"last output of {task.name} (task {short_id(task.id)}){where}:")
        found += [
            "    " + printable(line.text.decode(errors="backslashreplace").expandtabs())
            for line in lines
        ]
    return found


def next_steps(error: ClientError, view: ServiceView) -> list[Step]:
    """What may be done about it, the likeliest first. What wrote nothing has no logs to look at."""
    steps = _next_steps(error, view.service)
    update, told = view.service.update, "; ".join(view.problems)
    if update is not None and isinstance(error, RolledBack | UpdatePaused):
        told += f"; {update.message}"
    if hints.has_output(told):
        return steps
    steps = [step for step in steps if not step[0].startswith("skep service logs ")]
    mend = _mend(view.service, told)
    return [mend, *steps] if mend is not None else steps


def _mend(service: Service, told: str) -> Step | None:
    """What to change of a spec that can't run, where its trouble says that."""
    change, task = f"skep service update {service.name}", service.spec.task
    if hints.lacks_program(told):
        return f"{change} -- COMMAND", "gives it a program that its nodes have"
    if "constraints" in told and task.placement.constraints:
        constraint = shlex.quote(task.placement.constraints[0])
        return f"{change} --constraint-rm {constraint}", "lets it run on other nodes, too"
    if "insufficient resources" in told:
        return f"{change} --reserve-cpu CPUS --reserve-memory SIZE", "reserves less for each task"
    if "not available" in told:
        return "skep node ls", "shows which nodes are down, drained or paused"
    return None


def _next_steps(error: ClientError, service: Service) -> list[Step]:
    name = service.name
    why = (f"skep service why {name}", "explains it, slot by slot")
    logs = (f"skep service logs {name}", "shows what its tasks have written")
    update = service.update
    if isinstance(error, RolledBack) and update is not None:
        steps = [(f"skep service diff {name} {update.revision}", "shows what was changed back")]
        if update.state is UpdateState.ROLLBACK_PAUSED:
            steps.insert(0, (f"skep service update {name}", "goes on with the rollback"))
        return [*steps, logs, why]
    if isinstance(error, UpdatePaused) and update is not None:
        resume = (f"skep service update {name}", "resumes it")
        back = (f"skep service rollback {name}", "goes back to what ran before")
        return [back, resume, logs, why]
    if isinstance(error, GivenUp):
        return [logs, why, (f"skep service update --force {name}", "tries again")]
    if isinstance(error, Superseded):
        return [(f"skep service history {name}", "lists the specs it has had")]
    return [why, (f"skep service ps {name}", "lists its tasks"), logs]
