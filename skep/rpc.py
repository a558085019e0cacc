"""The one gRPC adapter: the `Transport` seam on grpc.aio.

Handlers and callers speak bytes; gRPC's own serializers are the identity, so that encoding is part
of what the simulator tests. Every server answers gRPC health checks and reflection.

Whether a failed call may have had an effect is what callers must know. An error that the other
side's handler raised carries a mark in its trailing metadata; a failure without the mark comes from
the connection, and is UNAVAILABLE only where nothing was sent, else UNKNOWN.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from skep.env import (
    CallError,
    CallHandler,
    Channel,
    Code,
    Listener,
    Rejected,
    Retryable,
    Service,
    Stream,
    StreamBroken,
    StreamHandler,
)

log = logging.getLogger(__name__)

# Above a chunk of an assignment set or a full stack file, below what would stall a loop.
MESSAGE_LIMIT_BYTES = 8 * 1024 * 1024
STOP_GRACE_S = 0.5

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    # A dead peer that sends no RST is noticed in seconds, not in TCP's hours.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.enable_http_proxy", 0),
)
_SERVER_OPTIONS = (
    *_OPTIONS,
    # By default two processes may share a port without a word, each getting half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 4_000),
)
_CHANNEL_OPTIONS = (
    *_OPTIONS,
    # A manager that comes back is to be used within a second, not within gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_SAID = "skep-said"
_TO_GRPC = {code: getattr(grpc.StatusCode, code.name) for code in Code}
_FROM_GRPC = {status: code for code, status in _TO_GRPC.items()}


class GrpcTransport:
    """See `skep.env.Transport`. `services` names the proto services for reflection."""

    def __init__(self, services: tuple[str, ...] = ()) -> None:
        self._services = services

    async def listen(self, address: str, service: Service) -> Listener:
        """Serve at "host:port" or "unix:/path". Raises OSError when the address is taken."""
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        server.add_generic_rpc_handlers((_Handler(service),))
        await _add_health(server)
        if self._services:
            _add_reflection(server, self._services)
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"can't listen on {address}: {error}") from None
        await server.start()
        bound = address
        if not address.startswith("unix:"):
            bound = f"{address.rpartition(':')[0]}:{port}"
        return _GrpcListener(server, bound)

    def channel(self, address: str) -> Channel:
        """A channel of its own to `address`."""
        return _GrpcChannel(address)


class _GrpcListener:
    def __init__(self, server: grpc.aio.Server, address: str) -> None:
        self._server = server
        self._address = address

    @property
    def address(self) -> str:
        return self._address

    async def close(self) -> None:
        await self._server.stop(STOP_GRACE_S)


class _Handler(grpc.GenericRpcHandler):
    """Finds the handler of a method by its full name."""

    def __init__(self, service: Service) -> None:
        self._service_of = service

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.removeprefix("/")
        if method in self._service_of.calls:
            handler = self._service_of.calls[method]
            return grpc.unary_unary_rpc_method_handler(_serve_call(method, handler))
        if method in self._service_of.streams:
            return grpc.stream_stream_rpc_method_handler(
                _serve_stream(method, self._service_of.streams[method])
            )
        return None


def _serve_call(method: str, handler: CallHandler) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def serve(request: bytes, context: Any) -> bytes:
        try:
            return await handler(request)
        except Exception as error:
            await _abort(method, context, error)
            raise AssertionError("abort returned") from error

    return serve


def _serve_stream(method: str, handler: StreamHandler) -> Callable[[Any, Any], Awaitable[None]]:
    async def serve(_requests: Any, context: Any) -> None:
        try:
            await handler(_ServerStream(context))
        except StreamBroken:
            return
        except Exception as error:
            await _abort(method, context, error)

    return serve


async def _abort(method: str, context: Any, error: Exception) -> None:
    said = as_call_error(error)
    if said.code is Code.INTERNAL:
        log.error("call=%s failed", method, exc_info=error)
    details = tuple((f"skep-{key}", value) for key, value in said.details.items())
    await context.abort(_TO_GRPC[said.code], said.message, ((_SAID, "1"), *details))


def as_call_error(error: Exception) -> CallError:
    """How an error that a handler raised is told to the caller."""
    match error:
        case CallError():
            return error
        case Rejected():
            details = {"field": error.field} if error.field else {}
            return CallError(Code.INVALID_ARGUMENT, str(error), details)
        case Retryable():
            return CallError(Code.UNAVAILABLE, str(error))
        case _:
            return CallError(Code.INTERNAL, f"internal error: {type(error).__name__}: {error}")


class _ServerStream:
    def __init__(self, context: Any) -> None:
        self._context = context
        self.peer = str(context.peer())

    async def send(self, frame: bytes) -> None:
        try:
            await self._context.write(frame)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, grpc.aio.InternalError) as error:
            raise StreamBroken(f"{self.peer}: {error}") from None

    async def receive(self) -> bytes | None:
        try:
            frame = await self._context.read()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, grpc.aio.InternalError) as error:
            raise StreamBroken(f"{self.peer}: {error}") from None
        return None if frame is grpc.aio.EOF else bytes(frame)

    async def close(self) -> None:
        """The handler's return is what closes the stream."""


