"""What the agent asks of an engine.

Every call names a task by its id and is idempotent: an agent that died half-way asks again. An
engine remembers on disk what it needs to answer for tasks that it started in an earlier life.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

from skep.domain.base import Struct, TaskId
from skep.domain.control import LogLine
from skep.domain.execution import ExecOutput, ExecSpec, TerminalSize
from skep.domain.session import Assignment, GivenLogin
from skep.domain.spec import HealthCheck

Report = Callable[[str], None]
"""Says in words for a person how far a call is. Never waits; the newest words count."""


def unheard(_words: str) -> None:
    """A `Report` that nobody hears."""


class NodeFacts(Struct, frozen=True, kw_only=True):
    """What templates may name of the node a task runs on."""

    node_id: str
    hostname: str
    address: str = ""
    os: str = "linux"
    arch: str = ""


class Started(Struct, frozen=True, kw_only=True):
    """A task's process is running. `health` is how it is to be tested, where the engine knows more
    of that than the spec: an image may bring its own test."""

    pid: int
    started_ns: int
    health: HealthCheck | None = None


class Exit(Struct, frozen=True, kw_only=True):
    """How a task ended. `exit_code` is 128 + signal for a signal; `reason` is for a person."""

    exit_code: int
    ended_ns: int
    reason: str = ""


class HeldState(enum.Enum):
    """What an engine has of a task."""

    PREPARED = "prepared"
    RUNNING = "running"
    ENDED = "ended"


class Held(Struct, frozen=True, kw_only=True):
    """One task that an engine holds, for adoption after an agent's death."""

    task_id: TaskId
    state: HeldState
    started: Started | None = None
    exit: Exit | None = None


class LogQuery(Struct, frozen=True, kw_only=True):
    """What to read of a task's output: the newest `tail` lines, of those the ones from wall time
    `since_ns` on; or all after `position`, where an earlier reader of this task stood."""

    tail: int | None = None
    since_ns: int | None = None
    position: str = ""
    is_follow: bool = False


class LogChunk(Struct, frozen=True, kw_only=True):
    """Some lines, and the position after them. `lost_bytes` of the output before them were dropped
    before they could be read; `is_end` says that there is no more, and won't be."""

    lines: tuple[LogLine, ...] = ()
    position: str = ""
    lost_bytes: int = 0
    is_end: bool = False


class LogReader(Protocol):
    """One task's output, being read. Lines come in the order of their times, as far as known."""

    @property
    def position(self) -> str:
        """After the last line that was read, or where the first one will be."""
        ...

    async def read(self) -> LogChunk:
        """The next lines, some dozen kilobytes of them; none when there are no more as yet."""
        ...

    async def more(self) -> None:
        """Returns when there may be more than was read last. Safe to cancel and call again."""
        ...

    def close(self) -> None:
        """Let go of it; idempotent."""
        ...


class ImageResolver(Protocol):
    """What an engine that runs images has besides: it can ask registries about them."""

    async def resolve(self, image: str, login: GivenLogin | None) -> str:
        """The digest, "sha256:...", that an image's name stands for by its registry. Answers
        within a few seconds. Raises Rejected or Retryable with why it can't be told."""
        ...


class Execution(Protocol):
    """A program that runs inside a task, beside its own."""

    async def send(self, data: bytes) -> None:
        """More input; waits while the program is slow to read. Of no effect once it has ended."""
        ...

    async def end_input(self) -> None:
        """There is no more input."""
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Its terminal has this size now; of no effect without a terminal."""
        ...

    async def receive(self) -> ExecOutput:
        """Some of its output; the last one, after all others, has its exit code."""
        ...

    async def close(self) -> None:
        """Let go of it; one that still runs is killed. Idempotent."""
        ...


class Engine(Protocol):
    """Runs tasks. Raises Rejected for what can never work here, Retryable for what may later."""

    @property
    def name(self) -> str:
        """What specs call it: "process", "docker"."""
        ...

    async def prepare(
        self, assignment: Assignment, node: NodeFacts, report: Report = unheard
    ) -> None:
        """Make everything ready to start: folders, resolved templates, checks. `report` is told
        what takes long."""
        ...

    async def start(self, task_id: TaskId) -> Started:
        """Start a prepared task; a task that is already running is left as it is."""
        ...

    async def wait(self, task_id: TaskId) -> Exit:
        """How the task ended, once it has. Safe to cancel and to call again."""
        ...

    async def stop(self, task_id: TaskId) -> None:
        """Ask it to end by its stop signal; kill all of it when its grace is over. Returns once
        no process of it is left, and nothing of it on any network; `wait` then answers. Unknown,
        unstarted or ended tasks are fine."""
        ...

    async def remove(self, task_id: TaskId) -> None:
        """Forget an ended (or never started) task and all its leftovers."""
        ...

    async def probe(self, task_id: TaskId, health: HealthCheck) -> str | None:
        """Run the health test once, within its timeout: None for healthy, else what it said."""
        ...

    async def held(self) -> Sequence[Held]:
        """Everything this engine has, for adoption."""
        ...

    async def logs(self, task_id: TaskId, query: LogQuery) -> LogReader:
        """A reader of what a task has written, and goes on to write. Lines of more than 64 KiB
        come in pieces; a last line without an end comes when nothing can follow it any more.
        Raises Rejected for a task that this engine has nothing of."""
        ...

    async def exec(self, task_id: TaskId, spec: ExecSpec) -> Execution:
        """Run a program inside a running task. Raises Rejected for a task that doesn't run here,
        and for a program that can't be started."""
        ...

    async def close(self) -> None:
        """Let go of everything; running tasks go on."""
        ...
