"""The log in memory."""

from __future__ import annotations

import pytest

from skep.manager.raft.core.log import Log, LogEntry


def log_of(*terms: int) -> Log:
    """A log whose entries from index 2 on have these terms; entry 5 of term 2 is b"5:2"."""
    log = Log()
    for index, term in enumerate(terms, start=2):
        log.add(LogEntry(b"%d:%d" % (index, term), index, term))
    log.check_invariants()
    return log


def test_a_new_log_has_the_entry_that_all_logs_share() -> None:
    log = Log()
    assert (log.first_index, log.first_term, log.last_index, log.last_term) == (1, 0, 1, 0)
    assert log.term_at(1) == 0
    assert log.term_at(0) is None
    assert log.term_at(2) is None


def test_truncating_removes_an_entry_and_all_after_it() -> None:
    log = log_of(1, 1, 2)
    log.truncate(3)
    log.check_invariants()
    assert [entry.command for entry in log.entries[1:]] == [b"2:1"]
    with pytest.raises(AssertionError):
        log.truncate(1)


def test_cutting_off_keeps_the_term_of_the_last_that_went() -> None:
    log = log_of(1, 1, 2, 3)
    log.drop_before(4)
    log.check_invariants()
    assert (log.first_index, log.first_term, log.last_index) == (4, 2, 5)
    log.drop_before(4)
    assert (log.first_index, log.first_term, log.last_index) == (4, 2, 5)
    log.drop_before(5)
    assert (log.first_index, log.first_term, log.last_index, log.size_bytes) == (5, 3, 5, 0)


def test_a_gap_or_a_lower_term_is_our_own_error() -> None:
    log = log_of(2)
    with pytest.raises(AssertionError):
        log.add(LogEntry(b"", 4, 2))
    with pytest.raises(AssertionError):
        log.add(LogEntry(b"", 3, 1))
