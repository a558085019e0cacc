"""Leaving what an earlier process had for virtual addresses, when this one has another mode.

Nobody notices, since each mode stands aside for the other. By BPF, an address is translated as a
connection is made, and address translation sees it no more; and who leaves BPF has the rules of
all tasks in place before. The other way round, programs that run already are not in the control
group that BPF works on, and are not to be moved: address translation stays with them to their end,
while those that start are by BPF.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from skep.env import Rejected, Retryable
from skep.netproxy.kernel.adapters import cgroup
from skep.netproxy.kernel.adapters.inside import run_each
from skep.netproxy.kernel.adapters.known import HINDRANCES
from skep.netproxy.kernel.adapters.natvips import NatVips
from skep.netproxy.kernel.adapters.vipmodes import BPF, Backends, Place, backends_of
from skep.netproxy.kernel.adapters.vips import Vips


class Switch:
    """What is left of the other mode than `mode`. Blocks; one call at a time."""

    def __init__(self, node: str, mode: str) -> None:
        self._node = node
        self._is_bpf = mode == BPF
        self._is_done = False
        self._looked_at: dict[str, Place] = {}
        self._translated: set[str] = set()
        self._rules: NatVips | None = None

    @property
    def translated(self) -> frozenset[str]:
        """The tasks that are left as they were, with address translation."""
        return frozenset(self._translated)

    def apply(self, backends: Backends, places: Mapping[str, Place]) -> tuple[str, ...]:
        """Leave the other mode, once this one has everything in force for all of these
        namespaces; returns, for a person, what could not be done, and is tried again."""
        if not self._is_bpf:
            return () if self._is_done else self._remove_programs()
        fresh = {i: each for i, each in places.items() if self._looked_at.get(i) != each}
        if fresh:
            self._find(fresh)
        self._looked_at = dict(places)
        self._translated &= places.keys()
        if self._rules is None or not self._translated:
            return ()
        wanted = {
            places[task_id].path: backends_of(places[task_id], backends)
            for task_id in self._translated
        }
        return self._rules.apply(wanted)

    def _remove_programs(self) -> tuple[str, ...]:
        root = cgroup.root()
        try:
            if root is not None:
                Vips(self._node, root).clean()
        except (OSError, Rejected, Retryable) as error:
            return (f"virtual addresses by BPF can't be removed: {error}",)
        self._is_done = True
        return ()

    def _find(self, places: Mapping[str, Place]) -> None:
        """Which of these have rules. They are made by processes of the other mode alone, and so
        none come to a namespace that was looked at."""
        try:
            rules = self._rules or NatVips(self._node)
        except Rejected:
            return  # without the library nobody has made any
        jobs = (
            (task_id, partial(_has_rules, rules, each.path)) for task_id, each in places.items()
        )
        found = {task_id for task_id, has_rules in run_each(jobs) if has_rules}
        self._translated = (self._translated - places.keys()) | found
        self._rules = rules


def _has_rules(rules: NatVips, path: str) -> bool:
    """Those of another release are made anew by `NatVips.apply`."""
    try:
        return rules.is_there(path)
    except HINDRANCES:
        return False
