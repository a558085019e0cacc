"""A program run inside a process task: its pipes, or its terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping

from skep.domain.control import LogStream
from skep.domain.execution import ExecOutput, ExecSpec, TerminalSize
from skep.env import Clock, Env, Rejected
from skep.worker.engine.adapters.task import KnownTask
from skep.worker.engine.core.launch import Tools, probe_line

READ_BYTES = 32768
# What the program has started may hold its pipes for good; but it was the one that was asked for.
REST_S = 0.5
SIGNAL_BASE = 128
END_OF_INPUT = b"\x04"


async def start(env: Env, task: KnownTask, tools: Tools, spec: ExecSpec) -> ProcessExecution:
    """Run it with all that a health test gets, as the leader of a session of its own. Raises
    Rejected."""
    record = task.record
    if spec.user:
        raise Rejected("in a task without a container, programs run as the task's own user")
    argv = probe_line(record, str(task.folder), tools, ("CMD", *spec.argv))
    environ = {**dict(record.env), **dict(spec.env)}
    folder = spec.working_dir or record.working_dir
    try:
        if spec.is_tty:
            return await _start_on_terminal(env, argv, environ, folder, spec)
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=environ,
            cwd=folder,
            stdin=PIPE if spec.has_input else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Rejected(f"{spec.argv[0]} can't be run: {error.strerror}") from None
    assert process.stdout is not None
    assert process.stderr is not None
    outputs = {LogStream.STDOUT: process.stdout, LogStream.STDERR: process.stderr}
    return ProcessExecution(env, process, outputs, process.stdin)


async def _start_on_terminal(
    env: Env, argv: tuple[str, ...], environ: Mapping[str, str], folder: str, spec: ExecSpec
) -> ProcessExecution:
    loop = asyncio.get_running_loop()
    ours, theirs = os.openpty()
    try:
        if spec.size is not None:
            _set_size(ours, spec.size)
        process = await asyncio.create_subprocess_exec(
            *("setsid", "--ctty", "--", *argv),
            env=environ,
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    reader = asyncio.StreamReader()
    # Each side closes its own.
    terminal, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
    )
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(os.dup(ours), "wb", buffering=0)
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    return ProcessExecution(env, process, {LogStream.STDOUT: reader}, writer, terminal=terminal)


class ProcessExecution:
    """See `skep.worker.engine.protocol.Execution`."""

    def __init__(
        self,
        env: Env,
        process: Process,
        outputs: Mapping[LogStream, asyncio.StreamReader],
        stdin: asyncio.StreamWriter | None,
        *,
        terminal: asyncio.ReadTransport | None = None,
    ) -> None:
        self._clock: Clock = env.clock
        self._process = process
        self._stdin = stdin
        self._terminal = terminal
        self._transports = [each for each in (terminal, stdin) if each is not None]
        self._arrived: asyncio.Queue[ExecOutput | None] = asyncio.Queue(1)
        self._work = env.spawn(f"exec/{process.pid}", self._run(env, outputs))

    async def send(self, data: bytes) -> None:
        """See `Execution.send`."""
        if self._stdin is not None:
            self._stdin.write(data)
            with contextlib.suppress(OSError):  # It reads no more.
                await self._stdin.drain()

    async def end_input(self) -> None:
        """See `Execution.end_input`. A terminal has no end of its own: Ctrl-D says it there."""
        if self._terminal is not None:
            await self.send(END_OF_INPUT)
        elif self._stdin is not None:
            self._stdin.close()

    async def resize(self, size: TerminalSize) -> None:
        """See `Execution.resize`."""
        if self._terminal is not None and not self._terminal.is_closing():
            _set_size(self._terminal.get_extra_info("pipe").fileno(), size)

    async def receive(self) -> ExecOutput:
        """See `Execution.receive`."""
        told = await self._arrived.get()
        if told is not None:
            return told
        code = self._process.returncode
        assert code is not None
        return ExecOutput(exit_code=code if code >= 0 else SIGNAL_BASE - code)

    async def _run(self, env: Env, outputs: Mapping[LogStream, asyncio.StreamReader]) -> None:
        """Read it all, and say at last that it has ended."""
        reading = [
            env.spawn(f"exec/{self._process.pid}/{stream.value}", self._read(stream, reader))
            for stream, reader in outputs.items()
        ]
        try:
            await self._process.wait()
            with contextlib.suppress(TimeoutError):
                await self._clock.within(REST_S, asyncio.wait(reading))
        finally:
            for each in reading:
                each.cancel()
            await asyncio.wait(reading)
        await self._arrived.put(None)

    async def _read(self, stream: LogStream, reader: asyncio.StreamReader) -> None:
        # So a terminal says that nobody has its other side open any more.
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                await self._arrived.put(ExecOutput(stream=stream, data=data))

    async def close(self) -> None:
        """See `Execution.close`."""
        if self._process.returncode is None:
            # It leads a session of its own, and what it has started goes with it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._work.cancel()
        await asyncio.wait((self._work,))
        for transport in self._transports:
            transport.close()
        await self._process.wait()


def _set_size(terminal: int, size: TerminalSize) -> None:
    limit = (1 << 16) - 1
    rows, columns = (max(0, min(each, limit)) for each in (size.rows, size.columns))
    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
