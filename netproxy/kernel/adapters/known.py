"""What is remembered of namespaces, and the problems of passes over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from skep.netproxy.kernel.adapters.inside import identity
from skep.netproxy.kernel.adapters.nft import NftFailed

T = TypeVar("T")

# What hinders a pass in one namespace, and is told to a person; the next pass tries again.
HINDRANCES = (NftFailed, OSError)


class Known(Generic[T]):
    """Something about each of many namespaces, forgotten when another one has the same file."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, int], T]] = {}

    def get(self, namespace: str) -> T | None:
        """What is known; None for nothing. Raises OSError where there is no such namespace."""
        now = identity(namespace)
        held = self._known.get(namespace)
        return held[1] if held is not None and held[0] == now else None

    def set(self, namespace: str, value: T) -> None:
        """From now on. Raises OSError as `get`."""
        self._known[namespace] = (identity(namespace), value)

    def forget(self, namespace: str) -> None:
        """Know nothing of this one; idempotent."""
        self._known.pop(namespace, None)

    def forget_all(self) -> None:
        """Know nothing."""
        self._known.clear()

    def names(self) -> tuple[str, ...]:
        """The namespaces of which something is known."""
        return tuple(self._known)


def attempt(where: str, work: Callable[[], object]) -> tuple[str, ...]:
    """Do it; the problem, for a person, where that was hindered."""
    try:
        work()
    except HINDRANCES as error:
        return (f"{where}: {error}",)
    return ()
