"""Safeguards of networks, each taken away by itself; see `tests.sim.ablations`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from skep.domain.base import TaskId
from skep.domain.endpoints import EndpointUpdate
from skep.manager.endpoints.core.feed import EndpointFeed
from skep.netproxy.actor import FollowActor
from skep.netproxy.core.attachments import Attachments
from skep.netproxy.core.endpoints import PlaneApplied
from skep.netproxy.core.routes import Desired
from skep.netproxy.network import NodeNetwork
from skep.worker.core.ending import NEVER_STARTED
from skep.worker.core.events import Moment
from skep.worker.core.task import TaskMachine
from skep.worker.engine.network import TaskNetwork


def drain_of_networks(patch: pytest.MonkeyPatch) -> None:
    """Only a published port makes a task wait until it is drained."""
    has_connections: Callable[[TaskMachine], bool] = TaskMachine._has_connections
    patch.setattr(
        TaskMachine,
        "_has_connections",
        lambda self: bool(self.assignment.spec.ports) and has_connections(self),
    )


def in_force_first(patch: pytest.MonkeyPatch) -> None:
    """A version is acknowledged while it is still being put in force."""
    apply = FollowActor._apply

    async def early(self: FollowActor, desired: Desired) -> PlaneApplied:
        self.env.spawn("late", apply(self, desired))
        return PlaneApplied(self.env.now(), desired.version)

    patch.setattr(FollowActor, "_apply", early)


def whole_on_a_gap(patch: pytest.MonkeyPatch) -> None:
    """A manager that doesn't know what changed since a version sends what it knows of."""
    update_since: Callable[[EndpointFeed, int], list[EndpointUpdate]] = EndpointFeed.update_since

    def partial(self: EndpointFeed, version: int) -> list[EndpointUpdate]:
        if 0 < version <= self.version:
            self._floor = 0
        return update_since(self, version)

    patch.setattr(EndpointFeed, "update_since", partial)


def detach(patch: pytest.MonkeyPatch) -> None:
    """Whoever is over stays on its networks until the agent's next start."""

    async def forget(self: TaskNetwork, task_id: TaskId) -> None:
        self._live.discard(task_id)

    patch.setattr(TaskNetwork, "detach", forget)


def hold(patch: pytest.MonkeyPatch) -> None:
    """Nobody says which tasks there are."""
    patch.setattr(TaskNetwork, "take_over", lambda self, live: self._live.update(live))


def persisted_attachments(patch: pytest.MonkeyPatch) -> None:
    """A netproxy begins without knowing who is attached."""
    patch.setattr(NodeNetwork, "_load", lambda _: Attachments())


def undone_preparations(patch: pytest.MonkeyPatch) -> None:
    """A task that never started is over at once, with all that was prepared for it."""
    begin_stop: Callable[[TaskMachine, Moment], None] = TaskMachine._begin_stop

    def at_once(self: TaskMachine, at: Moment) -> None:
        if self.status.state.value == "ready" and not self._calls.busy:
            self._finish(at, NEVER_STARTED)
        else:
            begin_stop(self, at)

    patch.setattr(TaskMachine, "_begin_stop", at_once)
