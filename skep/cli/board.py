"""The board that `skep top` shows: services, nodes, and what has happened lately. Pure.

Each line is plain text, cut to the width in terminal columns, and coloured as a whole after that:
whatever programs have put into names and errors, it can't break out of its line.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from skep.cli import updatewords
from skep.cli.changes import Change
from skep.cli.text import NS_PER_S, counted, fit, pad, plain, width
from skep.domain.control import ServiceView
from skep.domain.objects import Availability, Node, NodeRole, NodeState, Task, UpdateState
from skep.domain.states import TaskState

# Lines of a section that is worth its heading: a blank, that, one row, and how many more.
SECTION_MINIMUM = 4
EVENTS_MINIMUM = 5
# From here on a screen has room for what has happened, whatever else there is to show.
EVENTS_HEIGHT = 16
GAP = "  "
# What there is to say of a service needs some room on any screen.
LAST_MINIMUM = 20
# Wider than any line.
NO_LIMIT = 1_000_000

_COLOURS = {"head": "1", "good": "32", "busy": "33", "bad": "31", "faint": "2", "": ""}


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is known. `changes` are the newest ones, oldest first; `trouble` is why the rest may be
    outdated; `hint` is what the person may do. `now_ns` is wall time."""

    title: str
    now_ns: int
    leader: str = ""
    views: tuple[ServiceView, ...] = ()
    nodes: tuple[Node, ...] = ()
    tasks: tuple[Task, ...] = ()
    changes: tuple[Change, ...] = ()
    trouble: str = ""
    hint: str = ""


Row = tuple[str, Sequence[str]]
"""How a row looks, and its cells."""
Line = tuple[str, str]
"""How a line looks, and its text."""


def render(
    state: State,
    columns: int = NO_LIMIT,
    height: int | None = None,
    *,
    is_coloured: bool = False,
) -> list[str]:
    """The board in at most `height` lines (None: as many as it takes) of `columns` columns."""
    top = _header(state, columns)
    if state.trouble:
        top.append(("bad", plain(state.trouble)))
    services = _table(("SERVICE", "RUNNING", "TASKS", "STATUS"), _services(state), columns, (2, 0))
    nodes = _table(("NODE", "STATUS", "TASKS", "ADDRESS"), _nodes(state), columns, (0,))
    events = _events(state)
    end = [("faint", state.hint)] if state.hint else []
    if height is not None:
        room = height - len(top) - len(end)
        rooms = _rooms(room, len(services), len(nodes), len(events))
        services, nodes = _cut(services, rooms[0]), _cut(nodes, rooms[1])
        events = _cut_events(events, rooms[2])
    lines = [*top, *services, *nodes, *events]
    if height is not None:
        blank = max(0, height - len(lines) - len(end))
        lines = [*lines[: height - len(end)], *[("", "")] * blank, *end][:height]
    return [_painted(look, fit(text, columns), is_coloured=is_coloured) for look, text in lines]


def _painted(look: str, text: str, *, is_coloured: bool) -> str:
    shown = text.rstrip()
    code = _COLOURS[look]
    return f"\x1b[{code}m{shown}\x1b[0m" if is_coloured and code and shown else shown


