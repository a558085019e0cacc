"""`skep volume ...`."""

from __future__ import annotations

import argparse

from skep.cli import filters, output, rows, session, storagerows
from skep.client import Cluster


def ls(options: argparse.Namespace) -> None:
    """List volumes, and where they are."""
    wanted = filters.read(options.filter, filters.VOLUME_KEYS)

    async def script(cluster: Cluster) -> None:
        nodes = await cluster.nodes.list(is_stale=options.stale)
        names = {str(node.id): node.name for node in nodes}
        views = await cluster.volumes.list(is_stale=options.stale)
        shown = filters.volumes((storagerows.volume_row(view, names) for view in views), wanted)
        columns: output.Columns[storagerows.VolumeRow] = (
            ("NAME", lambda row: row.name),
            ("NODES", _places),
            ("SERVICES", lambda row: str(row.services)),
        )
        output.show(shown, columns, shape=options.format, key="name" if options.quiet else None)

    session.run(options, script)


def _places(row: storagerows.VolumeRow) -> str:
    return ", ".join(f"{place.node} ({place.service}.{place.slot})" for place in row.places)


def inspect(options: argparse.Namespace) -> None:
    """Show volumes whole."""

    async def script(cluster: Cluster) -> None:
        views = [await cluster.volumes.get(ref) for ref in options.refs]
        output.write([rows.plain(view) for view in views], shape=options.format)

    session.run(options, script)


def rm(options: argparse.Namespace) -> None:
    """Forget where volumes are."""

    async def script(cluster: Cluster) -> None:
        for ref in options.refs:
            print((await cluster.volumes.remove(ref)).name, flush=True)

    session.run(options, script)
