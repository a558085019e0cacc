"""Raft's receiver rules, one by one."""

from __future__ import annotations

import pytest

from skep.manager.raft.core import guard
from skep.manager.raft.core.codec import Append, AppendAnswer, Entry, VoteRequest
from skep.manager.raft.core.guard import Mismatch, Present, Take, TermOf
from skep.manager.raft.core.log import Log, LogEntry
from tests.unit.manager.raft.test_log import log_of


def append(prev: tuple[int, int], *terms: int, commit: int = 0, term: int = 9) -> Append:
    entries = tuple(
        Entry(entry_term, b"%d:%d" % (prev[0] + 1 + place, entry_term))
        for place, entry_term in enumerate(terms)
    )
    return Append(term, commit, prev[0], prev[1], entries)


def entry(index: int, term: int) -> LogEntry:
    return LogEntry(b"%d:%d" % (index, term), index, term)


def test_a_term_is_past_present_or_future() -> None:
    assert [guard.term_of(term, 5) for term in (4, 5, 6)] == [
        TermOf.PAST,
        TermOf.PRESENT,
        TermOf.FUTURE,
    ]


# --------------------------------------------------------------------------------------- append


def test_new_entries_are_taken() -> None:
    assert guard.judge_append(log_of(1), 1, append((2, 1), 1, 2, commit=3)) == Take(
        2, 1, (entry(3, 1), entry(4, 2)), 3
    )


def test_an_old_message_truncates_nothing() -> None:
    """The answer is only for what the message held; what comes after stays."""
    assert guard.judge_append(log_of(1, 1, 1), 1, append((1, 0), 1, commit=4)) == Present(2, 2)


def test_a_heartbeat_behind_the_last_entry_truncates_nothing() -> None:
    assert guard.judge_append(log_of(1, 1, 1), 1, append((2, 1), commit=4)) == Present(2, 2)


def test_only_what_is_missing_is_passed_on() -> None:
    verdict = guard.judge_append(log_of(1, 1), 1, append((1, 0), 1, 1, 1, commit=9))
    assert verdict == Take(3, 1, (entry(4, 1),), 4)


def test_a_conflict_truncates_from_the_conflict_on() -> None:
    verdict = guard.judge_append(log_of(1, 2, 2), 2, append((1, 0), 1, 3))
    assert verdict == Take(2, 1, (entry(3, 3),), 0)


def test_a_commit_index_never_passes_what_the_message_matched() -> None:
    verdict = guard.judge_append(log_of(1, 1, 1, 1), 1, append((2, 1), 1, commit=5))
    assert verdict == Present(3, 3)


def test_a_message_from_beyond_the_end_is_answered_with_the_end() -> None:
    assert guard.judge_append(log_of(1, 1), 1, append((9, 1), 1)) == Mismatch(4)


def test_a_mismatch_goes_back_by_a_whole_term() -> None:
    assert guard.judge_append(log_of(1, 2, 2, 2), 1, append((5, 3), 3)) == Mismatch(3)


def test_a_mismatch_never_goes_back_behind_what_is_committed() -> None:
    assert guard.judge_append(log_of(1, 2, 2, 2), 3, append((5, 3), 3)) == Mismatch(4)


@pytest.mark.parametrize("message", [append((1, 0), 2), append((3, 2), 2), append((2, 1), 2)])
def test_committed_history_with_two_versions_stops_the_node(message: Append) -> None:
    with pytest.raises(guard.LogBroken, match="committed here"):
        guard.judge_append(log_of(1, 1, 1), 4, message)


def cut(log: Log, index: int) -> Log:
    log.drop_before(index)
    return log


def test_what_was_cut_off_counts_as_present() -> None:
    log = cut(log_of(1, 1, 1, 2), 4)
    assert guard.judge_append(log, 5, append((1, 0), 1)) == Present(5, 0)
    assert guard.judge_append(log, 5, append((1, 0), 1, 1, 1)) == Present(4, 0)
    assert guard.judge_append(log, 5, append((1, 0), 1, 1, 1, 2, 2, commit=6)) == Take(
        5, 2, (entry(6, 2),), 6
    )


def test_another_version_of_what_was_cut_off_stops_the_node() -> None:
    with pytest.raises(guard.LogBroken):
        guard.judge_append(cut(log_of(1, 1, 1, 2), 4), 5, append((1, 0), 1, 1, 2))


