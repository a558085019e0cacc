"""The scheduler: one pass over everything that waits for a node."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Hashable, Iterable, Sequence

from skep.domain.base import ServiceId, VolumeId, replace
from skep.domain.objects import Network, Node, Service, Stack, Task, Volume, VolumePlace
from skep.domain.spec import PortMode, Protocol, ServiceSpec, TaskSpec
from skep.domain.volumes import slot_volumes
from skep.manager.passes import PASS_CHANGES, Pass
from skep.manager.revisions import spec_of
from skep.manager.scheduler.core.filters import Demand, HostPort, VolumeUse, loads_by_node
from skep.manager.scheduler.core.place import (
    Placement,
    applied,
    count_loads,
    is_placeable,
    place,
)
from skep.manager.scheduler.core.volumes import Places
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import View
from skep.manager.store.core.transaction import Transaction

log = logging.getLogger(__name__)

_EVERYTHING = ("everything",)


class Scheduler(Pass):
    """Gives every pending task a node, or says on the task why none will do."""

    def all_keys(self) -> tuple[Hashable, ...]:
        """There is one pass, over all pending tasks."""
        return _EVERYTHING

    def hints_of(self, change: Change) -> tuple[Hashable, ...]:
        """A task that waits, one that made room, or a node."""
        match change.row:
            case Task() as task:
                makes_room = task.is_terminal or not task.is_wanted
                return _EVERYTHING if is_placeable(task) or makes_room else ()
            case Node() | Service() | Volume():
                return _EVERYTHING
        return ()

    async def look(self, key: Hashable) -> None:
        """Place what can be placed."""
        if not any(is_placeable(task) for task in self.store.tables.all(Task)):
            return
        new_id = self.env.ids.new_id
        written = await self.store.update(lambda tx: place_pending(tx, new_id), term=self.term)
        if _changes(written) >= PASS_CHANGES:
            self.mailbox.tell(key)
        for placement in written:
            log.info(
                "task=%s slot=%s node=%s why=%s",
                placement.task.id,
                placement.task.name,
                placement.node_id,
                placement.explanation or "spread",
            )


def place_pending(tx: Transaction, new_id: Callable[[], str]) -> list[Placement]:
    """Decide about one after the other until there is as much to write as fits: those that
    can't be placed stand in nobody's way. Where their volumes are is written with them."""
    pending = [task for task in tx.all(Task) if is_placeable(task)]
    loads = loads_by_node({node.id: node for node in tx.all(Node)})
    demands = Demands(tx)
    count_loads(loads, tx.all(Task), demands.of, tx.now_ns)
    places = Places(tx.all(Volume), loads)
    written: list[Placement] = []
    for placement in place(pending, loads, demands.of, places):
        task = applied(placement, tx.now_ns)
        if task is not None:
            tx.update(task)
            written.append(placement)
        if _changes(written) >= PASS_CHANGES:
            break
    for name, where in _places_after(written).items():
        _write_places(tx, name, where, new_id)
    return written


def _places_after(written: Iterable[Placement]) -> dict[str, tuple[VolumePlace, ...]]:
    """Each volume's last word: many slots of one pass may be the ones that are new in it."""
    return {name: where for each in written for name, where in each.volumes.items()}


def _changes(written: Sequence[Placement]) -> int:
    """At most so many rows; those of shared volumes are counted more than once."""
    return len(written) + sum(len(placement.volumes) for placement in written)


def _write_places(
    tx: Transaction, name: str, places: tuple[VolumePlace, ...], new_id: Callable[[], str]
) -> None:
    volume = tx.named(Volume, name)
    if volume is None:
        tx.create(Volume(id=VolumeId(new_id()), name=name, places=places))
    else:
        tx.update(replace(volume, places=places))


class Demands:
    """What tasks ask of a node. Tasks of one revision ask for the same, so that each is looked up
    once; good for one pass."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[tuple[ServiceId, int], Demand | None] = {}

    def of(self, task: Task) -> Demand | None:
        """What one task asks; None when its revision is gone."""
        kind = (task.service_id, task.revision)
        if kind not in self._known:
            self._known[kind] = self._look_up(task)
        known = self._known[kind]
        if known is None:
            return None
        if known.volumes:
            # Their names may differ from slot to slot.
            return dataclasses.replace(known, task=task, volumes=self._volumes(task))
        return dataclasses.replace(known, task=task)

    def _look_up(self, task: Task) -> Demand | None:
        spec = service_spec(self._view, task)
        if spec is None:
            return None
        service = self._view.get(Service, task.service_id)
        filled: dict[tuple[int, Protocol, str], set[int]] = {}
        for port in (service.ports if service is not None else None) or ():
            if port.mode is PortMode.HOST and port.published is not None:
                numbers = filled.setdefault((port.target, port.protocol, port.name), set())
                numbers.add(port.published)
        host_ports: list[HostPort] = []
        lacks_port = False
        for port in spec.ports:
            if port.mode is PortMode.HOST and port.published is not None:
                host_ports.append((port.published, port.protocol))
            elif port.mode is PortMode.HOST:
                numbers = filled.get((port.target, port.protocol, port.name), set())
                host_ports += [(number, port.protocol) for number in sorted(numbers)]
                lacks_port |= not numbers
        networks = [self._view.named(Network, use.network) for use in spec.task.networks]
        is_encrypted = any(network and network.spec.is_encrypted for network in networks)
        return Demand(
            task, spec.task, tuple(host_ports), lacks_port, is_encrypted, self._volumes(task)
        )

    def _volumes(self, task: Task) -> tuple[VolumeUse, ...]:
        spec = service_spec(self._view, task)
        if spec is None or not spec.task.run.mounts:
            return ()
        service = self._view.get(Service, task.service_id)
        stack_id = service.stack_id if service is not None else None
        stack = self._view.get(Stack, stack_id) if stack_id is not None else None
        named = slot_volumes(spec, task, stack.name if stack is not None else "")
        return tuple(VolumeUse(name, mount.is_movable) for name, mount in named)


def service_spec(view: View, task: Task) -> ServiceSpec | None:
    """The spec that a task goes by."""
    return spec_of(view, task.service_id, task.revision)


def task_spec(view: View, task: Task) -> TaskSpec | None:
    """What a task is to run: see `service_spec`."""
    spec = service_spec(view, task)
    return None if spec is None else spec.task
