"""Who leads, for what the leader alone can serve; and what every such service needs to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from skep.domain.base import NodeId, SessionId
from skep.domain.session import LeaderMessage
from skep.env import CallError, Code, Env, Retryable, Stream
from skep.manager.store.actor import Store

READ_DEADLINE_S = 5.0
CONNECT_DEADLINE_S = 5.0


class Sessions(Protocol):
    """The leader's sessions with workers."""

    def session_of(self, node_id: NodeId) -> SessionId | None:
        """The session of a node, if it has one."""
        ...

    def tell(self, node_id: NodeId, message: LeaderMessage) -> None:
        """Send a message in a node's session; lost where there is none."""
        ...


class Office(Protocol):
    """What is to be known of who leads."""

    @property
    def is_leader(self) -> bool:
        """Whether this manager leads."""
        ...

    @property
    def leader_address(self) -> str | None:
        """Where the leader's control API is, if known."""
        ...

    @property
    def dispatcher(self) -> Sessions | None:
        """The sessions of the present term, where this manager leads."""
        ...


def no_leader() -> CallError:
    """What a manager answers that neither leads nor knows who does."""
    return CallError(Code.UNAVAILABLE, "no manager leads at the moment; try again")


async def catch_up(store: Store) -> None:
    """See that what is read next is as new as anything that anybody was told before. Raises
    CallError where there is no quorum to say so."""
    try:
        await store.read_barrier(READ_DEADLINE_S)
    except (Retryable, TimeoutError) as error:
        raise CallError(Code.UNAVAILABLE, f"no quorum: {error}") from None


@asynccontextmanager
async def stream_to_leader(
    env: Env, office: Office, method: str, *, may_forward: bool
) -> AsyncIterator[Stream]:
    """A stream to the leader's `method`, closed in the end. Raises CallError, also where this
    manager leads by now or the caller was forwarded here already (not `may_forward`)."""
    address = office.leader_address
    if not may_forward or office.is_leader or address is None:
        raise no_leader()
    channel = env.transport.channel(address)
    try:
        stream = await channel.open(method, deadline_s=CONNECT_DEADLINE_S)
        try:
            yield stream
        finally:
            await stream.close()
    finally:
        await channel.close()
