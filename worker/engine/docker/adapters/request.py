"""Requests to the engine whose answers are streams, or for which aiodocker has no method.

aiodocker leaves an answer that isn't read to its end open, and takes a connection that broke for
the end of a stream. Here an answer is closed whatever happens, and one that broke is an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiodocker
import aiohttp

from skep.domain.base import Pairs
from skep.env import Retryable
from skep.worker.engine.docker.core.errors import UNREACHABLE, unreachable

# What needs no registry takes milliseconds; a disk in trouble may hold it up.
ANSWER_SILENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """A path without the API's version. None as `silence_s`: the answer may take its time."""

    path: str
    method: str = "GET"
    params: Pairs = ()
    headers: Pairs = ()
    silence_s: float | None = ANSWER_SILENCE_S


async def begin(docker: aiodocker.Docker, request: Request) -> aiohttp.ClientResponse:
    """The answer to one request, for the caller to read and to close. Raises aiodocker.DockerError
    for what the engine refuses, and Retryable where it isn't there or doesn't answer."""
    try:
        return await docker._do_query(
            request.path,
            request.method,
            params=dict(request.params),
            headers=dict(request.headers),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=request.silence_s),
        )
    except aiodocker.DockerError as error:
        if error.status == UNREACHABLE:
            raise unreached(docker, error) from error
        raise
    except (TimeoutError, aiohttp.ClientError) as error:
        raise broken(request, error) from error


@asynccontextmanager
async def ask(docker: aiodocker.Docker, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
    """The same, to be read inside; what breaks there is Retryable, too."""
    response = await begin(docker, request)
    try:
        yield response
    except (TimeoutError, aiohttp.ClientError) as error:
        raise broken(request, error) from error
    finally:
        response.close()


async def read(docker: aiodocker.Docker, path: str, params: Pairs = ()) -> bytes:
    """The whole answer to a GET. Errors as for `ask`."""
    async with ask(docker, Request(path, params=params)) as response:
        return await response.read()


def unreached(docker: aiodocker.Docker, error: aiodocker.DockerError) -> Retryable:
    """What it means that there is nobody at the engine's address."""
    connector, url = docker.connector, docker.docker_host
    if isinstance(connector, aiohttp.UnixConnector):
        url = f"unix://{connector.path}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return unreachable(url, cause.strerror if cause and cause.strerror else error.message)


def broken(request: Request, error: Exception) -> Retryable:
    """What it means that an answer can't be read to its end."""
    if isinstance(error, TimeoutError):
        return Retryable(f"the Docker engine said nothing for {request.silence_s:g} s")
    return Retryable(f"the Docker engine broke off: {error or type(error).__name__}")
