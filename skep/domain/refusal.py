"""How a spec is refused: with the field, by its path, that the caller must change."""

from __future__ import annotations

from skep.env import Rejected


def refuse(field: str, problem: str) -> Rejected:
    """The error to raise."""
    return Rejected(f"{field}: {problem}", field=field)
