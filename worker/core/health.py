"""When a task counts as healthy, and when it no longer does. The rules are Docker's.

A task is not healthy before its first success. Failures of tests that began within the start
period don't count, whenever they ended, and until the first success the test runs more often
during that period. As many failures in a row as `retries` says make a task unhealthy; a test that
takes too long has failed.
"""

from __future__ import annotations

import enum

from skep.domain.base import SECOND_NS
from skep.domain.spec import HealthCheck


class Verdict(enum.Enum):
    """What one probe changes."""

    HEALTHY = "healthy"
    UNDECIDED = "undecided"
    UNHEALTHY = "unhealthy"


class Health:
    """One task's record since its process started at monotonic time `started_at`."""

    def __init__(self, check: HealthCheck, started_at: float, *, is_known_healthy: bool) -> None:
        self._check = check
        self._grace_ends_at = started_at + check.start_period_ns / SECOND_NS
        self._is_started = is_known_healthy
        self._failures = 0
        self._began_at = started_at

    def began(self, now: float) -> None:
        """A probe has begun."""
        self._began_at = now

    def delay_s(self, now: float) -> float:
        """How long to wait before the next probe."""
        is_in_grace = not self._is_started and now < self._grace_ends_at
        interval_ns = self._check.start_interval_ns if is_in_grace else self._check.interval_ns
        return interval_ns / SECOND_NS

    def probed(self, complaint: str | None) -> Verdict:
        """Count the probe that began last: what it complained of, None for a success."""
        if complaint is None:
            self._is_started = True
            self._failures = 0
            return Verdict.HEALTHY
        if not self._is_started and self._began_at < self._grace_ends_at:
            return Verdict.UNDECIDED
        self._failures += 1
        return Verdict.UNHEALTHY if self._failures >= self._check.retries else Verdict.UNDECIDED
