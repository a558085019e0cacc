"""A task's folder: writing files whole, and reading what may not be there."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import msgspec

from skep.domain.base import TaskId, decode, encode
from skep.env import Retryable
from skep.worker.engine.adapters import logs
from skep.worker.engine.core.records import (
    EXIT_FILE,
    HOSTS_FILE,
    MAIN_FILE,
    RECORD_FILE,
    RECORD_FORMAT,
    RESOLV_FILE,
    SCRIPT_FILE,
    STDERR_FILE,
    STDOUT_FILE,
    ExitRecord,
    MainProcess,
    TaskRecord,
    format_exit,
    parse_exit,
    parse_main,
)

# `main` and `exit` are a line or two; a task may have put something else in their place.
TEXT_LIMIT_BYTES = 64 * 1024
# A folder on its way out has this before its name, so that a crash leaves nothing half a task.
REMOVED_MARK = ".removed-"


def read_text(path: Path) -> str:
    """A small file's text; empty where there is none, or something that is no file."""
    try:
        with logs.opened(path) as fd:
            return os.read(fd, TEXT_LIMIT_BYTES).decode(errors="replace")
    except OSError as error:
        # What can't be read just now may well be there: that must not pass for nothing.
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EINVAL):
            raise
        return ""


def write_names(folder: Path, resolv_conf: str, hosts: str) -> None:
    """A prepared task's own name files. Anybody may read them, as is usual for such."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in ((RESOLV_FILE, resolv_conf), (HOSTS_FILE, hosts)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)


def write_task(folder: Path, record: TaskRecord, script: str) -> None:
    """Make a task's folder, or make it anew. The record comes last: a folder is a prepared task
    once it has one. Nothing is synced, since nothing of it matters after a power cut until the
    task has run; the shim syncs the record together with the exit."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / SCRIPT_FILE).write_text(script)
    for name in (STDOUT_FILE, STDERR_FILE):
        (folder / name).touch()
        if record.user is not None:
            # So that the task can open /dev/stdout anew, as nginx does for its logs.
            os.chown(folder / name, record.user.uid, record.user.gid)
    temporary = folder / (RECORD_FILE + ".new")
    temporary.write_bytes(encode(record))
    temporary.rename(folder / RECORD_FILE)


def read_record(folder: Path) -> TaskRecord | None:
    """The record of a prepared task; None if it never was, or if a crash spoilt it."""
    try:
        record = decode(TaskRecord, (folder / RECORD_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None
    if record.format > RECORD_FORMAT:
        raise Retryable(
            f"{folder} was written by a newer release (format {record.format}, this one reads "
            f"{RECORD_FORMAT}): use that one"
        )
    return record


def read_main(folder: Path) -> tuple[MainProcess, int] | None:
    """A task's own process and the wall time it was started at; None if it never was."""
    path = folder / MAIN_FILE
    main = parse_main(read_text(path))
    return None if main is None else (main, path.stat().st_mtime_ns)


def read_exit(folder: Path) -> ExitRecord | None:
    """How a task ended, with the time; None if nothing whole was written down."""
    path = folder / EXIT_FILE
    record = parse_exit(read_text(path))
    if record is None or record.ended_ns is not None:
        return record
    return ExitRecord(exit_code=record.exit_code, ended_ns=path.stat().st_mtime_ns)


def write_exit(folder: Path, record: ExitRecord) -> None:
    """Write down how a task ended, durably, whole or not at all."""
    temporary = folder / (EXIT_FILE + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, format_exit(record).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(folder / EXIT_FILE)
    sync_path(folder)


def sync_path(path: Path) -> None:
    """Make a file, or a folder's entries, durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def list_tasks(root: Path) -> list[TaskId]:
    """The tasks that have a folder. What a crash left of removed ones is removed."""
    tasks = []
    for entry in sorted(root.iterdir()):
        if entry.name.startswith(REMOVED_MARK):
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.is_dir() and not entry.name.startswith("."):
            tasks.append(TaskId(entry.name))
    return tasks


def remove_task(folder: Path) -> None:
    """Remove a task's folder; a crash leaves all of it, or leftovers that `list_tasks` knows."""
    marked = folder.with_name(REMOVED_MARK + folder.name)
    try:
        folder.rename(marked)
    except FileNotFoundError:
        return
    except OSError:
        # An earlier removal of the same task was cut off.
        shutil.rmtree(marked, ignore_errors=True)
        folder.rename(marked)
    shutil.rmtree(marked)


def last_line(path: Path, limit_bytes: int = 500) -> str:
    """The last line of a file that has anything in it; empty where there is none."""
    try:
        with logs.opened(path) as fd:
            start = max(0, os.fstat(fd).st_size - limit_bytes)
            lines = os.pread(fd, limit_bytes, start).decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
