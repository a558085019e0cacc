"""`skep exec`: a program inside a task, with this terminal as its own if that is asked for."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator

from skep import client
from skep.cli import session
from skep.cli.errors import Exit, Failure
from skep.cli.output import note
from skep.client import Cluster
from skep.client.execution import Execution
from skep.domain.base import pairs
from skep.domain.control import LogStream
from skep.domain.execution import ExecSpec, TerminalSize
from skep.domain.objects import Task
from skep.domain.states import TaskState

INPUT_BYTES = 32768


def execute(options: argparse.Namespace) -> None:
    """Run it, and end as it ends."""
    spec = _spec(options)
    code: int | None = None

    async def script(cluster: Cluster) -> None:
        nonlocal code
        task = await _find(cluster, options.task)
        execution = await cluster.tasks.start_exec(task.id, spec)
        try:
            with _raw_terminal() if spec.is_tty else contextlib.nullcontext():
                await _talk(execution, spec)
        finally:
            await execution.close()
        code = execution.exit_code

    session.run(options, script)
    raise SystemExit(code)


def _spec(options: argparse.Namespace) -> ExecSpec:
    if options.tty and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure("-t: this is no terminal; leave it out", Exit.USAGE)
    given = {}
    for each in options.env:
        name, sign, value = each.partition("=")
        if not name:
            raise Failure(f"--env: '{each}' names no variable", Exit.USAGE)
        if sign:
            given[name] = value
        elif name in os.environ:
            given[name] = os.environ[name]
    if options.tty and "TERM" in os.environ:
        given.setdefault("TERM", os.environ["TERM"])
    return ExecSpec(
        argv=tuple(options.command),
        is_tty=options.tty,
        has_input=options.interactive,
        user=options.user,
        working_dir=options.workdir,
        env=pairs(given),
        size=_size() if options.tty else None,
    )


async def _find(cluster: Cluster, ref: str) -> Task:
    """The task; of a service, the first that runs."""
    try:
        return await cluster.tasks.get(ref)
    except client.NotFound as error:
        try:
            tasks = await cluster.tasks.list(service=ref)
        except client.NotFound:
            raise error from None
    running = [task for task in tasks if task.status.state is TaskState.RUNNING]
    if not running:
        raise Failure(f"service {ref} has no running task", Exit.REFUSED)
    if len(running) > 1:
        note(f"skep: note: {ref} has {len(running)} tasks; this is {running[0].name}")
    return running[0]


async def _talk(execution: Execution, spec: ExecSpec) -> None:
    sending = asyncio.ensure_future(_send(execution)) if spec.has_input else None
    with _resizing(execution) if spec.is_tty else contextlib.nullcontext():
        try:
            while (told := await execution.receive()) is not None:
                out = sys.stdout if told.stream is LogStream.STDOUT else sys.stderr
                out.buffer.write(told.data)
                out.flush()
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.wait((sending,))


async def _send(execution: Execution) -> None:
    """What is typed, or comes by a pipe or from a file."""
    fd = sys.stdin.fileno()
    while True:
        await _readable(fd)
        data = os.read(fd, INPUT_BYTES)
        if not data:
            await execution.end_input()
            return
        await execution.send(data)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:
        return  # A file, which can always be read.
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Keys go to the program as they are typed, Ctrl-C too."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing(execution: Execution) -> Iterator[None]:
    """Tell the program when the window is drawn larger or smaller."""
    loop = asyncio.get_running_loop()
    telling: set[asyncio.Future[None]] = set()

    def changed() -> None:
        size = _size()
        work = asyncio.ensure_future(execution.resize(size.rows, size.columns))
        telling.add(work)
        work.add_done_callback(telling.discard)

    loop.add_signal_handler(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


def _size() -> TerminalSize:
    found = os.get_terminal_size(sys.stdout.fileno())
    return TerminalSize(rows=found.lines, columns=found.columns)
