"""A fake data plane: it takes its time, fails at times, and remembers what it would send where."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

from skep.domain.base import TaskId
from skep.domain.endpoints import NetworkQuestion
from skep.netproxy.core.routes import Desired
from skep.netproxy.dataplane import Look, Observed


@dataclass
class PlaneTemper:
    """Seconds, and the probability that something can't be put in force."""

    mean_apply_s: float = 0.005
    error: float = 0.0


class FakePlane:
    """One netproxy life's data plane; implements `skep.netproxy.dataplane.Dataplane`."""

    def __init__(self, temper: PlaneTemper, dice: Random) -> None:
        self._temper = temper
        self._dice = dice
        self.desired = Desired(version=0)
        self._before = self.desired

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        # Until this returns, connections may still go where they went before.
        self._before, self.desired = self.desired, desired
        await asyncio.sleep(self._dice.expovariate(1.0 / self._temper.mean_apply_s))
        self._before = desired
        return ("a port is taken",) if self._dice.random() < self._temper.error else ()

    async def diagnose(self, question: NetworkQuestion) -> Look:
        return Look(plane="fake")

    def observed(self) -> Observed:
        listeners = tuple(str(route.published) for route in self.desired.routes)
        return Observed(self.desired.version, listeners, 0)

    async def close(self, drain_s: float) -> None:
        """Nothing is open."""

    def may_reach(self, task_id: TaskId) -> bool:
        """Whether a new connection could be sent to this task now."""
        return task_id in targets(self.desired) or task_id in targets(self._before)


def targets(desired: Desired) -> set[TaskId]:
    """Every task that some port leads to."""
    return {candidate.task_id for route in desired.routes for candidate in route.candidates}
