"""Keeping the node's disk from filling up with images that no task uses any more.

What Skep has pulled is noted in the agent's folder before the pull's task goes on; a pull that was
never noted leaves an image that nobody removes, which is the better side to err on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass

import aiodocker
import msgspec

from skep.env import Env, Rejected, Retryable
from skep.worker.engine.docker.adapters.request import Request, ask, read
from skep.worker.engine.docker.core.cleanup import (
    CleanupPolicy,
    LocalContainer,
    LocalImage,
    PulledImage,
    Removal,
    is_full,
    orphans,
    plan,
    read_record,
    with_pulled,
    with_used,
    without,
    write_record,
)
from skep.worker.engine.docker.core.image import ImageFacts
from skep.worker.engine.docker.core.records import TASK_LABEL

log = logging.getLogger(__name__)

RECORD_FILE = "images.json"
FIRST_ROUND_S = 60.0
ROUND_PERIOD_S = 600.0
# A full disk stays full for a while where nothing can be removed; looking costs two listings.
HURRIED_PERIOD_S = 10.0
_NOT_FOUND = 404


@dataclass(frozen=True)
class OwnLabel:
    """Whose containers count as this node's: a label and its value. `tasks` are those that are
    known, or None where that can't be said yet."""

    label: str
    node_id: str
    tasks: Callable[[], Collection[str] | None]


def disk_usage(path: str) -> tuple[int, int]:
    """Used and total bytes of the disk that `path` is on. Raises OSError."""
    usage = shutil.disk_usage(path)
    return usage.used, usage.total


class Cleaner:
    """See the module. Must be started once, on the loop; made before, it only keeps its record."""

    def __init__(
        self,
        docker: aiodocker.Docker,
        env: Env,
        owner: OwnLabel,
        policy: CleanupPolicy,
        usage: Callable[[str], tuple[int, int]] = disk_usage,
    ) -> None:
        self._docker = docker
        self._env = env
        self._owner = owner
        self._policy = policy
        self._usage = usage
        self._record = read_record(env.disk.read(RECORD_FILE))
        # Held while an image is removed, and while one is taken for a task: never both at once.
        self._taking = asyncio.Lock()
        self._removed: set[str] = set()
        self._hurry = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Clean up from time to time."""
        self._work = self._env.spawn("docker/cleanup", self._run())

    async def close(self) -> None:
        """Stop it."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))

    # --------------------------------------------------- what `Images` tells of what it does

    async def local_ids(self) -> set[str]:
        """The images that there are now. Raises Retryable."""
        return {image.id for image in await self._images()}

    async def note_pulled(self, facts: ImageFacts) -> None:
        """This image wasn't there, and came by a pull of ours. Durable when it returns, unless the
        disk is in trouble."""
        pulled = PulledImage(
            id=facts.id,
            names=(facts.reference,),
            used_ns=self._env.wall(),
            size_bytes=facts.size_bytes,
        )
        async with self._taking:
            self._removed.discard(facts.id)
            self._record = with_pulled(self._record, pulled)
        await self._save()

    async def take(self, image_id: str) -> bool:
        """A task is about to use this image, which it has seen. False: it has just been removed."""
        async with self._taking:
            self._record = with_used(self._record, {image_id}, self._env.wall())
            return image_id not in self._removed

    def disk_is_full(self) -> None:
        """A pull has found no space: don't wait for the next round."""
        self._hurry.set()

    # ------------------------------------------------------------------------------- rounds

    async def _run(self) -> None:
        await self._rest(FIRST_ROUND_S)
        while True:
            is_hurried = self._hurry.is_set()
            self._hurry.clear()
            try:
                await self.clean(is_hurried=is_hurried)
            except (Retryable, Rejected, aiodocker.DockerError, OSError) as error:
                log.warning("cleanup=failed why=%s", error)

            if is_hurried:
                await self._env.clock.sleep(HURRIED_PERIOD_S)
            await self._rest(ROUND_PERIOD_S)

    async def _rest(self, delay_s: float) -> None:
        """Wait for so long, or until somebody is in a hurry."""
        with contextlib.suppress(TimeoutError):
            await self._env.clock.within(delay_s, self._hurry.wait())

    async def clean(self, *, is_hurried: bool = False) -> None:
        """One round; one that `is_hurried` makes room also where the disk looks well. Raises
        Retryable, aiodocker.DockerError or OSError where the engine or the
        disk don't do it."""
        containers = await self._containers()
        async with self._taking:
            images = await self._images()
            now_ns = self._env.wall()
            plan_ = plan(self._record, self._policy, now_ns, images, containers)
            self._record = plan_.record
        for removal in plan_.removals:
            await self._remove(removal, now_ns)
        if plan_.spare and (is_hurried or await self._is_full()):
            for removal in plan_.spare:
                await self._remove(removal, now_ns)
                if not await self._is_full():
                    break
        await self._save()
        await self._remove_orphans(containers, now_ns)

    async def _remove_orphans(self, containers: list[LocalContainer], now_ns: int) -> None:
        owner, tasks = self._owner, self._owner.tasks()
        if tasks is None:
            return
        own = (owner.label, owner.node_id)
        for container in orphans(containers, own, tasks, TASK_LABEL, now_ns):
            try:
                await self._delete(f"containers/{container}", (("v", "1"),))
            except aiodocker.DockerError as error:
                log.warning("container=%s removed=no why=%s", container, error.message)
                continue
            log.info("container=%s removed=yes why=it belongs to no task", container)

    async def _remove(self, removal: Removal, planned_ns: int) -> None:
        image = removal.image
        async with self._taking:
            now = next((each for each in self._record.images if each.id == image.id), None)
            if now is None or now.used_ns >= planned_ns:
                return  # A task has come for it meanwhile.
            try:
                for name in removal.names or (image.id,):
                    await self._delete(f"images/{name}")
            except aiodocker.DockerError as error:
                # Somebody's new container, or a child of the image, is in the way.
                log.info("image=%s removed=no why=%s", image.names[0], error.message)
                return
            self._removed.add(image.id)
            self._record = without(self._record, {image.id})
        log.info(
            "image=%s removed=yes size=%d why=%s", image.names[0], image.size_bytes, removal.why
        )

    async def _delete(self, path: str, params: tuple[tuple[str, str], ...] = ()) -> None:
        """Remove something; what is gone already is fine."""
        try:
            request = Request(path, "DELETE", params=params, silence_s=None)
            async with ask(self._docker, request) as response:
                await response.read()
        except aiodocker.DockerError as error:
            if error.status != _NOT_FOUND:
                raise

    async def _is_full(self) -> bool:
        if not self._policy.disk_percent:
            return False
        root = msgspec.json.decode(await read(self._docker, "info"), type=_Info).docker_root_dir
        try:
            used, total = await asyncio.to_thread(self._usage, root)
        except OSError:
            return False  # The engine's disk is not this machine's.
        return is_full(used, total, self._policy)

    async def _images(self) -> list[LocalImage]:
        return msgspec.json.decode(await read(self._docker, "images/json"), type=list[LocalImage])

    async def _containers(self) -> list[LocalContainer]:
        answer = await read(self._docker, "containers/json", (("all", "1"),))
        return msgspec.json.decode(answer, type=list[LocalContainer])

    async def _save(self) -> None:
        try:
            await self._env.disk.replace(RECORD_FILE, write_record(self._record))
        except OSError as error:
            log.warning("file=%s saved=no why=%s", RECORD_FILE, error)


class _Info(msgspec.Struct, frozen=True):
    docker_root_dir: str = msgspec.field(name="DockerRootDir", default="/")
