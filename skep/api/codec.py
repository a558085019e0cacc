"""Between wire and domain: one generic converter, by field name, for every type.

The message type has the domain type's name. A part that is absent on the wire takes the domain's
default; where there is none, the input is refused. Converters are built once per type, from the
type's own annotations, so that no type is converted by hand.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import re
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message

from skep.api import (
    attach_pb2,
    control_pb2,
    endpoints_pb2,
    execution_pb2,
    objects_pb2,
    session_pb2,
)
from skep.domain.base import Pairs, Struct
from skep.domain.endpoints import Endpoint
from skep.env import Rejected

S = TypeVar("S", bound=Struct)

# A netproxy is told all endpoints of a service when one of them comes or goes. Those that it knows
# are found by their bytes, in a tenth of the time, and are the very same objects. 300 bytes each.
_REMEMBERED = frozenset((Endpoint,))
_REMEMBERED_LIMIT = 1 << 17

_MODULES = (objects_pb2, session_pb2, endpoints_pb2, control_pb2, execution_pb2, attach_pb2)


def encode(of: Struct) -> bytes:
    """The object as it travels. Raises Rejected for what no wire can carry, naming the field."""
    return to_wire(of).SerializeToString()


def decode(kind: type[S], data: bytes) -> S:
    """The object in `data`. Raises Rejected, naming the field where it can."""
    message = _message_type(kind)()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise Rejected(f"not a {kind.__name__}: {error}") from None
    return from_wire(kind, message)


def to_wire(of: Struct) -> Message:
    """The object as a protobuf message."""
    message = _message_type(type(of))()
    _fill(of, message)
    return message


def from_wire(kind: type[S], message: Message, path: str = "") -> S:
    """The object that a protobuf message holds. Raises Rejected."""
    values = {}
    for part in _parts(kind):
        where = f"{path}.{part.name}" if path else part.name
        if part.has_presence and not message.HasField(part.name):
            if part.is_required:
                raise Rejected(f"{where}: required, but absent", field=where)
            continue
        value = part.read(getattr(message, part.name), where)
        if value is not _ABSENT:
            values[part.name] = value
        elif part.is_required:
            raise Rejected(f"{where}: required, but absent", field=where)
    return kind(**values)


class _Absent(enum.Enum):
    ABSENT = "absent"


_ABSENT = _Absent.ABSENT


class _Part(typing.NamedTuple):
    """One field: how it is read from a message, and written into one."""

    name: str
    is_required: bool
    has_presence: bool
    read: Callable[[Any, str], Any]
    write: Callable[[Any, Message, str], None]


def _fill(of: Struct, message: Message) -> None:
    for part in _parts(type(of)):
        value = getattr(of, part.name)
        if value is None:
            continue
        try:
            part.write(value, message, part.name)
        except Rejected as error:
            raise _inside(part.name, error) from None
        except ValueError as error:
            # Half a character, as a shell's undecodable argument becomes, or more than 64 bits.
            raise Rejected(f"{part.name}: {error}", field=part.name) from None


def _inside(name: str, error: Rejected) -> Rejected:
    """The same error as seen from the object round the one that it was found in."""
    dot = "" if error.field.startswith("[") else "."
    return Rejected(f"{name}{dot}{error}", field=f"{name}{dot}{error.field}")


@functools.cache
def _message_type(kind: type[Struct]) -> type[Message]:
    for module in _MODULES:
        found = getattr(module, kind.__name__, None)
        if found is not None:
            return typing.cast(type[Message], found)
    raise LookupError(f"{kind.__name__} has no message in proto/skep/v1")


@functools.cache
def _parts(kind: type[Struct]) -> tuple[_Part, ...]:
    descriptor = _message_type(kind).DESCRIPTOR
    parts = []
    for field in msgspec.structs.fields(kind):
        wire_field = descriptor.fields_by_name[field.name]
        read, write = _converter(_bare(field.type))
        parts.append(_Part(field.name, field.required, bool(wire_field.has_presence), read, write))
    return tuple(parts)


def _bare(of: Any) -> Any:
    """The type without NewType names and without "| None"."""
    while hasattr(of, "__supertype__"):
        of = of.__supertype__
    if typing.get_origin(of) in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(of) if arg is not type(None)]
        assert len(inner) == 1, of
        return _bare(inner[0])
    return of


def _converter(of: Any) -> tuple[Callable[[Any, str], Any], Callable[[Any, Message, str], None]]:
    if of == Pairs:
        return _read_pairs, _write_pairs
    if typing.get_origin(of) is tuple:
        return _repeated(_bare(typing.get_args(of)[0]))
    if issubclass(of, enum.Enum):
        by_number, by_member = _enum_tables(of)

        def read_enum(value: int, where: str) -> Any:
            if value not in by_number:
                raise Rejected(f"{where}: {value} is not a known {of.__name__}", field=where)
            return by_number[value]

        return read_enum, lambda value, message, name: setattr(message, name, by_member[value])
    if issubclass(of, Struct):
        kind: type[Struct] = of
        return (
            lambda value, where: from_wire(kind, value, where),
            _write_message,
        )
    return (lambda value, where: value), _write_scalar


def _read_pairs(value: Any, where: str) -> Pairs:
    return tuple(sorted(value.items()))


def _write_pairs(value: Pairs, message: Message, name: str) -> None:
    getattr(message, name).update(value)


def _write_scalar(value: Any, message: Message, name: str) -> None:
    setattr(message, name, value)


def _write_message(value: Struct, message: Message, name: str) -> None:
    part = getattr(message, name)
    part.SetInParent()
    _fill(value, part)


def _repeated(of: Any) -> tuple[Callable[[Any, str], Any], Callable[[Any, Message, str], None]]:
    if isinstance(of, type) and issubclass(of, Struct):
        kind: type[Struct] = of

        def read(values: Any, where: str) -> tuple[Any, ...]:
            if kind in _REMEMBERED:
                with contextlib.suppress(Rejected):  # which is told below, with its place
                    return tuple(_remembered(kind, each.SerializeToString()) for each in values)
            return tuple(
                from_wire(kind, value, f"{where}[{place}]") for place, value in enumerate(values)
            )

        def write(values: tuple[Struct, ...], message: Message, name: str) -> None:
            container = getattr(message, name)
            for place, value in enumerate(values):
                try:
                    _fill(value, container.add())
                except Rejected as error:
                    raise _inside(f"[{place}]", error) from None

        return read, write
    assert of in (str, int), of
    return (
        lambda values, where: tuple(values),
        lambda values, message, name: getattr(message, name).extend(values),
    )


@functools.lru_cache(_REMEMBERED_LIMIT)
def _remembered(kind: type[Struct], data: bytes) -> Struct:
    message = _message_type(kind)()
    message.ParseFromString(data)
    return from_wire(kind, message)


def _enum_tables(of: type[enum.Enum]) -> tuple[dict[int, Any], dict[Any, int]]:
    wire_type = next(getattr(m, of.__name__) for m in _MODULES if hasattr(m, of.__name__))
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", of.__name__).upper()
    by_member = {member: wire_type.Value(f"{prefix}_{member.name}") for member in of}
    by_number: dict[int, Any] = {number: member for member, number in by_member.items()}
    by_number[0] = _ABSENT
    return by_number, by_member
