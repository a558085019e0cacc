"""Which answers a leader believes: those of its own term, and no others."""

from __future__ import annotations

from typing import Any, cast
from unittest import mock

import pytest

from skep.manager.raft.actor.receiver import Receiver
from skep.manager.raft.core import codec
from skep.manager.raft.core.log import Log

PEER = 2
TERM = 5


def receiver(engine: Any) -> tuple[Receiver, Any, Any]:
    reads, snapshots = mock.Mock(), mock.Mock()
    journal = mock.Mock(log=mock.Mock(spec=Log, last_index=10))
    others = Receiver.Others(mock.Mock(), reads, snapshots)
    return Receiver(engine, journal, others, mock.Mock()), reads, snapshots


def leader(*, is_leader: bool = True) -> Any:
    return mock.Mock(term=TERM, is_leader=is_leader, commit_index=0)


def answer(term: int) -> codec.AnyFrame:
    return codec.AppendAnswer(term, 8, matched=True, reset=False)


@pytest.mark.parametrize("term", [TERM - 1, TERM + 1])
def test_an_append_answer_of_another_term_counts_for_nothing(term: int) -> None:
    engine = leader()
    receiver(engine)[0].receive(PEER, answer(term))
    assert not engine.hear_append_answer.called


def test_an_append_answer_of_the_present_term_counts() -> None:
    engine = leader()
    receiver(engine)[0].receive(PEER, answer(TERM))
    engine.hear_append_answer.assert_called_once_with(PEER, 8, matched=True, reset=False)


def test_an_answer_of_a_later_term_ends_the_office() -> None:
    engine = leader()
    receiver(engine)[0].receive(PEER, answer(TERM + 1))
    engine.hear_term.assert_called_once_with(PEER, TERM + 1)


def test_who_does_not_lead_counts_no_answers() -> None:
    engine = leader(is_leader=False)
    receiver(engine)[0].receive(PEER, answer(TERM))
    assert not engine.hear_append_answer.called


@pytest.mark.parametrize("term", [TERM - 1, TERM + 1])
def test_a_read_confirmed_in_another_term_is_not_confirmed(term: int) -> None:
    node, reads, _ = receiver(leader())
    node.receive(PEER, cast("codec.AnyFrame", codec.ReadAnswer(term, 1)))
    assert not reads.hear_answer.called
    node.receive(PEER, cast("codec.AnyFrame", codec.ReadAnswer(TERM, 1)))
    assert reads.hear_answer.called
