"""`skep service why`."""

from __future__ import annotations

import argparse
import contextlib
import time

from skep import client
from skep.cli import contextfile, output, session, text
from skep.cli.why import Scene, Story, explain, lines
from skep.client import Cluster
from skep.domain.objects import Revision


def why(options: argparse.Namespace) -> None:
    """Say why services are as they are."""

    async def script(cluster: Cluster) -> None:
        at = contextfile.suffix(options)
        stories = [await _story(cluster, ref, at) for ref in options.refs]
        if options.format != "table":
            output.write([_plain(story) for story in stories], shape=options.format)
            return
        for story in stories:
            print("\n".join(text.plain(line) for line in lines(story)))

    session.run(options, script)


async def _story(cluster: Cluster, ref: str, at: str) -> Story:
    view = await cluster.services.get(ref)
    service_id = view.service.id
    revisions: tuple[Revision, ...] = ()
    # An older cluster keeps no revisions; all the rest can be explained.
    with contextlib.suppress(client.Unsupported):
        revisions = await cluster.services.history(service_id)
    return explain(
        Scene(
            view=view,
            tasks=await cluster.tasks.list(service=service_id, is_all=True),
            nodes=await cluster.nodes.list(),
            revisions=revisions,
            now_ns=time.time_ns(),
            at=at,
        )
    )


def _plain(story: Story) -> dict[str, object]:
    import msgspec

    found: dict[str, object] = msgspec.to_builtins(story)
    return found
