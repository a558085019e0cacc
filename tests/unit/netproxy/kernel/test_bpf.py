"""bpf(2) itself: maps with many entries, and what is said when the verifier refuses."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from skep.netproxy.kernel.adapters import bpf
from skep.netproxy.kernel.adapters.vips import supported
from skep.netproxy.kernel.core.asm import Assembler, Register
from skep.netproxy.kernel.core.programs import ATTACH_TYPES, Kind, MapSpec, MapType

pytestmark = pytest.mark.skipif(supported() is not None, reason=f"no VIPs by BPF: {supported()}")

SPEC = MapSpec(MapType.HASH, 4, 8, 20_000, 1)


@pytest.fixture
def table() -> Iterator[bpf.Map]:
    table = bpf.Map.create("skt_table", SPEC)
    yield table
    table.close()
    table.close()


def entry(number: int) -> tuple[bytes, bytes]:
    return struct.pack("<I", number), struct.pack("<Q", number * number)


def test_one_entry(table: bpf.Map) -> None:
    key, value = entry(3)
    assert table.lookup(key) is None
    table.update(key, value)
    assert table.lookup(key) == value
    assert list(table.items()) == [(key, value)]
    table.delete(key)
    table.delete(key)
    assert list(table.items()) == []


def test_more_entries_than_one_call_reads(table: bpf.Map) -> None:
    entries = [entry(number) for number in range(15_000)]
    table.update_many(entries)
    assert sorted(table.items()) == sorted(entries)
    # Every other one, with some that are not there, first, last and between.
    gone = [entry(number)[0] for number in (20_000, *range(0, 9_000, 2), 2, 30_000)]
    table.delete_many(gone)
    assert sorted(table.items()) == sorted(e for e in entries if e[0] not in gone)


def test_a_full_map_says_so(table: bpf.Map) -> None:
    with pytest.raises(OSError, match="MAP_UPDATE_BATCH: Argument list too long"):
        table.update_many([entry(number) for number in range(20_001)])


def test_a_refused_program_comes_with_the_verifiers_log() -> None:
    a = Assembler()
    a.load(Register.R0, Register.R3, 0, 8)
    a.exit()
    with pytest.raises(bpf.VerifierRefused, match=r"program skt_bad: [^$]*R3 !read_ok"):
        bpf.load_program("skt_bad", a.assemble({}), ATTACH_TYPES[Kind.CONNECT4])


def test_a_program_and_its_map_are_found_by_their_ids(table: bpf.Map) -> None:
    a = Assembler()
    a.load_map(Register.R1, "m")
    a.move(Register.R0, 1)
    a.exit()
    fd = bpf.load_program("skt_good", a.assemble({"m": table.fd}), ATTACH_TYPES[Kind.CONNECT4])
    info = bpf.program_info(fd)
    assert info.name == "skt_good"
    table.update(*entry(3))
    (map_id,) = info.map_ids
    name, found = bpf.map_by_id(map_id)
    assert name == "skt_table"
    assert list(found.items()) == [entry(3)]
    found.close()
