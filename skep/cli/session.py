"""From a command's options to the cluster it is about."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from skep import client
from skep.cli import contextfile, story
from skep.cli.errors import Exit, Failure, as_failure
from skep.cli.local import cluster as local
from skep.cli.local import core
from skep.cli.output import Progress, note
from skep.client import Cluster
from skep.client.cluster import Refs
from skep.client.outcome import PATIENCE_LEAST_S, patience_s
from skep.domain.base import replace
from skep.domain.control import ServiceView
from skep.domain.objects import Task
from skep.domain.spec import ServiceSpec

# A person waits for this; an election takes about a second.
CALL_DEADLINE_S = 10.0
LOOK_PERIOD_S = 0.2

_End = (
    client.RolledBack
    | client.UpdatePaused
    | client.GivenUp
    | client.Superseded
    | client.NotConverged
)
# How a wait ends that ends badly.
_ENDS = (
    client.RolledBack,
    client.UpdatePaused,
    client.GivenUp,
    client.Superseded,
    client.NotConverged,
)

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
    except Failure as failure:
        at = contextfile.suffix(options)
        failure.steps = tuple((command + at, what) for command, what in failure.steps)
        raise
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
    refs: Refs,
    timeout_s: float,
    *,
    stable_s: float = 0.0,
    is_quiet: bool = False,
) -> tuple[ServiceView, ...]:
    """Wait for convergence with a line of progress for each service; see `wait_converged`. Raises
    Failure, with what the failing tasks wrote last and what to do next."""
    progress = Progress(is_quiet=is_quiet)

    async def tell(views: tuple[ServiceView, ...]) -> None:
        lines = []
        for view in views:
            tasks = await _living(cluster, view) if story.is_changing(view) else ()
            lines.append(story.progress_line(view, stable_s, tasks))
        progress.lines(lines)

    try:
        views = await cluster.wait_converged(
            refs, timeout_s=timeout_s, stable_s=stable_s, progress=None if is_quiet else tell
        )
    except _ENDS as error:
        progress.keep()
        raise await _told(cluster, error) from None
    except BaseException:
        progress.keep()
        raise
    progress.keep()
    progress.done(story.verified(views))
    return views


async def _living(cluster: Cluster, view: ServiceView) -> tuple[Task, ...]:
    try:
        return await cluster.tasks.list(service=view.service.id)
    except client.ClientError:
        # How far it is matters less than how it ends; that is asked for again and again.
        return ()


def timeout_s(given_s: float | None, specs: Iterable[ServiceSpec]) -> float:
    """How long to wait for services that are being updated to these specs: what was `given_s`, or
    as long as the slowest of them may take."""
    if given_s is not None:
        return given_s
    return max((patience_s(spec) for spec in specs), default=PATIENCE_LEAST_S)


def as_asked(spec: ServiceSpec) -> ServiceSpec:
    """A spec without what managers fill in: ids of configs and secrets, and the image's digest."""
    run = spec.task.run
    bare = replace(
        run,
        image_digest="",
        configs=tuple(replace(use, id="") for use in run.configs),
        secrets=tuple(replace(use, id="") for use in run.secrets),
    )
    return replace(spec, task=replace(spec.task, run=bare))


async def written(cluster: Cluster, specs: Iterable[ServiceSpec]) -> dict[str, int | None]:
    """The revisions that these specs became, by the service's name: what to wait for after a write
    of many, whose answer doesn't say it."""
    found: dict[str, int | None] = {}
    for spec in specs:
        found[spec.name] = None
        # An older cluster keeps no revisions, and has no rollback that they would tell apart.
        with contextlib.suppress(client.Unsupported):
            revisions = await cluster.services.history(spec.name)
            asked = as_asked(spec)
            numbers = [row.number for row in revisions if as_asked(row.spec) == asked]
            found[spec.name] = max(numbers, default=None)
    return found


async def _told(cluster: Cluster, error: _End) -> Failure:
    failure = as_failure(error)
    assert failure is not None
    from skep.cli import newcomer

    views = [view for view in error.views if story.is_at_fault(view, error)]
    evidence: list[str] = []
    steps: list[story.Step] = []
    for view in views[: story.TASKS_SHOWN]:
        steps += story.next_steps(error, view)
        if not isinstance(error, client.Superseded):
            # The reason is known; a cluster that can't say more takes nothing from it.
            with contextlib.suppress(client.ClientError):
                evidence += await _evidence(cluster, view, str(failure))
        evidence += newcomer.not_an_image(view.service, "\n".join((str(failure), *evidence)))
    failure.evidence, failure.steps = tuple(evidence), tuple(steps)
    return failure


async def _evidence(cluster: Cluster, view: ServiceView, told: str) -> list[str]:
    from skep.client.logs import last_lines

    tasks = await cluster.tasks.list(service=view.service.id, is_all=True)
    task = story.failing_task(view.service, tasks, told)
    if task is None:
        return []
    nodes = {str(node.id): node.name for node in await cluster.nodes.list()}
    lines = await last_lines(cluster, task.id, story.LINES_SHOWN)
    return story.evidence(task, lines, nodes, told)


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


async def until_networks_removed(
    cluster: Cluster, networks: Mapping[str, str], timeout_s: float
) -> None:
    """Wait, with a line of progress, until networks (ids to names) are gone. Raises Failure."""
    progress = Progress()
    left = dict(networks)
    try:
        async with asyncio.timeout(timeout_s):
            while left:
                there = {view.network.id for view in await cluster.networks.list()}
                left = {each: name for each, name in left.items() if each in there}
                if left:
                    progress.say(f"removing {', '.join(left.values())}")
                    await asyncio.sleep(LOOK_PERIOD_S)
    except TimeoutError:
        names = ", ".join(left.values())
        text = f"not removed after {timeout_s:g} s: {names}; tasks on it have yet to end"
        raise Failure(text, Exit.TIMED_OUT) from None
    finally:
        progress.done()
