"""`skep service ...`.

What only some of the commands need, and pulls in the reader of stack files, is loaded by those:
looking at services should feel immediate.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skep.cli import filters, newcomer, output, rows, session
from skep.cli.commands.tables import show_services, show_tasks
from skep.cli.errors import Exit, Failure
from skep.cli.options import COUNT_DIGITS
from skep.client import Cluster, NotFound, Unsupported
from skep.client.outcome import is_paused, patience_s
from skep.domain.base import SECOND_NS
from skep.domain.objects import Service, Task

if TYPE_CHECKING:
    from skep.cli import netpretty


def ls(options: argparse.Namespace) -> None:
    """List services."""
    wanted = filters.read(options.filter, filters.SERVICE_KEYS)

    async def script(cluster: Cluster) -> None:
        found = await cluster.services.list(is_stale=options.stale)
        show_services(filters.services(found, wanted), options)

    session.run(options, script)


def ps(options: argparse.Namespace) -> None:
    """List the tasks of services, with those that have ended."""
    wanted = filters.read_for_tasks(options.filter)

    async def script(cluster: Cluster) -> None:
        tasks: list[Task] = []
        for ref in options.refs:
            try:
                view = await cluster.services.get(ref, is_stale=options.stale)
            except NotFound:
                hint = newcomer.not_a_service(ref)
                if not hint:
                    raise
                raise Failure(hint) from None
            tasks += await cluster.tasks.list(
                service=view.service.id, is_all=True, is_stale=options.stale
            )
        kept = await filters.tasks(cluster, tasks, wanted, is_stale=options.stale)
        await show_tasks(cluster, kept, options)

    session.run(options, script)


def inspect(options: argparse.Namespace) -> None:
    """Show services whole, the part of them that people look for, or single fields."""
    from skep.cli import gotemplate, pretty

    template = None
    if options.format not in ("json", "yaml"):
        if options.pretty:
            raise Failure("--pretty and --format exclude each other", Exit.USAGE)
        template = gotemplate.parse(options.format)

    async def script(cluster: Cluster) -> None:
        found = [await cluster.services.get(ref) for ref in options.refs]
        if options.pretty:
            now_s, scene = time.time(), await _scene(cluster)
            print("\n\n".join(pretty.service_text(view, now_s, scene) for view in found))
        elif template is not None:
            for view in found:
                print(gotemplate.fill(template, gotemplate.docker_view(view), rows.plain(view)))
        else:
            output.write([rows.plain(view) for view in found], shape=options.format)

    session.run(options, script)


async def _scene(cluster: Cluster) -> netpretty.Scene:
    """What the addresses of services are about; an older cluster has no networks."""
    from skep.cli import netpretty

    with contextlib.suppress(Unsupported):
        return netpretty.Scene(
            nodes=await cluster.nodes.list(),
            networks=await cluster.networks.list(),
            block=(await cluster.info()).cluster.block,
        )
    return netpretty.Scene()


def create(options: argparse.Namespace) -> None:
    """Create a service, and wait until it runs and has for as long as an update is watched."""
    from skep.cli import specflags

    async def script(cluster: Cluster) -> None:
        engine = options.engine or (await cluster.info()).cluster.default_engine
        spec = specflags.created(options, engine)
        service = await cluster.services.create(spec)
        print(service.id, flush=True)
        if not options.detach:
            # A service that crashes at once runs for a moment, too.
            await session.converge(
                cluster,
                {service.id: service.revision},
                options.timeout,
                stable_s=spec.update.monitor_ns / SECOND_NS,
                is_quiet=options.quiet,
            )

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
        written = []
        for service_id, (name, replicas) in zip(ids, targets, strict=True):
            written.append(await cluster.services.scale(service_id, replicas))
            print(f"{name} scaled to {replicas}", flush=True)
        if not options.detach:
            await _wait(cluster, written, options.timeout, options)

    session.run(options, script)


async def _wait(
    cluster: Cluster, written: Sequence[Service], timeout_s: float, options: argparse.Namespace
) -> None:
    """Wait for what was written, and for nothing that somebody else writes meanwhile."""
    wanted = {service.id: service.revision for service in written}
    await session.converge(cluster, wanted, timeout_s, is_quiet=options.quiet)


def _target(text: str) -> tuple[str, int]:
    name, sign, number = text.partition("=")
    if not sign or not name or not (number.isascii() and number.isdigit()):
        raise Failure(f"'{text}' is not a target; write SERVICE=REPLICAS, as in web=5", Exit.USAGE)
    if len(number) > COUNT_DIGITS:
        raise Failure(f"'{text}': {number} replicas are too many", Exit.USAGE)
    return name, int(number)


def update(options: argparse.Namespace) -> None:
    """Change a service, and wait until it is as asked."""
    from skep.cli import specflags

    if options.rollback:
        if not specflags.is_empty(options):
            raise Failure(
                "--rollback goes back to a spec as it was, and takes no changes to it; update "
                "again after it",
                Exit.USAGE,
            )
        options.to = None
        rollback(options)
        return
    edit = specflags.edited(options)

    async def script(cluster: Cluster) -> None:
        before = (await cluster.services.get(options.ref)).service
        service = await cluster.services.change(before.id, edit)
        if service.spec == before.spec:
            word = "its update goes on" if is_paused(before) else "nothing was changed"
            output.note(f"{service.name} is so already; {word}")
        print(service.name, flush=True)
        if not options.detach:
            timeout_s = session.timeout_s(options.timeout, [service.spec])
            await _wait(cluster, [service], timeout_s, options)

    session.run(options, script)


def rollback(options: argparse.Namespace) -> None:
    """Give a service an earlier spec, and wait until that runs again."""

    async def script(cluster: Cluster) -> None:
        before = (await cluster.services.get(options.ref)).service
        service = await cluster.services.rollback(before.id, revision=options.to)
        print(service.name, flush=True)
        message = service.update.message if service.update else ""
        if not options.quiet:
            output.note(f"rollback: {message or 'manually requested rollback'}")
        if not options.detach:
            timeout_s = options.timeout
            if timeout_s is None:
                timeout_s = patience_s(service.spec, before.spec.rollback)
            await _wait(cluster, [service], timeout_s, options)

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
