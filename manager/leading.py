"""What streams that need the leader's sessions with workers ask of who leads."""

from __future__ import annotations

from typing import Protocol

from skep.domain.base import NodeId, SessionId
from skep.domain.session import LeaderMessage


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
