"""The engine's API: calls with deadlines, and errors that are ours.

Of aiodocker the connection, its choice of the API's version and the upgraded streams are used; what
is asked for stands here in the API's own words.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, TypeVar

import aiodocker
import aiohttp

from skep.env import Env, Retryable
from skep.worker.engine.docker.adapters.request import unreached
from skep.worker.engine.docker.core.errors import (
    CONFLICT,
    NOT_FOUND,
    NOT_MODIFIED,
    UNREACHABLE,
    ApiError,
    unreachable,
)

T = TypeVar("T")

DEFAULT_URL = "unix:///var/run/docker.sock"
# What asks for nothing but a look takes milliseconds; starting a container on a busy disk takes
# seconds, and one that has begun should rather end than be asked for again.
LOOK_DEADLINE_S = 10.0
WORK_DEADLINE_S = 120.0
# One event is some labels, of which there are not many.
EVENT_LIMIT_BYTES = 4 * 1024 * 1024
READ_BYTES = 64 * 1024


class Api:
    """The engine at `url` ("unix:///var/run/docker.sock", "tcp://host:port"). Must be made, used
    and closed on one loop. Calls raise ApiError for what the engine refuses, and Retryable where
    it doesn't answer."""

    def __init__(self, env: Env, url: str = DEFAULT_URL) -> None:
        self._env = env
        self.url = url
        self._docker: aiodocker.Docker | None = None

    @property
    def docker(self) -> aiodocker.Docker:
        """The client, for what has no word of its own here; its errors go through `ask`."""
        if self._docker is None:
            if self.url.startswith("unix://"):
                # Streams stay open for as long as somebody reads: no limit to their number.
                connector = aiohttp.UnixConnector(self.url.removeprefix("unix://"), limit=0)
                self._docker = aiodocker.Docker("unix://localhost", connector=connector)
            else:
                self._docker = aiodocker.Docker(self.url)
        return self._docker

    async def ask(self, call: Awaitable[T], deadline_s: float | None = None) -> T:
        """A call of the client, with this class's errors. A look is short without a deadline."""
        deadline_s = LOOK_DEADLINE_S if deadline_s is None else deadline_s
        try:
            return await self._env.clock.within(deadline_s, call)
        except aiodocker.DockerError as error:
            if error.status == UNREACHABLE:
                raise unreached(self.docker, error) from error
            raise ApiError(error.status, str(error.message)) from error
        except TimeoutError as error:
            raise unreachable(self.url, f"not within {deadline_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(self.url, str(error) or type(error).__name__) from error

    async def get(self, path: str, **params: Any) -> Any:
        """What there is at a path."""
        return await self.ask(self.docker._query_json(path, params=_encoded(params)))

    async def post(self, path: str, body: Mapping[str, Any] | None = None, **params: Any) -> Any:
        """Have something done; the parsed answer."""
        call = self.docker._query_json(
            path, "POST", data=None if body is None else dict(body), params=_encoded(params)
        )
        return await self.ask(call, WORK_DEADLINE_S)

    async def delete(self, path: str, **params: Any) -> None:
        """Have something removed."""
        call = self.docker._query_json(path, "DELETE", params=_encoded(params))
        await self.ask(call, WORK_DEADLINE_S)

    # ------------------------------------------------------------------------- containers

    async def containers(self, label: str) -> list[dict[str, Any]]:
        """All containers with a label ("name=value"), ended ones too."""
        found: list[dict[str, Any]] = await self.get(
            "containers/json", all=1, filters={"label": [label]}
        )
        return found

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """All there is to know of a container; None where there is none."""
        try:
            found: dict[str, Any] = await self.get(f"containers/{container}/json")
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return found

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Create a container; its id."""
        made = await self.post("containers/create", body, name=name)
        return str(made["Id"])

    async def start(self, container: str) -> None:
        """Start a container; one that runs is left as it is."""
        with _passing(NOT_MODIFIED):
            await self.post(f"containers/{container}/start")

    async def kill(self, container: str, signal: str) -> None:
        """Send a signal to a container's first process; fine where there is none."""
        with _passing(NOT_FOUND, CONFLICT):
            await self.post(f"containers/{container}/kill", signal=signal)

    async def remove(self, container: str) -> None:
        """Remove a container, whatever its state, with its anonymous volumes."""
        # Somebody else may be removing it at this moment.
        with _passing(NOT_FOUND, CONFLICT):
            await self.delete(f"containers/{container}", force=1, v=1)

    # ------------------------------------------------------------------------------ streams

    @contextlib.asynccontextmanager
    async def events(self, **filters: list[str]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What happens from now on: once this is entered, nothing is missed."""
        # The engine may be another release's than before.
        self.docker.api_version = "auto"
        stream = contextlib.AsyncExitStack()
        async with stream:
            entering = stream.enter_async_context(
                self.docker._query(
                    "events",
                    params=_encoded({"filters": filters}),
                    timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
                )
            )
            response = await self.ask(entering)
            stream.callback(response.close)
            yield self._parsed(response)

    async def _parsed(self, response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
        rest = b""
        while True:
            try:
                part = await response.content.read(READ_BYTES)
            except (aiohttp.ClientError, OSError) as error:
                raise unreachable(self.url, str(error) or "the stream of events broke") from error
            if not part:
                raise unreachable(self.url, "it has ended the stream of events")
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > EVENT_LIMIT_BYTES:
                raise Retryable("the Docker engine sends an event without an end")
            for line in lines:
                if line.strip():
                    yield json.loads(line)

    async def close(self) -> None:
        """Close all connections."""
        if self._docker is not None:
            docker, self._docker = self._docker, None
            await docker.close()
            await docker.connector.close()


@contextlib.contextmanager
def _passing(*statuses: int) -> Any:
    """Let go what says that it is so already."""
    try:
        yield
    except ApiError as error:
        if error.status not in statuses:
            raise


def _encoded(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in params.items()
    }


__all__ = ["DEFAULT_URL", "LOOK_DEADLINE_S", "WORK_DEADLINE_S", "Api"]
