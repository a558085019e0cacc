"""The whole cluster under every fault, and the proof that its safeguards are needed.

Sixty seeds are always the same; sixty are new in each run. A failure prints the line that shows it
again. `make sim-long` runs many more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from skep.domain.base import NodeId, ServiceId, encode
from skep.manager.control import actor as control
from skep.manager.dispatcher.core.drain import DrainWatch
from skep.manager.dispatcher.core.liveness import GRACE_S, Liveness
from skep.manager.orchestrator.actor import Orchestrator
from skep.manager.orchestrator.core import replicated
from skep.worker import journal
from skep.worker.core.ledger import Change
from skep.worker.journal import Journal
from tests.sim.long import fresh_seed
from tests.sim.storm import calm, storm
from tests.sim.world import Scenario, SeedFailed, simulate

pytestmark = pytest.mark.sim

ROOT = Path(__file__).parent.parent.parent
FRESH = fresh_seed()


@pytest.mark.parametrize("seed", range(60))
def test_a_storm_is_survived(seed: int) -> None:
    simulate("cluster", storm, seed)


@pytest.mark.parametrize("place", range(60))
def test_a_new_storm_is_survived(place: int) -> None:
    simulate("cluster", storm, FRESH + place)


@pytest.mark.parametrize("seed", [*range(4), *range(FRESH, FRESH + 4)])
def test_on_calm_days_nothing_ever_goes_wrong(seed: int) -> None:
    simulate("calm", calm, seed)


def test_one_seed_is_one_life_under_any_hash_seed() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-m", "tests.sim.long", "--scenario", "cluster", "--seed", "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=120.0,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1, outputs


# ------------------------------------------------------------------------------------ ablations
# Named safeguards, each switched off alone: the world must see that it is missing.


def found_by(scenario: Scenario, seeds: Iterable[int], text: str) -> bool:
    """Whether one of these seeds notices, in these words."""
    for seed in seeds:
        try:
            simulate("ablation", scenario, seed)
        except SeedFailed as failure:
            if text not in str(failure):
                raise
            return True
    return False


def test_ablation_request_dedupe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutation that is repeated under its request id is done once."""

    def always(_tx: object, _method: str, _request: object, _kind: object, run: Any) -> Any:
        return run()

    monkeypatch.setattr(control, "_once", always)
    assert found_by(storm, range(20, 60), "was done twice")


def test_ablation_drain_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is asked to end only when no netproxy sends it connections any more."""
    monkeypatch.setattr(DrainWatch, "applied_everywhere", lambda *_: True)
    assert found_by(calm, range(5), "signalled while in use")


def test_ablation_predecessor_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement starts when what it replaces has stopped."""
    monkeypatch.setattr(replicated, "_is_stopping", lambda *_: False)
    assert found_by(calm, range(5), "two processes of one slot")


def test_ablation_registration_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader doesn't know how long anybody has been silent."""
    expect: Callable[[Liveness, float, NodeId], None] = Liveness.expect
    monkeypatch.setattr(
        Liveness, "expect", lambda self, now, node_id: expect(self, now - GRACE_S, node_id)
    )
    assert found_by(storm, range(10), "after an election")


def test_ablation_worker_sync_before_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """No status is reported, and no term obeyed, before it is on the worker's disk."""

    replaced: Callable[[Journal, Change], Coroutine[Any, Any, None]] = Journal.save

    async def save(self: Journal, change: Change) -> None:
        if self._file is None:
            await replaced(self, change)
            return
        self._file.append(journal._frame(encode(change)))
        self.ledger.apply(change)

    monkeypatch.setattr(Journal, "save", save)
    assert found_by(storm, range(10), "not converged")


def test_ablation_plan_in_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pass decides, it decides on the very state that it writes to."""

    async def look(self: Orchestrator, key: object) -> None:
        service_id = ServiceId(str(key))
        plan = self._plan(self.store.tables, service_id, self.store.wall_ns)
        if not plan.is_empty:
            await self.env.turn()
            await self.store.update(lambda tx: written(self, tx, service_id, plan), term=self.term)
        if plan.wake_at_ns is not None:
            self.look_again(key, (plan.wake_at_ns - self.store.wall_ns) / 1e9)

    def written(self: Orchestrator, tx: Any, service_id: ServiceId, plan: Any) -> object:
        with pytest.MonkeyPatch.context() as stale:
            stale.setattr(self, "_plan", lambda *_: plan)
            return self._write(tx, service_id)

    monkeypatch.setattr(Orchestrator, "look", look)
    assert found_by(calm, range(3, 13), "AssertionError")
