"""`skep node ...`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from skep import client
from skep.cli import filters, output, rows, session, story
from skep.cli.commands.tables import show_tasks
from skep.cli.errors import Exit, Failure, as_failure
from skep.cli.grammar.node import DRAIN_TIMEOUT_S
from skep.client import Cluster
from skep.domain.base import NodeId
from skep.domain.objects import Availability, Node, Task


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
    """Show nodes whole, or the part of them that people look for."""

    async def script(cluster: Cluster) -> None:
        found = [await cluster.nodes.get(ref) for ref in options.refs]
        if options.pretty:
            from skep.cli import pretty

            leader_id = (await cluster.info()).leader_id
            print("\n\n".join(pretty.node_text(node, leader_id) for node in found))
            return
        output.write([rows.plain(node) for node in found], shape=options.format)

    session.run(options, script)


def ps(options: argparse.Namespace) -> None:
    """List the tasks of nodes."""
    wanted = filters.read_for_tasks(options.filter)

    async def script(cluster: Cluster) -> None:
        tasks: list[Task] = []
        for ref in options.refs:
            node = await cluster.nodes.get(ref)
            tasks += await cluster.tasks.list(node=node.id, is_all=options.all)
        await show_tasks(cluster, await filters.tasks(cluster, tasks, wanted), options)

    session.run(options, script)


def update(options: argparse.Namespace) -> None:
    """Change nodes; with --wait until nothing runs on them any more."""
    from skep.cli import flagvalues

    labels = dict(flagvalues.named_values("--label-add", options.label_add, least="KEY=VALUE"))
    if not labels and not options.label_rm and options.availability is None:
        raise Failure(
            "nothing to change; use --availability, --label-add or --label-rm", Exit.USAGE
        )
    _check_wait(options)

    async def script(cluster: Cluster) -> None:
        # A misspelt name, or a label that isn't there, leaves all nodes as they are.
        for node in [await cluster.nodes.get(ref) for ref in options.refs]:
            _check_labels(node, options.label_rm)
        ids = []
        for ref in options.refs:
            node = await cluster.nodes.update(
                ref,
                availability=Availability(options.availability) if options.availability else None,
                labels_set=labels,
                labels_removed=tuple(options.label_rm),
            )
            ids.append(node.id)
            print(node.name, flush=True)
        if options.wait:
            await _drained(cluster, ids, options.wait_s or DRAIN_TIMEOUT_S)

    session.run(options, script)


def _check_wait(options: argparse.Namespace) -> None:
    if options.wait and options.availability != Availability.DRAIN.value:
        raise Failure("--wait is for --availability drain; nothing else takes time", Exit.USAGE)
    if options.wait_s is not None and not options.wait:
        raise Failure("--timeout is for --wait; add it, or leave this out", Exit.USAGE)
    if options.wait_s == 0:
        raise Failure("--timeout 0 leaves no time to wait; leave --wait out", Exit.USAGE)


def _check_labels(node: Node, removed: Sequence[str]) -> None:
    there = [key for key, _ in node.labels]
    for key in removed:
        if key not in there:
            shown = ", ".join(there) or "none"
            problem = f"there is no '{key}'; {node.name} has {shown}"
            raise Failure(f"--label-rm: {problem}", Exit.USAGE)


async def _drained(cluster: Cluster, ids: Sequence[NodeId], timeout_s: float) -> None:
    names = {node.id: node.name for node in await cluster.nodes.list() if node.id in ids}
    progress = output.Progress()

    def tell(tasks: tuple[Task, ...]) -> None:
        progress.lines([story.drain_line(names[at], at, tasks) for at in names])

    try:
        await cluster.wait_drained(ids, timeout_s=timeout_s, progress=tell)
    except client.NotConverged as error:
        progress.keep()
        failure = as_failure(error)
        assert failure is not None
        failure.steps = tuple(
            [(f"skep node ps {name}", "lists what is left") for name in names.values()]
            + [("skep service ls", "shows which services have trouble elsewhere")]
        )
        raise failure from None
    except BaseException:
        progress.keep()
        raise
    progress.keep()
    progress.done(f"verify: {', '.join(names.values())} drained")


def rm(options: argparse.Namespace) -> None:
    """Forget nodes."""

    async def script(cluster: Cluster) -> None:
        for ref in options.refs:
            removed = await cluster.nodes.remove(ref)
            print(removed.name or removed.id)

    session.run(options, script)