class _GrpcChannel:
    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: grpc.aio.Channel | None = None

    async def call(self, method: str, request: bytes, *, deadline_s: float) -> bytes:
        try:
            rpc: Any = self._connected().unary_unary(f"/{method}")
            return bytes(await rpc(request, timeout=deadline_s))
        except grpc.aio.AioRpcError as error:
            raise _from_rpc_error(self._address, error) from None
        except grpc.aio.UsageError as error:
            raise CallError(Code.UNAVAILABLE, f"{self._address}: {error}") from None

    async def open(self, method: str, *, deadline_s: float) -> Stream:
        rpc: Any = self._connected().stream_stream(f"/{method}")()
        try:
            async with asyncio.timeout(deadline_s):
                await rpc.wait_for_connection()
        except TimeoutError:
            rpc.cancel()
            raise CallError(Code.UNAVAILABLE, f"{self._address} does not answer") from None
        except grpc.aio.AioRpcError as error:
            raise _from_rpc_error(self._address, error) from None
        return _ClientStream(self._address, rpc)

    async def close(self) -> None:
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close(None)

    def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=_CHANNEL_OPTIONS)
        return self._channel


class _ClientStream:
    def __init__(self, peer: str, rpc: Any) -> None:
        self.peer = peer
        self._rpc = rpc

    async def send(self, frame: bytes) -> None:
        try:
            await self._rpc.write(frame)
        except grpc.aio.AioRpcError as error:
            raise self._why(error) from None
        except asyncio.InvalidStateError:
            raise await self._ended() from None

    async def receive(self) -> bytes | None:
        try:
            frame = await self._rpc.read()
        except grpc.aio.AioRpcError as error:
            raise self._why(error) from None
        except asyncio.CancelledError:
            # gRPC says the same when the stream was cancelled and when its reader is; only the
            # reader's own task knows which of the two it is.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise StreamBroken(f"{self.peer}: closed here") from None
        return None if frame is grpc.aio.EOF else bytes(frame)

    async def close(self) -> None:
        self._rpc.cancel()

    def _why(self, error: grpc.aio.AioRpcError) -> CallError | StreamBroken:
        if _metadata(error).get(_SAID):
            return _from_rpc_error(self.peer, error)
        return StreamBroken(f"{self.peer}: {error.details()}")

    async def _ended(self) -> CallError | StreamBroken:
        """Why a stream that can't be written to any more has ended."""
        if self._rpc.cancelled():
            return StreamBroken(f"{self.peer}: closed here")
        code, text = await self._rpc.code(), await self._rpc.details()
        said = dict(await self._rpc.trailing_metadata() or ())
        if said.get(_SAID):
            return CallError(_FROM_GRPC.get(code, Code.UNKNOWN), text or "", _details(said))
        return StreamBroken(f"{self.peer}: {text or 'ended'}")


def _metadata(error: grpc.aio.AioRpcError) -> dict[str, str]:
    return {str(key): str(value) for key, value in (error.trailing_metadata() or ())}


def _details(metadata: dict[str, Any]) -> dict[str, str]:
    prefix = "skep-"
    return {
        key.removeprefix(prefix): str(value)
        for key, value in metadata.items()
        if key.startswith(prefix) and key != _SAID
    }


def _from_rpc_error(address: str, error: grpc.aio.AioRpcError) -> CallError:
    said = _metadata(error)
    text = error.details() or ""
    if said.get(_SAID):
        return CallError(_FROM_GRPC.get(error.code(), Code.UNKNOWN), text, _details(said))
    code = _FROM_GRPC.get(error.code(), Code.UNKNOWN)
    if code is Code.UNAVAILABLE and "connect" not in text.lower():
        # The connection broke under a call that may have been delivered.
        code = Code.UNKNOWN
    return CallError(code, f"{address}: {text}")


async def _add_health(server: grpc.aio.Server) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_health.v1.health import aio as health_aio

    servicer = health_aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def _add_reflection(server: grpc.aio.Server, services: tuple[str, ...]) -> None:
    from grpc_health.v1 import health
    from grpc_reflection.v1alpha import reflection

    # Reflection shows what is in the descriptor pool: it must be loaded for that.
    from skep.api import attach_pb2, control_pb2, endpoints_pb2, session_pb2  # noqa: F401

    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
