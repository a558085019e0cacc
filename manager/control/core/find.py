"""From what people type to objects: an id, a name, or a unique prefix of an id.

A service of a stack, and its tasks, are also found without the stack's prefix, where only one fits.
"""

from __future__ import annotations

from typing import TypeVar

from skep.domain.objects import Object, Service, Task
from skep.env import CallError, Code
from skep.manager.store.core.tables import KINDS, NAMED, View

R = TypeVar("R", bound=Object)

# What is told of an ambiguous or an endless name.
SHOWN_LIMIT = 5
SHOWN_CHARACTERS = 80


def find(view: View, kind: type[R], ref: str) -> R:
    """The object that `ref` names. Raises CallError NOT_FOUND, or INVALID_ARGUMENT when the
    prefix fits more than one."""
    what = KINDS[kind]
    if not ref:
        raise CallError(
            Code.INVALID_ARGUMENT, f"ref: the {what}'s name or id is required", {"field": "ref"}
        )
    exact = view.get(kind, ref)
    if exact is not None:
        return exact
    if kind in NAMED:
        named = view.named(kind, ref)
        if named is not None:
            return named
    fits = [row for row in view.all(kind) if row.id.startswith(ref)]
    if kind is Service:
        fits = [row for row in view.all(kind) if _is_short(row, ref)] or fits
    if kind is Task and not fits:
        fits = [row for row in view.all(kind) if _is_named(row, ref)]
        fits = fits or [row for row in view.all(kind) if _is_named(row, ref, is_short=True)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        names = sorted(str(getattr(row, "name", row.id)) for row in fits)
        shown = ", ".join(names[:SHOWN_LIMIT]) + (", ..." if len(names) > SHOWN_LIMIT else "")
        raise CallError(
            Code.INVALID_ARGUMENT,
            f"{what} {ref!r} may be any of {shown}; give the full name, or more of the id",
            {"field": "ref"},
        )
    raise CallError(Code.NOT_FOUND, f"there is no {what} {ref[:SHOWN_CHARACTERS]!r}")


def _is_short(row: Object, ref: str) -> bool:
    return isinstance(row, Service) and bool(row.stack_id) and row.name.endswith(f"_{ref}")


def _is_named(row: Object, ref: str, *, is_short: bool = False) -> bool:
    if not isinstance(row, Task) or not row.is_wanted:
        return False
    return row.name.endswith(f"_{ref}") if is_short else row.name == ref
