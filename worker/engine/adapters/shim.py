"""Starting shims, and settling what became of a task whose shim has ended."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from skep.env import Clock
from skep.worker.engine.adapters import files
from skep.worker.engine.core.launch import SHELL_PATH, shell_env
from skep.worker.engine.core.records import (
    EXIT_FILE,
    EXIT_KILLED,
    EXIT_NOT_SET_UP,
    LOCK_FILE,
    SCRIPT_FILE,
    SHIM_LOG_FILE,
    STDERR_FILE,
    ExitRecord,
    MainProcess,
    TaskRecord,
    describe_exit,
    explain_exit,
)

log = logging.getLogger(__name__)

UMASK = 0o022


@dataclass(frozen=True)
class Launched:
    """A shim that was started. `announcement` is the pipe on which it gives a line when the task
    is under way; its reader closes it."""

    pid: int
    announcement: int


def take_lock(folder: Path) -> int | None:
    """The task's lock; None while a shim (or one who is about to become it) holds it."""
    fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def is_locked(folder: Path) -> bool:
    """Whether a shim of this task lives."""
    fd = take_lock(folder)
    if fd is None:
        return True
    os.close(fd)
    return False


def launch(folder: Path, record: TaskRecord, boot_id: str) -> Launched | None:
    """Start a task's shim; None if the task was started before, by whomever. Raises OSError.

    The lock goes to the shim as an open file, so there is no moment at which neither holds it.
    With the lock in hand, a `main` file that isn't whole means that no command was ever run.
    """
    lock = take_lock(folder)
    if lock is None:
        return None
    try:
        if files.read_main(folder) is not None:
            return None
        # A shim that ended before it ran anything has said how, and that counts no more.
        (folder / EXIT_FILE).unlink(missing_ok=True)
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writer, True)
        try:
            pid = _spawn(folder, record, boot_id, (lock, writer))
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return Launched(pid, reader)
    finally:
        os.close(lock)


def _spawn(folder: Path, record: TaskRecord, boot_id: str, ends: tuple[int, int]) -> int:
    log = os.open(folder / SHIM_LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            (SHELL_PATH, str(folder / SCRIPT_FILE), boot_id),
            env=shell_env(record),
            cwd="/",
            stdin=ends[0],
            stdout=ends[1],
            stderr=log,
            start_new_session=True,
            umask=UMASK,
        )
    finally:
        os.close(log)
    # It is watched and reaped by its pid, as an adopted one is; this keeps Popen out of it.
    process.returncode = 0
    return process.pid


async def announced(launched: Launched, clock: Clock, deadline_s: float) -> None:
    """Wait until a shim has given word, or has ended. Whatever comes of it, and if nothing does,
    what counts is what stands in the folder."""
    loop = asyncio.get_running_loop()
    said = asyncio.Event()
    loop.add_reader(launched.announcement, said.set)
    try:
        with contextlib.suppress(TimeoutError):
            await clock.within(deadline_s, said.wait())
    finally:
        loop.remove_reader(launched.announcement)
        os.close(launched.announcement)


def settle(folder: Path, main: MainProcess, boot_id: str, own_exit: int | None) -> ExitRecord:
    """How a task ended whose shim no longer lives.

    `own_exit` is the shim's own exit code where it was our child, which tells the same as the
    file that it could not write, on a full disk for one.
    """
    found = files.read_exit(folder)
    if found is not None:
        return found
    if main.boot_id != boot_id:
        return _judged(EXIT_KILLED, "the node was restarted while the task was running")
    if own_exit is not None:
        return _judged(own_exit, "")
    why = f"its shim (pid {main.shim_pid}) was killed, so the rest of the task was killed too"
    return _judged(EXIT_KILLED, why)


def keep(folder: Path, record: TaskRecord, found: ExitRecord, *, is_oom: bool) -> ExitRecord:
    """The exit with its reason, durable where the disk lets us: nothing is told that a power
    cut could take back."""
    words = ""
    if found.exit_code == EXIT_NOT_SET_UP:
        words = files.last_line(folder / SHIM_LOG_FILE)
    words = words or files.last_line(folder / STDERR_FILE)
    reason = explain_exit(found, words, is_oom=is_oom, memory_bytes=record.limits.memory_bytes)
    explained = ExitRecord(exit_code=found.exit_code, ended_ns=found.ended_ns, reason=reason)
    try:
        if reason == describe_exit(found.exit_code) and (folder / EXIT_FILE).exists():
            files.sync_path(folder / EXIT_FILE)
        else:
            files.write_exit(folder, explained)
    except OSError as error:
        log.warning("task=%s exit=%s not written: %s", folder.name, found.exit_code, error)
    return explained


def _judged(exit_code: int, reason: str) -> ExitRecord:
    return ExitRecord(exit_code=exit_code, ended_ns=time.time_ns(), reason=reason)
