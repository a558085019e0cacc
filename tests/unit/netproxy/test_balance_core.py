"""Who gets the next connection, and what happens when it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.domain.base import TaskId
from skep.domain.spec import Balance
from skep.netproxy.relay.core.balance import FIRST_EJECTION_S, LONGEST_EJECTION_S, Balancer
from skep.netproxy.relay.core.dial import ASK, ATTEMPT_S, CONNECT, FLOW, GIVE_UP, TOTAL_S, Dial
from skep.netproxy.relay.core.protocol import Candidate


def candidates(count: int) -> tuple[Candidate, ...]:
    """Local and remote ones in turn: the balancer must not care."""
    return tuple(
        Candidate(
            task_id=TaskId(f"t{place}"),
            address=f"127.0.16.{place}",
            mesh_address=None if place % 2 else ("127.0.0.2", 7946),
        )
        for place in range(1, count + 1)
    )


def picks(balancer: Balancer, count: int, now: float = 0.0) -> list[str]:
    chosen: list[str] = []
    for _ in range(count):
        candidate = balancer.pick(now, ())
        balancer.check_invariants()
        assert candidate is not None
        chosen.append(candidate.task_id)
    return chosen


def test_round_robin_takes_turns_whatever_is_open() -> None:
    balancer = Balancer(Balance.ROUND_ROBIN, candidates(3))
    assert picks(balancer, 7) == ["t1", "t2", "t3", "t1", "t2", "t3", "t1"]


def test_least_connections_fills_up_what_is_lowest() -> None:
    balancer = Balancer(Balance.LEAST_CONNECTIONS, candidates(3))
    assert picks(balancer, 6) == ["t1", "t2", "t3", "t1", "t2", "t3"]
    balancer.release(TaskId("t2"))
    balancer.release(TaskId("t2"))
    assert picks(balancer, 3) == ["t2", "t2", "t3"]
    assert [balancer.active(TaskId(t)) for t in ("t1", "t2", "t3")] == [2, 2, 3]


def test_what_refused_is_passed_over_for_a_while() -> None:
    balancer = Balancer(Balance.ROUND_ROBIN, candidates(3))
    assert balancer.refuse(10.0, TaskId("t1"))
    assert picks(balancer, 4, now=10.0) == ["t2", "t3", "t2", "t3"]
    assert picks(balancer, 3, now=10.0 + FIRST_EJECTION_S) == ["t1", "t2", "t3"]


def test_what_goes_on_failing_is_passed_over_for_longer_each_time() -> None:
    balancer, now, waits = Balancer(Balance.ROUND_ROBIN, candidates(2)), 10.0, []
    for _ in range(6):
        assert balancer.refuse(now, TaskId("t1"))
        began = now
        while balancer.pick(now, [TaskId("t2")]) and "t1" not in picks(balancer, 2, now):
            now += 1.0
        waits.append(now - began)
        balancer.check_invariants()
    assert waits == [FIRST_EJECTION_S, 4.0, 8.0, 16.0, LONGEST_EJECTION_S, LONGEST_EJECTION_S]
    # One success, and it is as good as new.
    balancer.succeed(TaskId("t1"))
    assert balancer.refuse(now, TaskId("t1"))
    assert "t1" in picks(balancer, 2, now + FIRST_EJECTION_S)


def test_failures_while_it_is_passed_over_are_no_news() -> None:
    balancer = Balancer(Balance.ROUND_ROBIN, candidates(2))
    assert balancer.refuse(10.0, TaskId("t1"))
    assert not balancer.refuse(10.1, TaskId("t1"))
    assert "t1" in picks(balancer, 2, now=10.0 + FIRST_EJECTION_S)


def test_what_refused_is_still_tried_when_there_is_nothing_else() -> None:
    balancer = Balancer(Balance.LEAST_CONNECTIONS, candidates(2))
    for task_id in ("t1", "t2"):
        assert balancer.refuse(10.0, TaskId(task_id))
    assert picks(balancer, 2, now=10.0) == ["t1", "t2"]


def test_the_only_one_is_never_passed_over() -> None:
    balancer = Balancer(Balance.ROUND_ROBIN, candidates(1))
    assert not balancer.refuse(10.0, TaskId("t1"))
    balancer.update(Balance.ROUND_ROBIN, candidates(2))
    assert picks(balancer, 2, now=10.0) == ["t1", "t2"]


def test_connections_of_a_removed_task_can_still_end() -> None:
    balancer = Balancer(Balance.LEAST_CONNECTIONS, candidates(2))
    picks(balancer, 2)
    balancer.update(Balance.LEAST_CONNECTIONS, candidates(1))
    balancer.check_invariants()
    assert picks(balancer, 2) == ["t1", "t1"]
    balancer.release(TaskId("t2"))
    assert balancer.active(TaskId("t2")) == 0


def test_nothing_to_pick_from() -> None:
    assert Balancer(Balance.ROUND_ROBIN).pick(0.0, ()) is None


def test_a_dial_that_succeeds_at_once() -> None:
    [first] = candidates(1)
    balancer = Balancer(Balance.ROUND_ROBIN, (first,))
    dial = Dial(balancer)
    assert (dial.begin(0.0), dial.candidate, dial.within_s) == (CONNECT, first, ATTEMPT_S)
    assert (dial.connected(), dial.candidate) == (FLOW, first)
    assert balancer.active(first.task_id) == 1


def test_a_task_of_another_node_is_asked_for() -> None:
    _, second = candidates(2)
    balancer = Balancer(Balance.ROUND_ROBIN, (second,))
    dial = Dial(balancer)
    assert dial.begin(0.0) == CONNECT
    assert not dial.is_asking
    assert dial.connected() == ASK
    assert dial.is_asking
    assert dial.accepted() == FLOW
    assert balancer.active(second.task_id) == 1


def test_a_refused_connection_goes_to_the_next_each_at_most_once() -> None:
    first, second = candidates(2)
    balancer = Balancer(Balance.ROUND_ROBIN, (first, second))
    dial = Dial(balancer)
    assert (dial.begin(0.0), dial.candidate) == (CONNECT, first)
    assert (dial.refused(0.1, "refused"), dial.candidate) == (CONNECT, second)
    assert dial.connected() == ASK  # its node is there, but the task isn't
    assert dial.refused(0.2, "late") == GIVE_UP
    assert (dial.kind, dial.why()) == ("refused", "t1 refused, t2 late")
    assert dial.ejections == 2
    assert balancer.active(first.task_id) == balancer.active(second.task_id) == 0


def test_no_endpoints_is_told_at_once() -> None:
    dial = Dial(Balancer(Balance.ROUND_ROBIN))
    assert dial.begin(0.0) == GIVE_UP
    assert (dial.kind, dial.why()) == ("no_endpoints", "no healthy task")


def test_all_attempts_together_are_bounded() -> None:
    several = candidates(9)
    dial = Dial(Balancer(Balance.ROUND_ROBIN, several))
    assert (dial.begin(0.0), dial.within_s) == (CONNECT, ATTEMPT_S)
    assert dial.refused(TOTAL_S - 0.5, "slow") == CONNECT
    assert (dial.candidate, dial.within_s) == (several[1], 0.5)
    assert dial.refused(TOTAL_S, "slow") == GIVE_UP
    assert (dial.kind, dial.why()) == ("timeout", "t1 slow, t2 slow")


def test_a_withdrawn_candidate_is_no_blemish() -> None:
    first, second = candidates(2)
    balancer = Balancer(Balance.ROUND_ROBIN, (first, second))
    dial = Dial(balancer)
    dial.begin(0.0)
    assert (dial.withdrawn(0.1), dial.candidate) == (CONNECT, second)
    assert picks(balancer, 1) == ["t1"]


def test_an_abandoned_dial_gives_back_what_it_holds() -> None:
    balancer = Balancer(Balance.ROUND_ROBIN, candidates(1))
    dial = Dial(balancer)
    dial.begin(0.0)
    dial.abandon()
    dial.abandon()
    assert balancer.active(TaskId("t1")) == 0
    with pytest.raises(AssertionError, match="over"):
        dial.connected()


@given(
    st.sampled_from(list(Balance)),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=80),
)
def test_whatever_happens_counts_stay_right(balance: Balance, moves: list[tuple[int, int]]) -> None:
    balancer = Balancer(balance, candidates(3))
    opened: list[TaskId] = []
    for place, (move, number) in enumerate(moves):
        match move:
            case 0:
                balancer.update(balance, candidates(number))
            case 1:
                balancer.refuse(float(place), TaskId(f"t{number}"))
            case 2 if opened:
                balancer.release(opened.pop(number % len(opened)))
            case _:
                tried = {TaskId(f"t{number}")}
                candidate = balancer.pick(float(place), tried)
                others = [c for c in balancer.candidates if c.task_id not in tried]
                assert (candidate is None) == (not others)
                if candidate is not None:
                    assert candidate in others
                    opened.append(candidate.task_id)
        balancer.check_invariants()
        for number in range(1, 6):
            assert balancer.active(TaskId(f"t{number}")) == opened.count(TaskId(f"t{number}"))
