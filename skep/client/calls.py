"""One call to whichever manager answers: retries, the next address, and what is known at the end.

A mutation carries one request id through all its attempts; the cluster keeps the answer of each
request, so that repeating a call whose answer was lost does nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from skep.api import codec
from skep.client.errors import (
    ClientError,
    InvalidArgument,
    OutcomeUnknown,
    ServerError,
    Unavailable,
    from_call,
)
from skep.client.seams import Seams
from skep.domain.base import Struct
from skep.env import CallError, Code, Rejected, Stream

SERVICE = "skep.v1.Control"

# A manager that hangs (stopped, or cut off without a reset) must not eat the whole deadline; a
# healthy one answers within milliseconds, and within a second or two during an election.
ATTEMPT_LIMIT_S = 4.0
FIRST_DELAY_S = 0.05
DELAY_LIMIT_S = 1.0

_NOTHING_DONE = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED})
_PERHAPS_DONE = frozenset({Code.UNKNOWN, Code.DEADLINE_EXCEEDED})

R = TypeVar("R", bound=Struct)


class Caller:
    """Calls to the managers at `addresses`; stays with one as long as it answers."""

    def __init__(self, addresses: Sequence[str], seams: Seams, deadline_s: float) -> None:
        if not addresses:
            raise ValueError("connect needs the address of at least one manager")
        self.clock = seams.clock
        self.ids = seams.ids
        self.deadline_s = deadline_s
        self._addresses = tuple(addresses)
        self._channels = [seams.transport.channel(address) for address in addresses]
        self._turn = 0

    async def close(self) -> None:
        """Give the connections back."""
        for channel in self._channels:
            await channel.close()

    async def call(
        self, method: str, request: Struct, answer: type[R], *, deadline_s: float | None = None
    ) -> R:
        """The answer. `deadline_s` bounds all attempts together. Raises ClientError."""
        data = self._encoded(request)
        rounds = _Rounds(self, deadline_s)
        while True:
            left_s = await rounds.next_attempt()
            turn = self._turn
            try:
                channel = self._channels[turn]
                got = await channel.call(f"{SERVICE}/{method}", data, deadline_s=left_s)
                return codec.decode(answer, got)
            except CallError as error:
                self._judge(turn, error, rounds)
            except Rejected as error:
                raise ServerError(f"the answer to {method} can't be read: {error}") from None

    async def open(self, method: str, request: Struct, *, service: str = SERVICE) -> Stream:
        """A stream that has been sent its request. Raises ClientError."""
        data = self._encoded(request)
        rounds = _Rounds(self, None)
        while True:
            left_s = await rounds.next_attempt()
            turn = self._turn
            try:
                stream = await self._channels[turn].open(f"{service}/{method}", deadline_s=left_s)
                await stream.send(data)
                return stream
            except CallError as error:
                self._judge(turn, error, rounds)

    def turn_away(self) -> None:
        """The present manager failed; the next attempt goes to the next one."""
        self._turn = (self._turn + 1) % len(self._channels)

    def _encoded(self, request: Struct) -> bytes:
        try:
            return codec.encode(request)
        except Rejected as error:
            problem = f"the request can't be sent: {error}"
            raise InvalidArgument(problem, {"field": error.field}) from None

    def _judge(self, turn: int, error: CallError, rounds: _Rounds) -> None:
        if error.code not in _NOTHING_DONE and error.code not in _PERHAPS_DONE:
            raise from_call(error)
        rounds.failed(self._addresses[turn], error)
        if error.code is not Code.RESOURCE_EXHAUSTED:
            self.turn_away()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the managers are."""
        return self._addresses


class _Rounds:
    """The attempts of one call: each manager once without delay, then slower and slower."""

    def __init__(self, caller: Caller, deadline_s: float | None) -> None:
        self._caller = caller
        self._budget_s = caller.deadline_s if deadline_s is None else deadline_s
        self._ends = caller.clock.now() + self._budget_s
        self._failures = 0
        self._last: CallError | None = None
        self._by_address: dict[str, CallError] = {}
        self._is_perhaps_done = False

    async def next_attempt(self) -> float:
        """Wait for the next attempt's turn; seconds that it may take. Raises when time is up."""
        managers = len(self._caller.addresses)
        if self._failures >= managers:
            delay_s = min(FIRST_DELAY_S * 2 ** (self._failures // managers - 1), DELAY_LIMIT_S)
            if self._last and self._last.code is Code.RESOURCE_EXHAUSTED:
                delay_s = DELAY_LIMIT_S
            left_s = self._ends - self._caller.clock.now()
            await self._caller.clock.sleep(max(0.0, min(delay_s, left_s)))
        left_s = self._ends - self._caller.clock.now()
        if left_s <= 0:
            raise self._given_up()
        return min(left_s, ATTEMPT_LIMIT_S)

    def failed(self, address: str, error: CallError) -> None:
        """Note how an attempt at one manager failed."""
        self._failures += 1
        self._last = self._by_address[address] = error
        self._is_perhaps_done |= error.code in _PERHAPS_DONE

    def _given_up(self) -> ClientError:
        managers = self._caller.addresses
        where = ", ".join(managers)
        answered, told = told_by_managers(managers, self._by_address)
        why = told or (f"last: {self._last.message}" if self._last else "")
        if self._is_perhaps_done:
            problem = f"no manager at {where} said within {self._budget_s:g} s whether it was done"
            return OutcomeUnknown(f"{problem} ({why})" if why else problem)
        details = dict(self._last.details) if self._last else {}
        if answered:
            return Unavailable(told, details | {"answered": answered})
        problem = f"no manager at {where} took the call within {self._budget_s:g} s"
        return Unavailable(f"{problem} ({why})" if why else problem, details)


def told_by_managers(managers: Sequence[str], failures: Mapping[str, CallError]) -> tuple[str, str]:
    """A manager that answers, and what it says with who doesn't answer; ("", "") when none does.
    `failures` are the last ones by address. A refused connection says less than a manager's own
    words, whichever of the two came last."""
    answered = {at: e for at, e in failures.items() if not _is_of_transport(at, e)}
    if not answered:
        return "", ""
    at, error = next(reversed(answered.items()))
    words = error.message.removesuffix("; try again")
    for other in managers:
        if _is_of_transport(other, error):
            # It passed the call on. What the network said of that is of no use to the reader.
            words = f"can't reach {other}, which led"
    told = f"{at} answers, but {words}"
    silent = [other for other in managers if other in failures and other not in answered]
    if silent:
        told += (
            f"; {len(silent)} of {len(managers)} managers can't be reached ({', '.join(silent)})"
        )
    if 2 * len(silent) >= len(managers):
        told += ": a majority is needed"
    return at, told


def _is_of_transport(address: str, error: CallError) -> bool:
    """Whether nobody at `address` said this: transports begin their own words with the address."""
    return error.message.startswith((f"{address}:", f"{address} "))
