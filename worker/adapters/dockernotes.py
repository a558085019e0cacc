"""Whether this node's Docker engine is there, and what is to be said of it, for the node's
description.

An engine that is away for a moment, as it is when it is updated, costs the node nothing: its tasks
are tried again. One that stays away is taken out of the description, so that managers send tasks
for it elsewhere, and is back in it as soon as it answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from skep.domain.spec import DOCKER
from skep.env import Env, Retryable
from skep.worker.engine.docker.adapters.docker import DockerEngine
from skep.worker.engine.docker.core.notes import DockerNotes, away

log = logging.getLogger(__name__)

# Less than the agent's own tries take, so that what it gives up isn't sent here again at once.
AWAY_S = 10.0
PERIOD_S = 2.0


async def docker_notes(engine: DockerEngine) -> DockerNotes:
    """What is to be said of the engine now; one that doesn't answer at once is away."""
    try:
        return DockerNotes(engines=(DOCKER,), notes=await engine.notes())
    except Retryable as error:
        return DockerNotes(notes=away(str(error)))


async def follow_docker(
    env: Env, engine: DockerEngine, told: DockerNotes, on_news: Callable[[DockerNotes], None]
) -> None:
    """Go on looking, and say what is no longer as it was `told`."""
    silent_since: float | None = None
    while True:
        await env.clock.sleep(PERIOD_S)
        now = DockerNotes(notes=away(engine.watch.why))
        if engine.watch.gone_since is None:
            # One that hangs keeps its connections, and answers nothing.
            now = await docker_notes(engine)
        if now.engines:
            silent_since = None
        elif silent_since is None:
            silent_since = engine.watch.gone_since or env.now()
        is_short = silent_since is not None and env.now() - silent_since < AWAY_S
        if now == told or (is_short and told.engines):
            continue
        log.info("docker=%s notes=changed", "there" if now.engines else "gone")
        told = now
        on_news(now)
