"""A small assembler for BPF, so that the programs of the kernel plane need no compiler.

One call is one instruction; names are those of the kernel's instruction set document. Jumps go to
labels and maps are named, and both are filled in by `assemble`. Nothing here knows what a program
is for, and the kernel's verifier judges what comes out.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

INSTRUCTION_BYTES = 8
STACK_BYTES = 512


class Register(enum.IntEnum):
    """r1–r5 are a call's arguments and lost in it, r0 is its result, r6–r9 are kept."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    FP = 10


class Helper(enum.IntEnum):
    """Functions of the kernel, by their numbers in `enum bpf_func_id`."""

    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    GET_SOCKET_COOKIE = 46
    SOCK_OPS_CB_FLAGS_SET = 59
    SOCKET_STORAGE_GET = 107
    GET_NETNS_COOKIE = 122
    SET_RETVAL = 187


Operand = Register | int
"""A register, or a constant that is sign-extended from 32 bits."""

# Classes and modes of instructions.
_LD_MAP, _LDX, _ST, _STX, _ATOMIC = 0x18, 0x61, 0x62, 0x63, 0xC3
_ALU64, _JUMP, _JUMP32, _FROM_REGISTER = 0x07, 0x05, 0x06, 0x08
_SIZES = {4: 0x00, 8: 0x18}
_ADD, _OR, _AND, _SHIFT_RIGHT, _MOD, _MOV = 0x00, 0x40, 0x50, 0x70, 0x90, 0xB0
_COMPARES = {"==": 0x10, "!=": 0x50}
_CALL, _EXIT, _ALWAYS = 0x85, 0x95, 0x05
_PSEUDO_MAP_FD = 1
_ADD_AND_FETCH = 0x01


@dataclass(frozen=True, slots=True)
class _Instruction:
    opcode: int
    destination: int = 0
    source: int = 0
    offset: int = 0
    constant: int = 0
    label: str | None = None  # where a jump goes
    map_name: str | None = None  # whose descriptor becomes the constant

    def encode(self) -> bytes:
        registers = self.destination | self.source << 4
        return struct.pack("<BBhi", self.opcode, registers, self.offset, self.constant)


class Assembler:
    """Collects instructions in order. Misuse (an unknown label or map) raises ValueError."""

    def __init__(self) -> None:
        self._code: list[_Instruction] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        """Name the place of the next instruction."""
        if name in self._labels:
            raise ValueError(f"label {name} is defined twice")
        self._labels[name] = len(self._code)

    def move(self, destination: Register, source: Operand) -> None:
        """destination = source"""
        self._arithmetic(_MOV, destination, source)

    def add(self, destination: Register, source: Operand) -> None:
        """destination += source"""
        self._arithmetic(_ADD, destination, source)

    def bit_and(self, destination: Register, source: Operand) -> None:
        """destination &= source"""
        self._arithmetic(_AND, destination, source)

    def bit_or(self, destination: Register, source: Operand) -> None:
        """destination |= source"""
        self._arithmetic(_OR, destination, source)

    def shift_right(self, destination: Register, source: Operand) -> None:
        """destination >>= source, with zeros coming in"""
        self._arithmetic(_SHIFT_RIGHT, destination, source)

    def modulo(self, destination: Register, source: Operand) -> None:
        """destination %= source, unsigned"""
        self._arithmetic(_MOD, destination, source)

    def load(self, destination: Register, base: Register, offset: int, size: int) -> None:
        """destination = the `size` (4 or 8) bytes at base + offset, zero-extended"""
        self._add(_Instruction(_LDX | _SIZES[size], destination, base, offset))

    def store(self, base: Register, offset: int, source: Operand, size: int) -> None:
        """the `size` (4 or 8) bytes at base + offset = source"""
        if isinstance(source, Register):
            self._add(_Instruction(_STX | _SIZES[size], base, source, offset))
        else:
            self._add(_Instruction(_ST | _SIZES[size], base, 0, offset, source))

    def fetch_add(self, base: Register, offset: int, source: Register) -> None:
        """Atomically add `source` to the 8 bytes at base + offset; `source` gets the old value."""
        self._add(_Instruction(_ATOMIC | _SIZES[8], base, source, offset, _ADD_AND_FETCH))

    def load_map(self, destination: Register, name: str) -> None:
        """destination = the map of this name, which `assemble` is given"""
        # One instruction of double width: the second half holds what no map needs.
        self._add(_Instruction(_LD_MAP, destination, _PSEUDO_MAP_FD, map_name=name))
        self._add(_Instruction(0))

    def jump(self, label: str) -> None:
        """Go on at the label."""
        self._add(_Instruction(_ALWAYS, label=label))

    def jump_if(
        self, left: Register, compare: str, right: Operand, label: str, *, bits: int = 64
    ) -> None:
        """Go on at the label if `left == right` or `left != right`, as `compare` says.

        With 32 `bits` the lower halves are compared, so that a constant isn't sign-extended.
        """
        opcode = _COMPARES[compare] | (_JUMP if bits == 64 else _JUMP32)
        if isinstance(right, Register):
            self._add(_Instruction(opcode | _FROM_REGISTER, left, right, label=label))
        else:
            self._add(_Instruction(opcode, left, 0, 0, right, label=label))

    def call(self, helper: Helper) -> None:
        """r0 = helper(r1, …, r5)"""
        self._add(_Instruction(_CALL, constant=helper))

    def exit(self) -> None:
        """Return r0."""
        self._add(_Instruction(_EXIT))

    def assemble(self, maps: Mapping[str, int]) -> bytes:
        """The program's instructions, with the file descriptors of its maps in them."""
        return b"".join(
            self._resolve(place, instruction, maps).encode()
            for place, instruction in enumerate(self._code)
        )

    def map_names(self) -> frozenset[str]:
        """The maps that the program uses."""
        return frozenset(i.map_name for i in self._code if i.map_name is not None)

    def _resolve(
        self, place: int, instruction: _Instruction, maps: Mapping[str, int]
    ) -> _Instruction:
        if instruction.label is not None:
            if instruction.label not in self._labels:
                raise ValueError(f"no label {instruction.label}")
            # Relative to the instruction behind the jump.
            distance = self._labels[instruction.label] - place - 1
            return replace(instruction, offset=distance)
        if instruction.map_name is not None:
            if instruction.map_name not in maps:
                raise ValueError(f"no map {instruction.map_name}")
            return replace(instruction, constant=maps[instruction.map_name])
        return instruction

    def _arithmetic(self, operation: int, destination: Register, source: Operand) -> None:
        opcode = _ALU64 | operation
        if isinstance(source, Register):
            self._add(_Instruction(opcode | _FROM_REGISTER, destination, source))
        else:
            self._add(_Instruction(opcode, destination, 0, 0, source))

    def _add(self, instruction: _Instruction) -> None:
        self._code.append(instruction)
