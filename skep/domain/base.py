"""What every domain object shares: immutability, and a codec for disks.

Objects hold no dict and no list, so that they are really immutable and hashable. Sets of named
strings are `Pairs`: tuples of (key, value), sorted by key, each key once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NewType, TypeVar

import msgspec

Pairs = tuple[tuple[str, str], ...]

ClusterId = NewType("ClusterId", str)
NodeId = NewType("NodeId", str)
ServiceId = NewType("ServiceId", str)
TaskId = NewType("TaskId", str)
StackId = NewType("StackId", str)
NetworkId = NewType("NetworkId", str)
SessionId = NewType("SessionId", str)
ConfigId = NewType("ConfigId", str)
SecretId = NewType("SecretId", str)
VolumeId = NewType("VolumeId", str)
RegistryId = NewType("RegistryId", str)

SECOND_NS = 1_000_000_000

S = TypeVar("S", bound="Struct")


class Struct(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all domain objects. Subclasses say `frozen=True, kw_only=True`: mypy
    and msgspec do not inherit them."""


def pairs(items: Mapping[str, str] | Iterable[tuple[str, str]]) -> Pairs:
    """Canonical pairs: sorted by key, a later value of one key winning."""
    return tuple(sorted(dict(items).items()))


def lookup(of: Pairs, key: str) -> str | None:
    """The value of `key`, or None."""
    return next((value for name, value in of if name == key), None)


def replace(of: S, **changes: Any) -> S:
    """A copy with some fields changed."""
    return msgspec.structs.replace(of, **changes)


def shielded(of: Struct, *secret: str) -> str:
    """What `repr` may show of an object of which some fields are nobody's to see."""
    shown = (
        f"{name}={'...' if name in secret else repr(getattr(of, name))}"
        for name in of.__struct_fields__
    )
    return f"{type(of).__name__}({', '.join(shown)})"


def encode(of: Struct) -> bytes:
    """One object as msgpack, as a map by field name, so that fields can be added later."""
    return msgspec.msgpack.encode(of)


def decode(kind: type[S], data: bytes) -> S:
    """The object in `data`; raises msgspec.DecodeError (also for a wrong shape)."""
    return msgspec.msgpack.decode(data, type=kind)
