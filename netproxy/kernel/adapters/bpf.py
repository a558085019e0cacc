"""bpf(2): maps, programs, and what is attached to a cgroup.

By ctypes, since the standard library has no door to it, and nothing but this is needed of the
libraries that exist. Sizes are the caller's to get right: the kernel reads as many bytes as a map's
keys and values have. Errors are OSError with the kernel's number.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import functools
import mmap
import os
import platform
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from skep.netproxy.kernel.core.programs import MapSpec, MapType

# Little-endian machines only: so are the assembler and the maps' layouts.
_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361}
_PROGRAM_TYPE_SOCK_OPS, _PROGRAM_TYPE_CGROUP_SOCK_ADDR = 13, 18
_ATTACH_TYPE_SOCK_OPS = 3
# BTF that knows two types, u32 and u64: all that a map of socket storage must have described.
_BTF_NAMES = b"\0u32\0u64\0"
_BTF_TYPES = struct.pack("<8I", 1, 1 << 24, 4, 32, 5, 1 << 24, 8, 64)
_BTF_HEADER_BYTES = 24
# No helper that the programs call asks for this; it is what the kernel takes any licence by.
_LICENSE = b"Dual MIT/GPL"
_ALLOW_MULTI = 2
_LOG_BYTES = 256 * 1024
_LOG_TAIL = 2000
_NAME_BYTES = 16
_BATCH = 4096
_ATTRIBUTE_BYTES = 128
# The kernel takes no more programs than this on one cgroup and hook.
_ATTACHED_LIMIT = 64


class _Command(enum.IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    MAP_DELETE = 3
    PROG_LOAD = 5
    PROG_ATTACH = 8
    PROG_DETACH = 9
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    BTF_LOAD = 18
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27


class VerifierRefused(OSError):
    """The kernel's verifier did not take a program; the text ends with its log."""


