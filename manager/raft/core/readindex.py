"""ReadIndex (Ongaro's thesis, 6.4): reads that see every write that was acknowledged before them.

A read notes the commit index and waits until a majority has confirmed, in answer to a question
asked after the read came in, that no newer leader exists. Reads that come in while a question is
under way share the next one.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Round:
    number: int
    index: int
    reads: list[Hashable]
    answered: set[int] = field(default_factory=set)


class ReadIndex:
    """Bookkeeping of one term's reads; `clear` at every change of term."""

    def __init__(self, peers: int) -> None:
        self._peers = peers
        self._waiting: list[Hashable] = []
        self._round: _Round | None = None
        self._next_number = 1

    def add(self, read: Hashable) -> None:
        """A read has come in."""
        self._waiting.append(read)

    def next_round(self, commit: int) -> int | None:
        """The number of the question to send now, or None: none is needed, or one is under way."""
        if self._round is not None or not self._waiting:
            return None
        self._round = _Round(self._next_number, commit, self._waiting)
        self._waiting = []
        self._next_number += 1
        return self._round.number

    def repeat_round(self) -> int | None:
        """The question that is under way, to be asked again in case it was lost."""
        return self._round.number if self._round is not None else None

    def answer(self, peer: int, number: int) -> None:
        """A peer has confirmed that it knows no newer leader."""
        if self._round is not None and self._round.number == number:
            self._round.answered.add(peer)

    def confirmed(self) -> tuple[int, list[Hashable]] | None:
        """The index that reads may see now and those reads, once a majority has answered."""
        current = self._round
        if current is None or (len(current.answered) + 1) * 2 <= self._peers + 1:
            return None
        self._round = None
        return current.index, current.reads

    def clear(self) -> list[Hashable]:
        """Forget everything; returns the reads that get no answer."""
        lost = [*(self._round.reads if self._round else ()), *self._waiting]
        self._round, self._waiting = None, []
        return lost
