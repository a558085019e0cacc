"""A stand-in for the committed state that sets are made from."""

from __future__ import annotations

from dataclasses import dataclass, field

from skep.domain.base import ServiceId
from skep.domain.objects import Task
from skep.domain.session import Assignment, FileKind, GivenFile, GivenLogin
from skep.domain.spec import ServiceSpec
from tests.unit.manager.build import service_spec


@dataclass
class Desk:
    """Where sets come from: specs by service, files by id, passwords by registry."""

    specs: dict[ServiceId, ServiceSpec] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)

    def assignment(self, task: Task) -> Assignment | None:
        return Assignment(task=task, spec=self.specs.get(task.service_id, service_spec()))

    def file(self, kind: FileKind, id_: str) -> GivenFile | None:
        return given_file(kind, id_, self.files[id_]) if id_ in self.files else None

    def login(self, server: str) -> GivenLogin | None:
        word = self.passwords.get(server)
        return None if word is None else GivenLogin(server=server, username="u", password=word)


DESK = Desk()


def given_file(kind: FileKind, id_: str, data: bytes) -> GivenFile:
    return GivenFile(id=id_, name=f"name-{id_}", kind=kind, data=data)