class Map:
    """A map by its file descriptor, which it owns."""

    def __init__(self, fd: int, spec: MapSpec) -> None:
        self.fd = fd
        self._spec = spec

    @classmethod
    def create(cls, name: str, spec: MapSpec) -> Map:
        """A new map; `name` has at most 15 characters. Values of socket storage have 8 bytes."""
        with _described(spec) as (btf_fd, key_type, value_type):
            return cls._create(name, spec, (btf_fd, key_type, value_type))

    @classmethod
    def _create(cls, name: str, spec: MapSpec, btf: tuple[int, int, int]) -> Map:
        attributes = struct.pack(
            "<IIIIIII16sIIII",
            spec.type,
            spec.key_bytes,
            spec.value_bytes,
            spec.max_entries,
            spec.flags,
            0,
            0,
            _name(name),
            0,
            *btf,
        )
        return cls(_bpf(_Command.MAP_CREATE, attributes), spec)

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None."""
        key_buffer = ctypes.create_string_buffer(key, len(key))
        value = ctypes.create_string_buffer(self._spec.value_bytes)
        with contextlib.suppress(FileNotFoundError):
            _bpf(_Command.MAP_LOOKUP, self._element(key_buffer, value))
            return value.raw
        return None

    def update(self, key: bytes, value: bytes) -> None:
        """Set one entry, atomically."""
        self._check(key, value)
        key_buffer = ctypes.create_string_buffer(key, len(key))
        value_buffer = ctypes.create_string_buffer(value, len(value))
        _bpf(_Command.MAP_UPDATE, self._element(key_buffer, value_buffer))

    def delete(self, key: bytes) -> None:
        """Remove one entry; a missing one is fine."""
        key_buffer = ctypes.create_string_buffer(key, len(key))
        with contextlib.suppress(FileNotFoundError):
            _bpf(_Command.MAP_DELETE, self._element(key_buffer, None))

    def update_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Set entries, each atomically, in one call. An error may leave some of them set."""
        if len(entries) < 2:
            for key, value in entries:
                self.update(key, value)
            return
        for key, value in entries:
            self._check(key, value)
        keys = b"".join(key for key, _ in entries)
        values = b"".join(value for _, value in entries)
        self._batch(_Command.MAP_UPDATE_BATCH, keys, values, len(entries)).check()

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """Remove entries; missing ones are fine."""
        left = list(keys)
        while len(left) > 1:
            answer = self._batch(_Command.MAP_DELETE_BATCH, b"".join(left), b"", len(left))
            if answer.error != errno.ENOENT:
                answer.check()
                return
            # It stopped at one that isn't there, after as many as it says.
            left = left[answer.count + 1 :]
        for key in left:
            self.delete(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries of a hash map; those that change meanwhile may be there or not."""
        key_bytes, value_bytes = self._spec.key_bytes, self._spec.value_bytes
        room, position, is_done = _BATCH, None, False
        while not is_done:
            keys = ctypes.create_string_buffer(room * key_bytes)
            values = ctypes.create_string_buffer(room * value_bytes)
            # The kernel keeps its place in four bytes for a hash map.
            place_in = ctypes.create_string_buffer(position or b"\0" * 8, 8)
            place_out = ctypes.create_string_buffer(8)
            attributes = struct.pack(
                "<QQQQII",
                ctypes.addressof(place_in) if position is not None else 0,
                ctypes.addressof(place_out),
                ctypes.addressof(keys),
                ctypes.addressof(values),
                room,
                self.fd,
            )
            answer = _ask(_Command.MAP_LOOKUP_BATCH, attributes)
            if answer.error == errno.ENOSPC:
                room *= 2  # the next bucket alone holds more than this
                continue
            is_done = answer.error == errno.ENOENT
            if not is_done:
                answer.check()
            position = place_out.raw
            yield from zip(
                _cut(keys.raw, key_bytes, answer.count),
                _cut(values.raw, value_bytes, answer.count),
                strict=True,
            )

    def memory(self) -> mmap.mmap:
        """The values of an array map that was made for it, as memory that the kernel shares."""
        return mmap.mmap(self.fd, self._spec.max_entries * self._spec.value_bytes)

    def close(self) -> None:
        """Give the descriptor back; idempotent. The map lives on while a program uses it."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def _element(
        self, key: ctypes.Array[ctypes.c_char], value: ctypes.Array[ctypes.c_char] | None
    ) -> bytes:
        value_at = ctypes.addressof(value) if value is not None else 0
        return struct.pack("<IIQQQ", self.fd, 0, ctypes.addressof(key), value_at, 0)

    def _check(self, key: bytes, value: bytes) -> None:
        assert len(key) == self._spec.key_bytes, (len(key), self._spec)
        assert len(value) == self._spec.value_bytes, (len(value), self._spec)

    def _batch(self, command: _Command, keys: bytes, values: bytes, count: int) -> _Answer:
        key_buffer = ctypes.create_string_buffer(keys, len(keys))
        value_buffer = ctypes.create_string_buffer(values, max(len(values), 1))
        value_at = ctypes.addressof(value_buffer) if values else 0
        attributes = struct.pack(
            "<QQQQII", 0, 0, ctypes.addressof(key_buffer), value_at, count, self.fd
        )
        return _ask(command, attributes)


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel says about a loaded program."""

    name: str
    map_ids: tuple[int, ...]


def load_program(name: str, code: bytes, attach_type: int) -> int:
    """A descriptor of the verified program for one hook of a cgroup. Raises VerifierRefused."""
    is_sock_ops = attach_type == _ATTACH_TYPE_SOCK_OPS
    program_type = _PROGRAM_TYPE_SOCK_OPS if is_sock_ops else _PROGRAM_TYPE_CGROUP_SOCK_ADDR
    code_buffer = ctypes.create_string_buffer(code, len(code))
    license_buffer = ctypes.create_string_buffer(_LICENSE)

    def attributes(log_level: int, log: ctypes.Array[ctypes.c_char] | None) -> bytes:
        return struct.pack(
            "<IIQQIIQII16sII",
            program_type,
            len(code) // 8,
            ctypes.addressof(code_buffer),
            ctypes.addressof(license_buffer),
            log_level,
            len(log) if log is not None else 0,
            ctypes.addressof(log) if log is not None else 0,
            0,
            0,
            _name(name),
            0,
            attach_type,
        )

    try:
        return _bpf(_Command.PROG_LOAD, attributes(0, None))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL):
            raise
        # Once more, to hear why; a log costs more than the verifying.
        log = ctypes.create_string_buffer(_LOG_BYTES)
        with contextlib.suppress(OSError):
            return _bpf(_Command.PROG_LOAD, attributes(1, log))
        tail = log.value.decode(errors="replace").strip()[-_LOG_TAIL:]
        raise VerifierRefused(error.errno, f"the kernel refused program {name}: {tail}") from None


def program_by_id(program_id: int) -> int:
    """A descriptor of a program that is loaded. Raises FileNotFoundError."""
    return _bpf(_Command.PROG_GET_FD_BY_ID, struct.pack("<III", program_id, 0, 0))


def program_info(fd: int) -> ProgramInfo:
    """Its name and the ids of its maps."""
    count = 0
    while True:
        ids = ctypes.create_string_buffer(4 * max(count, 1))
        info = ctypes.create_string_buffer(80)
        struct.pack_into("<IQ", info, 52, count, ctypes.addressof(ids) if count else 0)
        _object_info(fd, info)
        found = struct.unpack_from("<I", info, 52)[0]
        if found <= count:
            return ProgramInfo(_text(info.raw[64:80]), struct.unpack_from(f"<{found}I", ids))
        count = found


def map_by_id(map_id: int) -> tuple[str, Map]:
    """A map that exists, with its name. Raises FileNotFoundError."""
    fd = _bpf(_Command.MAP_GET_FD_BY_ID, struct.pack("<III", map_id, 0, 0))
    info = ctypes.create_string_buffer(40)
    _object_info(fd, info)
    type_, _, key_bytes, value_bytes, max_entries, flags = struct.unpack_from("<6I", info)
    return _text(info.raw[24:40]), Map(
        fd, MapSpec(type_, key_bytes, value_bytes, max_entries, flags)
    )


def attach(cgroup_fd: int, program_fd: int, attach_type: int) -> None:
    """Run the program for every process in the cgroup and below, beside what others attached."""
    attributes = struct.pack("<IIII", cgroup_fd, program_fd, attach_type, _ALLOW_MULTI)
    _bpf(_Command.PROG_ATTACH, attributes)


def detach(cgroup_fd: int, program_fd: int, attach_type: int) -> None:
    """Undo `attach`; idempotent."""
    with contextlib.suppress(FileNotFoundError):
        _bpf(_Command.PROG_DETACH, struct.pack("<IIII", cgroup_fd, program_fd, attach_type, 0))


def attached(cgroup_fd: int, attach_type: int) -> tuple[int, ...]:
    """The ids of the programs that are attached to this very cgroup, in the order they run."""
    ids = ctypes.create_string_buffer(4 * _ATTACHED_LIMIT)
    attributes = struct.pack(
        "<IIIIQI", cgroup_fd, attach_type, 0, 0, ctypes.addressof(ids), _ATTACHED_LIMIT
    )
    answer = _ask(_Command.PROG_QUERY, attributes).check()
    count = struct.unpack_from("<I", answer.attributes, 24)[0]
    return struct.unpack_from(f"<{count}I", ids)


@functools.cache
def _system_call() -> Callable[..., int]:
    syscall: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
    return syscall


@dataclass(frozen=True, slots=True)
class _Answer:
    command: _Command
    result: int
    error: int  # errno, or 0
    attributes: bytes  # as the kernel left them

    @property
    def count(self) -> int:
        """How many entries a batch got through, also when it failed."""
        return int(struct.unpack_from("<I", self.attributes, 32)[0])

    def check(self) -> _Answer:
        """Itself. Raises OSError."""
        if self.error:
            raise OSError(self.error, f"bpf {self.command.name}: {os.strerror(self.error)}")
        return self


def _ask(command: _Command, attributes: bytes) -> _Answer:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) has no known number on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTE_BYTES)
    result = _system_call()(number, int(command), buffer, _ATTRIBUTE_BYTES)
    error = ctypes.get_errno() if result < 0 else 0
    return _Answer(command, result, error, buffer.raw)


def _bpf(command: _Command, attributes: bytes) -> int:
    """The call's result. Raises OSError."""
    return _ask(command, attributes).check().result


