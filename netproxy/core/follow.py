"""Which manager to follow, and when to try another.

Any manager will do. One that breaks off, refuses or falls silent is left for a random other one,
with a growing, jittered delay, so that a thousand netproxies don't fall upon the next manager at
once. The delay starts over once a manager has said something of use.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from skep.env import Random

# Managers send something at least this often.
SIGN_OF_LIFE_S = 2.0
# Three periods, as for heartbeats: a short pause of a manager is no reason to leave it.
SILENCE_LIMIT_S = 3 * SIGN_OF_LIFE_S
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0


@dataclass(frozen=True, slots=True)
class Started:
    """Begin."""

    now: float


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame came on stream `number`, and was of use."""

    now: float
    number: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Stream `number` could not be opened, or has ended."""

    now: float
    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Unwanted:
    """We have no use for stream `number` any more."""

    now: float
    number: int
    why: str


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The time of the last `SetDeadline` has come."""

    now: float


Event = Started | Heard | Lost | Unwanted | DeadlineReached


@dataclass(frozen=True, slots=True)
class Dial:
    """Open stream `number` to `address`."""

    number: int
    address: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Close stream `number`; nothing of it matters any more."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class SetDeadline:
    """Send `DeadlineReached` at this time, and not at any set before."""

    at: float


Effect = Dial | Leave | SetDeadline


class Phase(enum.Enum):
    """Between two streams, or on one."""

    WAITING = "waiting"
    FOLLOWING = "following"


class Follow:
    """The core. `managers` are addresses; `dice` chooses among them."""

    def __init__(self, managers: tuple[str, ...], dice: Random) -> None:
        assert managers
        self._managers = managers
        self._dice = dice
        self._phase = Phase.WAITING
        self._last: str | None = None
        self._number = 0
        self._last_heard = 0.0
        self._dial_at = 0.0
        self._failures = 0

    @property
    def number(self) -> int:
        """The number of the present, or the last, stream."""
        return self._number

    def step(self, event: Event) -> list[Effect]:
        """What follows."""
        match event:
            case Started(now):
                return self._dial(now)
            case Heard(now, number):
                if self._is_current(number):
                    self._last_heard = now
                    self._failures = 0
                return []
            case Lost(now, number, _):
                return self._wait(now) if self._is_current(number) else []
            case Unwanted(now, number, why):
                return self._leave(now, why) if self._is_current(number) else []
            case DeadlineReached(now):
                return self._deadline(now)

    def _is_current(self, number: int) -> bool:
        return self._phase is Phase.FOLLOWING and number == self._number

    def _dial(self, now: float) -> list[Effect]:
        others = [address for address in self._managers if address != self._last]
        self._last = self._dice.choice(others or list(self._managers))
        self._number += 1
        self._phase = Phase.FOLLOWING
        self._last_heard = now
        return [Dial(self._number, self._last), SetDeadline(now + SILENCE_LIMIT_S)]

    def _leave(self, now: float, why: str) -> list[Effect]:
        return [Leave(self._number, why), *self._wait(now)]

    def _wait(self, now: float) -> list[Effect]:
        self._phase = Phase.WAITING
        longest_s = min(FIRST_BACKOFF_S * 2.0**self._failures, LONGEST_BACKOFF_S)
        self._failures = min(self._failures + 1, 16)
        self._dial_at = now + longest_s * self._dice.uniform(0.5, 1.0)
        return [SetDeadline(self._dial_at)]

    def _deadline(self, now: float) -> list[Effect]:
        # A deadline is only a hint: look at what it was set for.
        if self._phase is Phase.WAITING:
            return self._dial(now) if now >= self._dial_at else [SetDeadline(self._dial_at)]
        silent_until = self._last_heard + SILENCE_LIMIT_S
        if now < silent_until:
            return [SetDeadline(silent_until)]
        return self._leave(now, f"silent for {now - self._last_heard:.1f} s")

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        assert self._last is None or self._last in self._managers
        assert (self._phase is Phase.FOLLOWING) <= (self._number > 0)
