"""Linearizable reads: who waits for which question."""

from __future__ import annotations

from skep.manager.raft.core.readindex import ReadIndex


def test_a_read_waits_for_a_majority() -> None:
    core = ReadIndex(peers=4)
    core.add("a")
    assert core.next_round(commit=7) == 1
    core.answer(1, 1)
    core.answer(1, 1)
    assert core.confirmed() is None
    core.answer(2, 1)
    assert core.confirmed() == (7, ["a"])
    assert core.confirmed() is None


def test_alone_there_is_nobody_to_ask() -> None:
    core = ReadIndex(peers=0)
    core.add("a")
    core.next_round(commit=7)
    assert core.confirmed() == (7, ["a"])


def test_a_read_that_comes_in_during_a_question_waits_for_the_next() -> None:
    core = ReadIndex(peers=2)
    core.add("a")
    assert core.next_round(commit=7) == 1
    core.add("b")
    assert core.next_round(commit=8) is None
    assert core.repeat_round() == 1
    core.answer(1, 1)
    assert core.confirmed() == (7, ["a"])
    assert core.next_round(commit=9) == 2
    core.answer(1, 1)
    assert core.confirmed() is None
    core.answer(1, 2)
    assert core.confirmed() == (9, ["b"])
    assert core.next_round(commit=9) is None
    assert core.repeat_round() is None


def test_a_lost_office_leaves_no_read_behind() -> None:
    core = ReadIndex(peers=2)
    core.add("a")
    core.next_round(commit=7)
    core.add("b")
    assert core.clear() == ["a", "b"]
    core.answer(1, 1)
    assert core.confirmed() is None
