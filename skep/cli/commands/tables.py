"""Tables that more than one command shows."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence

from skep.cli import output, rows
from skep.client import Cluster
from skep.client.outcome import has_given_up
from skep.domain.control import ServiceView
from skep.domain.objects import Task


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


def _service_status(row: rows.ServiceRow) -> str:
    if row.removing:
        return "Removing"
    words = "Converged" if row.converged else "Converging"
    if row.failed:
        # Without a problem it did what it had to, once.
        words = "Failed" if row.problems else "Ended"
    return f"{words}: {'; '.join(row.problems)}" if row.problems else words


async def show_tasks(cluster: Cluster, tasks: Sequence[Task], options: argparse.Namespace) -> None:
    """Tasks by slot, the newest first; older ones of a slot behind a mark, as Docker does."""
    nodes = await cluster.nodes.list(is_stale=getattr(options, "stale", False))
    names: dict[str, str] = {node.id: node.name for node in nodes}
    now_s = time.time()
    columns: output.Columns[rows.TaskRow] = (
        ("ID", lambda row: row.id if options.no_trunc else output.short_id(row.id)),
        ("NAME", lambda row: row.name if row.is_current else f" \\_ {row.name}"),
        ("NODE", lambda row: row.node or ""),
        ("DESIRED STATE", lambda row: row.desired_state.capitalize()),
        ("CURRENT STATE", lambda row: rows.state_text(row, now_s)),
        ("ERROR", lambda row: row.error or _reason_to_wait(row)),
        ("ADDRESS", lambda row: row.address),
        ("PID", lambda row: "" if row.pid is None else str(row.pid)),
    )
    shown = rows.task_rows(tasks, names)
    output.show(shown, columns, shape=options.format, key="id" if options.quiet else None)


def _reason_to_wait(row: rows.TaskRow) -> str:
    """Why a task has not begun: what a user of a stuck service looks for."""
    return row.message if row.state in ("new", "pending") else ""
