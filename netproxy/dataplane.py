"""The seam to what moves packets. The relay (user space) is one implementation of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from skep.netproxy.core.routes import Desired


@dataclass(frozen=True, slots=True)
class Observed:
    """What is really in force: the version, and the addresses that are listened on, sorted."""

    version: int
    listeners: tuple[str, ...]
    connections: int


class Dataplane(Protocol):
    """Puts in force what the managers want on this node."""

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        """Make it so; returns, for a person, what could not be done.

        When this returns, no connection that is made from now on, or that is being made, reaches
        a task that `desired` doesn't name, whatever the errors. Open connections go on. Applying
        the same again tries again what failed.
        """
        ...

    def observed(self) -> Observed:
        """What is in force now."""
        ...

    async def close(self, drain_s: float) -> None:
        """Take no more connections, give the open ones `drain_s` to end, and cut the rest."""
        ...
