"""Running a health test once: a process of its own, killed wholly when its time is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass

from skep.env import Clock
from skep.worker.engine.adapters import proc

# What a test says is shown to people; the last few hundred bytes hold the error.
OUTPUT_LIMIT_BYTES = 400
READ_BYTES = 65536


@dataclass(frozen=True)
class Probe:
    """A running test. `output` is the reading end of its stdout and stderr."""

    pid: int
    pidfd: int
    output: int


def spawn(argv: tuple[str, ...], env: dict[str, str], working_dir: str) -> Probe:
    """Start a test, as the leader of a session of its own. Raises OSError."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(writer, True)
    try:
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=working_dir,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
        )
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    # It is watched by its pidfd and reaped by its pid.
    process.returncode = 0
    return Probe(process.pid, os.pidfd_open(process.pid), reader)


async def judge(probe: Probe, clock: Clock, timeout_s: float) -> str | None:
    """None for a test that succeeds in time; else what it said. It is killed, with all that it
    started, when its time is over, when it has ended, and when nobody waits any more."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    output = bytearray()
    loop.add_reader(probe.output, _read, loop, probe.output, output)
    loop.add_reader(probe.pidfd, ended.set)
    try:
        await clock.within(timeout_s, ended.wait())
    except TimeoutError:
        said = _text(output)
        return f"no answer within {timeout_s:g} s" + (f": {said}" if said else "")
    finally:
        loop.remove_reader(probe.pidfd)
        loop.remove_reader(probe.output)
        _read(loop, probe.output, output)
        os.close(probe.output)
        _kill(probe)
        if ended.is_set():
            code = proc.reap(probe.pid)
            os.close(probe.pidfd)
        else:
            loop.add_reader(probe.pidfd, _take_leave, loop, probe)
    if code == 0:
        return None
    return _text(output) or ("it was killed by a signal" if code is None else f"exit code {code}")


def _read(loop: asyncio.AbstractEventLoop, fd: int, output: bytearray) -> None:
    """Keep the newest output. One read at a time: one who never stops talking must not hold the
    loop; the pipe then holds the rest."""
    try:
        part = os.read(fd, READ_BYTES)
    except BlockingIOError:
        return
    if not part:
        loop.remove_reader(fd)
    output.extend(part)
    del output[:-OUTPUT_LIMIT_BYTES]


def _text(output: bytearray) -> str:
    return bytes(output).decode(errors="replace").strip()


def abandon(spawning: asyncio.Task[Probe]) -> None:
    """End a test that was started after everyone had stopped waiting for it."""
    if spawning.cancelled() or spawning.exception() is not None:
        return
    probe = spawning.result()
    os.close(probe.output)
    _kill(probe)
    loop = asyncio.get_running_loop()
    loop.add_reader(probe.pidfd, _take_leave, loop, probe)


def _kill(probe: Probe) -> None:
    # It is not reaped yet, so its pid, which is its group's, can't be another's.
    with contextlib.suppress(PermissionError):
        os.killpg(probe.pid, signal.SIGKILL)


def _take_leave(loop: asyncio.AbstractEventLoop, probe: Probe) -> None:
    loop.remove_reader(probe.pidfd)
    proc.reap(probe.pid)
    os.close(probe.pidfd)
