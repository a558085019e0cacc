"""The shim: a dash script, made for one task, that runs it and writes down how it ended.

It is a script because dash is on every Debian, costs 0.4 MB and starts in a millisecond. What it
promises, and by what:

- It is alone: it inherits the flocked `lock` as its standard input, and so holds it while it lives.
- The task's process writes its own identity before it becomes the command, from within itself,
  so that no command ever runs unrecorded, whoever dies when.
- The command is the leader of a session of its own (setsid), not of the shim's: the shim outlives
  a kill of the whole group and writes its exit code down. When the command has ended, the rest of
  its group is killed, as a container's processes are with its first.
- The command runs in the foreground of a subshell: a shell's background jobs have SIGINT and
  SIGQUIT ignored for good.
- It has no variables of its own that the task's environment could clash with, and what a shell
  can't pass on (names such as "a.b") or would change (PWD, IFS ...) is set by env(1) at the end.

The exit file is one line in one write and is checked when it is read, so it is there as a whole
or not at all; it is synced before the shim ends.
"""

from __future__ import annotations

import re
from shlex import quote

from skep.domain.base import Struct
from skep.worker.engine.core.records import (
    EXIT_FILE,
    EXIT_NOT_SET_UP,
    FORMAT_MARK,
    HOSTS_FILE,
    MAIN_FILE,
    RECORD_FILE,
    RESOLV_FILE,
    STDERR_FILE,
    STDOUT_FILE,
    TaskRecord,
)

SHELL_PATH = "/bin/sh"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SHELL_NAME = re.compile(r"(?!_skep_)[A-Za-z_][A-Za-z0-9_]*")
# Variables that dash sets, drops or obeys itself.
_SHELL_OWN = frozenset(
    {
        *("ENV", "FUNCNAME", "HISTSIZE", "IFS", "LINENO", "MAIL", "MAILCHECK", "MAILPATH"),
        *("OLDPWD", "OPTARG", "OPTIND", "PPID", "PS1", "PS2", "PS4", "PWD", "TERM", "_"),
    }
)


class Tools(Struct, frozen=True, kw_only=True):
    """The programs a shim uses, by path. `reset_signals` are the signals that the engine's own
    process ignores, which the tasks must not inherit."""

    setsid: str
    setpriv: str
    env: str
    sync: str
    nsenter: str = "/usr/bin/nsenter"
    unshare: str = "/usr/bin/unshare"
    mount: str = "/usr/bin/mount"
    reset_signals: tuple[str, ...] = ()


def shell_env(record: TaskRecord) -> dict[str, str]:
    """The part of a task's environment that goes through a shell unharmed."""
    return {name: value for name, value in record.env if _goes_through_shell(name)}


def prefix(record: TaskRecord, tools: Tools) -> tuple[str, ...]:
    """The programs that a command is started by, so that it runs as its user and has all of its
    environment."""
    words: tuple[str, ...] = ()
    if record.user is not None:
        groups = ",".join(str(gid) for gid in record.user.groups)
        words += (tools.setpriv, f"--reuid={record.user.uid}", f"--regid={record.user.gid}")
        words += (f"--groups={groups}" if groups else "--clear-groups", "--")
    odd = tuple(f"{name}={value}" for name, value in record.env if not _goes_through_shell(name))
    resets = tuple(f"--default-signal={name}" for name in tools.reset_signals)
    if odd or resets:
        words += (tools.env, *resets, "--", *odd)
    return words


def entering(record: TaskRecord, folder: str, tools: Tools) -> tuple[str, ...]:
    """The programs by which a process gets into its task's namespaces. None of them forks, so that
    it stays the process that it is; all are named by their full paths, since PATH is the task's and
    this is done as root. Names are answered by files of the task's own, mounted over the node's
    where only the task sees it."""
    words: tuple[str, ...] = ()
    if record.namespace:
        words += (tools.nsenter, f"--net={record.namespace}", "--")
    if record.has_own_names:
        mounts = "".join(
            f"{quote(tools.mount)} --bind {quote(f'{folder}/{name}')} /etc/{name} "
            f"|| exit {EXIT_NOT_SET_UP}; "
            for name in (RESOLV_FILE, HOSTS_FILE)
        )
        words += (tools.unshare, "--mount", "--propagation", "private", "--")
        words += (SHELL_PATH, "-c", f'{mounts}exec "$@"', SHELL_PATH)
    return words


