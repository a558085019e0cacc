"""What a worker and the leader say to each other on their one stream.

Each message type holds exactly one of its optional parts. A stream's first message carries the
format's version and the cluster's id.
"""

from __future__ import annotations

import enum

from skep.domain.base import ClusterId, NodeId, SessionId, Struct, TaskId, shielded
from skep.domain.execution import ExecOrder
from skep.domain.objects import NodeDescription, NodeRole, Task, TaskStatus
from skep.domain.spec import ServiceSpec

SESSION_FORMAT = 1
LOGS_FORMAT = 1


class WorkerHello(Struct, frozen=True, kw_only=True):
    """The first message up. `highest_term` is the highest leader term this worker has obeyed."""

    format: int
    cluster_id: ClusterId
    node_id: NodeId
    name: str
    role: NodeRole
    description: NodeDescription
    highest_term: int = 0


class Heartbeat(Struct, frozen=True, kw_only=True):
    """A sign of life; answered with one."""

    number: int


class TaskReport(Struct, frozen=True, kw_only=True):
    """The newest status of one task."""

    task_id: TaskId
    status: TaskStatus


class StatusBatch(Struct, frozen=True, kw_only=True):
    """Statuses to store. `number` is acknowledged once they are committed."""

    number: int
    reports: tuple[TaskReport, ...]


class ImageQuestion(Struct, frozen=True, kw_only=True):
    """What does this image's name stand for, by its registry? Answered by the node's engine."""

    question_id: str
    image: str
    login: GivenLogin | None = None


class ImageAnswer(Struct, frozen=True, kw_only=True):
    """The image's digest, "sha256:..."; or why it can't be told."""

    question_id: str
    digest: str = ""
    error: str = ""


class WorkerMessage(Struct, frozen=True, kw_only=True):
    """One frame up: one of its parts."""

    hello: WorkerHello | None = None
    heartbeat: Heartbeat | None = None
    statuses: StatusBatch | None = None
    image: ImageAnswer | None = None


class SessionWelcome(Struct, frozen=True, kw_only=True):
    """The first message down. Everything after it is under this term and session."""

    format: int
    session_id: SessionId
    term: int
    heartbeat_period_ns: int


class AssignmentKind(enum.Enum):
    """Whether a set replaces what the worker holds or changes it."""

    COMPLETE = "complete"
    INCREMENT = "increment"


class Assignment(Struct, frozen=True, kw_only=True):
    """A task and the spec of its revision: all that its worker needs to run it."""

    task: Task
    spec: ServiceSpec
    stack: str = ""


class FileKind(enum.Enum):
    """What a file's content is to people: theirs to read, or nobody's."""

    CONFIG = "config"
    SECRET = "secret"


class GivenFile(Struct, frozen=True, kw_only=True):
    """A config or a secret that some task of the worker uses. It is kept in memory."""

    id: str
    name: str
    kind: FileKind
    data: bytes = b""

    def __repr__(self) -> str:
        """Everything but the data: objects get into logs and errors."""
        return shielded(self, "data")


class GivenLogin(Struct, frozen=True, kw_only=True):
    """How to log in to a registry that some task's image comes from. It is kept in memory."""

    server: str
    username: str
    password: str

    def __repr__(self) -> str:
        """Everything but the password: objects get into logs and errors."""
        return shielded(self, "password")


class AssignmentSet(Struct, frozen=True, kw_only=True):
    """What a worker must hold. Sets are numbered 1, 2, 3 ... within a session; a gap means that
    the worker must register anew. One set may come in several frames: all but the last say
    `is_partial`, and none is acted on before the last has come.

    `files` are new to the worker, `files_removed` (ids) are used by none of its tasks any more.
    Where `has_logins`, the `logins` are all that its tasks may need from now on.
    """

    kind: AssignmentKind
    sequence: int
    assignments: tuple[Assignment, ...] = ()
    removed: tuple[TaskId, ...] = ()
    is_partial: bool = False
    files: tuple[GivenFile, ...] = ()
    files_removed: tuple[str, ...] = ()
    logins: tuple[GivenLogin, ...] = ()
    has_logins: bool = False


class StatusesStored(Struct, frozen=True, kw_only=True):
    """Every status up to this batch is committed."""

    number: int


class Drained(Struct, frozen=True, kw_only=True):
    """No netproxy sends new connections to these tasks any more: they may be stopped."""

    task_ids: tuple[TaskId, ...]


class LogWanted(Struct, frozen=True, kw_only=True):
    """One task whose output is wanted: all of it that the order's `tail` and `since_ns` leave, or
    what comes after `position`, where an earlier page of this very task ended."""

    task_id: TaskId
    position: str = ""


class LogOrder(Struct, frozen=True, kw_only=True):
    """Somebody wants to read tasks' output: send it by a PublishLogs stream that names this order.

    `order_id` is random, and known to nobody but the worker that it was sent to. Orders end with
    the session, with `LogsCancelled`, and when the leader closes their stream.
    """

    order_id: str
    tasks: tuple[LogWanted, ...]
    tail: int | None = None
    since_ns: int | None = None
    is_follow: bool = False


class LogsCancelled(Struct, frozen=True, kw_only=True):
    """Nobody reads this order's output any more."""

    order_id: str


class LeaderMessage(Struct, frozen=True, kw_only=True):
    """One frame down: one of its parts."""

    welcome: SessionWelcome | None = None
    heartbeat: Heartbeat | None = None
    assignments: AssignmentSet | None = None
    stored: StatusesStored | None = None
    drained: Drained | None = None
    logs: LogOrder | None = None
    logs_cancelled: LogsCancelled | None = None
    image: ImageQuestion | None = None
    exec: ExecOrder | None = None


class LogHello(Struct, frozen=True, kw_only=True):
    """The first message of a PublishLogs stream: whose output follows, and for which order."""

    format: int
    cluster_id: ClusterId
    node_id: NodeId
    order_id: str


class LogPage(Struct, frozen=True, kw_only=True):
    """Some lines of one task. A stream that isn't followed has its pages in the order of
    `first_ns`, the time of each one's first line.

    `lines` is an encoded LogEvent that holds lines and nothing else, so that a leader can pass
    many of them on without looking at each. `position` is where the page ends; `problem` says what
    can't be had; nothing more of this task comes after `is_last`.
    """

    task_id: TaskId
    first_ns: int = 0
    position: str = ""
    lines: bytes = b""
    problem: str = ""
    is_last: bool = False


class LogMessage(Struct, frozen=True, kw_only=True):
    """One frame of a PublishLogs stream: one of its parts."""

    hello: LogHello | None = None
    page: LogPage | None = None


class LogAnswer(Struct, frozen=True, kw_only=True):
    """Never sent: the leader ends the stream when it has all, or when nobody reads any more."""
