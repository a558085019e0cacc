"""Processes of this machine: starting them for good, finding them again, and ending the right one.

Identity is pid and start time. A process is found by its command line, which names a file that is
its alone, so that no note has to be kept which a crash could make false.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
# It is microseconds, but on a machine in trouble it may be anything.
EXEC_DEADLINE_S = 1.0


class Found(NamedTuple):
    """A running process. `start_ticks` is in clock ticks since boot; `state` is a letter of
    proc(5): T is stopped by a signal, Z is dead and not yet waited for."""

    pid: int
    start_ticks: int
    state: str
    rss_bytes: int


def start_detached(
    arguments: tuple[str, ...], *, log: Path, folder: Path, environ: Mapping[str, str]
) -> int:
    """Start a process that outlives this one and its terminal; returns its pid. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(log, "ab") as output:
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environ),
            start_new_session=True,
        )
    # It is never waited for; it belongs to init once this command has ended.
    child.returncode = 0
    _await_command_line(child.pid)
    return child.pid


def _await_command_line(pid: int) -> None:
    """For a moment within exec a process has no command line, and could not be found by it."""
    ends = time.monotonic() + EXEC_DEADLINE_S
    while look_up(pid) is not None and not _command_line(pid):
        if time.monotonic() > ends:
            return
        time.sleep(0.001)


def command_lines() -> Iterator[tuple[int, tuple[str, ...]]]:
    """Pids and arguments of all processes that can be seen; the dead have none."""
    for entry in os.listdir(PROC):
        if entry.isdigit() and (data := _command_line(int(entry))):
            yield int(entry), tuple(os.fsdecode(data).rstrip("\0").split("\0"))


def _command_line(pid: int) -> bytes:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def look_up(pid: int) -> Found | None:
    """What the kernel says of a pid; None when there is no such process, or a dead one."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The command's name stands in parentheses and may hold anything, even parentheses.
    fields = text.rpartition(")")[2].split()
    state, start_ticks, rss_pages = fields[0], int(fields[19]), int(fields[21])
    if state in "ZX":
        return None
    return Found(pid, start_ticks, state, rss_pages * os.sysconf("SC_PAGE_SIZE"))


def age_s(found: Found) -> float:
    """Seconds since the process started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - found.start_ticks / os.sysconf("SC_CLK_TCK")


def send(found: Found, number: signal.Signals) -> bool:
    """Send a signal to exactly that process; False if it is gone. Raises PermissionError."""
    fd = _open_pid(found)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
        if number is signal.SIGTERM:
            # Somebody who was stopped can't act on it; nothing happens to others.
            signal.pidfd_send_signal(fd, signal.SIGCONT)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def wait_gone(all_found: list[Found], timeout_s: float) -> list[Found]:
    """Wait until they have ended; returns those that have not after `timeout_s`."""
    ends = time.monotonic() + timeout_s
    left = []
    for found in all_found:
        fd = _open_pid(found)
        if fd is None:
            continue
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(max(0, int((ends - time.monotonic()) * 1000))):
                left.append(found)
        finally:
            os.close(fd)
    return left


def end(all_found: list[Found], grace_s: float) -> list[Found]:
    """SIGTERM, and SIGKILL for what is left after `grace_s`; returns those that were killed."""
    for found in all_found:
        send(found, signal.SIGTERM)
    left = wait_gone(all_found, grace_s)
    for found in left:
        send(found, signal.SIGKILL)
    wait_gone(left, grace_s)
    return left


def _open_pid(found: Found) -> int | None:
    try:
        fd = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return None
    # The descriptor holds whoever has the pid now; only a look after that can tell who it is.
    now = look_up(found.pid)
    if now is None or now.start_ticks != found.start_ticks:
        os.close(fd)
        return None
    return fd