def command_line(record: TaskRecord, folder: str, tools: Tools) -> tuple[str, ...]:
    """What the task's process becomes, in the end."""
    enter = entering(record, folder, tools)
    return (*enter, tools.setsid, "--", *prefix(record, tools), *record.argv)


def join_cgroups(record: TaskRecord) -> str:
    """Shell lines by which a process moves itself into the task's control groups."""
    # In a version 2 tree a process is in one group alone, and what holds for the folder above
    # holds in each group below it.
    above = record.network_cgroup.rpartition("/")[0] + "/"
    is_below = any(folder.startswith(above) for folder in record.cgroups)
    network = (record.network_cgroup,) if record.network_cgroup and not is_below else ()
    return "".join(
        f"echo 0 >{quote(folder + '/cgroup.procs')} || exit {EXIT_NOT_SET_UP}\n"
        for folder in (*record.cgroups, *network)
    )


def script(record: TaskRecord, folder: str, tools: Tools) -> str:
    """The shim's script for one task. It is started with the boot id as its argument, the lock
    as its stdin, and a pipe as its stdout, which gets one line when the task is under way; if
    the engine has died meanwhile, nobody reads that line, which must not end the task."""

    def path(name: str) -> str:
        return quote(f"{folder}/{name}")

    limit = ""
    if record.limits.memory_bytes is not None and not record.cgroups:
        # RLIMIT_DATA; dash counts in kilobytes.
        limit = f"ulimit -d {record.limits.memory_bytes // 1024} || exit {EXIT_NOT_SET_UP}\n"
    command = " ".join(quote(word) for word in command_line(record, folder, tools))
    return f"""\
# Written by Skep's process engine, format {record.format}; see worker/engine/core/launch.py.
trap : HUP INT QUIT USR1 USR2 PIPE ALRM TERM
(
read -r _skep_pid _skep_stat </proc/self/stat || exit {EXIT_NOT_SET_UP}
echo "{FORMAT_MARK} $_skep_pid
$1 $_skep_stat" >{path(MAIN_FILE)} || exit {EXIT_NOT_SET_UP}
trap '' PIPE
echo 2>/dev/null
trap - PIPE
exec </dev/null >>{path(STDOUT_FILE)} || exit {EXIT_NOT_SET_UP}
{join_cgroups(record)}{limit}cd {quote(record.working_dir)} || exit {EXIT_NOT_SET_UP}
unset PWD OLDPWD
exec 2>>{path(STDERR_FILE)} || exit {EXIT_NOT_SET_UP}
exec {command}
)
_skep_code=$?
read -r _skep_format _skep_pid <{path(MAIN_FILE)} && kill -s KILL -- "-$_skep_pid" 2>/dev/null
echo "{FORMAT_MARK} $_skep_code -" >{path(EXIT_FILE)}
{quote(tools.sync)} {path(EXIT_FILE)} {path(RECORD_FILE)} {quote(folder)}
exit "$_skep_code"
"""


def probe_line(
    record: TaskRecord, folder: str, tools: Tools, test: tuple[str, ...]
) -> tuple[str, ...]:
    """The argument vector of a health test, run where and as whom the task runs."""
    kind, *rest = test
    argv = (SHELL_PATH, "-c", rest[0]) if kind == "CMD-SHELL" else tuple(rest)
    argv = (*entering(record, folder, tools), *prefix(record, tools), *argv)
    if not (record.cgroups or record.network_cgroup):
        return argv
    return (SHELL_PATH, "-c", join_cgroups(record) + 'exec "$@"', SHELL_PATH, *argv)


def _goes_through_shell(name: str) -> bool:
    return _SHELL_NAME.fullmatch(name) is not None and name not in _SHELL_OWN
