"""`skep stack ...`."""

from __future__ import annotations

import argparse
import contextlib

from skep import client, stackfile
from skep.cli import filters, output, rows, session
from skep.cli.commands.tables import show_services, show_tasks
from skep.cli.errors import Failure, as_failure
from skep.cli.stackfiles import placed, raw_stack, read_stack
from skep.client import Cluster
from skep.domain.control import DeployStackResponse
from skep.stackfile import ReadStack


def deploy(options: argparse.Namespace) -> None:
    """Make the cluster hold a stack, and wait until it does."""

    async def script(cluster: Cluster) -> None:
        # What the files mean may depend on it.
        engine = (await cluster.info()).cluster.default_engine
        stack = read_stack(options.files, options.name, options.env_files, engine)
        await deploy_and_wait(cluster, stack, options)

    session.run(options, script)


def config(options: argparse.Namespace) -> None:
    """Show what stack files mean, as one file that means the same."""
    if options.no_interpolate:
        values = raw_stack(options.files, options.name)
    else:
        values = stackfile.stack_values(
            read_stack(options.files, options.name, options.env_files, options.engine).spec
        )
    if not options.quiet:
        output.write(values, shape=options.format)


async def deploy_and_wait(
    cluster: Cluster, stack: ReadStack, options: argparse.Namespace
) -> DeployStackResponse:
    """One deploy, and what it did."""
    spec = stack.spec
    is_prune = bool(getattr(options, "prune", False))
    before = await _files(cluster, stack)
    try:
        answer = await cluster.stacks.deploy(
            spec, configs=stack.configs, secrets=stack.secrets, is_prune=is_prune
        )
    except client.ClientError as error:
        found = as_failure(error)
        assert found is not None
        raise Failure(placed(str(found), stack), found.code) from None
    after = await _files(cluster, stack)
    for name in answer.networks_created:
        output.note(f"created network {name}")
    for what, names in (
        ("created", sorted(after - before)),
        ("removed", sorted(before - after)),
        ("created", answer.created),
        ("updated", answer.updated),
        ("unchanged", answer.unchanged),
        ("removed", answer.removed),
    ):
        for name in names:
            output.note(f"{what} {name}")
    for name in answer.kept:
        output.note(f"kept {name}, which the stack no longer names; --prune removes it")
    if not options.detach:
        # The names of configs and secrets in it are those that the managers gave.
        wanted = await session.written(cluster, answer.stack.spec.services)
        # A new service has nothing to replace, but the rest of the stack may.
        changed = [each for each in spec.services if each.name in answer.updated]
        timeout_s = session.timeout_s(options.timeout, changed)
        await session.converge(cluster, wanted, timeout_s)
        if answer.removed:
            gone = {name: name for name in answer.removed}
            await session.until_removed(cluster, gone, timeout_s)
    return answer


async def _files(cluster: Cluster, stack: ReadStack) -> set[str]:
    """The stack's configs and secrets, if it has any of its own to write."""
    found: set[str] = set()
    if stack.configs or stack.secrets:
        name = stack.spec.name
        with contextlib.suppress(client.NotFound):
            found |= {f"config {v.config.name}" for v in await cluster.configs.list(stack=name)}
        with contextlib.suppress(client.NotFound):
            found |= {f"secret {view.name}" for view in await cluster.secrets.list(stack=name)}
    return found


def ls(options: argparse.Namespace) -> None:
    """List stacks."""

    async def script(cluster: Cluster) -> None:
        columns: output.Columns[rows.StackRow] = (
            ("NAME", lambda row: row.name),
            ("SERVICES", lambda row: str(row.services)),
            ("REVISION", lambda row: str(row.revision)),
        )
        found = await cluster.stacks.list(is_stale=options.stale)
        shown = [rows.stack_row(stack) for stack in found]
        output.show(shown, columns, shape=options.format, key="name" if options.quiet else None)

    session.run(options, script)


def ps(options: argparse.Namespace) -> None:
    """List a stack's tasks, with those that have ended."""
    wanted = filters.read_for_tasks(options.filter)

    async def script(cluster: Cluster) -> None:
        tasks = await cluster.tasks.list(stack=options.name, is_all=True)
        await show_tasks(cluster, await filters.tasks(cluster, tasks, wanted), options)

    session.run(options, script)


def services(options: argparse.Namespace) -> None:
    """List a stack's services."""
    wanted = filters.read(options.filter, filters.SERVICE_KEYS)

    async def script(cluster: Cluster) -> None:
        found = await cluster.services.list(stack=options.name)
        show_services(filters.services(found, wanted), options)

    session.run(options, script)


def rm(options: argparse.Namespace) -> None:
    """Remove stacks, and wait until their services and networks are gone."""

    async def script(cluster: Cluster) -> None:
        held: dict[str, str] = {}
        networks: dict[str, str] = {}
        for name in options.names:
            views = await cluster.services.list(stack=name)
            held |= {view.service.id: view.service.name for view in views}
            with contextlib.suppress(client.Unsupported):
                owned = await cluster.networks.list(stack=name)
                networks |= {view.network.id: view.network.name for view in owned}
            answer = await cluster.stacks.remove(name)
            print(answer.name or answer.id)
        if held and not options.detach:
            await session.until_removed(cluster, held, options.timeout)
        if networks and not options.detach:
            # Who deploys it anew at once must not find networks that are still on their way out.
            await session.until_networks_removed(cluster, networks, options.timeout)

    session.run(options, script)
