"""How often calls are made."""

from __future__ import annotations

import itertools

from skep.worker.core.events import Call
from skep.worker.core.tries import TRIES_LIMIT, Tries


def delays(call: Call, *, is_retryable: bool, count: int) -> list[float | None]:
    tries = Tries()
    return [tries.failed(call, is_retryable=is_retryable) for _ in range(count)]


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
    tries = Tries()
    tries.failed(Call.START, is_retryable=True)
    assert tries.count(Call.START) == 1
    tries.succeeded(Call.START)
    assert tries.failed(Call.START, is_retryable=True) == 0.5
