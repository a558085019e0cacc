"""What has become of a spec that was asked for, judged from one sight of its service. Pure.

A service's revision counts specs, and its update status names the revision that a change is about;
so whoever knows the number of the spec that he wrote can tell its end from that of another's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from skep.client.errors import ClientError, GivenUp, RolledBack, Superseded, UpdatePaused
from skep.domain.base import SECOND_NS
from skep.domain.control import ServiceView
from skep.domain.objects import Service, UpdateState, UpdateStatus
from skep.domain.spec import FailureAction, ServiceSpec, UpdatePolicy

# Between a write and what the orchestrator makes of it, the end of what was before may still be
# what there is to see; managers need milliseconds for that, or a second to change their leader.
HOLD_S = 1.0

# What a slot of a healthy release may take: to stop, to start, and to become healthy.
SLOT_S = 30.0
PATIENCE_LEAST_S = 60.0
PATIENCE_MOST_S = 4 * 3600.0

ROLLBACK_OVER = frozenset({UpdateState.ROLLBACK_COMPLETED, UpdateState.ROLLBACK_PAUSED})
ROLLBACKS = ROLLBACK_OVER | {UpdateState.ROLLBACK_STARTED}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a change has ended: `kind` None is well. `hold_s` is how long it has to be seen before
    it is believed."""

    kind: type[ClientError] | None
    message: str = ""
    hold_s: float = 0.0


def judge(view: ServiceView, asked: int) -> Verdict | None:
    """How the change to revision `asked` has ended; None while it is under way."""
    service, update = view.service, view.service.update
    if service.revision > asked:
        if not is_rollback_of(update, asked):
            return Verdict(Superseded, _superseded(service, asked))
        return Verdict(RolledBack, rolled_back(service)) if has_ended(update) else None
    if service.is_removing:
        return Verdict(Superseded, f"{service.name}: it is being removed")
    if view.is_converged:
        # Slots that failed and run again at the moment are not believed at first sight.
        has_failed = update is not None and update.revision == asked and update.failed_slots
        monitor_s = update.policy.monitor_ns / SECOND_NS if update and has_failed else 0.0
        return Verdict(None, hold_s=monitor_s)
    if update is not None and update.state.is_paused:
        return Verdict(UpdatePaused, _paused(view, update), HOLD_S)
    if (update is not None and update.state.is_active) or not has_given_up(view):
        return None
    return Verdict(GivenUp, _given_up(view), HOLD_S)


def is_rollback_of(update: UpdateStatus | None, asked: int) -> bool:
    """Whether a rollback gave up that revision, or is about to."""
    return update is not None and update.state in ROLLBACKS and update.revision == asked


def has_ended(update: UpdateStatus | None) -> bool:
    """Whether no update is under way."""
    return update is None or not update.state.is_active


def is_paused(service: Service) -> bool:
    """Whether its update waits for a person."""
    return service.update is not None and service.update.state.is_paused


def has_given_up(view: ServiceView) -> bool:
    """Whether a service is as far as its restart policy lets it come, but not as its spec says."""
    ended = view.given_up + view.completed
    is_stuck = view.given_up > 0 and view.running + ended >= view.desired
    return is_stuck and not view.is_converged and not view.service.is_removing


# ---------------------------------------------------------------------------- for a person


def rolled_back(service: Service) -> str:
    """What to say of a change that was rolled back, or is being."""
    update = service.update
    assert update is not None
    given_up, base = update.revision, update.base_revision
    head = f"{service.name}: {update.message or 'rolled back'}"
    if update.state is UpdateState.ROLLBACK_STARTED:
        return f"{head}; revision {given_up} is being given up for that of {base}"
    if update.state is UpdateState.ROLLBACK_PAUSED:
        return f"{head}; revision {given_up} was given up, but not all run that of {base} again"
    return f"{head}; revision {given_up} was given up, and that of {base} runs again"


def _superseded(service: Service, asked: int) -> str:
    update = service.update
    by = ""
    if update is not None and update.state in ROLLBACKS and update.message:
        by = f" ({update.message})"
    return (
        f"{service.name}: revision {asked}, which was waited for, was replaced by revision "
        f"{service.revision} meanwhile{by}"
    )


def _paused(view: ServiceView, update: UpdateStatus) -> str:
    what = "rollback" if update.state is UpdateState.ROLLBACK_PAUSED else "update"
    return (
        f"{view.service.name}: {update.message or f'{what} paused'}; {view.running} of "
        f"{view.desired} tasks run, of both revisions together"
    )


def _given_up(view: ServiceView) -> str:
    if view.problems:
        problems = "; ".join(view.problems)
        return f"{view.service.name}: gave up after its last restart: {problems}"
    return f"{view.service.name}: ended, and its restart policy doesn't start it again"


# ------------------------------------------------------------------------------- how long


def patience_s(spec: ServiceSpec, policy: UpdatePolicy | None = None) -> float:
    """How long an update to `spec` may take before waiting for it makes no more sense: by default
    under its update policy, and including the rollback that this may end in. Seconds, from one
    minute to four hours.

    Each batch of slots counts with 30 s and the delay; then there is room for one task that never
    gets healthy, and for the monitor.
    """
    policies = [policy or spec.update]
    if policy is None and spec.update.failure_action is FailureAction.ROLLBACK:
        policies.append(spec.rollback)
    total_s = sum(_span_s(spec, each) for each in policies)
    return min(max(total_s, PATIENCE_LEAST_S), PATIENCE_MOST_S)


def _span_s(spec: ServiceSpec, policy: UpdatePolicy) -> float:
    batches = math.ceil(spec.replicas / (policy.parallelism or spec.replicas or 1))
    health = spec.task.run.health
    start_period_ns = health.start_period_ns if health else 0
    last_ns = policy.healthy_deadline_ns + start_period_ns + policy.monitor_ns
    per_batch_ns = policy.delay_ns + spec.task.run.stop_grace_ns
    return batches * (SLOT_S + per_batch_ns / SECOND_NS) + last_ns / SECOND_NS
