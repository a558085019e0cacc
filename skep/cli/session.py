"""From a command's options to the cluster it is about."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from skep import client
from skep.cli import contextfile
from skep.cli.errors import Exit, Failure
from skep.cli.local import cluster as local
from skep.cli.local import core
from skep.cli.output import Progress, note
from skep.client import Cluster
from skep.domain.control import ServiceView

# A person waits for this; an election takes about a second.
CALL_DEADLINE_S = 10.0

Script = Callable[[Cluster], Coroutine[Any, Any, None]]


def addresses(options: argparse.Namespace) -> tuple[str, ...]:
    """The control addresses of the managers that the options mean. Raises Failure."""
    target = contextfile.target(options)
    options.origin = f"context '{target.context}'" if target.context else ""
    if target.managers is not None:
        return target.managers
    of, plan = local.find(target.cluster)
    managers = [s for s in local.states(of, plan) if s.process.kind is core.Kind.MANAGER]
    if not any(state.found for state in managers):
        # Known at once, so that nobody has to wait for the calls to give up.
        names = " ".join(state.process.name for state in managers)
        raise Failure(
            f"no manager of cluster '{of.name}' is running; start them: skep local start {names}",
            Exit.UNREACHABLE,
        )
    return plan.control_addresses()


def run(options: argparse.Namespace, script: Script) -> None:
    """Run a script against the cluster."""
    where = addresses(options)

    async def go() -> None:
        async with client.connect(where, deadline_s=CALL_DEADLINE_S) as cluster:
            await script(cluster)

    try:
        asyncio.run(go())
    except client.Unavailable as error:
        if not error.answered or getattr(options, "stale", True):
            if not options.origin:
                raise
            hint = "'skep context show' says where that is"
            raise Failure(f"{options.origin}: {error}; {hint}", Exit.UNREACHABLE) from None
        hint = "--stale shows what it has"
        raise Failure(f"{error}; {hint}", Exit.UNREACHABLE) from None
    if getattr(options, "stale", False):
        note("skep: note: this is what one manager has; it may be outdated")


async def converge(
    cluster: Cluster,
    refs: Sequence[str] | None,
    timeout_s: float,
    *,
    stack: str | None = None,
) -> tuple[ServiceView, ...]:
    """Wait for convergence with a line of progress. Raises NotConverged."""
    progress = Progress()

    def tell(views: tuple[ServiceView, ...]) -> None:
        progress.say(counts(views))

    try:
        views = await cluster.wait_converged(refs, stack=stack, timeout_s=timeout_s, progress=tell)
    except BaseException:
        progress.done()
        raise
    progress.done(f"converged: {counts(views)}")
    return views


def counts(views: Sequence[ServiceView]) -> str:
    """How many of each service's tasks run, and what is in the way."""
    words = []
    for view in views:
        problems = f" ({'; '.join(view.problems)})" if view.problems else ""
        words.append(f"{view.service.name} {view.running}/{view.desired}{problems}")
    return ", ".join(words) or "no services"


async def until_removed(cluster: Cluster, services: Mapping[str, str], timeout_s: float) -> None:
    """Wait, with a line of progress, until services (ids to names) are gone."""
    progress = Progress()
    progress.say(f"removing {', '.join(services.values())}")
    try:
        await cluster.wait_removed(tuple(services), timeout_s=timeout_s)
    finally:
        progress.done()
