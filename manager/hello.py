"""The first frame of a stream that a node opens: who it is, and whether it is one of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from skep.domain.base import ClusterId
from skep.env import CallError, Code, Env, Stream, StreamBroken

HELLO_DEADLINE_S = 5.0


class Hello(Protocol):
    """What every hello says."""

    @property
    def format(self) -> int:
        """The version of the stream's format."""
        ...

    @property
    def cluster_id(self) -> ClusterId:
        """The cluster that the node believes this to be."""
        ...


H = TypeVar("H", bound=Hello)


async def receive_hello(
    env: Env, stream: Stream, read: Callable[[bytes], H | None], format_: int, cluster: ClusterId
) -> H:
    """The hello that `read` finds in the first frame. Raises CallError, StreamBroken, Rejected."""
    try:
        frame = await env.clock.within(HELLO_DEADLINE_S, stream.receive())
    except TimeoutError:
        raise CallError(Code.DEADLINE_EXCEEDED, "no hello came") from None
    if frame is None:
        raise StreamBroken("closed before its hello")
    hello = read(frame)
    if hello is None or hello.format != format_:
        theirs = "no hello" if hello is None else f"format {hello.format}"
        raise CallError(
            Code.FAILED_PRECONDITION, f"this manager speaks format {format_}, and got {theirs}"
        )
    if hello.cluster_id != cluster:
        raise CallError(
            Code.PERMISSION_DENIED, f"this is cluster {cluster}, not {hello.cluster_id}"
        )
    return hello
