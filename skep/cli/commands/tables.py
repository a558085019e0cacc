"""Tables that more than one command shows."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Container, Iterable, Sequence

from skep import client
from skep.cli import output, rows, text, updatewords
from skep.client import Cluster
from skep.client.outcome import has_given_up
from skep.domain.control import ServiceView
from skep.domain.objects import Task

# As much of an error as tells it from others; --no-trunc shows all of it.
ERROR_SHOWN = 60
# The data plane in which tasks have their addresses on networks for themselves.
KERNEL = "kernel"


def show_services(views: Iterable[ServiceView], options: argparse.Namespace) -> None:
    """Services, one a row."""
    columns: output.Columns[rows.ServiceRow] = (
        ("ID", lambda row: row.id if options.no_trunc else output.short_id(row.id)),
        ("NAME", lambda row: row.name),
        ("MODE", lambda row: row.mode),
        ("REPLICAS", lambda row: f"{row.running}/{row.desired}"),
        ("IMAGE", lambda row: row.image),
        ("PORTS", lambda row: rows.ports_text(row.ports)),
        ("STATUS", _service_status),
    )
    shown = [rows.service_row(view, is_failed=has_given_up(view)) for view in views]
    output.show(shown, columns, shape=options.format, key="id" if options.quiet else None)


_UPDATES = {
    "updating": "Updating",
    "paused": "Update paused",
    "rollback_started": "Rolling back",
    "rollback_paused": "Rollback paused",
}


def _service_status(row: rows.ServiceRow) -> str:
    if row.removing:
        return "Removing"
    why = list(row.problems)
    words = "Converged" if row.converged else "Converging"
    if row.converged and row.rolled_back:
        words = "Converged, rolled back"
    if row.failed:
        # Without a problem it did what it had to, once.
        words = "Failed" if row.problems else "Ended"
    if row.update in _UPDATES:
        words = _UPDATES[row.update]
        reason = updatewords.reason_in(row.update_message)
        if row.update != "updating" and reason:
            why = [reason, *why]
    return f"{words}: {'; '.join(why)}" if why else words


async def show_tasks(cluster: Cluster, tasks: Sequence[Task], options: argparse.Namespace) -> None:
    """Tasks by slot, the one that is wanted first, and then the newest; all but the first of a slot
    behind a mark, as Docker does."""
    is_stale = getattr(options, "stale", False)
    nodes = await cluster.nodes.list(is_stale=is_stale)
    names: dict[str, str] = {node.id: node.name for node in nodes}
    specs = await _specs(cluster, tasks, is_stale=is_stale)
    networks: dict[str, str] = {}
    if any(task.attachments for task in tasks):
        networks = await network_names(cluster, is_stale=is_stale)
    shown = rows.task_rows(tasks, names, specs, networks)
    # In the relay plane addresses on networks are nobody's to speak to.
    kernel_nodes = {node.name for node in nodes if node.description.plane == KERNEL}
    now_s = time.time()
    columns: list[tuple[str, Callable[[rows.TaskRow], str]]] = [
        ("ID", lambda row: row.id if options.no_trunc else output.short_id(row.id)),
        ("NAME", lambda row: row.name if row.is_current else f" \\_ {row.name}"),
        ("IMAGE", lambda row: row.image),
        ("NODE", lambda row: row.node or ""),
        ("DESIRED STATE", lambda row: row.desired_state.capitalize()),
        ("CURRENT STATE", lambda row: rows.state_text(row, now_s)),
    ]
    if any(row.ports for row in shown):
        columns.append(("PORTS", lambda row: rows.ports_text(row.ports)))
    if any(row.networks and row.node in kernel_nodes for row in shown):
        columns.append(("NETWORKS", lambda row: _addresses(row, kernel_nodes)))
    # What Docker's users look for in a container, those of a process find here. With a namespace of
    # its own, a process has its addresses on networks instead.
    if not shown or any(row.node not in kernel_nodes for row in shown):
        columns.append(("ADDRESS", lambda row: "" if row.node in kernel_nodes else row.address))
    columns += [
        ("PID", lambda row: "" if row.pid is None else str(row.pid)),
        ("ERROR", lambda row: _error(row, is_whole=options.no_trunc)),
    ]
    output.show(shown, columns, shape=options.format, key="id" if options.quiet else None)


def _addresses(row: rows.TaskRow, kernel_nodes: Container[str | None]) -> str:
    if row.node not in kernel_nodes:
        return ""
    return ", ".join(f"{name} {address}" for name, address in row.networks.items())


async def network_names(cluster: Cluster, *, is_stale: bool = False) -> dict[str, str]:
    """The names of networks by their ids; an older cluster has none."""
    with contextlib.suppress(client.Unsupported):
        views = await cluster.networks.list(is_stale=is_stale)
        return {view.network.id: view.network.name for view in views}
    return {}


async def _specs(cluster: Cluster, tasks: Iterable[Task], *, is_stale: bool) -> rows.Specs:
    """The specs that these tasks are of, as far as they are kept."""
    found = {}
    for service_id in dict.fromkeys(task.service_id for task in tasks):
        # A service may have gone meanwhile; an older cluster keeps no revisions.
        with contextlib.suppress(client.NotFound, client.Unsupported):
            for revision in await cluster.services.history(service_id, is_stale=is_stale):
                found[(str(service_id), revision.number)] = revision.spec
    return found


def _error(row: rows.TaskRow, *, is_whole: bool) -> str:
    error = row.error or _reason_to_wait(row)
    return error if is_whole else text.fit(text.plain(error), ERROR_SHOWN)


def _reason_to_wait(row: rows.TaskRow) -> str:
    """Why a task has not begun: what a user of a stuck service looks for."""
    is_stuck = row.state in ("preparing", "starting") and row.message != row.state
    return row.message if is_stuck or row.state in ("new", "pending") else ""
