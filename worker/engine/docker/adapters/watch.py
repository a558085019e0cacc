"""One stream of the engine's events, and a listing whenever it begins: who ends is learnt from
these, and never by asking for each container."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from skep.env import Env, Monotonic, Retryable
from skep.worker.engine.docker.adapters.api import Api
from skep.worker.engine.docker.core.errors import ApiError

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0

OnListing = Callable[[Sequence[dict[str, Any]]], Awaitable[None]]
OnEvent = Callable[[Mapping[str, Any]], None]


class Watch:
    """Follows the containers with a label. `on_listing` is told all of them at the beginning of
    each stream, whose events it doesn't overtake: they follow when it has returned."""

    def __init__(self, api: Api, env: Env, label: str) -> None:
        self._api = api
        self._env = env
        self._label = label
        self._gone_since: Monotonic | None = env.now()
        self._why = "not asked yet"
        self.asked = asyncio.Event()
        """It has answered once, or has failed to."""

    @property
    def gone_since(self) -> Monotonic | None:
        """Since when the engine doesn't answer; None while it does."""
        return self._gone_since

    @property
    def why(self) -> str:
        """Why it doesn't."""
        return self._why

    async def run(self, on_listing: OnListing, on_event: OnEvent) -> None:
        """Go on for good."""
        delay_s = FIRST_DELAY_S
        while True:
            try:
                await self._follow(on_listing, on_event)
            except (ApiError, Retryable) as error:
                self._why = str(error)
                self.asked.set()
            if self._gone_since is None:
                self._gone_since, delay_s = self._env.now(), FIRST_DELAY_S
                log.warning("docker=gone why=%r", self._why)
            await self._env.clock.sleep(delay_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    async def _follow(self, on_listing: OnListing, on_event: OnEvent) -> None:
        events = ["die", "oom", "kill", "destroy", "start"]
        async with self._api.events(
            type=["container"], label=[self._label], event=events
        ) as stream:
            listing = await self._api.containers(self._label)
            if self._gone_since is not None:
                log.info("docker=there containers=%d", len(listing))
            self._gone_since, self._why = None, ""
            await on_listing(listing)
            self.asked.set()
            async for event in stream:
                on_event(event)
