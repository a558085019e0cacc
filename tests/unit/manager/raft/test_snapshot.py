"""Snapshots: nothing but the whole, in order, and sound."""

from __future__ import annotations

import pytest

from skep.manager.raft.core import snapshot
from skep.manager.raft.core.codec import SnapshotChunk
from skep.manager.raft.core.snapshot import Assembly, Snapshot, SnapshotCorrupt

TAKEN = Snapshot(9, 3, bytes(range(100)))


def pieces(taken: Snapshot = TAKEN, size: int = 30) -> list[SnapshotChunk]:
    return list(snapshot.chunks(taken, 5, size))


def test_a_file_holds_it() -> None:
    assert snapshot.decode_snapshot(snapshot.encode_snapshot(TAKEN)) == TAKEN


def test_any_flipped_bit_and_any_cut_is_refused() -> None:
    data = snapshot.encode_snapshot(TAKEN)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x04
        with pytest.raises(SnapshotCorrupt):
            snapshot.decode_snapshot(bytes(damaged))
        with pytest.raises(SnapshotCorrupt):
            snapshot.decode_snapshot(data[:place])


@pytest.mark.parametrize("taken", [TAKEN, Snapshot(9, 3, b""), Snapshot(9, 3, bytes(30))])
def test_pieces_make_the_whole(taken: Snapshot) -> None:
    assembly = Assembly(1_000)
    results = [assembly.add(1, piece) for piece in pieces(taken)]
    assert results == [None] * (len(results) - 1) + [taken]


def test_a_lost_piece_is_noticed_at_the_next() -> None:
    assembly = Assembly(1_000)
    first, _, third, fourth = pieces()
    assert assembly.add(1, first) is None
    assert isinstance(assembly.add(1, third), str)
    assert isinstance(assembly.add(1, fourth), str)


def test_pieces_of_another_sender_or_snapshot_do_not_mix() -> None:
    assembly = Assembly(1_000)
    first, second, *_ = pieces()
    assembly.add(1, first)
    assert isinstance(assembly.add(2, second), str)
    assembly.add(1, first)
    assert isinstance(assembly.add(1, pieces(Snapshot(10, 3, TAKEN.state))[1]), str)


def test_it_starts_over_with_a_first_piece() -> None:
    assembly = Assembly(1_000)
    assembly.add(1, pieces()[0])
    assert [assembly.add(1, piece) for piece in pieces()][-1] == TAKEN


def test_a_wrong_sum_or_size_is_refused() -> None:
    assembly = Assembly(1_000)
    *most, last = pieces()
    for piece in most:
        assembly.add(1, piece)
    wrong = SnapshotChunk(5, 9, 3, last.size, last.crc, last.offset, bytes(len(last.data)))
    assert assembly.add(1, wrong) == "the checksum of the whole is wrong"
    assert isinstance(Assembly(99).add(1, pieces()[0]), str)
    too_long = SnapshotChunk(5, 9, 3, 10, 0, 0, bytes(11))
    assert isinstance(Assembly(1_000).add(1, too_long), str)
