from skep.api import execution_pb2 as _execution_pb2
from skep.api import objects_pb2 as _objects_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AssignmentKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASSIGNMENT_KIND_UNSPECIFIED: _ClassVar[AssignmentKind]
    ASSIGNMENT_KIND_COMPLETE: _ClassVar[AssignmentKind]
    ASSIGNMENT_KIND_INCREMENT: _ClassVar[AssignmentKind]

class FileKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILE_KIND_UNSPECIFIED: _ClassVar[FileKind]
    FILE_KIND_CONFIG: _ClassVar[FileKind]
    FILE_KIND_SECRET: _ClassVar[FileKind]
ASSIGNMENT_KIND_UNSPECIFIED: AssignmentKind
ASSIGNMENT_KIND_COMPLETE: AssignmentKind
ASSIGNMENT_KIND_INCREMENT: AssignmentKind
FILE_KIND_UNSPECIFIED: FileKind
FILE_KIND_CONFIG: FileKind
FILE_KIND_SECRET: FileKind

class WorkerHello(_message.Message):
    __slots__ = ("format", "cluster_id", "node_id", "name", "role", "description", "highest_term")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_TERM_FIELD_NUMBER: _ClassVar[int]
    format: int
    cluster_id: str
    node_id: str
    name: str
    role: _objects_pb2.NodeRole
    description: _objects_pb2.NodeDescription
    highest_term: int
    def __init__(self, format: _Optional[int] = ..., cluster_id: _Optional[str] = ..., node_id: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[_Union[_objects_pb2.NodeRole, str]] = ..., description: _Optional[_Union[_objects_pb2.NodeDescription, _Mapping]] = ..., highest_term: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class TaskReport(_message.Message):
    __slots__ = ("task_id", "status")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    status: _objects_pb2.TaskStatus
    def __init__(self, task_id: _Optional[str] = ..., status: _Optional[_Union[_objects_pb2.TaskStatus, _Mapping]] = ...) -> None: ...

class StatusBatch(_message.Message):
    __slots__ = ("number", "reports")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    number: int
    reports: _containers.RepeatedCompositeFieldContainer[TaskReport]
    def __init__(self, number: _Optional[int] = ..., reports: _Optional[_Iterable[_Union[TaskReport, _Mapping]]] = ...) -> None: ...

class ImageAnswer(_message.Message):
    __slots__ = ("question_id", "digest", "error")
    QUESTION_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    question_id: str
    digest: str
    error: str
    def __init__(self, question_id: _Optional[str] = ..., digest: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class WorkerMessage(_message.Message):
    __slots__ = ("hello", "heartbeat", "statuses", "image")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    hello: WorkerHello
    heartbeat: Heartbeat
    statuses: StatusBatch
    image: ImageAnswer
    def __init__(self, hello: _Optional[_Union[WorkerHello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., statuses: _Optional[_Union[StatusBatch, _Mapping]] = ..., image: _Optional[_Union[ImageAnswer, _Mapping]] = ...) -> None: ...

class SessionWelcome(_message.Message):
    __slots__ = ("format", "session_id", "term", "heartbeat_period_ns")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_PERIOD_NS_FIELD_NUMBER: _ClassVar[int]
    format: int
    session_id: str
    term: int
    heartbeat_period_ns: int
    def __init__(self, format: _Optional[int] = ..., session_id: _Optional[str] = ..., term: _Optional[int] = ..., heartbeat_period_ns: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("task", "spec", "stack")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    task: _objects_pb2.Task
    spec: _objects_pb2.ServiceSpec
    stack: str
    def __init__(self, task: _Optional[_Union[_objects_pb2.Task, _Mapping]] = ..., spec: _Optional[_Union[_objects_pb2.ServiceSpec, _Mapping]] = ..., stack: _Optional[str] = ...) -> None: ...

class GivenFile(_message.Message):
    __slots__ = ("id", "name", "kind", "data")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    kind: FileKind
    data: bytes
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., kind: _Optional[_Union[FileKind, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class GivenLogin(_message.Message):
    __slots__ = ("server", "username", "password")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    server: str
    username: str
    password: str
    def __init__(self, server: _Optional[str] = ..., username: _Optional[str] = ..., password: _Optional[str] = ...) -> None: ...

class ImageQuestion(_message.Message):
    __slots__ = ("question_id", "image", "login")
    QUESTION_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    question_id: str
    image: str
    login: GivenLogin
    def __init__(self, question_id: _Optional[str] = ..., image: _Optional[str] = ..., login: _Optional[_Union[GivenLogin, _Mapping]] = ...) -> None: ...

class AssignmentSet(_message.Message):
    __slots__ = ("kind", "sequence", "assignments", "removed", "is_partial", "files", "files_removed", "logins", "has_logins")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    IS_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    FILES_REMOVED_FIELD_NUMBER: _ClassVar[int]
    LOGINS_FIELD_NUMBER: _ClassVar[int]
    HAS_LOGINS_FIELD_NUMBER: _ClassVar[int]
    kind: AssignmentKind
    sequence: int
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    removed: _containers.RepeatedScalarFieldContainer[str]
    is_partial: bool
    files: _containers.RepeatedCompositeFieldContainer[GivenFile]
    files_removed: _containers.RepeatedScalarFieldContainer[str]
    logins: _containers.RepeatedCompositeFieldContainer[GivenLogin]
    has_logins: bool
    def __init__(self, kind: _Optional[_Union[AssignmentKind, str]] = ..., sequence: _Optional[int] = ..., assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ..., is_partial: _Optional[bool] = ..., files: _Optional[_Iterable[_Union[GivenFile, _Mapping]]] = ..., files_removed: _Optional[_Iterable[str]] = ..., logins: _Optional[_Iterable[_Union[GivenLogin, _Mapping]]] = ..., has_logins: _Optional[bool] = ...) -> None: ...

class StatusesStored(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Drained(_message.Message):
    __slots__ = ("task_ids",)
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class LogWanted(_message.Message):
    __slots__ = ("task_id", "position")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    position: str
    def __init__(self, task_id: _Optional[str] = ..., position: _Optional[str] = ...) -> None: ...

class LogOrder(_message.Message):
    __slots__ = ("order_id", "tasks", "tail", "since_ns", "is_follow")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    IS_FOLLOW_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    tasks: _containers.RepeatedCompositeFieldContainer[LogWanted]
    tail: int
    since_ns: int
    is_follow: bool
    def __init__(self, order_id: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[LogWanted, _Mapping]]] = ..., tail: _Optional[int] = ..., since_ns: _Optional[int] = ..., is_follow: _Optional[bool] = ...) -> None: ...

class LogsCancelled(_message.Message):
    __slots__ = ("order_id",)
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    def __init__(self, order_id: _Optional[str] = ...) -> None: ...

class LeaderMessage(_message.Message):
    __slots__ = ("welcome", "heartbeat", "assignments", "stored", "drained", "logs", "logs_cancelled", "image", "exec")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    LOGS_CANCELLED_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    EXEC_FIELD_NUMBER: _ClassVar[int]
    welcome: SessionWelcome
    heartbeat: Heartbeat
    assignments: AssignmentSet
    stored: StatusesStored
    drained: Drained
    logs: LogOrder
    logs_cancelled: LogsCancelled
    image: ImageQuestion
    exec: _execution_pb2.ExecOrder
    def __init__(self, welcome: _Optional[_Union[SessionWelcome, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., assignments: _Optional[_Union[AssignmentSet, _Mapping]] = ..., stored: _Optional[_Union[StatusesStored, _Mapping]] = ..., drained: _Optional[_Union[Drained, _Mapping]] = ..., logs: _Optional[_Union[LogOrder, _Mapping]] = ..., logs_cancelled: _Optional[_Union[LogsCancelled, _Mapping]] = ..., image: _Optional[_Union[ImageQuestion, _Mapping]] = ..., exec: _Optional[_Union[_execution_pb2.ExecOrder, _Mapping]] = ...) -> None: ...

class LogHello(_message.Message):
    __slots__ = ("format", "cluster_id", "node_id", "order_id")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    format: int
    cluster_id: str
    node_id: str
    order_id: str
    def __init__(self, format: _Optional[int] = ..., cluster_id: _Optional[str] = ..., node_id: _Optional[str] = ..., order_id: _Optional[str] = ...) -> None: ...

class LogPage(_message.Message):
    __slots__ = ("task_id", "first_ns", "position", "lines", "problem", "is_last")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_NS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    first_ns: int
    position: str
    lines: bytes
    problem: str
    is_last: bool
    def __init__(self, task_id: _Optional[str] = ..., first_ns: _Optional[int] = ..., position: _Optional[str] = ..., lines: _Optional[bytes] = ..., problem: _Optional[str] = ..., is_last: _Optional[bool] = ...) -> None: ...

class LogMessage(_message.Message):
    __slots__ = ("hello", "page")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    hello: LogHello
    page: LogPage
    def __init__(self, hello: _Optional[_Union[LogHello, _Mapping]] = ..., page: _Optional[_Union[LogPage, _Mapping]] = ...) -> None: ...

class LogAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
