"""Running a container's health test once, as Docker does: as its user, with its environment."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp

from skep.env import Env
from skep.worker.engine.docker.adapters.api import Api
from skep.worker.engine.docker.core.errors import CONFLICT, NOT_FOUND, ApiError, refusal

# What a test says is shown to people; the last few hundred bytes hold the error.
OUTPUT_LIMIT_BYTES = 400
SHELL = ("/bin/sh", "-c")
# The engine knows a moment after the end of the output how it ended.
LOOK_PERIOD_S = 0.01
# The test's own timeout counts; it is no longer than this.
LONGEST_S = 10 * 365 * 86400.0
NOT_RUNNING = "the task is not running"


async def run(
    api: Api, env: Env, container_id: str, test: tuple[str, ...], timeout_s: float
) -> str | None:
    """None for a test that succeeds in time; else what it said. Raises Retryable where the engine
    could not be asked: the container may be as healthy as before."""
    kind, *rest = test
    argv = (*SHELL, rest[0]) if kind == "CMD-SHELL" else tuple(rest)
    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(argv)}
    try:
        made = await api.post(f"containers/{container_id}/exec", body)
    except ApiError as error:
        if error.status in (CONFLICT, NOT_FOUND):
            return NOT_RUNNING
        raise refusal(error, "its health can't be tested") from error
    exec_id, output = str(made["Id"]), bytearray()
    try:
        code = await env.clock.within(timeout_s, _code(api, env, exec_id, output))
    except TimeoutError:
        await kill(api, exec_id, container_id)
        said = _text(output)
        return f"no answer within {timeout_s:g} s" + (f": {said}" if said else "")
    except ApiError as error:
        raise refusal(error, "its health can't be tested") from error
    return None if code == 0 else _text(output) or f"exit code {code}"


async def _code(api: Api, env: Env, exec_id: str, output: bytearray) -> int:
    execution = api.docker.containers.exec(exec_id)
    async with contextlib.AsyncExitStack() as stack:
        stream = execution.start(detach=False)
        stack.push_async_callback(_close, stream)
        while (part := await api.ask(stream.read_out(), LONGEST_S)) is not None:
            output.extend(part.data)
            del output[:-OUTPUT_LIMIT_BYTES]
    return await exit_code(api, env, exec_id)


async def exit_code(api: Api, env: Env, exec_id: str) -> int:
    """How an execution ended whose output has. Raises ApiError, Retryable."""
    while True:
        state = await api.get(f"exec/{exec_id}/json")
        if not state.get("Running") and state.get("ExitCode") is not None:
            return int(state["ExitCode"])
        await env.clock.sleep(LOOK_PERIOD_S)


async def _close(stream: Any) -> None:
    with contextlib.suppress(aiohttp.ClientError, OSError, AssertionError):
        await stream.close()


async def kill(api: Api, exec_id: str, container_id: str) -> None:
    """The API can't end an execution; but its process is the node's, if the engine is."""
    state = await api.get(f"exec/{exec_id}/json")
    pid = int(state.get("Pid") or 0)
    if not state.get("Running") or pid <= 1:
        return
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            # The engine's number for it may be another process's here.
            if container_id in _groups(pid):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def _groups(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def _text(output: bytearray) -> str:
    return bytes(output).decode(errors="replace").strip()
