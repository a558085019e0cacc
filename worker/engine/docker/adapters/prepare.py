"""Making a task's container: its image, its files, and the container itself, not yet started."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from skep.domain.attach import AttachResponse
from skep.domain.base import replace
from skep.domain.imagename import parse_image
from skep.domain.session import Assignment
from skep.domain.spec import RunSpec
from skep.domain.storage import FileUse
from skep.domain.templates import expand_run
from skep.domain.validate_storage import file_target
from skep.env import Rejected, Retryable
from skep.worker.engine.core.facts import values_of
from skep.worker.engine.docker.adapters.api import Api
from skep.worker.engine.docker.adapters.files import Files, NodeFile
from skep.worker.engine.docker.adapters.images import Images
from skep.worker.engine.docker.core.create import Creation, Owner, create_body, record_of
from skep.worker.engine.docker.core.errors import CONFLICT, ApiError, refusal
from skep.worker.engine.docker.core.mounts import owner_of
from skep.worker.engine.docker.core.records import NODE_LABEL, ContainerRecord
from skep.worker.engine.network import KERNEL, TaskNetwork
from skep.worker.engine.protocol import NodeFacts, Report
from skep.worker.supplies import Supplies

log = logging.getLogger(__name__)

InThread = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Preparer:
    """See the module."""

    api: Api
    images: Images
    files: Files
    owner: Owner
    network: TaskNetwork
    supplies: Supplies
    in_thread: InThread

    async def join(self, assignment: Assignment) -> AttachResponse:
        """Connect a task to Skep's networks, unless it has another one of its own. Raises
        Retryable, and Rejected where no container can be on them."""
        task, run = assignment.task, assignment.spec.task.run
        if run.container.network_mode:
            return AttachResponse()
        joined = await self.network.attach(assignment)
        if task.attachments and self.network.plane != KERNEL:
            raise Rejected(
                "containers can be on Skep's networks only where the node's data plane is the "
                f"kernel's, and this one's is {self.network.plane}; with `network_mode: host` they "
                "need no network of their own"
            )
        return joined

    async def make(
        self, assignment: Assignment, node: NodeFacts, joined: AttachResponse, report: Report
    ) -> ContainerRecord:
        """Have the container, and its record on the disk. Raises Rejected and Retryable."""
        run = expand_run(assignment.spec.task.run, values_of(assignment, node, joined))
        given = self._given(run)
        image = await self.images.ensure(
            run.image,
            run.image_digest,
            run.container.pull_policy,
            self.supplies.login(parse_image(run.image).server),
            report,
        )
        mounts = await self.in_thread(self.files.write_files, assignment.task.id, given)
        creation = Creation(assignment, run, image, joined, self.owner, mounts)
        record = record_of(creation)
        body = create_body(creation, record)
        # Whoever finds it after our death knows what to look for.
        await self.in_thread(self.files.write, record)
        try:
            container_id = await self._create(record.name, body)
        except ApiError as error:
            raise refusal(error, "its container can't be created") from error
        record = replace(record, container_id=container_id)
        await self.in_thread(self.files.link, container_id, record.namespace)
        await self.in_thread(self.files.write, record)
        return record

    def _given(self, run: RunSpec) -> list[NodeFile]:
        """What the container is given as files. Raises Retryable for what isn't here yet."""
        uses = [(use, False) for use in run.configs] + [(use, True) for use in run.secrets]
        return [self._file(use, is_secret=is_secret) for use, is_secret in uses]

    def _file(self, use: FileUse, *, is_secret: bool) -> NodeFile:
        found = self.supplies.file(use.id)
        if found is None:
            what = "secret" if is_secret else "config"
            raise Retryable(f"{what} {use.name} has not arrived yet")
        uid, gid = owner_of(use)
        target = file_target(use, is_secret=is_secret)
        return NodeFile(
            data=found.data, target=target, uid=uid, gid=gid, mode=use.mode, is_secret=is_secret
        )

    async def _create(self, name: str, body: dict[str, Any]) -> str:
        try:
            return await self.api.create(name, body)
        except ApiError as error:
            if error.status != CONFLICT or "already in use" not in error.message:
                raise
        # An attempt that nobody knows the end of has made it already, perhaps of an older spec.
        found = await self.api.inspect(name)
        if found is not None:
            labels = found["Config"].get("Labels") or {}
            if labels.get(NODE_LABEL) != self.owner.node_id:
                raise Rejected(f"there is a container {name} on this node that isn't Skep's")
            log.info("container=%s why=made by an earlier attempt: replaced", name)
            await self.api.remove(found["Id"])
            await self.in_thread(self.files.unlink, found["Id"])
        return await self.api.create(name, body)
