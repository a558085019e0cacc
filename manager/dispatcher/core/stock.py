"""Where what workers are told comes from: the committed state."""

from __future__ import annotations

from dataclasses import dataclass

from skep.domain.base import replace
from skep.domain.objects import (
    Config,
    Registry,
    Revision,
    Secret,
    Service,
    Stack,
    Task,
    revision_id,
)
from skep.domain.session import Assignment, FileKind, GivenFile, GivenLogin
from skep.manager.store.core.tables import View


@dataclass(frozen=True)
class Stock:
    """See `skep.manager.dispatcher.core.assignments.Source`."""

    view: View

    def assignment(self, task: Task) -> Assignment | None:
        """A task with the spec of its revision; None when that is gone."""
        revision = self.view.get(Revision, revision_id(task.service_id, task.revision))
        if revision is None:
            return None
        service = self.view.get(Service, task.service_id)
        stack_id = service.stack_id if service is not None else None
        stack = self.view.get(Stack, stack_id) if stack_id is not None else None
        # What the allocator has not filled in yet is at least what was asked for.
        ports = service.ports if service is not None else None
        return Assignment(
            task=task,
            spec=replace(revision.spec, ports=revision.spec.ports if ports is None else ports),
            stack=stack.name if stack is not None else "",
        )

    def file(self, kind: FileKind, id_: str) -> GivenFile | None:
        """A config or a secret."""
        is_config = kind is FileKind.CONFIG
        row = self.view.get(Config, id_) if is_config else self.view.get(Secret, id_)
        if row is None:
            return None
        return GivenFile(id=row.id, name=row.name, kind=kind, data=row.spec.data)

    def login(self, server: str) -> GivenLogin | None:
        """How nodes log in to a registry."""
        row = self.view.named(Registry, server)
        if row is None:
            return None
        return GivenLogin(server=row.name, username=row.username, password=row.password)
