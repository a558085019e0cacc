"""The rules of health tests, one by one."""

from __future__ import annotations

from skep.domain.base import SECOND_NS
from skep.domain.spec import HealthCheck
from skep.worker.core.health import Health, Verdict

CHECK = HealthCheck(
    test=("CMD", "check"),
    interval_ns=30 * SECOND_NS,
    timeout_ns=5 * SECOND_NS,
    retries=3,
    start_period_ns=10 * SECOND_NS,
    start_interval_ns=SECOND_NS,
)
H, U, BAD = Verdict.HEALTHY, Verdict.UNDECIDED, Verdict.UNHEALTHY


def probes(health: Health, *probes: tuple[float, str | None]) -> list[Verdict]:
    """Probes that begin at these times, and what they complain of."""
    found = []
    for began_at, complaint in probes:
        health.began(began_at)
        found.append(health.probed(complaint))
    return found


def fresh() -> Health:
    return Health(CHECK, 100.0, is_known_healthy=False)


def test_failures_within_the_start_period_do_not_count() -> None:
    health = fresh()
    assert probes(health, *((101.0 + n, "no") for n in range(9))) == [U] * 9
    assert probes(health, (110.0, "no"), (140.0, "no"), (170.0, "no")) == [U, U, BAD]


def test_a_test_that_began_within_the_start_period_does_not_count_whenever_it_ends() -> None:
    health = fresh()
    # It hung for its whole timeout, until after the period.
    assert probes(health, (109.9, "no answer within 5 s")) == [U]
    assert probes(health, (115.0, "no"), (145.0, "no")) == [U, U]


def test_after_the_first_success_the_start_period_is_over() -> None:
    health = fresh()
    assert health.delay_s(101.0) == 1.0
    assert probes(health, (101.0, None)) == [H]
    assert health.delay_s(101.5) == 30.0
    assert probes(health, (102.0, "no"), (103.0, "no"), (104.0, "no")) == [U, U, BAD]


def test_a_success_forgives_the_failures_before_it() -> None:
    health = Health(CHECK, 0.0, is_known_healthy=True)
    run = ((1.0, "no"), (2.0, "no"), (3.0, None), (4.0, "no"), (5.0, "no"), (6.0, "no"))
    assert probes(health, *run) == [U, U, H, U, U, BAD]


def test_the_start_interval_is_for_the_start_period_only() -> None:
    health = fresh()
    assert [health.delay_s(now) for now in (100.0, 109.9, 110.0)] == [1.0, 1.0, 30.0]
    adopted = Health(CHECK, 100.0, is_known_healthy=True)
    assert adopted.delay_s(101.0) == 30.0
