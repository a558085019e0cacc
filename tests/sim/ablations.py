"""Named safeguards, each switched off alone: the world must see that it is missing.

An ablation is run in a process of the test's pool, so it is named there, and takes back what it
has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from skep.domain.base import NodeId, ServiceId, encode
from skep.domain.objects import Request, Service
from skep.domain.spec import ServiceSpec
from skep.domain.states import DesiredState
from skep.manager import revisions
from skep.manager.allocator.core import taken
from skep.manager.control import actor as control
from skep.manager.dispatcher.core.drain import DrainWatch
from skep.manager.dispatcher.core.liveness import GRACE_S, Liveness
from skep.manager.orchestrator.actor import Orchestrator
from skep.manager.orchestrator.core import replicated, rollout
from skep.manager.orchestrator.core.plan import Plan
from skep.manager.orchestrator.core.slots import Scene, Slot
from skep.manager.store.core.transaction import Transaction
from skep.worker import journal
from skep.worker.core import task
from skep.worker.core.ledger import Change
from skep.worker.journal import Journal
from tests.sim import network_ablations
from tests.sim.long import scenario
from tests.sim.world import SeedFailed, simulate

NEVER_NS = 2**62


@dataclass(frozen=True)
class Ablation:
    """A safeguard without which one of the `seeds` of a scenario must fail, in one of these
    words."""

    remove: Callable[[pytest.MonkeyPatch], None]
    scenario: str
    seeds: Sequence[int]
    words: tuple[str, ...]


def found_by(name: str) -> int | None:
    """The first seed that notices; None if none does."""
    ablation = ABLATIONS[name]
    with pytest.MonkeyPatch.context() as patch:
        ablation.remove(patch)
        for seed in ablation.seeds:
            try:
                simulate(name, scenario(ablation.scenario), seed)
            except SeedFailed as failure:
                if not any(word in str(failure) for word in ablation.words):
                    raise
                return seed
    return None


def _request_dedupe(patch: pytest.MonkeyPatch) -> None:
    once = control._once

    def always(tx: Transaction, method: str, request: Any, kind: Any, run: Any) -> Any:
        if tx.get(Request, request.request_id) is not None:
            tx.remove(Request, request.request_id)
        return once(tx, method, request, kind, run)

    patch.setattr(control, "_once", always)


def _drain_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DrainWatch, "applied_everywhere", lambda *_: True)
    # Its moment of patience would cover most of what the netproxies lack.
    patch.setattr(task, "DRAIN_WINDOW_S", 0.0)


def _predecessor_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Scene, "is_stopping", lambda *_: False)


def _registration_grace(patch: pytest.MonkeyPatch) -> None:
    expect: Callable[[Liveness, float, NodeId], None] = Liveness.expect
    patch.setattr(
        Liveness, "expect", lambda self, now, node_id: expect(self, now - GRACE_S, node_id)
    )


def _worker_sync(patch: pytest.MonkeyPatch) -> None:
    replaced: Callable[[Journal, Change], Coroutine[Any, Any, None]] = Journal.save

    async def save(self: Journal, change: Change) -> None:
        if self._file is None:
            await replaced(self, change)
            return
        self._file.append(journal._frame(encode(change)))
        self.ledger.apply(change)

    patch.setattr(Journal, "save", save)


def _plan_in_transaction(patch: pytest.MonkeyPatch) -> None:
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

    patch.setattr(Orchestrator, "look", look)


def _start_first(patch: pytest.MonkeyPatch) -> None:
    def at_once(scene: Scene, slot: Slot, plan: Plan) -> None:
        for old in slot.kept:
            plan.decide().want(old, DesiredState.SHUTDOWN, "at once")

    patch.setattr(replicated, "_hand_over", at_once)


def _parallelism(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rollout, "_room", lambda *_: None)


def _counted_failures(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rollout, "_with_failures", lambda status, _sights: status)


def _healthy_deadline(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rollout, "_deadline_ns", lambda *_: NEVER_NS)


def _soft_moves(patch: pytest.MonkeyPatch) -> None:
    def at_once(scene: Scene, slot: Slot, why: str, plan: Plan, moving: int) -> int:
        replicated._replace_now(scene, slot, why, plan)
        return 0

    patch.setattr(replicated, "_move", at_once)


def _restored_revisions(patch: pytest.MonkeyPatch) -> None:
    def always_new(tx: Transaction, service: Service, spec: ServiceSpec, number: int) -> int:
        is_same = revisions._identity(spec) == revisions._identity(service.spec)
        return service.task_revision if is_same else number

    patch.setattr(revisions, "_task_revision", always_new)


def _held_addresses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(taken, "holds_addresses", lambda task: task.is_wanted and not task.is_terminal)


ABLATIONS = {
    # A mutation that is repeated under its request id is done once.
    "request dedupe": Ablation(
        _request_dedupe,
        "cluster",
        range(2, 40),
        ("was done twice", "by what was refused", "lost an acknowledged"),
    ),
    # A task is asked to end only when no netproxy sends it connections any more.
    "drain hold": Ablation(_drain_hold, "calm", range(10), ("signalled while in use",)),
    # A replacement starts when what it replaces has stopped.
    "predecessor wait": Ablation(
        _predecessor_wait, "calm", range(10), ("two processes of one slot",)
    ),
    # A new leader doesn't know how long anybody has been silent.
    "registration grace": Ablation(
        _registration_grace, "cluster", range(2, 22), ("after an election",)
    ),
    # No status is reported, and no term obeyed, before it is on the worker's disk.
    "worker's sync before report": Ablation(
        _worker_sync, "cluster", range(23, 63), ("not converged",)
    ),
    # What a pass decides, it decides on the very state that it writes to.
    "plan in transaction": Ablation(
        _plan_in_transaction, "calm", range(1, 21), ("AssertionError",)
    ),
    # The old task goes on until the new one is healthy.
    "start first": Ablation(_start_first, "calm", range(10), ("stops serving",)),
    # No more slots change at a time than the policy says.
    "parallelism": Ablation(_parallelism, "calm", range(1, 11), ("change already",)),
    # Slots that fail are counted, and too many end the update.
    "counted failures": Ablation(
        _counted_failures, "calm", range(3, 23), ("the release has never served",)
    ),
    # What never gets healthy has failed at some time.
    "healthy deadline": Ablation(_healthy_deadline, "calm", range(6, 26), ("not converged",)),
    # A task that has to leave its node goes on until its successor is healthy.
    "moves start first": Ablation(_soft_moves, "calm", range(1, 11), ("stops serving",)),
    # What still runs from before an update is right again after a rollback.
    "restored revisions": Ablation(
        _restored_revisions, "calm", range(3, 23), ("run, and are not right",)
    ),
    # A task's addresses are its own until it has ended, whatever is wanted of it.
    "held addresses": Ablation(_held_addresses, "cluster", range(60), ("is that of task",)),
    # A task that is only reached by names and virtual addresses is drained as well.
    "drain hold on networks": Ablation(
        network_ablations.drain_of_networks, "calm", range(3, 13), ("signalled while in use",)
    ),
    # What a netproxy acknowledges is in force, names included.
    "in force before acknowledged": Ablation(
        network_ablations.in_force_first, "calm", range(1, 11), ("acknowledged", "while in use")
    ),
    # A netproxy that was away for long is told everything.
    "the whole on a gap": Ablation(
        network_ablations.whole_on_a_gap, "cluster", range(8, 28), ("not converged", "and leads by")
    ),
    # Who is over is taken off its networks,
    "detach": Ablation(network_ablations.detach, "calm", range(10), ("should not be",)),
    # also when nobody could do so at the time.
    "hold": Ablation(network_ablations.hold, "cluster", range(20), ("should not be",)),
    "undone preparations": Ablation(
        network_ablations.undone_preparations, "calm", range(10), ("should not be",)
    ),
    # A netproxy that begins anew knows who is attached, and answers their names.
    "persisted attachments": Ablation(
        network_ablations.persisted_attachments, "cluster", range(8, 28), ("not answered for",)
    ),
}
