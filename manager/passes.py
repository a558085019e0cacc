"""The shell of the leader's reconcilers: hints in, passes over the store out.

A hint says where to look; the pass looks at the state as it is and writes one transaction. A pass
that could not commit is simply hinted again: nothing depends on which pass does the work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import TypeVar

from skep.actor import Actor, Mailbox, Overflow
from skep.env import Env, Fatal, Retryable, Timer
from skep.manager.store.actor import OutcomeUnknown, Store
from skep.manager.store.core.command import Change

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

# One key per service at most; a cluster with more services than this is beyond what is promised.
HINTS_LIMIT = 100_000
RETRY_S = 0.1
FIRST_FAULT_S = 1.0
LONGEST_FAULT_S = 60.0
# Writes of one pass: below the limit of a command, so that one always fits.
PASS_CHANGES = 400


def hint_box(name: str) -> Mailbox[Hashable]:
    """A mailbox in which many hints for one key wait as one."""
    return Mailbox(name, HINTS_LIMIT, Overflow.COALESCE, key=lambda hint: hint)


class Pass(Actor[Hashable]):
    """An actor whose messages are keys to look at. Subclasses define `look` and `hints_of`."""

    def __init__(self, env: Env, mailbox: Mailbox[Hashable], store: Store, term: int) -> None:
        super().__init__(env, mailbox)
        self.store = store
        self.term = term
        self._faults: dict[Hashable, int] = {}
        self._timers: dict[Hashable, tuple[float, Timer]] = {}
        self._unsubscribe: Callable[[], object] = lambda: None

    def hints_of(self, change: Change) -> tuple[Hashable, ...]:
        """Which keys one change may concern."""
        raise AssertionError("hints_of must be defined")

    def all_keys(self) -> tuple[Hashable, ...]:
        """Every key there is, to be looked at when the actor starts."""
        raise AssertionError("all_keys must be defined")

    async def look(self, key: Hashable) -> None:
        """One pass over one key."""
        raise AssertionError("look must be defined")

    async def started(self) -> None:
        """Look at everything once, and from then on at what changes."""
        self._unsubscribe = self.store.subscribe(self._changed)
        for key in self.all_keys():
            self.mailbox.tell(key)

    async def stopped(self) -> None:
        """Take no more hints."""
        self._unsubscribe()
        for _, timer in self._timers.values():
            timer.cancel()

    async def handle(self, message: Hashable) -> None:
        """Look at the key, and again soon if the world was in the way.

        A key whose pass fails by our own fault is put off for a while, and for longer each time:
        one service that can't be reconciled must not take the others down with it.
        """
        try:
            await self.look(message)
        except (Retryable, OutcomeUnknown) as error:
            log.info("actor=%s key=%s retry why=%s", self.mailbox.name, message, error)
            self.look_again(message, RETRY_S)
        except Fatal:
            raise
        except Exception:
            self._faults[message] = self._faults.get(message, 0) + 1
            put_off_s = min(FIRST_FAULT_S * 2.0 ** (self._faults[message] - 1), LONGEST_FAULT_S)
            log.exception(
                "actor=%s key=%s failed, again in %g s", self.mailbox.name, message, put_off_s
            )
            self.look_again(message, put_off_s)
        else:
            self._faults.pop(message, None)

    def look_again(self, key: Hashable, delay_s: float) -> None:
        """Hint a key later; an earlier appointment stands."""
        at = self.env.now() + max(delay_s, 0.0)
        if key in self._timers:
            appointed, timer = self._timers[key]
            if appointed <= at:
                return
            timer.cancel()
        self._timers[key] = (at, self.env.clock.call_at(at, lambda: self._due(key)))

    def _due(self, key: Hashable) -> None:
        self._timers.pop(key, None)
        self.mailbox.tell(key)

    def _changed(self, changes: list[Change]) -> None:
        for change in changes:
            for key in self.hints_of(change):
                self.mailbox.tell(key)
