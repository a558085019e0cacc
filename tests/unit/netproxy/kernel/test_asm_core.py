"""The assembler against encodings that are written down elsewhere (the kernel's own macros)."""

from __future__ import annotations

import struct

import pytest

from skep.netproxy.kernel.core.asm import Assembler, Helper, Register

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = Register


def hexed(a: Assembler, **maps: int) -> str:
    return a.assemble(maps).hex(" ", 8)


def test_moves_and_arithmetic() -> None:
    a = Assembler()
    a.move(R6, R1)
    a.move(R0, -111)
    a.add(R2, -8)
    a.add(R1, R2)
    a.bit_and(R2, R7)
    a.modulo(R1, R2)
    a.bit_or(R2, 4)
    a.shift_right(R1, 16)
    assert hexed(a) == (
        "bf16000000000000 b700000091ffffff 07020000f8ffffff 0f21000000000000 "
        "5f72000000000000 9f21000000000000 4702000004000000 7701000010000000"
    )


def test_loads_and_stores_of_both_widths() -> None:
    a = Assembler()
    a.load(R2, R6, 4, 4)
    a.load(R0, FP, -8, 8)
    a.store(FP, -12, R7, 4)
    a.store(FP, -16, R0, 8)
    a.store(FP, -60, 0, 4)
    a.fetch_add(R0, 8, R1)
    assert hexed(a) == (
        "6162040000000000 79a0f8ff00000000 637af4ff00000000 7b0af0ff00000000 "
        "620ac4ff00000000 db10080001000000"
    )


def test_jumps_count_from_the_next_instruction_and_maps_take_two() -> None:
    a = Assembler()
    a.label("top")
    a.load_map(R1, "m")
    a.jump_if(R0, "==", 0, "end")
    a.jump_if(R2, "!=", R3, "top")
    a.jump_if(R2, "!=", -0x10000, "end", bits=32)
    a.jump("top")
    a.label("end")
    a.call(Helper.GET_NETNS_COOKIE)
    a.exit()
    assert hexed(a, m=9) == (
        "1811000009000000 0000000000000000 1500030000000000 5d32fcff00000000 "
        "560201000000ffff 0500faff00000000 850000007a000000 9500000000000000"
    )
    assert a.map_names() == {"m"}


def test_misuse_is_told() -> None:
    a = Assembler()
    a.label("here")
    with pytest.raises(ValueError, match="label here is defined twice"):
        a.label("here")
    a.jump("nowhere")
    with pytest.raises(ValueError, match="no label nowhere"):
        a.assemble({})
    b = Assembler()
    b.load_map(R1, "m")
    with pytest.raises(ValueError, match="no map m"):
        b.assemble({})
    c = Assembler()
    c.label("far")
    for _ in range(2**15):
        c.exit()
    c.jump("far")
    with pytest.raises(struct.error):
        c.assemble({})
