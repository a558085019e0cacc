"""Whom to follow, and when to try another."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.netproxy.core.follow import (
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    SILENCE_LIMIT_S,
    DeadlineReached,
    Dial,
    Effect,
    Event,
    Follow,
    Heard,
    Leave,
    Lost,
    SetDeadline,
    Started,
    Unwanted,
)


class Script:
    def __init__(self, *managers: str, seed: int = 0) -> None:
        self.core = Follow(managers or ("m1",), random.Random(seed))

    def __call__(self, event: Event) -> list[Effect]:
        effects = self.core.step(event)
        self.core.check_invariants()
        return effects


def waited(effects: list[Effect], now: float) -> float:
    [deadline] = effects
    assert isinstance(deadline, SetDeadline)
    return deadline.at - now


def test_it_starts_at_once() -> None:
    assert Script()(Started(10.0)) == [Dial(1, "m1"), SetDeadline(10.0 + SILENCE_LIMIT_S)]


def test_a_lost_manager_is_left_for_another_after_a_jittered_delay() -> None:
    script = Script("m1", "m2", "m3")
    [first, _] = script(Started(10.0))
    assert isinstance(first, Dial)
    delay_s = waited(script(Lost(11.0, 1, "gone")), 11.0)
    assert FIRST_BACKOFF_S / 2 <= delay_s <= FIRST_BACKOFF_S
    assert script(DeadlineReached(11.0)) == [SetDeadline(11.0 + delay_s)]  # too early
    [second, _] = script(DeadlineReached(11.0 + delay_s))
    assert isinstance(second, Dial)
    assert second.number == 2
    assert second.address != first.address


def test_the_delay_grows_and_starts_over_once_something_of_use_was_heard() -> None:
    script = Script("m1", "m2")
    script(Started(0.0))
    delays = []
    for number in range(1, 12):
        delays.append(waited(script(Lost(0.0, number, "refused")), 0.0))
        script(DeadlineReached(100.0))
    for place, delay_s in enumerate(delays):
        longest_s = min(FIRST_BACKOFF_S * 2**place, LONGEST_BACKOFF_S)
        assert longest_s / 2 <= delay_s <= longest_s
    script(Heard(100.0, 12))
    assert waited(script(Lost(101.0, 12, "gone")), 101.0) <= FIRST_BACKOFF_S


def test_silence_is_cut_but_a_deadline_overtaken_by_a_frame_is_only_a_hint() -> None:
    script = Script("m1", "m2")
    script(Started(0.0))
    script(Heard(4.0, 1))
    assert script(DeadlineReached(6.0)) == [SetDeadline(10.0)]
    [left, wait] = script(DeadlineReached(10.0))
    assert left == Leave(1, "silent for 6.0 s")
    assert isinstance(wait, SetDeadline)


def test_an_unwanted_stream_is_left() -> None:
    script = Script("m1", "m2")
    script(Started(0.0))
    [left, _] = script(Unwanted(1.0, 1, "a gap"))
    assert left == Leave(1, "a gap")


@pytest.mark.parametrize("event", [Lost(3.0, 1, "x"), Unwanted(3.0, 1, "x"), Heard(3.0, 1)])
def test_a_stream_of_the_past_does_not_matter(event: Event) -> None:
    script = Script("m1", "m2")
    script(Started(0.0))
    script(Lost(1.0, 1, "gone"))
    assert script(event) == []
    script(DeadlineReached(2.0))
    assert script(event) == []


def test_all_managers_get_their_share_of_the_first_choice() -> None:
    first = set()
    for seed in range(50):
        [dial, _] = Script("m1", "m2", "m3", seed=seed)(Started(0.0))
        assert isinstance(dial, Dial)
        first.add(dial.address)
    assert first == {"m1", "m2", "m3"}


@given(
    st.lists(st.sampled_from(["heard", "lost", "unwanted", "deadline"]), max_size=60), st.integers()
)
def test_there_is_always_a_deadline_ahead(names: list[str], seed: int) -> None:
    """No order of events leaves it waiting for nothing."""
    script = Script("m1", "m2", seed=seed)
    now, deadline = 0.0, 0.0
    effects = script(Started(now))
    for name in names:
        now += 0.5
        for effect in effects:
            if isinstance(effect, SetDeadline):
                deadline = effect.at
        number = script.core.number
        match name:
            case "heard":
                effects = script(Heard(now, number))
            case "lost":
                effects = script(Lost(now, number, ""))
            case "unwanted":
                effects = script(Unwanted(now, number, ""))
            case _:
                now = max(now, deadline)
                effects = script(DeadlineReached(now))
                assert any(isinstance(effect, SetDeadline) for effect in effects)
