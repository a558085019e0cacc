from skep.api import control_pb2 as _control_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TerminalSize(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class ExecSpec(_message.Message):
    __slots__ = ("argv", "is_tty", "has_input", "user", "working_dir", "env", "size")
    class EnvEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ARGV_FIELD_NUMBER: _ClassVar[int]
    IS_TTY_FIELD_NUMBER: _ClassVar[int]
    HAS_INPUT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    WORKING_DIR_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    argv: _containers.RepeatedScalarFieldContainer[str]
    is_tty: bool
    has_input: bool
    user: str
    working_dir: str
    env: _containers.ScalarMap[str, str]
    size: TerminalSize
    def __init__(self, argv: _Optional[_Iterable[str]] = ..., is_tty: _Optional[bool] = ..., has_input: _Optional[bool] = ..., user: _Optional[str] = ..., working_dir: _Optional[str] = ..., env: _Optional[_Mapping[str, str]] = ..., size: _Optional[_Union[TerminalSize, _Mapping]] = ...) -> None: ...

class ExecRequest(_message.Message):
    __slots__ = ("task", "spec")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    task: str
    spec: ExecSpec
    def __init__(self, task: _Optional[str] = ..., spec: _Optional[_Union[ExecSpec, _Mapping]] = ...) -> None: ...

class ExecInput(_message.Message):
    __slots__ = ("data", "is_end", "size")
    DATA_FIELD_NUMBER: _ClassVar[int]
    IS_END_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    is_end: bool
    size: TerminalSize
    def __init__(self, data: _Optional[bytes] = ..., is_end: _Optional[bool] = ..., size: _Optional[_Union[TerminalSize, _Mapping]] = ...) -> None: ...

class ExecMessage(_message.Message):
    __slots__ = ("request", "input")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    request: ExecRequest
    input: ExecInput
    def __init__(self, request: _Optional[_Union[ExecRequest, _Mapping]] = ..., input: _Optional[_Union[ExecInput, _Mapping]] = ...) -> None: ...

class ExecOutput(_message.Message):
    __slots__ = ("stream", "data", "exit_code", "problem")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    stream: _control_pb2.LogStream
    data: bytes
    exit_code: int
    problem: str
    def __init__(self, stream: _Optional[_Union[_control_pb2.LogStream, str]] = ..., data: _Optional[bytes] = ..., exit_code: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...

class ExecOrder(_message.Message):
    __slots__ = ("order_id", "task_id", "spec")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    task_id: str
    spec: ExecSpec
    def __init__(self, order_id: _Optional[str] = ..., task_id: _Optional[str] = ..., spec: _Optional[_Union[ExecSpec, _Mapping]] = ...) -> None: ...

class ExecHello(_message.Message):
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

class ExecAnswer(_message.Message):
    __slots__ = ("hello", "output")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    hello: ExecHello
    output: ExecOutput
    def __init__(self, hello: _Optional[_Union[ExecHello, _Mapping]] = ..., output: _Optional[_Union[ExecOutput, _Mapping]] = ...) -> None: ...
