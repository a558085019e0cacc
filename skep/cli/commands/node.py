"""`skep node ...`."""

from __future__ import annotations

import argparse

from skep.cli import output, rows, session
from skep.cli.commands.tables import show_tasks
from skep.cli.errors import Exit, Failure
from skep.client import Cluster
from skep.domain.objects import Availability, Task


def ls(options: argparse.Namespace) -> None:
    """List nodes."""

    async def script(cluster: Cluster) -> None:
        found = await cluster.nodes.snapshot(is_stale=options.stale)
        shown = [rows.node_row(node, found.leader_id) for node in found.nodes]
        columns: output.Columns[rows.NodeRow] = (
            ("ID", lambda row: row.id if options.no_trunc else output.short_id(row.id)),
            ("NAME", lambda row: row.name),
            ("ADDRESS", lambda row: row.address),
            ("ROLE", lambda row: row.role),
            ("STATUS", lambda row: row.status.capitalize()),
            ("AVAILABILITY", lambda row: row.availability.capitalize()),
            ("MANAGER STATUS", _manager_status),
        )
        output.show(shown, columns, shape=options.format, key="id" if options.quiet else None)

    session.run(options, script)


def _manager_status(row: rows.NodeRow) -> str:
    if row.role != "manager":
        return ""
    if row.leader:
        return "Leader"
    return "Reachable" if row.status == "ready" else "Unreachable"


def inspect(options: argparse.Namespace) -> None:
    """Show nodes whole."""

    async def script(cluster: Cluster) -> None:
        found = [rows.plain(await cluster.nodes.get(ref)) for ref in options.refs]
        output.write(found, shape=options.format)

    session.run(options, script)


def ps(options: argparse.Namespace) -> None:
    """List the tasks of nodes."""

    async def script(cluster: Cluster) -> None:
        tasks: list[Task] = []
        for ref in options.refs:
            node = await cluster.nodes.get(ref)
            tasks += await cluster.tasks.list(node=node.id, is_all=options.all)
        await show_tasks(cluster, tasks, options)

    session.run(options, script)


def update(options: argparse.Namespace) -> None:
    """Change nodes."""
    labels = {}
    for text in options.label_add:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise Failure(f"'{text}' is not a label; write KEY=VALUE", Exit.USAGE)
        labels[key] = value
    if not labels and not options.label_rm and options.availability is None:
        raise Failure(
            "nothing to change; use --availability, --label-add or --label-rm", Exit.USAGE
        )

    async def script(cluster: Cluster) -> None:
        for ref in options.refs:
            node = await cluster.nodes.update(
                ref,
                availability=Availability(options.availability) if options.availability else None,
                labels_set=labels,
                labels_removed=tuple(options.label_rm),
            )
            print(node.name)

    session.run(options, script)


def rm(options: argparse.Namespace) -> None:
    """Forget nodes."""

    async def script(cluster: Cluster) -> None:
        for ref in options.refs:
            removed = await cluster.nodes.remove(ref)
            print(removed.name or removed.id)

    session.run(options, script)
