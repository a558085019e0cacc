"""The watch stream: changes in commit order, from any manager, resumable by version.

Nothing waits in memory for a slow watcher: its position is a version, and the store's window holds
the changes. A watcher that falls out of the window is told to resync.
"""

from __future__ import annotations

import asyncio

from skep.api import codec
from skep.domain.control import WatchEvent, WatchRequest
from skep.domain.objects import Config, Network, Node, Secret, Service, Stack, Task
from skep.env import Env, Rejected, Stream
from skep.manager.control.core.files import shown, without_data
from skep.manager.store.actor import Store
from skep.manager.store.core.command import Change

METHOD = "skep.v1.Control/Watch"
KINDS = {
    "node": Node,
    "service": Service,
    "task": Task,
    "stack": Stack,
    "network": Network,
    "config": Config,
    "secret": Secret,
}
SIGN_OF_LIFE_S = 5.0


class Watches:
    """Serves the watch stream."""

    def __init__(self, env: Env, store: Store) -> None:
        self._env = env
        self._store = store

    async def serve(self, stream: Stream) -> None:
        """One watcher, until it goes away. See `skep.env.StreamHandler`."""
        frame = await stream.receive()
        if frame is None:
            return
        request = codec.decode(WatchRequest, frame)
        unknown = [kind for kind in request.kinds if kind not in KINDS]
        if unknown:
            raise Rejected(
                f"kinds: {unknown[0]!r} can't be watched; known are {', '.join(KINDS)}",
                field="kinds",
            )
        if request.from_version is not None and request.from_version < 0:
            raise Rejected("from_version: can't be negative", field="from_version")
        wake = asyncio.Event()
        unsubscribe = self._store.subscribe(lambda _: wake.set())
        try:
            await self._follow(stream, request, wake)
        finally:
            unsubscribe()

    async def _follow(self, stream: Stream, request: WatchRequest, wake: asyncio.Event) -> None:
        kinds = tuple(KINDS[kind] for kind in request.kinds or KINDS)
        position = self._store.version if request.from_version is None else request.from_version
        await stream.send(codec.encode(WatchEvent(version=position)))
        while True:
            wake.clear()
            if self._store.version > position:
                changes = self._store.window.since(position)
                position = self._store.version
                if changes is None:
                    await stream.send(codec.encode(WatchEvent(version=position, is_resync=True)))
                    continue
                for change in changes:
                    if isinstance(change.row, kinds):
                        await stream.send(codec.encode(_event(change)))
                continue
            try:
                await self._env.clock.within(SIGN_OF_LIFE_S, wake.wait())
            except TimeoutError:
                await stream.send(codec.encode(WatchEvent(version=position)))


def _event(change: Change) -> WatchEvent:
    row = change.row
    return WatchEvent(
        version=change.version,
        action=change.action,
        node=row if isinstance(row, Node) else None,
        service=row if isinstance(row, Service) else None,
        task=row if isinstance(row, Task) else None,
        stack=row if isinstance(row, Stack) else None,
        network=row if isinstance(row, Network) else None,
        config=without_data(row) if isinstance(row, Config) else None,
        secret=shown(row) if isinstance(row, Secret) else None,
    )
