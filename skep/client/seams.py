"""What the client needs of the outside world: a part of `Env`, which fits as it is."""

from __future__ import annotations

from typing import Protocol

from skep.env import Clock, Ids, Transport


class Seams(Protocol):
    """Time, ids and transport."""

    @property
    def clock(self) -> Clock:
        """Time, and waiting for it."""
        ...

    @property
    def ids(self) -> Ids:
        """Request ids."""
        ...

    @property
    def transport(self) -> Transport:
        """The way to the managers."""
        ...
