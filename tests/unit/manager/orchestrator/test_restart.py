"""How soon an ended task is tried again, whatever the policy says."""

from __future__ import annotations

from skep.domain.base import SECOND_NS
from skep.domain.objects import Task, TaskStatus
from skep.domain.spec import RestartPolicy
from skep.domain.states import TaskState
from skep.manager.orchestrator.core.restart import LONGEST_PAUSE_NS, QUICK_NS, start_ns
from tests.unit.manager.build import task

NOW_NS = 1_000 * SECOND_NS


def ended(number: int, lived_ns: int | None = None, state: TaskState = TaskState.FAILED) -> Task:
    """The n-th attempt; `lived_ns` is how long it was healthy, if ever."""
    return task(
        f"t{number}",
        status=TaskStatus(state=state),
        attempt=number,
        healthy_ns=None if lived_ns is None else NOW_NS - lived_ns,
        ended_ns=NOW_NS,
    )


def pause_s(*chain: Task, delay_ns: int = 0) -> float:
    at_ns = start_ns(RestartPolicy(delay_ns=delay_ns), chain, NOW_NS)
    return 0.0 if at_ns is None else (at_ns - NOW_NS) / SECOND_NS


def test_a_storm_of_restarts_slows_down() -> None:
    chain = [ended(number) for number in range(12)]
    pauses = [pause_s(*chain[: count + 1]) for count in range(12)]
    assert pauses == [0, 0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert pauses[-1] * SECOND_NS == LONGEST_PAUSE_NS


def test_attempts_that_are_forgotten_still_count() -> None:
    assert pause_s(*[ended(number) for number in range(95, 100)]) == 30


def test_a_task_that_lived_long_enough_ends_the_storm() -> None:
    quick = [ended(number) for number in range(8)]
    assert pause_s(*quick, ended(8, QUICK_NS)) == 0
    assert pause_s(*quick, ended(8, QUICK_NS - 1)) == 30
    assert pause_s(ended(0, QUICK_NS), ended(1), ended(2)) == 0


def test_a_task_that_was_stopped_is_no_part_of_a_storm() -> None:
    chain = [ended(0), ended(1), ended(2, state=TaskState.SHUTDOWN), ended(3)]
    assert pause_s(*chain) == 0


def test_what_can_not_even_be_prepared_pauses_from_the_first_time() -> None:
    chain = [ended(number, state=TaskState.REJECTED) for number in range(7)]
    assert [pause_s(*chain[: count + 1]) for count in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_longer_delay_of_the_policy_stands() -> None:
    assert pause_s(ended(0), delay_ns=5 * SECOND_NS) == 5
    assert pause_s(*[ended(n) for n in range(9)], delay_ns=5 * SECOND_NS) == 30
