"""What went through each VIP: bytes and round-trip times, told by the kernel's own TCP.

A program of its own, which is there only if it is asked for: it runs at the beginning and the end
of every TCP connection of the node's tasks. Of connections that were not made to a VIP it knows
after one look-up.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from skep.netproxy.kernel.core import programs
from skep.netproxy.kernel.core.asm import Assembler, Helper, Register
from skep.netproxy.kernel.core.programs import NO_PREALLOC, MapSpec, MapType

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = Register

ATTACH_TYPE = 3  # BPF_CGROUP_SOCK_OPS
ORIGINS = "skep_origins"
# Those that had no connection for the longest time go first, so that nobody needs to clear away
# what services that are gone have left.
_SERVICE_COUNT = 16 * 1024

MAPS: Mapping[str, MapSpec] = {
    # socket -> its service, until the socket is gone
    "skep_sockets": MapSpec(MapType.SOCKET_STORAGE, 4, 8, 0, NO_PREALLOC),
    # (network, VIP) -> Traffic
    "skep_traffic": MapSpec(MapType.LRU_HASH, 8, 40, _SERVICE_COUNT),
}

_TRAFFIC = struct.Struct("<5Q")
_ESTABLISHED, _ROUND_TRIP_US, _CLOSED, _RECEIVED, _SENT = range(0, 40, 8)

# Offsets in struct bpf_sock_ops, and numbers of its operations and states.
_OP, _NEW_STATE, _REMOTE_IP4, _REMOTE_PORT, _SRTT_US, _CB_FLAGS = 0, 8, 24, 64, 80, 84
_BYTES_RECEIVED, _BYTES_ACKED, _SOCKET = 168, 176, 184
_ACTIVE_ESTABLISHED, _STATE_CHANGED, _CLOSE = 4, 10, 7
_CB_FLAG_STATE = 4
_STORAGE_CREATE, _NO_EXIST = 1, 1

# The stack.
_KEY, _PORT, _ADDRESS, _COOKIE, _ZEROS = -8, -12, -16, -24, -64


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of the connections of this node's tasks to one VIP.

    Bytes count when a connection ends, as its client's kernel has them: received by the client, and
    sent by it and acknowledged (its SYN and FIN count as one each). `round_trip_us` is a sum over
    `established`, each measured by the connect itself.
    """

    established: int
    round_trip_us: int
    closed: int
    received_bytes: int
    sent_bytes: int


def read(value: bytes) -> Traffic:
    """The value of a service."""
    return Traffic(*_TRAFFIC.unpack(value))


def name() -> str:
    """The program's name in the kernel."""
    return f"skep{_format()}_t4"


def build(maps: Mapping[str, int]) -> bytes:
    """The program; `maps` are the descriptors of `MAPS` and of ORIGINS."""
    a = Assembler()
    a.move(R6, R1)
    a.load(R1, R6, _OP, 4)
    a.jump_if(R1, "==", _ACTIVE_ESTABLISHED, "established")
    a.jump_if(R1, "!=", _STATE_CHANGED, "leave")
    _closed(a)
    a.label("established")
    _established(a)
    a.label("leave")
    a.move(R0, 1)
    a.exit()
    return a.assemble(maps)


@functools.cache
def _format() -> str:
    text = programs.program_format() + repr(sorted(MAPS.items()))
    code = build(dict.fromkeys((*MAPS, ORIGINS), 0))
    return hashlib.sha256(text.encode() + code).hexdigest()[:7]


def _lookup(a: Assembler, map_name: str, key_at: int) -> None:
    a.load_map(R1, map_name)
    a.move(R2, FP)
    a.add(R2, key_at)
    a.call(Helper.MAP_LOOKUP)


def _storage(a: Assembler, flags: int) -> None:
    """r0 = the socket's service, which with _STORAGE_CREATE is made from the stack's, or 0."""
    a.load(R2, R6, _SOCKET, 8)
    a.jump_if(R2, "==", 0, "leave")
    a.load_map(R1, "skep_sockets")
    a.move(R3, FP if flags else 0)
    if flags:
        a.add(R3, _KEY)
    a.move(R4, flags)
    a.call(Helper.SOCKET_STORAGE_GET)
    a.jump_if(R0, "==", 0, "leave")


def _count(a: Assembler, at: int) -> None:
    """Add r1 to a field of the traffic at r7."""
    a.fetch_add(R7, at, R1)


def _closed(a: Assembler) -> None:
    a.load(R1, R6, _NEW_STATE, 4)
    a.jump_if(R1, "!=", _CLOSE, "leave")
    _storage(a, 0)
    a.load(R1, R0, 0, 8)
    a.store(FP, _KEY, R1, 8)
    _lookup(a, "skep_traffic", _KEY)
    a.jump_if(R0, "==", 0, "leave")
    a.move(R7, R0)
    a.move(R1, 1)
    _count(a, _CLOSED)
    a.load(R1, R6, _BYTES_RECEIVED, 8)
    _count(a, _RECEIVED)
    a.load(R1, R6, _BYTES_ACKED, 8)
    _count(a, _SENT)
    a.jump("leave")


def _established(a: Assembler) -> None:
    """The VIP is known by what connect4 has noted of this socket a moment ago."""
    a.move(R1, R6)
    a.call(Helper.GET_SOCKET_COOKIE)
    a.store(FP, _COOKIE, R0, 8)
    a.load(R1, R6, _REMOTE_IP4, 4)
    a.store(FP, _ADDRESS, R1, 4)
    a.load(R1, R6, _REMOTE_PORT, 4)
    a.shift_right(R1, 16)  # here the port is in the upper half
    a.store(FP, _PORT, R1, 4)
    _lookup(a, ORIGINS, _COOKIE)
    a.jump_if(R0, "==", 0, "leave")
    a.load(R1, R0, 0, 8)
    a.store(FP, _KEY, R1, 8)
    _storage(a, _STORAGE_CREATE)
    # Beside what programs of others have asked for.
    a.load(R2, R6, _CB_FLAGS, 4)
    a.bit_or(R2, _CB_FLAG_STATE)
    a.move(R1, R6)
    a.call(Helper.SOCK_OPS_CB_FLAGS_SET)
    _lookup(a, "skep_traffic", _KEY)
    a.jump_if(R0, "!=", 0, "found")
    for at in range(0, _TRAFFIC.size, 8):
        a.store(FP, _ZEROS + at, 0, 8)
    a.load_map(R1, "skep_traffic")
    a.move(R2, FP)
    a.add(R2, _KEY)
    a.move(R3, FP)
    a.add(R3, _ZEROS)
    a.move(R4, _NO_EXIST)
    a.call(Helper.MAP_UPDATE)
    _lookup(a, "skep_traffic", _KEY)
    a.jump_if(R0, "==", 0, "leave")
    a.label("found")
    a.move(R7, R0)
    a.move(R1, 1)
    _count(a, _ESTABLISHED)
    a.load(R1, R6, _SRTT_US, 4)
    a.shift_right(R1, 3)  # the kernel keeps eighths
    _count(a, _ROUND_TRIP_US)
