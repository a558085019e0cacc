"""Where the networks of all machines lead, judged by what is committed.

A task *leaves* when the store says, for the first time anywhere, that no new connection may go to
it. From then on names, virtual addresses and published ports lead to it no longer than a netproxy
may be behind; and what a netproxy has acknowledged must be so at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from skep.domain.attach import AttachRequest
from skep.domain.base import NetworkId, TaskId
from skep.domain.endpoints import is_serving
from skep.domain.objects import Attachment, Network, Service, Task
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import Tables
from skep.netproxy.actor import DIAL_DEADLINE_S
from skep.netproxy.core.follow import LONGEST_BACKOFF_S, SILENCE_LIMIT_S
from tests.sim.plane import FakePlane, Kernel, targets

Place = tuple[NetworkId, str]
"""An address on a network."""

# An election without losses, and a few changes waiting to be put in force one after the other.
SETTLED_S = 4.0
# How far behind a netproxy may be, from when all is well between it and all managers: its stream
# may have broken without a sign a moment before; it then looks for a manager, at worst after the
# longest pause between two attempts; and what it hears has to be put in force.
BEHIND_S = SILENCE_LIMIT_S + LONGEST_BACKOFF_S + DIAL_DEADLINE_S + SETTLED_S


@dataclass(frozen=True)
class Left:
    """That a task has left, and when: the time, and the number of the command."""

    task_id: TaskId
    at: float
    version: int


@dataclass(frozen=True)
class Sight:
    """One machine as it is now. `applied_version` is what its netproxy acknowledges, 0 for none
    that is sure; `quiet_since` is since when nothing keeps it from being up to date."""

    name: str
    kernel: Kernel
    plane: FakePlane
    applied_version: int
    quiet_since: float


class Reach:
    """Knows which tasks have left, and which addresses were theirs alone."""

    def __init__(self, fail: Callable[[str], None]) -> None:
        self._fail = fail
        self._serving: dict[TaskId, Task] = {}
        self._left: dict[TaskId, Left] = {}
        self._left_places: dict[Place, Left] = {}
        self._vnis: dict[int, NetworkId] = {}
        self._seen: dict[str, tuple[tuple[object, ...], frozenset[Place], frozenset[TaskId]]] = {}
        self._told: set[tuple[str, TaskId]] = set()

    # ----------------------------------------------------------------------- what is committed

    def applied(self, changes: Sequence[Change], tables: Tables, now: float, version: int) -> None:
        """One command, applied for the first time."""
        for change in changes:
            row = change.row
            match row:
                case Task():
                    self._look_at(row.id, tables, now, version)
                case Service():
                    for task in tables.tasks_of_service(row.id):
                        self._look_at(task.id, tables, now, version)
                    for vip in row.vips:
                        # An address that was a task's before.
                        self._left_places.pop((vip.network_id, vip.address), None)
                case Network(vni=int(vni)):
                    self._vnis[vni] = row.id

    def _look_at(self, task_id: TaskId, tables: Tables, now: float, version: int) -> None:
        task = tables.get(Task, task_id)
        service = tables.get(Service, task.service_id) if task is not None else None
        is_open = service is not None and not service.is_removing
        if task is not None and is_open and is_serving(task):
            self._serving[task_id] = task
            self._left.pop(task_id, None)
            for place in _places(task.attachments):
                self._left_places.pop(place, None)
        elif task_id in self._serving:
            left = self._left[task_id] = Left(task_id, now, version)
            for place in _places(self._serving.pop(task_id).attachments):
                self._left_places[place] = left

    # ------------------------------------------------------------------------ what is in force

    def look(self, sights: Iterable[Sight], now: float) -> None:
        """Nobody leads to a task that left longer ago than may be."""
        for sight in sights:
            places, tasks = self._leads(sight.name, sight.kernel, sight.plane)
            found = {self._left_places[place]: place for place in places & self._left_places.keys()}
            for left in [*found, *(self._left[task_id] for task_id in tasks & self._left.keys())]:
                where = found.get(left, "a port")
                if left.version <= sight.applied_version:
                    text = f"acknowledged {sight.applied_version}"
                elif now - max(left.at, sight.quiet_since) > BEHIND_S:
                    text = f"has been quiet since {sight.quiet_since:.3f}"
                else:
                    continue
                key = (sight.name, left.task_id)
                if key not in self._told:
                    self._told.add(key)
                    self._fail(
                        f"{sight.name} {text}, and leads by {where} to {left.task_id}, which left "
                        f"at {left.at:.3f} by {left.version}"
                    )

    def ways_to(self, task: Task, sight: Sight) -> list[str]:
        """By what a machine may still lead to a task."""
        places = set(_places(task.attachments))
        ways = []
        if task.id in targets(sight.plane.desired) | targets(sight.plane.before):
            ways.append("a port")
        if places & _named(sight.kernel):
            ways.append("a name")
        if places & self._planned(sight.kernel):
            ways.append("a virtual address or an ingress port")
        return ways

    def _leads(
        self, name: str, kernel: Kernel, plane: FakePlane
    ) -> tuple[frozenset[Place], frozenset[TaskId]]:
        """Where a machine leads; worked out anew only when something was put in force."""
        state = (kernel.zones, kernel.plan, kernel.before, plane.desired, plane.before)
        known = self._seen.get(name)
        # Nobody changes what is in force in place.
        if known is None or any(a is not b for a, b in zip(known[0], state, strict=True)):
            places = frozenset(_named(kernel) | self._planned(kernel))
            tasks = frozenset(targets(plane.desired) | targets(plane.before))
            known = self._seen[name] = (state, places, tasks)
        return known[1], known[2]

    def _planned(self, kernel: Kernel) -> set[Place]:
        places = set()
        for plan in (kernel.plan, kernel.before):
            for (vni, _), backends in plan.vips.items():
                if vni in self._vnis:
                    places |= {(self._vnis[vni], address) for address in backends}
            if plan.ingress is not None:
                ingress = plan.ingress.network_id
                places |= {(ingress, address) for p in plan.ports for address in p.backends}
        return places


def _named(kernel: Kernel) -> set[Place]:
    return {
        (network_id, address)
        for network_id, zone in kernel.zones.items()
        for record in zone.records.values()
        for address in record.addresses
    }


def _places(attachments: Iterable[Attachment]) -> list[Place]:
    return [(each.network_id, each.address) for each in attachments]


def shared_addresses(
    attached: Mapping[TaskId, AttachRequest], request: AttachRequest
) -> list[TaskId]:
    """The attached tasks that have an address of a task that is being attached."""
    mine = set(_places(request.attachments))
    return [
        task_id
        for task_id, other in attached.items()
        if task_id != request.task_id and not mine.isdisjoint(_places(other.attachments))
    ]