def _rooms(room: int, services: int, nodes: int, events: int) -> tuple[int, int, int]:
    """Lines for each section. Services come first; all may grow as far as the others leave room."""
    kept = min(events, EVENTS_MINIMUM) if room >= EVENTS_HEIGHT else 0
    left = room - kept
    for_nodes = min(nodes, max(SECTION_MINIMUM, left // 3))
    if left - for_nodes < SECTION_MINIMUM:
        for_nodes = 0
    for_services = min(services, left - for_nodes)
    for_nodes = min(nodes, left - for_services)
    return for_services, for_nodes, max(0, room - for_services - for_nodes)


def _cut(section: list[Line], room: int) -> list[Line]:
    """A section in so many lines; those left out are counted."""
    if len(section) <= room:
        return section
    if room < SECTION_MINIMUM:
        return []
    return [*section[: room - 1], ("faint", f"… {len(section) - room + 1} more")]


def _cut_events(section: list[Line], room: int) -> list[Line]:
    """The newest ones, which stand last."""
    if len(section) <= room:
        return section
    if room < SECTION_MINIMUM:
        return []
    return [*section[:2], *section[2 - room :]]


# ------------------------------------------------------------------------------- header


def _header(state: State, columns: int) -> list[Line]:
    workers = [node for node in state.nodes if node.runs_tasks]
    ready = sum(node.state is NodeState.READY for node in workers)
    converged = sum(view.is_converged for view in state.views)
    parts = [
        f"skep: {state.title}",
        f"leader {state.leader}" if state.leader else "no leader",
        f"{ready} of {counted(len(workers), 'node')} ready",
        f"{converged} of {counted(len(state.views), 'service')} as asked",
    ]
    clock = time.strftime("%H:%M:%S", time.localtime(state.now_ns / NS_PER_S))
    text = plain("   ".join(parts))
    gap = 3 if columns == NO_LIMIT else columns - width(text) - len(clock)
    return [("head", f"{text}{' ' * gap}{clock}" if gap >= 3 else text)]


# ------------------------------------------------------------------------------- tables


def _table(
    heads: Sequence[str], rows: Sequence[Row], columns: int, yielding: Sequence[int]
) -> list[Line]:
    """A blank, a heading and rows. The last column takes what the others leave, and those that are
    `yielding`, the first one first, leave it as much as it needs, up to a third of the screen; a
    name takes at most as much."""
    if not rows:
        return []
    cells = [(look, [plain(cell) for cell in row]) for look, row in rows]
    widths = [
        max(len(head), *(width(row[place]) for _, row in cells)) for place, head in enumerate(heads)
    ]
    third = max(LAST_MINIMUM, columns // 3)
    widths[0] = min(widths[0], max(len(heads[0]), columns // 3))
    lacking = min(widths[-1], third) - (columns - sum(widths[:-1]) - len(GAP) * (len(heads) - 1))
    for place in yielding:
        given = max(0, min(lacking, widths[place] - len(heads[place])))
        widths[place], lacking = widths[place] - given, lacking - given
    lines: list[Line] = [("", "")]
    for look, row in [("head", list(heads)), *cells]:
        shown = [pad(cell, room) for cell, room in zip(row[:-1], widths, strict=False)]
        lines.append((look, GAP.join([*shown, row[-1]])))
    return lines


def _services(state: State) -> list[Row]:
    """Services by name, those that are not well first: they stay when there is no room for all."""
    live: dict[str, list[Task]] = {}
    for task in state.tasks:
        if not task.is_terminal:
            live.setdefault(task.service_id, []).append(task)
    found = sorted(state.views, key=lambda view: (view.is_converged, view.service.name))
    rows: list[Row] = []
    for view in found:
        look, status = _status(view)
        tasks = _by_state(live.get(view.service.id, []))
        rows.append((look, (view.service.name, f"{view.running}/{view.desired}", tasks, status)))
    return rows


def _by_state(tasks: Sequence[Task]) -> str:
    counts: dict[str, int] = {}
    for task in tasks:
        is_well = task.status.is_healthy or task.status.state is not TaskState.RUNNING
        name = task.status.state.value if is_well else "unhealthy"
        if not task.is_wanted:
            name = "stopping"
        counts[name] = counts.get(name, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: (item[0] != "running", item[0]))
    return ", ".join(f"{count} {name}" for name, count in ranked) or "-"


_UPDATES = {
    UpdateState.PAUSED: ("bad", "update to {0} paused"),
    UpdateState.ROLLBACK_STARTED: ("busy", "going back from {0} to {1}"),
    UpdateState.ROLLBACK_PAUSED: ("bad", "rollback from {0} paused"),
}


def _status(view: ServiceView) -> tuple[str, str]:
    """How a service looks, and its update or its first problem."""
    update, problems = view.service.update, "; ".join(view.problems)
    if view.service.is_removing:
        return "busy", "being removed"
    if update is not None and update.state is UpdateState.UPDATING and not view.is_converged:
        failed = f", {len(update.failed_slots)} failed" if update.failed_slots else ""
        return "busy", f"updating to {update.revision}{failed}" + _after(problems)
    if update is not None and update.state in _UPDATES:
        look, words = _UPDATES[update.state]
        why = updatewords.reason(update)
        return look, words.format(update.revision, update.base_revision) + _after(why)
    if view.is_converged:
        if update is not None and updatewords.is_rolled_back(view.service):
            back = f"{update.revision} was rolled back to {update.base_revision}"
            return "busy", back + _after(updatewords.reason(update))
        return "good", "as asked"
    if view.given_up:
        # Without a problem it did what it had to, once.
        return ("bad", f"gave up: {problems}") if problems else ("", "ended")
    return ("bad", problems) if problems else ("busy", "converging")


def _after(text: str) -> str:
    return f": {text}" if text else ""


def _nodes(state: State) -> list[Row]:
    """Workers by name, and managers that are in trouble or run tasks."""
    held: dict[str, int] = {}
    for task in state.tasks:
        if task.node_id and not task.is_terminal:
            held[task.node_id] = held.get(task.node_id, 0) + 1
    rows: list[Row] = []
    for node in sorted(state.nodes, key=lambda node: (node.role is NodeRole.MANAGER, node.name)):
        is_ready = node.state is NodeState.READY
        is_active = node.availability is Availability.ACTIVE
        status = node.state.value if is_active else f"{node.state.value}, {node.availability.value}"
        role = "" if node.runs_tasks else " (manager)"
        tasks = str(held.get(node.id, 0)) if node.runs_tasks else "-"
        look = "bad" if not is_ready else ("" if is_active else "busy")
        address = node.description.address + (f"  {node.message}" if node.message else "")
        rows.append((look, (f"{node.name}{role}", status, tasks, address)))
    return rows


def _events(state: State) -> list[Line]:
    if not state.changes:
        return []
    return [("", ""), ("head", "EVENTS"), *map(_event, state.changes)]


_BAD_WORDS = ("-> failed", "-> rejected", "-> down", "unhealthy", "paused")


def _event(change: Change) -> Line:
    clock = time.strftime("%H:%M:%S", time.localtime(change.time))
    look = "bad" if any(word in change.what for word in _BAD_WORDS) else ""
    return look, plain(f"{clock}  {change.subject}: {change.what}")
