"""`skep events` and `skep watch`: what happens, in words or as objects.

Both are streams that their user ends, so that Ctrl-C is no failure: the exit code is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import msgspec

from skep import client
from skep.cli import filters, output, rows, session, text
from skep.cli.changes import KINDS, AnyRow, Change, Sight, fits
from skep.client import Cluster
from skep.domain.base import replace
from skep.domain.control import WatchEvent

FILTER_KEYS = ("service", "node", "stack", "kind")


def events(options: argparse.Namespace) -> None:
    """Tell what happens, a line a change."""
    wanted = filters.read(options.filter, FILTER_KEYS)
    seen = Seen(options.since)

    async def script(cluster: Cluster) -> None:
        version, known = await read_all(cluster)
        sight = Sight(known)
        seen.version = version if options.since is None else options.since
        async for event in follow(cluster, seen, (), options):
            change = sight.take(event)
            if event.is_resync:
                sight.read((await read_all(cluster))[1])
            if change is not None and fits(change, wanted):
                print(line(change) if options.format == "table" else _json(change), flush=True)

    _run(options, script)
    if options.format == "table" and seen.version is not None:
        output.note(f"skep: note: so far is version {seen.version}; go on with --since")


def watch(options: argparse.Namespace) -> None:
    """Show each changed object, as a line of JSON with its version.

    A line with a version alone says that all changes up to it have been shown. A line with
    "resync" says that changes were lost, and which.
    """
    seen = Seen(options.since)

    async def script(cluster: Cluster) -> None:
        if seen.version is None:
            seen.version = (await cluster.info()).version
        marked = seen.version
        async for event in follow(cluster, seen, tuple(options.kind), options):
            if event.action is None and not event.is_resync and event.version <= marked:
                continue
            if event.is_resync:
                shown: dict[str, object] = {"resync": True, "lost": f"{marked + 1}-{event.version}"}
            else:
                shown = _object(event)
            marked = event.version
            print(_json({"version": event.version, **shown}), flush=True)

    _run(options, script)


def _object(event: WatchEvent) -> dict[str, object]:
    for kind in KINDS.values():
        row = getattr(event, kind)
        if row is not None and event.action is not None:
            return {"action": event.action.value, "kind": kind, "object": rows.plain(row)}
    return {}


class Seen:
    """The version up to which all has been seen; None before the start of a stream from now."""

    def __init__(self, version: int | None) -> None:
        self.version = version


async def read_all(cluster: Cluster) -> tuple[int, list[AnyRow]]:
    """Everything that can be watched, and a version that it is at least as new as."""
    nodes = await cluster.nodes.snapshot()
    known: list[AnyRow] = [*nodes.nodes, *await cluster.stacks.list()]
    known += [view.service for view in await cluster.services.list()]
    known += await cluster.tasks.list(is_all=True)
    with contextlib.suppress(client.Unsupported):
        known += [view.network for view in await cluster.networks.list()]
    with contextlib.suppress(client.Unsupported):
        known += [view.config for view in await cluster.configs.list()]
        # Of secrets the stream says less: who uses one is no part of it.
        known += [replace(view, services=()) for view in await cluster.secrets.list()]
    return nodes.version, known


async def follow(
    cluster: Cluster, seen: Seen, kinds: tuple[str, ...], options: argparse.Namespace
) -> AsyncIterator[WatchEvent]:
    """Changes after `seen`, which moves along, until the options say that it is enough."""
    until: int | None = options.until
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(options.span_s):
            async for event in cluster.watch(from_version=seen.version, kinds=kinds):
                if until is not None and event.version > until:
                    seen.version = until
                    return
                yield event
                if event.action is None:
                    seen.version = event.version
                elif seen.version is None or event.version - 1 > seen.version:
                    # One commit may carry several changes: all is seen only of those before.
                    seen.version = event.version - 1
                if until is not None and event.action is None and event.version >= until:
                    return


def _run(options: argparse.Namespace, script: session.Script) -> None:
    try:
        session.run(options, script)
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            output.note("")


def line(change: Change) -> str:
    """A change as one line."""
    when = text.clock(round(change.time * text.NS_PER_S)) if change.time else " " * 19
    subject = f"{change.subject}: " if change.kind != "resync" else ""
    return text.plain(f"{when}  {subject}{change.what}")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
