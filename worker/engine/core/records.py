"""What the process engine keeps of a task on disk, and how it reads what a shim wrote there.

A task's folder holds:

    task.msgpack  TaskRecord: everything that starting, stopping and probing need
    run.sh        the shim's script, made from the record
    lock          flocked by the shim for as long as it lives: two shims never run at once
    main          written by the task's own process before it becomes the command: its identity
    exit          how the task ended
    resolv.conf   the task's /etc/resolv.conf, where it has one of its own, and
    hosts         its /etc/hosts
    shim.log      what the shim itself had to say; empty unless something is wrong
    stdout stderr the task's output, and stdout.1, stdout.2 ... its older parts
    stdout.times  when the parts of it were written (worker/engine/core/timeline.py)
"""

from __future__ import annotations

from skep.domain.base import Pairs, Struct, TaskId
from skep.domain.signals import signal_name
from skep.domain.spec import LogPolicy, Resources
from skep.domain.templates import TemplateValues

RECORD_FORMAT = 1
FORMAT_MARK = "1"
"""The version of the `main` and `exit` files, their first word."""

RECORD_FILE = "task.msgpack"
SCRIPT_FILE = "run.sh"
LOCK_FILE = "lock"
MAIN_FILE = "main"
EXIT_FILE = "exit"
SHIM_LOG_FILE = "shim.log"
RESOLV_FILE = "resolv.conf"
HOSTS_FILE = "hosts"
STDOUT_FILE = "stdout"
STDERR_FILE = "stderr"

# A shell's: an error before the command, a command that can't be executed, one that isn't there.
EXIT_NOT_SET_UP = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128
EXIT_KILLED = EXIT_SIGNAL_BASE + 9


class UserIds(Struct, frozen=True, kw_only=True):
    """Whom a task runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class TaskRecord(Struct, frozen=True, kw_only=True):
    """A prepared task, with all its templates resolved. `user` None is the engine's own user;
    `cgroups` are the folders of its control groups, empty for a task without limits.

    `namespace` is the file of the network namespace that it runs in, "" for the node's own;
    `network_cgroup` is a control group, shared with others, by which its connections are told;
    with `has_own_names` it sees the two files of its folder in place of the node's.
    """

    format: int
    task_id: TaskId
    argv: tuple[str, ...]
    env: Pairs
    working_dir: str
    stop_signal: int
    stop_grace_ns: int
    log: LogPolicy
    limits: Resources
    values: TemplateValues
    user: UserIds | None = None
    cgroups: tuple[str, ...] = ()
    namespace: str = ""
    network_cgroup: str = ""
    has_own_names: bool = False


class Stat(Struct, frozen=True, kw_only=True):
    """The parts of /proc/PID/stat that tell processes apart. `start_ticks` counts from boot."""

    pid: int
    state: str
    parent: int
    session: int
    start_ticks: int

    @property
    def is_alive(self) -> bool:
        """Whether it can still run: a zombie can't."""
        return self.state not in "ZXx"


class MainProcess(Struct, frozen=True, kw_only=True):
    """A task's own process. Pid, start and boot together never name another one.

    Its shim needs no such record: the shim is its parent, so it is the process of that pid that
    started no later than the task did.
    """

    boot_id: str
    pid: int
    shim_pid: int
    start_ticks: int


class ExitRecord(Struct, frozen=True, kw_only=True):
    """The `exit` file. A shim can't tell the time without another process, so it leaves
    `ended_ns` out, and the file's own time counts."""

    exit_code: int
    ended_ns: int | None = None
    reason: str = ""


def parse_stat(line: str) -> Stat | None:
    """/proc/PID/stat (see proc(5)); None for what isn't one."""
    # The program's name stands in parentheses and may itself hold spaces and parentheses.
    head, _, tail = line.rpartition(")")
    fields = tail.split()
    pid = head.partition(" ")[0]
    if len(fields) < 20 or not pid.isdecimal():
        return None
    return Stat(
        pid=int(pid),
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
    )


def parse_main(text: str) -> MainProcess | None:
    """The `main` file: "1 PID", then the boot id and the rest of /proc/PID/stat. None for one
    that isn't complete."""
    first, _, second = text.partition("\n")
    mark, _, pid = first.partition(" ")
    boot_id, _, rest = second.partition(" ")
    if mark != FORMAT_MARK or not second.endswith("\n"):
        return None
    stat = parse_stat(f"{pid} {rest}")
    if stat is None:
        return None
    return MainProcess(
        boot_id=boot_id, pid=stat.pid, shim_pid=stat.parent, start_ticks=stat.start_ticks
    )


def parse_exit(text: str) -> ExitRecord | None:
    """The `exit` file: "1 CODE TIME REASON" in one line, "-" for no time; None for one that a
    crash cut off."""
    if not text.endswith("\n"):
        return None
    mark, _, rest = text[:-1].partition(" ")
    code, _, rest = rest.partition(" ")
    time, _, reason = rest.partition(" ")
    if mark != FORMAT_MARK or not code.isdecimal() or not (time == "-" or time.isdecimal()):
        return None
    return ExitRecord(
        exit_code=int(code), ended_ns=None if time == "-" else int(time), reason=reason
    )


def format_exit(record: ExitRecord) -> str:
    """What `parse_exit` reads."""
    time = "-" if record.ended_ns is None else str(record.ended_ns)
    reason = " ".join(record.reason.split())
    return f"{FORMAT_MARK} {record.exit_code} {time} {reason}".rstrip() + "\n"


def describe_exit(exit_code: int) -> str:
    """An exit code in words; empty for success.

    A shell reports a signal as 128 + its number, and so does a program that exits with such a
    code of its own accord; the two can't be told apart.
    """
    if exit_code == 0:
        return ""
    number = exit_code - EXIT_SIGNAL_BASE
    if 0 < number <= 64:
        return f"killed by signal {number} ({signal_name(number)})"
    return f"exit code {exit_code}"


def explain_exit(record: ExitRecord, words: str, *, is_oom: bool, memory_bytes: int | None) -> str:
    """Why a task ended, for a person. `words` are the last of what it (or its shim) said on
    stderr, and count only where the command could not be started."""
    if record.reason:
        return record.reason
    if is_oom and record.exit_code == EXIT_KILLED:
        return f"killed for using more memory than its limit of {memory_bytes} bytes (OOM)"
    not_started = (EXIT_NOT_SET_UP, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND)
    if record.exit_code in not_started and words:
        return f"exit code {record.exit_code}: {words}"
    return describe_exit(record.exit_code)
