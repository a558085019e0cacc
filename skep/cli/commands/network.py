"""`skep network ...`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

import msgspec

from skep import client
from skep.cli import diagnosis, filters, netwhy, output, rows, session, text
from skep.cli.errors import Exit, Failure
from skep.client import Cluster
from skep.domain.base import lookup, pairs
from skep.domain.control import DiagnoseNetworkResponse, NetworkView
from skep.domain.objects import Task
from skep.domain.spec import NetworkSpec, NetworkUse

ENCRYPTED = "encrypted"
# What was just written takes a moment to reach every node.
DOCTOR_PATIENCE_S = 2.0
DOCTOR_PERIOD_S = 0.2


def create(options: argparse.Namespace) -> None:
    """Create a network, and print its id."""
    spec = _spec(options)

    async def script(cluster: Cluster) -> None:
        print((await cluster.networks.create(spec)).id)

    session.run(options, script)


def _spec(options: argparse.Namespace) -> NetworkSpec:
    from skep.cli.flagvalues import named_values

    # As with Docker, an option alone is one without a value.
    words = [word if "=" in word else f"{word}=" for word in options.opt]
    opts = named_values("--opt", words, least="KEY=VALUE")
    word = lookup(opts, ENCRYPTED)
    if word not in (None, "", "true", "false"):
        raise Failure(f"--opt {ENCRYPTED}: '{word}' is neither true nor false", Exit.USAGE)
    return NetworkSpec(
        name=options.name,
        driver=options.driver,
        subnet=options.subnet,
        gateway=options.gateway,
        is_internal=options.internal,
        is_attachable=options.attachable,
        is_encrypted=options.encrypted or word in ("", "true"),
        labels=named_values("--label", options.label, least="KEY=VALUE"),
        options=pairs((key, value) for key, value in opts if key != ENCRYPTED),
    )


def ls(options: argparse.Namespace) -> None:
    """List networks."""
    wanted = filters.read(options.filter, filters.NETWORK_KEYS)

    async def script(cluster: Cluster) -> None:
        found = await filters.networks(cluster, wanted, is_stale=options.stale)
        shown = [rows.network_row(view) for view in found]
        columns: list[tuple[str, output.Reader[rows.NetworkRow]]] = [
            ("ID", lambda row: row.id if options.no_trunc else output.short_id(row.id)),
            ("NAME", lambda row: row.name),
            ("DRIVER", lambda row: row.driver),
            ("SUBNET", lambda row: row.subnet),
            ("SERVICES", lambda row: str(row.services)),
            ("TASKS", lambda row: str(row.tasks)),
            ("STATUS", _status),
        ]
        output.show(shown, columns, shape=options.format, key="id" if options.quiet else None)

    session.run(options, script)


def _status(row: rows.NetworkRow) -> str:
    if row.removing:
        return "Removing"
    if row.vxlan_id is None:
        return f"Waiting: {row.message}" if row.message else "Waiting for addresses"
    told = {"ingress": row.ingress, "internal": row.internal}
    marks = [name for name, is_so in told.items() if is_so]
    return f"Ready ({', '.join(marks)})" if marks else "Ready"


def inspect(options: argparse.Namespace) -> None:
    """Show networks whole, the part of them that people look for, or single fields."""
    from skep.cli import gotemplate

    template = gotemplate.asked(options)

    async def script(cluster: Cluster) -> None:
        found = [await cluster.networks.get(ref) for ref in options.refs]
        if options.pretty:
            print(await _pretty(cluster, found))
        elif template is not None:
            for view in found:
                known = gotemplate.docker_network(view), rows.plain(view)
                print(gotemplate.fill(template, *known))
        else:
            output.write([rows.plain(view) for view in found], shape=options.format)

    session.run(options, script)


async def _pretty(cluster: Cluster, views: list[NetworkView]) -> str:
    from skep.cli import netpretty, pretty

    scene = netpretty.Scene(
        nodes=await cluster.nodes.list(),
        services=await cluster.services.list(),
        tasks=await cluster.tasks.list(),
        networks=views,
        block=(await cluster.info()).cluster.block,
    )
    return "\n\n".join(pretty.text_of(netpretty.network_lines(view, scene)) for view in views)


def rm(options: argparse.Namespace) -> None:
    """Remove networks, and wait until no task is left on them."""

    async def script(cluster: Cluster) -> None:
        removed = {}
        for ref in options.refs:
            answer = await cluster.networks.remove(ref)
            removed[answer.id] = answer.name or answer.id
            print(removed[answer.id], flush=True)
        if not options.detach:
            await session.until_networks_removed(cluster, removed, options.timeout)

    session.run(options, script)


# ------------------------------------------------------------------------- doctor and why


def doctor(options: argparse.Namespace) -> None:
    """Say of every node whether it has the network as the managers have it. Exit code 1 where one
    hasn't, or isn't heard."""

    async def script(cluster: Cluster) -> None:
        answer = await cluster.networks.diagnose()
        version = answer.version
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DOCTOR_PATIENCE_S):
                while diagnosis.is_behind(answer, version):
                    await asyncio.sleep(DOCTOR_PERIOD_S)
                    answer = await cluster.networks.diagnose()
        names = {str(node.id): node.name for node in await cluster.nodes.list()}
        found = diagnosis.report(answer, names, version)
        if options.format != "table":
            output.write(msgspec.to_builtins(found), shape=options.format)
        else:
            columns: list[tuple[str, output.Reader[diagnosis.NodeReport]]] = [
                ("NODE", lambda row: row.node),
                ("PLANE", lambda row: row.plane or "-"),
                ("VERSION", lambda row: diagnosis.versions(row, found.version)),
                ("STATUS", lambda row: diagnosis.status(row, version)),
                ("FACTS", lambda row: ", ".join(row.facts)),
            ]
            output.show(found.nodes, columns, shape="table", key=None)
            for line in diagnosis.details(found):
                print(text.plain(line))
        if not found.is_well:
            raise Failure(diagnosis.summary(found, version))

    session.run(options, script)


def why(options: argparse.Namespace) -> None:
    """Say what a name leads to for a task."""

    async def script(cluster: Cluster) -> None:
        task = await _task(cluster, options.from_task)
        answer = await cluster.networks.diagnose(options.name, task.id)
        scene = await _scene(cluster, task, answer, options.name)
        story = netwhy.tell(scene)
        if options.format != "table":
            output.write(msgspec.to_builtins(story), shape=options.format)
            return
        print("\n".join(text.plain(line) for line in netwhy.lines(story)))

    session.run(options, script)


async def _task(cluster: Cluster, ref: str) -> Task:
    """A task by its name, of which the one that is wanted counts, or by its id. Raises Failure."""
    live = await cluster.tasks.list()
    named = sorted((task for task in live if task.name == ref), key=lambda task: not task.is_wanted)
    try:
        task = named[0] if named else await cluster.tasks.get(ref)
    except client.NotFound:
        known = [task.name for task in live if task.name.startswith(f"{ref}.")]
        hint = f"; name one of its tasks, such as {known[0]}" if known else ""
        raise Failure(f"there is no task '{ref[:80]}'{hint}") from None
    if task.is_terminal:
        raise Failure(f"task {task.name} ({output.short_id(task.id)}) has ended; name a live one")
    return task


async def _scene(
    cluster: Cluster, task: Task, answer: DiagnoseNetworkResponse, name: str
) -> netwhy.Scene:
    nodes = await cluster.nodes.list()
    found = next((each for each in answer.diagnoses if each.answer is not None), None)
    if found is None or found.answer is None:
        where = next((node.name for node in nodes if node.id == task.node_id), "")
        reason = dict(answer.silent).get(where) or "it gave no answer"
        if task.node_id is None:
            raise Failure(f"{task.name} is on no node yet, so that nobody can ask there; try later")
        at = where or "its node"
        raise Failure(f"the netproxy of {at} did not say where '{name}' leads: {reason}")
    return netwhy.Scene(
        task=task,
        uses=await _uses(cluster, task),
        diagnosis=found,
        answer=found.answer,
        version=answer.version,
        services=await cluster.services.list(),
        tasks=await cluster.tasks.list(),
        nodes=nodes,
    )


async def _uses(cluster: Cluster, task: Task) -> tuple[NetworkUse, ...]:
    """The networks of the spec that the task is of, or where that is gone, of its service now."""
    for revision in await cluster.services.history(task.service_id):
        if revision.number == task.revision:
            return revision.spec.task.networks
    return (await cluster.services.get(task.service_id)).service.spec.task.networks