@contextlib.contextmanager
def _described(spec: MapSpec) -> Iterator[tuple[int, int, int]]:
    """(BTF, type of the key, type of the value), which the kernel wants for socket storage."""
    if spec.type != MapType.SOCKET_STORAGE:
        yield 0, 0, 0
        return
    assert (spec.key_bytes, spec.value_bytes) == (4, 8), spec
    types, names = len(_BTF_TYPES), len(_BTF_NAMES)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, _BTF_HEADER_BYTES, 0, types, types, names)
    blob = header + _BTF_TYPES + _BTF_NAMES
    buffer = ctypes.create_string_buffer(blob, len(blob))
    attributes = struct.pack("<QQI", ctypes.addressof(buffer), 0, len(blob))
    fd = _bpf(_Command.BTF_LOAD, attributes)
    try:
        yield fd, 1, 2
    finally:
        os.close(fd)


def _object_info(fd: int, info: ctypes.Array[ctypes.c_char]) -> None:
    attributes = struct.pack("<IIQ", fd, len(info), ctypes.addressof(info))
    _bpf(_Command.OBJ_GET_INFO_BY_FD, attributes)


def _cut(data: bytes, size: int, count: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, size * count, size))


def _name(name: str) -> bytes:
    assert len(name) < _NAME_BYTES, f"{name} is too long for the kernel"
    return name.encode()


def _text(name: bytes) -> str:
    return name.split(b"\0", 1)[0].decode(errors="replace")
