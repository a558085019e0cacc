"""Processes by identity: a signal never reaches a process that only inherited a pid.

Everything here goes by pidfd: it is opened first and the process is looked at afterwards, so that
what was looked at is what gets the signal.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from skep.worker.engine.core.records import MainProcess, Stat, parse_stat

PROC = Path("/proc")
# How long one round of killing waits for the killed to be gone before it looks again.
KILL_ROUND_S = 1.0
# A session that forks faster than it is killed is given up on; the caller asks again.
KILL_ROUNDS = 20


def read_boot_id() -> str:
    """The id that the kernel drew when it started."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def read_stat(pid: int) -> Stat | None:
    """What /proc says of a process; None where there is none (any more)."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return parse_stat(os.read(fd, 4096).decode(errors="replace"))
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)


def all_stats() -> list[Stat]:
    """Every process of this machine (of this pid namespace)."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [stat for stat in map(read_stat, pids) if stat is not None]


def open_main(main: MainProcess) -> int | None:
    """A pidfd of a task's own process; None if it no longer runs."""
    return _open_if(main.pid, lambda stat: stat.start_ticks == main.start_ticks)


def open_shim(main: MainProcess) -> int | None:
    """A pidfd of a task's shim; None if it no longer runs. A process that inherited its pid
    started after the task did."""
    return _open_if(main.shim_pid, lambda stat: stat.start_ticks <= main.start_ticks)


def _open_if(pid: int, is_it: Callable[[Stat], bool]) -> int | None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    stat = read_stat(pid)
    if stat is not None and stat.is_alive and is_it(stat):
        return fd
    os.close(fd)
    return None


def send_signal(pidfd: int, number: int) -> bool:
    """Signal a process; False if it has ended."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def signal_main(main: MainProcess, number: int) -> bool:
    """Signal a task's own process; False if it has ended."""
    fd = open_main(main)
    if fd is None:
        return False
    try:
        return send_signal(fd, number)
    finally:
        os.close(fd)


def kill_silent_shim(main: MainProcess) -> None:
    """Kill a shim that doesn't say that its task has ended: it was stopped, or its disk hangs."""
    fd = open_main(main)
    if fd is None:
        fd = open_shim(main)
        if fd is None:
            return
        send_signal(fd, signal.SIGKILL)
    os.close(fd)


def kill_sessions(mains: Iterable[MainProcess]) -> None:
    """Kill every process in the sessions of these tasks; returns once they are gone.

    Raises TimeoutError for processes that don't go (they hang in the kernel, or fork too fast).
    """
    wanted = {main.pid: main for main in mains}
    for _ in range(KILL_ROUNDS):
        left = _members(wanted)
        if not left:
            return
        pidfds = [fd for stat in left if (fd := _open_member(stat)) is not None]
        try:
            for fd in pidfds:
                send_signal(fd, signal.SIGKILL)
            wait_for_all(pidfds, KILL_ROUND_S)
        finally:
            for fd in pidfds:
                os.close(fd)
    raise TimeoutError(f"processes {[stat.pid for stat in left]} do not end")


def _members(wanted: dict[int, MainProcess]) -> list[Stat]:
    stats = all_stats()
    # The pid of a session stays taken while the session has members. Where a younger process
    # has it, the session that was meant is gone, and this is somebody else's.
    for stat in stats:
        if stat.pid in wanted and stat.start_ticks != wanted[stat.pid].start_ticks:
            wanted = {pid: main for pid, main in wanted.items() if pid != stat.pid}
    # A main process that has not become a session's leader yet is still its shim's.
    return [s for s in stats if s.is_alive and (s.session in wanted or s.pid in wanted)]


def _open_member(of: Stat) -> int | None:
    return _open_if(of.pid, lambda stat: stat.start_ticks == of.start_ticks)


def wait_for_all(pidfds: Iterable[int], within_s: float) -> bool:
    """Wait, in a thread, until all of these have ended; False when the time was over first."""
    poller = select.poll()
    left = set(pidfds)
    for fd in left:
        poller.register(fd, select.POLLIN)
    while left:
        ready = poller.poll(within_s * 1000)
        if not ready:
            return False
        for fd, _ in ready:
            poller.unregister(fd)
            left.discard(fd)
    return True


def reap(pid: int) -> int | None:
    """Take leave of an ended child: its exit code if it ended by itself. None for a process that
    is no child of ours, or that was killed."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    if found != pid or not os.WIFEXITED(status):
        return None
    return os.WEXITSTATUS(status)
