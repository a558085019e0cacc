"""Running a program inside a task, beside what runs there: what passes between its user and it.

A client's stream goes to the leader, which orders the task's worker to open another one, and passes
input down and output up. The program lives as long as both streams do.
"""

from __future__ import annotations

from skep.domain.base import ClusterId, NodeId, Pairs, Struct, TaskId
from skep.domain.control import LogStream

EXEC_FORMAT = 1


class TerminalSize(Struct, frozen=True, kw_only=True):
    """How large a terminal is, in characters."""

    rows: int
    columns: int


class ExecSpec(Struct, frozen=True, kw_only=True):
    """What to run: as the task's user, in its folder and with its environment, unless said
    otherwise. `has_input`: what the client sends is its stdin, which is closed otherwise."""

    argv: tuple[str, ...]
    is_tty: bool = False
    has_input: bool = False
    user: str = ""
    working_dir: str = ""
    env: Pairs = ()
    size: TerminalSize | None = None


class ExecRequest(Struct, frozen=True, kw_only=True):
    """The first message of a client: in which task to run what. `task` is an id, the beginning of
    one, or a name such as "web.1"."""

    task: str
    spec: ExecSpec


class ExecInput(Struct, frozen=True, kw_only=True):
    """Some of the program's input, or its end; or the terminal has another size now."""

    data: bytes = b""
    is_end: bool = False
    size: TerminalSize | None = None


class ExecMessage(Struct, frozen=True, kw_only=True):
    """One frame of a client: one of its parts."""

    request: ExecRequest | None = None
    input: ExecInput | None = None


class ExecOutput(Struct, frozen=True, kw_only=True):
    """Some of what the program writes; a terminal's output is all on stdout. The last one has its
    exit code, or says in `problem` why it could not be run."""

    stream: LogStream = LogStream.STDOUT
    data: bytes = b""
    exit_code: int | None = None
    problem: str = ""


class ExecOrder(Struct, frozen=True, kw_only=True):
    """To a worker: open a RunExec stream that names this order, and run that.

    `order_id` is random, and known to nobody but the worker that it was sent to.
    """

    order_id: str
    task_id: TaskId
    spec: ExecSpec


class ExecHello(Struct, frozen=True, kw_only=True):
    """The first message of a RunExec stream: whose output follows, and for which order."""

    format: int
    cluster_id: ClusterId
    node_id: NodeId
    order_id: str


class ExecAnswer(Struct, frozen=True, kw_only=True):
    """One frame of a worker: one of its parts."""

    hello: ExecHello | None = None
    output: ExecOutput | None = None
