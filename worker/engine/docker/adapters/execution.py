"""A program run inside a container: its streams, or its terminal."""

from __future__ import annotations

import contextlib
from typing import Any

import aiodocker
import aiohttp

from skep.domain.control import LogStream
from skep.domain.execution import ExecOutput, ExecSpec, TerminalSize
from skep.env import Env, Rejected, Retryable
from skep.worker.engine.docker.adapters import probe
from skep.worker.engine.docker.adapters.api import Api
from skep.worker.engine.docker.core.errors import ApiError, refusal

STDERR = 2
END_OF_INPUT = b"\x04"


async def start(api: Api, env: Env, container_id: str, spec: ExecSpec) -> ContainerExecution:
    """Run it. Raises Rejected, and Retryable where the engine can't be asked. A program that isn't
    there ends with 127, as by Docker's own command, and the engine's words on its output."""
    body = {
        "AttachStdin": spec.has_input,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": spec.is_tty,
        "Cmd": list(spec.argv),
        "User": spec.user,
        "WorkingDir": spec.working_dir,
        "Env": [f"{name}={value}" for name, value in spec.env],
    }
    try:
        made = await api.post(f"containers/{container_id}/exec", body)
        running = ContainerExecution(api, env, str(made["Id"]), container_id, spec)
        await running.begin()
    except ApiError as error:
        raise refusal(error, f"{spec.argv[0]} can't be run") from error
    if spec.size is not None:
        await running.resize(spec.size)
    return running


class ContainerExecution:
    """See `skep.worker.engine.protocol.Execution`. Made by `start`."""

    def __init__(self, api: Api, env: Env, exec_id: str, container_id: str, spec: ExecSpec) -> None:
        self._api = api
        self._env = env
        self._id = exec_id
        self._container_id = container_id
        self._is_tty = spec.is_tty
        self._handle = api.docker.containers.exec(exec_id)
        self._stream: Any = self._handle.start(detach=False)
        self._is_over = False
        self._is_closed = False

    async def begin(self) -> None:
        """Start it. Raises ApiError, Retryable."""
        await self._api.ask(self._stream.__aenter__())

    async def send(self, data: bytes) -> None:
        """See `Execution.send`."""
        with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError, AssertionError):
            await self._stream.write_in(data)

    async def end_input(self) -> None:
        """See `Execution.end_input`. A terminal has no end of its own: Ctrl-D says it there."""
        if self._is_tty:
            await self.send(END_OF_INPUT)
            return
        connection = self._stream._resp.connection
        if connection is not None and connection.transport is not None:
            connection.transport.write_eof()

    async def resize(self, size: TerminalSize) -> None:
        """See `Execution.resize`."""
        if self._is_tty and not self._is_over:
            # Its terminal comes a moment after its start, and goes with its end.
            with contextlib.suppress(ApiError, Retryable):
                await self._api.ask(self._handle.resize(h=size.rows, w=size.columns))

    async def receive(self) -> ExecOutput:
        """See `Execution.receive`."""
        try:
            part = await self._stream.read_out()
        except (aiohttp.ClientError, aiodocker.DockerError, OSError) as error:
            return ExecOutput(problem=f"the Docker engine is gone: {error}")
        if part is not None:
            stream = LogStream.STDERR if part.stream == STDERR else LogStream.STDOUT
            return ExecOutput(stream=stream, data=part.data)
        try:
            code = await probe.exit_code(self._api, self._env, self._id)
        except (ApiError, Retryable) as error:
            return ExecOutput(problem=f"how it ended is unknown: {error}")
        self._is_over = True
        return ExecOutput(exit_code=code)

    async def close(self) -> None:
        """See `Execution.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if not self._is_over:
                with contextlib.suppress(ApiError, Retryable, Rejected):
                    await probe.kill(self._api, self._id, self._container_id)
        finally:
            with contextlib.suppress(aiohttp.ClientError, OSError, AssertionError):
                await self._stream.close()
