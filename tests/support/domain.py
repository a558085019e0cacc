"""Any domain object, built from its type's own annotations."""

from __future__ import annotations

import enum
import functools
import inspect
import types
import typing
from types import ModuleType
from typing import Any

import msgspec
from hypothesis import strategies as st

from skep.domain import (
    attach,
    container,
    control,
    endpoints,
    execution,
    filecalls,
    objects,
    session,
    spec,
    storage,
)
from skep.domain.base import Pairs, Struct, pairs

MODULES = (
    spec,
    container,
    storage,
    objects,
    session,
    endpoints,
    control,
    filecalls,
    execution,
    attach,
)
INT64 = st.integers(-(2**63), 2**63 - 1)
# All of Unicode but half characters, which no UTF-8 can carry.
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


def all_structs() -> list[type[Struct]]:
    """Every domain struct, by name."""
    found = {kind for module in MODULES for kind in _structs_in(module)}
    return sorted(found - {objects.Object}, key=lambda kind: kind.__name__)


def _structs_in(module: ModuleType) -> list[type[Struct]]:
    return [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Struct)
        and member is not Struct
        and member.__module__ == module.__name__
    ]


@functools.cache
def any_of(kind: type[Struct]) -> st.SearchStrategy[Any]:
    """Objects of this type with any values that the type allows, in canonical form."""
    return st.builds(
        kind, **{field.name: _values(field.type) for field in msgspec.structs.fields(kind)}
    )


def _values(of: Any) -> st.SearchStrategy[Any]:
    if of == Pairs:
        return st.dictionaries(TEXT, TEXT, max_size=3).map(pairs)
    while hasattr(of, "__supertype__"):
        of = of.__supertype__
    if typing.get_origin(of) in (typing.Union, types.UnionType):
        return st.one_of(*(_values(arg) for arg in typing.get_args(of)))
    if typing.get_origin(of) is tuple:
        inner, dots = typing.get_args(of)
        assert dots is Ellipsis, of
        return st.lists(_values(inner), max_size=3).map(tuple)
    return _simple_values(of)


def _simple_values(of: Any) -> st.SearchStrategy[Any]:
    simple: dict[Any, st.SearchStrategy[Any]] = {
        type(None): st.none(),
        bool: st.booleans(),
        int: INT64,
        float: st.floats(allow_nan=False),
        str: TEXT,
        bytes: st.binary(max_size=20),
    }
    if of in simple:
        return simple[of]
    if issubclass(of, enum.Enum):
        return st.sampled_from(list(of))
    assert issubclass(of, Struct), of
    return any_of(of)
