"""How often calls are made."""

from __future__ import annotations

import itertools

from skep.worker.core.calls import TRIES_LIMIT, Calls
from skep.worker.core.events import Call


def delays(call: Call, *, is_retryable: bool, count: int) -> list[float | None]:
    calls = Calls()
    return [calls.failed(call, is_retryable=is_retryable) for _ in range(count)]


def test_a_preparation_is_given_up_after_a_while() -> None:
    found = delays(Call.PREPARE, is_retryable=True, count=TRIES_LIMIT)
    assert found == [0.5, 1.0, 2.0, 4.0, 8.0, None]
    assert delays(Call.START, is_retryable=False, count=1) == [None]


def test_what_must_succeed_is_never_given_up() -> None:
    for call, is_retryable in itertools.product((Call.STOP, Call.REMOVE), (True, False)):
        found = delays(call, is_retryable=is_retryable, count=9)
        assert found == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert None not in delays(Call.WAIT, is_retryable=True, count=20)


def test_a_success_is_a_new_beginning() -> None:
    calls = Calls()
    calls.failed(Call.START, is_retryable=True)
    assert calls.tries(Call.START) == 1
    calls.succeeded(Call.START)
    assert calls.failed(Call.START, is_retryable=True) == 0.5


def test_a_stop_cancels_what_would_bring_the_task_up() -> None:
    calls = Calls()
    assert calls.begin(Call.WAIT)
    assert calls.begin(Call.PROBE)
    assert not calls.begin(Call.PROBE)
    calls.due = {Call.START: 1.0, Call.STOP: 2.0, Call.REMOVE: 3.0}
    assert calls.begin(Call.STOP)
    assert (calls.busy, calls.due) == ({Call.WAIT, Call.STOP}, {Call.REMOVE: 3.0})
    assert not calls.is_due(Call.REMOVE, 2.9)
    assert calls.is_due(Call.REMOVE, 3.0)
    assert not calls.is_due(Call.REMOVE, 3.0)
    calls.end()
    assert calls.busy == {Call.STOP}
    assert calls.are_pending
