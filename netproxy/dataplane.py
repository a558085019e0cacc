"""The seam to what moves packets: the relay (user space), and the kernel's own means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from skep.domain.attach import AttachRequest
from skep.domain.base import TaskId
from skep.domain.endpoints import NameAnswer, NetworkQuestion
from skep.netproxy.core.names import Forms
from skep.netproxy.core.routes import Desired
from skep.netproxy.core.world import World


@dataclass(frozen=True, slots=True)
class Observed:
    """What is really in force: the version, and the addresses that are listened on, sorted."""

    version: int
    listeners: tuple[str, ...]
    connections: int


@dataclass(frozen=True, slots=True)
class Joined:
    """How a task's processes get onto its networks: see `skep.domain.attach.AttachResponse`."""

    namespace: str = ""
    cgroup: str = ""


class Network(Protocol):
    """What the follower of the managers' word drives: this node's network as a whole."""

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        """See `Dataplane.apply`."""
        ...

    async def diagnose(self, question: NetworkQuestion) -> Look:
        """How things are here, for a person."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """A node's network, looked at: see `skep.domain.endpoints.Diagnosis`."""

    plane: str
    differences: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    answer: NameAnswer | None = None


class Dataplane(Protocol):
    """Puts in force what the managers want on this node."""

    @property
    def name(self) -> str:
        """What a node's description calls it: "relay" or "kernel"."""
        ...

    @property
    def forms(self) -> Forms:
        """The addresses that names stand for on this node."""
        ...

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        """Make it so; returns, for a person, what could not be done.

        When this returns, no connection that is made from now on, or that is being made, reaches
        a task that `desired` doesn't name, whatever the errors. Raises Retryable where that can't
        be had. Open connections go on. Applying the same again tries again what failed.
        """
        ...

    async def attach(self, request: AttachRequest, world: World) -> Joined:
        """Connect a task to its networks, all of which `world` names; a task that is attached
        already is left as it is, and completed where something is missing. Raises Retryable."""
        ...

    async def detach(self, task_ids: Iterable[TaskId]) -> None:
        """Take away all that these tasks have here; unknown ones are fine. Raises Retryable."""
        ...

    async def attached(self) -> frozenset[TaskId]:
        """The tasks that the world really has something of, whatever this process remembers."""
        ...

    async def probe(self, task_id: TaskId, address: str, port: int, deadline_s: float) -> int:
        """Connect to an endpoint as this task would, and close; how many ns that took. Raises
        OSError, TimeoutError."""
        ...

    async def differences(self) -> tuple[str, ...]:
        """Where the world isn't as it was last put, in words."""
        ...

    def facts(self) -> tuple[str, ...]:
        """What a person who looks for trouble wants to know of this plane, in words."""
        ...

    def observed(self) -> Observed:
        """What is in force now."""
        ...

    async def close(self, drain_s: float) -> None:
        """Take no more connections, give the open ones `drain_s` to end, and cut the rest."""
        ...
