"""`skep service ...`."""

from __future__ import annotations

import argparse

from skep.cli import output, rows, session, specflags
from skep.cli.commands.tables import show_services, show_tasks
from skep.cli.errors import Exit, Failure
from skep.cli.options import COUNT_DIGITS
from skep.client import Cluster
from skep.domain.objects import Task
from skep.domain.spec import ServiceSpec


def ls(options: argparse.Namespace) -> None:
    """List services."""

    async def script(cluster: Cluster) -> None:
        show_services(await cluster.services.list(is_stale=options.stale), options)

    session.run(options, script)


def ps(options: argparse.Namespace) -> None:
    """List the tasks of services, with those that have ended."""

    async def script(cluster: Cluster) -> None:
        tasks: list[Task] = []
        for ref in options.refs:
            view = await cluster.services.get(ref, is_stale=options.stale)
            tasks += await cluster.tasks.list(
                service=view.service.id, is_all=True, is_stale=options.stale
            )
        await show_tasks(cluster, tasks, options)

    session.run(options, script)


def inspect(options: argparse.Namespace) -> None:
    """Show services whole."""

    async def script(cluster: Cluster) -> None:
        found = [rows.plain(await cluster.services.get(ref)) for ref in options.refs]
        output.write(found, shape=options.format)

    session.run(options, script)


def create(options: argparse.Namespace) -> None:
    """Create a service, and wait until it runs."""
    spec = specflags.created(options)

    async def script(cluster: Cluster) -> None:
        service = await cluster.services.create(spec)
        print(service.id)
        if not options.detach:
            await session.converge(cluster, [service.id], options.timeout)

    session.run(options, script)


def scale(options: argparse.Namespace) -> None:
    """Set the replicas of services, all before the first is waited for."""
    targets = [_target(text) for text in options.targets]

    async def script(cluster: Cluster) -> None:
        # All names are looked up first: a misspelt one leaves the others as they are.
        ids = [(await cluster.services.get(name)).service.id for name, _ in targets]
        for service_id, text in zip(ids, options.targets, strict=True):
            if ids.count(service_id) > 1:
                raise Failure(f"'{text}': this service is named twice; name it once", Exit.USAGE)
        for service_id, (name, replicas) in zip(ids, targets, strict=True):
            await cluster.services.scale(service_id, replicas)
            print(f"{name} scaled to {replicas}")
        if not options.detach:
            await session.converge(cluster, ids, options.timeout)

    session.run(options, script)


def _target(text: str) -> tuple[str, int]:
    name, sign, number = text.partition("=")
    if not sign or not name or not (number.isascii() and number.isdigit()):
        raise Failure(f"'{text}' is not a target; write SERVICE=REPLICAS, as in web=5", Exit.USAGE)
    if len(number) > COUNT_DIGITS:
        raise Failure(f"'{text}': {number} replicas are too many", Exit.USAGE)
    return name, int(number)


def update(options: argparse.Namespace) -> None:
    """Change a service, and wait until it is as asked."""
    edit = specflags.edited(options)

    async def script(cluster: Cluster) -> None:
        seen: list[ServiceSpec] = []

        def noted(spec: ServiceSpec) -> ServiceSpec:
            seen.append(spec)
            return edit(spec)

        service = await cluster.services.change(options.ref, noted)
        if service.spec == seen[-1]:
            output.note(f"{service.name} is so already; nothing was changed")
        print(service.name)
        if not options.detach:
            await session.converge(cluster, [service.id], options.timeout)

    session.run(options, script)


def rm(options: argparse.Namespace) -> None:
    """Remove services, and wait until their tasks have ended."""

    async def script(cluster: Cluster) -> None:
        removed = {}
        for ref in options.refs:
            answer = await cluster.services.remove(ref)
            removed[answer.id] = answer.name or answer.id
            print(removed[answer.id])
        if not options.detach:
            await session.until_removed(cluster, removed, options.timeout)

    session.run(options, script)
