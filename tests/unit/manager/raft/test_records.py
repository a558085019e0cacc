"""The journal's format under every single damage."""

from __future__ import annotations

import pytest

from skep.manager.raft.core import records
from skep.manager.raft.core.log import Log
from skep.manager.raft.core.records import Appended, HardState, JournalCorrupt, Opened, Truncated
from tests.unit.manager.raft.test_log import log_of

OPENED = Opened(records.FORMAT, "c", 7)
Story = list[list[records.AnyRecord]]
BATCHES: Story = [
    [HardState(2, 7), Appended(3, 2, b"third")],
    [Appended(4, 2, b"fourth"), Appended(5, 2, b"fifth")],
    [Truncated(5), HardState(3, None), Appended(5, 3, b"another fifth")],
]


def whole() -> tuple[bytes, list[int]]:
    """A journal with one rewritten part and three batches, and where each of them begins."""
    data = records.snapshot_of(log_of(1), OPENED, 1, None)
    starts = []
    for batch in BATCHES:
        starts.append(len(data))
        data += records.encode_batch(map(records.encode_body, batch), len(data))
    return data, starts


def summary(replayed: records.Replayed) -> tuple[object, ...]:
    replayed.log.check_invariants()
    entries = tuple((e.index, e.term, e.command) for e in replayed.log.entries)
    return replayed.term, replayed.voted_for, entries


def prefixes() -> list[tuple[object, ...]]:
    """What the journal says after each of its records."""
    data, _ = whole()
    seen = [summary(records.replay(b""))]
    size = 0
    while size < len(data):
        found = records._record_at(data, size)
        assert found is not None
        size = found[2]
        seen.append(summary(records.replay(data[:size])))
    return seen


def test_a_journal_says_what_was_recorded() -> None:
    data, _ = whole()
    replayed = records.replay(data)
    assert replayed.size == len(data)
    assert replayed.opened == OPENED
    assert summary(replayed)[:2] == (3, None)
    assert [entry.command for entry in replayed.log.entries[1:]] == [
        b"2:1",
        b"third",
        b"fourth",
        b"another fifth",
    ]


def test_cut_at_any_byte_it_says_what_the_whole_records_say() -> None:
    data, _ = whole()
    allowed = prefixes()
    for size in range(len(data)):
        replayed = records.replay(data[:size])
        assert replayed.size <= size
        assert summary(replayed) in allowed


def test_torn_into_zeros_at_any_byte_of_the_last_batch_it_is_cut() -> None:
    data, starts = whole()
    allowed = prefixes()
    for size in range(starts[-1], len(data)):
        replayed = records.replay(data[:size] + bytes(len(data) - size))
        assert starts[-1] <= replayed.size <= size
        assert summary(replayed) in allowed


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_damage_before_the_last_batch_is_refused_and_in_it_cut(flip: int) -> None:
    data, starts = whole()
    allowed = prefixes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= flip
        if place < starts[-1]:
            with pytest.raises(JournalCorrupt, match="damaged at byte"):
                records.replay(bytes(damaged))
        else:
            replayed = records.replay(bytes(damaged))
            assert starts[-1] <= replayed.size <= place
            assert summary(replayed) in allowed


def test_a_rewritten_journal_is_sealed() -> None:
    """Nothing of it can be torn, so damage is refused even where nothing follows."""
    data = records.snapshot_of(log_of(1, 2), OPENED, 2, 7)
    seal = data.rfind(records._MAGIC)
    for place in range(seal):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(JournalCorrupt):
            records.replay(bytes(damaged))


def test_zeros_in_the_middle_are_refused() -> None:
    """What a lost page looks like."""
    data, starts = whole()
    for begin in range(starts[-1]):
        end = min(begin + 64, starts[-1])
        with pytest.raises(JournalCorrupt):
            records.replay(data[:begin] + bytes(end - begin) + data[end:])


def test_a_journal_inside_an_entry_is_only_data() -> None:
    """A torn entry that holds a whole journal must not look like damage before sound records."""
    inner, _ = whole()
    data = records.snapshot_of(Log(), OPENED, 1, None)
    batch: list[records.AnyRecord] = [Appended(2, 1, inner), Appended(3, 1, b"x")]
    torn = data + records.encode_batch(map(records.encode_body, batch), len(data))[:-200]
    assert records.replay(torn).log.last_index == 1
    assert records.replay(torn).size == len(data)


@pytest.mark.parametrize(
    "story",
    [
        [[Appended(2, 1, b"before the beginning")]],
        [[OPENED, Appended(4, 1, b"a gap")]],
        [[OPENED, Truncated(1)]],
        [[OPENED, OPENED]],
        [[OPENED, HardState(3, None), HardState(2, None)]],
    ],
)
def test_records_that_make_no_sense_are_refused(story: Story) -> None:
    data = b""
    for batch in story:
        data += records.encode_batch(map(records.encode_body, batch), len(data))
    with pytest.raises(JournalCorrupt, match="makes no sense"):
        records.replay(data)


@pytest.mark.parametrize(
    ("opened", "why"),
    [
        (Opened(records.FORMAT, "other", 7), "belongs to node 7 of cluster 'other'"),
        (Opened(records.FORMAT, "c", 8), "belongs to node 8"),
        (Opened(records.FORMAT + 1, "c", 7), "has format 2"),
    ],
)
def test_another_nodes_journal_is_refused(opened: Opened, why: str) -> None:
    with pytest.raises(JournalCorrupt, match=why):
        records.check_owner(opened, "c", 7)
    records.check_owner(OPENED, "c", 7)
    records.check_owner(None, "c", 7)