def test_a_later_too_short_does_not_raise_the_hint_of_a_conflict() -> None:
    backtrack = guard.Backtrack()
    assert backtrack.mismatch(3, 5) == 5
    assert backtrack.mismatch(3, 12) == 5
    assert backtrack.mismatch(3, 4) == 4
    assert backtrack.mismatch(4, 12) == 12
    backtrack.match()
    assert backtrack.mismatch(4, 20) == 20


# --------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("answer", "believed"),
    [
        (AppendAnswer(1, 5, matched=True, reset=False), (5, True, False)),
        (AppendAnswer(1, 6, matched=True, reset=True), (6, True, True)),
        (AppendAnswer(1, 7, matched=True, reset=False), None),
        (AppendAnswer(1, 3, matched=False, reset=True), (3, False, True)),
        (AppendAnswer(1, 99, matched=False, reset=True), (6, False, True)),
        (AppendAnswer(1, 0, matched=False, reset=True), (1, False, True)),
        (AppendAnswer(1, 3, matched=False, reset=False), None),
    ],
)
def test_a_leader_whose_last_entry_is_5_believes(
    answer: AppendAnswer, believed: tuple[int, bool, bool] | None
) -> None:
    judged = guard.judge_append_answer(5, answer)
    assert (judged and (judged.next_index, judged.matched, judged.reset)) == believed


# ----------------------------------------------------------------------------------------- votes


@pytest.mark.parametrize(
    ("last", "is_enough"), [((3, 2), True), ((4, 2), True), ((2, 3), True), ((2, 2), False),
                            ((9, 1), False)],
)  # fmt: skip
def test_a_candidate_must_hold_what_this_node_holds(last: tuple[int, int], is_enough: bool) -> None:
    request = VoteRequest(5, last[0], last[1], pre=True)
    assert guard.is_up_to_date(log_of(1, 2), request) is is_enough


@pytest.mark.parametrize(
    ("term", "heard_s_ago", "is_promised"),
    [(6, 0.5, True), (6, 0.49, False), (5, 9.0, False), (4, 9.0, False)],
)
def test_a_vote_is_promised_only_where_no_leader_is_heard(
    term: int, heard_s_ago: float, is_promised: bool
) -> None:
    promised = guard.may_promise_vote(
        log_of(1),
        5,
        VoteRequest(term, 2, 1, pre=True),
        leader_heard_s_ago=heard_s_ago,
        election_min_s=0.5,
    )
    assert promised is is_promised


def test_a_voter_counts_once_and_only_for_the_open_election() -> None:
    ballot = guard.Ballot()
    ballot.open(3)
    assert ballot.count(1, 3)
    assert not ballot.count(1, 3)
    assert not ballot.count(2, 2)
    assert not ballot.is_won(peers=4)
    assert ballot.count(2, 3)
    assert ballot.is_won(peers=4)
    ballot.open(4)
    assert ballot.count(1, 4)


@pytest.mark.parametrize(("peers", "needed"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_majority_of_all(peers: int, needed: int) -> None:
    ballot = guard.Ballot()
    ballot.open(1)
    for voter in range(needed):
        assert not ballot.is_won(peers)
        ballot.count(voter, 1)
    assert ballot.is_won(peers)


# ---------------------------------------------------------------------------------------- commit


def committed(proposed: int, durable: int, *, current: int = 2, term: int = 2) -> int:
    """A leader whose entries 2 to 6 have the terms 1, 1, 2, 2, 2."""
    log = log_of(1, 1, 2, 2, 2)
    return guard.own_entries_counted(
        log, proposed=proposed, current=current, durable=durable, term=term
    )


def test_the_leader_does_not_count_what_it_has_not_synced() -> None:
    assert committed(6, durable=6) == 6
    assert committed(6, durable=5) == 5
    assert committed(5, durable=6) == 5


def test_an_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    """Figure 8 of the paper: entry 3 is durable here, but could still be replaced."""
    assert committed(6, durable=3) == 2


def test_the_commit_index_never_goes_back() -> None:
    assert committed(6, durable=2, current=5) == 5


# ------------------------------------------------------------------------------------- snapshots


@pytest.mark.parametrize(
    ("index", "term", "is_covered"),
    [(2, 1, True), (3, 1, True), (4, 2, True), (4, 3, False), (7, 2, False)],
)
def test_a_snapshot_that_brings_nothing_replaces_nothing(
    index: int, term: int, is_covered: bool
) -> None:
    assert guard.is_covered(log_of(1, 1, 2), 3, index, term) is is_covered
