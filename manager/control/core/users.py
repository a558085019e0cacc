"""How the users of something that can't be removed are told."""

from __future__ import annotations

from collections.abc import Sequence

# As many as tell where to look.
TOLD_LIMIT = 5


def told(names: Sequence[str]) -> str:
    """Such as "services a, b"."""
    shown = ", ".join(sorted(names)[:TOLD_LIMIT]) + (", ..." if len(names) > TOLD_LIMIT else "")
    return f"service{'s' if len(names) > 1 else ''} {shown}"
