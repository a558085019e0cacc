"""What one worker must hold, and the difference to what it was told last.

A worker holds every task that was placed on it, until the task's row is deleted. One that has ended
is among them: it isn't started again, but what is left of it (its output) stays with its worker for
as long as people can ask for it. Configs, secrets and logins are for tasks that are wanted and have
not ended: nobody else needs them, and a node without such a task is never told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from skep.domain.base import ServiceId, TaskId, encode
from skep.domain.imagename import registry_of
from skep.domain.objects import Task
from skep.domain.session import (
    Assignment,
    AssignmentKind,
    AssignmentSet,
    FileKind,
    GivenFile,
    GivenLogin,
)
from skep.domain.spec import PROCESS, TaskSpec
from skep.domain.states import DesiredState

# Small enough that a frame never holds up the heartbeats behind it: so many assignments or bytes
# at most, but for what is in one piece, of which the largest is a config of 1,000 KB.
FRAME_ASSIGNMENTS = 50
FRAME_BYTES = 1024 * 1024
# What a task's own row, or a file's names, may take up; texts in them are bounded.
ROW_BYTES = 2 * 1024

# Processes are the node's own; every other engine fetches images.


class Source(Protocol):
    """Where what workers are told comes from. None: there is no such thing (any more)."""

    def assignment(self, task: Task) -> Assignment | None:
        """A task with the spec of its revision."""
        ...

    def file(self, kind: FileKind, id_: str) -> GivenFile | None:
        """A config or a secret."""
        ...

    def login(self, server: str) -> GivenLogin | None:
        """How nodes log in to a registry."""
        ...


@dataclass(frozen=True)
class Needs:
    """What a task uses besides its spec: files by id, and the registry of its image, or ""."""

    files: tuple[tuple[str, FileKind], ...] = ()
    server: str = ""


def needs_of(spec: TaskSpec) -> Needs:
    """What tasks of this spec use."""
    configs = [(use.id, FileKind.CONFIG) for use in spec.run.configs]
    secrets = [(use.id, FileKind.SECRET) for use in spec.run.secrets]
    is_fetched = bool(spec.run.image) and spec.engine != PROCESS
    return Needs((*configs, *secrets), registry_of(spec.run.image) if is_fetched else "")


@dataclass(frozen=True)
class _News:
    """What there is to say of files and logins; `logins` None: what was said is right."""

    files: tuple[GivenFile, ...]
    removed: tuple[str, ...]
    logins: tuple[GivenLogin, ...] | None

    def __bool__(self) -> bool:
        return bool(self.files or self.removed) or self.logins is not None


@dataclass
class WorkerSet:
    """What one session was told: tasks by their desired state, since nothing else of them changes;
    files by their ids, since they never change; and logins."""

    sequence: int = 0
    told: dict[TaskId, DesiredState] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    logins: tuple[GivenLogin, ...] = ()
    _needs: dict[TaskId, Needs] = field(default_factory=dict)

    def complete(self, tasks: Iterable[Task], source: Source) -> list[AssignmentSet]:
        """The first set of a session, in frames."""
        now = {task.id: task for task in tasks}
        self.told = {task.id: task.desired_state for task in now.values()}
        wrapped = self._wrapped(now.values(), source)
        news = self._news(now, source)
        return self._frames(AssignmentKind.COMPLETE, wrapped, (), news)

    def increment(self, tasks: Iterable[Task], source: Source) -> list[AssignmentSet]:
        """What has changed since, in frames; nothing if nothing has."""
        now = {task.id: task for task in tasks}
        changed = [
            task for task in now.values() if self.told.get(task.id) is not task.desired_state
        ]
        removed = [task_id for task_id in self.told if task_id not in now]
        for task in changed:
            self.told[task.id] = task.desired_state
        for task_id in removed:
            del self.told[task_id]
            self._needs.pop(task_id, None)
        wrapped = self._wrapped(changed, source)
        news = self._news(now, source)
        if not changed and not removed and not news:
            return []
        return self._frames(AssignmentKind.INCREMENT, wrapped, removed, news)

    def _wrapped(self, tasks: Iterable[Task], source: Source) -> list[Assignment]:
        """Tasks with their specs, and what they need noted: a task's spec never changes."""
        wrapped = [given for task in tasks if (given := source.assignment(task)) is not None]
        for given in wrapped:
            needs = needs_of(given.spec.task)
            if needs != Needs():
                self._needs[given.task.id] = needs
        return wrapped

    def _news(self, now: Mapping[TaskId, Task], source: Source) -> _News:
        used: dict[str, FileKind] = {}
        servers: set[str] = set()
        for task_id, needs in self._needs.items():
            task = now[task_id]
            if task.is_wanted and not task.is_terminal:
                used.update(needs.files)
                servers.add(needs.server)
        lacking = [source.file(kind, id_) for id_, kind in used.items() if id_ not in self.files]
        files = tuple(file for file in lacking if file is not None)
        removed = tuple(sorted(self.files - used.keys()))
        self.files = (self.files & used.keys()) | {file.id for file in files}
        known = [source.login(server) for server in sorted(servers) if server]
        logins = tuple(login for login in known if login is not None)
        is_new = logins != self.logins
        self.logins = logins
        return _News(files, removed, logins if is_new else None)

    def _frames(
        self,
        kind: AssignmentKind,
        assignments: Sequence[Assignment],
        removed: Sequence[TaskId],
        news: _News,
    ) -> list[AssignmentSet]:
        """Files come before the assignments, so that whoever acts on frames one by one has them."""
        self.sequence += 1
        parts = _packed(news.files, assignments)
        return [
            AssignmentSet(
                kind=kind,
                sequence=self.sequence,
                assignments=tuple(part.assignments),
                removed=tuple(removed) if place == 0 else (),
                is_partial=place < len(parts) - 1,
                files=tuple(part.files),
                files_removed=news.removed if place == 0 else (),
                logins=(news.logins or ()) if place == 0 else (),
                has_logins=place == 0 and news.logins is not None,
            )
            for place, part in enumerate(parts)
        ]


@dataclass
class _Part:
    """What goes into one frame."""

    files: list[GivenFile] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)
    size: int = 0

    @property
    def is_full(self) -> bool:
        return self.size >= FRAME_BYTES or len(self.assignments) == FRAME_ASSIGNMENTS


def _packed(files: Iterable[GivenFile], assignments: Iterable[Assignment]) -> list[_Part]:
    """One frame's content after the other; there is always one."""
    parts = [_Part()]

    def last() -> _Part:
        if parts[-1].is_full:
            parts.append(_Part())
        return parts[-1]

    for file in files:
        part = last()
        part.files.append(file)
        part.size += len(file.data) + ROW_BYTES
    sizes: dict[tuple[ServiceId, int], int] = {}
    for given in assignments:
        kind = (given.task.service_id, given.task.revision)
        if kind not in sizes:
            sizes[kind] = len(encode(given.spec)) + ROW_BYTES
        part = last()
        part.assignments.append(given)
        part.size += sizes[kind]
    return parts
