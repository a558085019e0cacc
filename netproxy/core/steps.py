"""Mappings of thousands of things of which one changes at a time.

What is made of such a mapping is made anew only for what has changed. Nobody compares thousands of
things to learn that it was one: a mapping knows in what it differs from the one it was made of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Stepped(dict[K, V]):
    """A mapping that nobody changes, and which is followed by others of its kind (`after`).

    It is a dict, so that reading it costs no more than that.
    """

    __slots__ = ("mark", "since", "touched")

    def __init__(self, items: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        super().__init__(items)
        # What it differs in from the one whose mark is `since`. A mark is only ever compared: to
        # know the former mapping itself would be to keep all there ever were.
        self.mark = object()
        self.since: object = None
        self.touched: frozenset[K] = frozenset()

    def after(self, changes: Mapping[K, V | None]) -> Stepped[K, V]:
        """This one with changes, of which None removes; the very same where nothing differs."""
        real = {key: value for key, value in changes.items() if self.get(key) != value}
        if not real:
            return self
        following = Stepped(self)
        for key, value in real.items():
            if value is None:
                del following[key]
            else:
                following[key] = value
        following.since, following.touched = self.mark, frozenset(real)
        return following


def changed(before: Mapping[K, V], after: Mapping[K, V]) -> Collection[K]:
    """The keys of all that isn't the very same object in both mappings: what came, what changed
    and what is gone. It looks at all of them only where `after` isn't the step after `before`."""
    if after is before:
        return ()
    if isinstance(before, Stepped) and isinstance(after, Stepped) and after.since is before.mark:
        return after.touched
    keys = [key for key, value in after.items() if before.get(key) is not value]
    keys.extend(before.keys() - after.keys())
    return keys
