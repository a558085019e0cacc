"""Which places of the backend table are free.

A service's backends stand side by side, and are never changed where they stand: an update takes
fresh slots and gives the old ones back. A connect that has begun may be reading those, so that they
rest before they are used again.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Iterable

from skep.env import Retryable

# A connect is done reading in a microsecond; one that is interrupted right there waits for the
# scheduler, which on a machine under heavy load may be a second.
REST_NS = 5 * 10**9


class Slots:
    """Free ranges of slots; times are any clock's that never goes back, in nanoseconds."""

    def __init__(self, count: int, used: Iterable[tuple[int, int]] = ()) -> None:
        """`used` are ranges (first, count). All others are free at once."""
        self._free: list[tuple[int, int]] = []  # sorted, never touching each other
        self._resting: deque[tuple[int, int, int]] = deque()  # (free at, first, count)
        at = 0
        for first, length in sorted(used):
            # Ranges that overlap would be a fault in the maps; they are all kept.
            if length and first > at:
                self._free.append((at, first - at))
            at = max(at, first + length)
        if at < count:
            self._free.append((at, count - at))

    def take(self, count: int, now_ns: int) -> int:
        """The first of `count` slots side by side. Raises Retryable where there is no room."""
        if count == 0:
            return 0
        while self._resting and self._resting[0][0] <= now_ns:
            _, first, length = self._resting.popleft()
            self._put_back(first, length)
        for place, (first, length) in enumerate(self._free):
            if length >= count:
                if length == count:
                    del self._free[place]
                else:
                    self._free[place] = (first + count, length - count)
                return first
        raise Retryable(
            f"the table of backends has no {count} free places side by side "
            f"({self.free_count()} are free, {sum(s[2] for s in self._resting)} will be "
            f"within {REST_NS // 10**9} s)"
        )

    def give(self, first: int, count: int, now_ns: int) -> None:
        """Give slots back; they rest first."""
        if count:
            self._resting.append((now_ns + REST_NS, first, count))

    def free_count(self) -> int:
        """Slots that can be taken at once."""
        return sum(length for _, length in self._free)

    def _put_back(self, first: int, count: int) -> None:
        place = bisect.bisect(self._free, (first, 0))
        if place < len(self._free) and self._free[place][0] == first + count:
            count += self._free.pop(place)[1]
        if place and sum(self._free[place - 1]) == first:
            place -= 1
            before = self._free.pop(place)
            first, count = before[0], before[1] + count
        self._free.insert(place, (first, count))

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        for (first, length), (following, _) in itertools.pairwise(self._free):
            assert first + length < following, self._free
        assert all(length > 0 for _, length in self._free), self._free
        ranges = sorted(self._free + [(first, count) for _, first, count in self._resting])
        for (first, length), (following, _) in itertools.pairwise(ranges):
            assert first + length <= following, ranges
